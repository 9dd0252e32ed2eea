"""What a layer needs is known before it is made."""

import pytest

from fastcheck import FastcheckError
from fastcheck.common import machine
from fastcheck.convolutions import memory
from fastcheck.convolutions.geometry import ConvGeometry

GEOMETRY = ConvGeometry.of((2, 3, 8, 8), (4, 3, 3, 3))
INPUT, WEIGHT, BIAS, OUTPUT = 2 * 3 * 8 * 8, 4 * 3 * 3 * 3, 4, 2 * 4 * 6 * 6


@pytest.mark.parametrize(
    ("tensors", "gradients"),
    [(("weight",), WEIGHT), (("weight", "bias"), WEIGHT + BIAS), (("input",), INPUT)],
)
def test_twice_operands_and_results_and_64_mib(tensors, gradients):
    entries = INPUT + WEIGHT + BIAS + 2 * OUTPUT + gradients
    assert memory.needed_bytes(GEOMETRY, tensors) == 16 * entries + 64 * 1024 * 1024


def test_what_just_fits_is_taken_and_a_byte_less_is_not_enough(monkeypatch):
    needed = memory.needed_bytes(GEOMETRY, ("weight",))
    for available in (needed, None):
        monkeypatch.setattr(machine, "available_bytes", lambda available=available: available)
        memory.refuse_what_cannot_fit("conv1", GEOMETRY, ("weight",))
    monkeypatch.setattr(machine, "available_bytes", lambda: needed - 1)
    with pytest.raises(FastcheckError, match=rf"conv1 .* needs {needed:,} bytes, and {needed - 1:,} are available"):
        memory.refuse_what_cannot_fit("conv1", GEOMETRY, ("weight",))
