"""Suites for tests, made without a file."""

from fastcheck.batch.suite.entries import ConvEntry, Suite
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request


def entry(name="one", shape=(1, 3, 8, 8), weight=(4, 3, 3, 3), **request):
    """Return an entry that checks all dimensions of a seeded convolution, unless another request is given."""
    geometry = ConvGeometry.of(shape, weight, padding=1)
    tensors = ("input", "weight", "bias")
    return ConvEntry(
        name, Request(**{"dims": "all"} | request), geometry, True, tensors, "reference", "float64", "vjp", name
    )


def suite_of(*entries):
    """Return a suite of these entries."""
    return Suite("made", "", entries)
