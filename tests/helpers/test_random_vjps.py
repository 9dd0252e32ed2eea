"""The functions of arrays that benchmarks plant faults in: right gradients are right, and faults change them."""

import numpy as np
import pytest
import torch
from random_vjps import FAMILIES, FAULTS, FORMS, KINDS, OWN, QUIET, Drawn, draw, planted

import fastcheck

SEEDS = range(200, 212)


def _start(drawn):
    """Return cotangents and inputs as tensors of float64."""
    inputs = [torch.from_numpy(one) for one in drawn.inputs]
    out = drawn.function(*inputs)
    generator = torch.Generator().manual_seed(1)
    outs = out if isinstance(out, tuple) else (out,)
    return [torch.randn(one.shape, dtype=one.dtype, generator=generator) for one in outs], inputs


def _differs(one, other):
    """Whether gradients differ by more than roundings of float32."""
    size = max(float(grad.abs().max()) for grad in other)
    pairs = zip(one, other, strict=True)
    return any(not torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6 * size) for a, b in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_right_gradients_are_derivatives_and_mistakes_are_none(family):
    for seed in SEEDS:
        drawn = draw(family, seed)
        cotangents, inputs = _start(drawn)
        grads, step = drawn.backward(cotangents, inputs), 1e-7
        for place, grad in zip(drawn.floating, grads, strict=True):
            signs = torch.sign(torch.sin(torch.arange(1.0, grad.numel() + 1, dtype=torch.float64)))
            direction = signs.reshape(grad.shape)
            sides = []
            for side in (step, -step):
                moved = [one + side * direction if at == place else one for at, one in enumerate(inputs)]
                out = drawn.function(*moved)
                outs = out if isinstance(out, tuple) else (out,)
                sides.append(sum(float((v * y).sum()) for v, y in zip(cotangents, outs, strict=True)))
            slope, size = float((grad.double() * direction).sum()), float(grad.abs().sum())
            assert abs((sides[0] - sides[1]) / (2 * step) - slope) <= 1e-4 * size + 1e-5, drawn.described()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_draws_the_same_function(family):
    one, same, other = (draw(family, seed) for seed in (7, 7, 8))
    assert one.described() == same.described()
    assert all(map(np.array_equal, one.inputs, same.inputs))
    assert not all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=False))


def test_every_fault_is_planted_and_changes_gradients():
    planted_in, changed, kinds = set(), set(), set()
    for family in FAMILIES:
        for seed in SEEDS:
            drawn = draw(family, seed)
            kinds.add(drawn.kind)
            cotangents, inputs = _start(drawn)
            right = drawn.backward(cotangents, inputs)
            for fault in (*FAULTS, OWN) if seed == SEEDS[0] else FAULTS.keys() - changed - set(QUIET):
                backward = planted(drawn, fault, np.random.default_rng(seed))
                if backward is not None:
                    planted_in.add(fault)
                    found = backward(cotangents, inputs)
                    assert [one.shape for one in found] == [one.shape for one in right]
                    if _differs(found, right):
                        changed.add(fault)
    assert kinds == set(KINDS)
    assert planted_in == {*FAULTS, OWN}
    slight = {name for name in FAULTS if "1e-6" in name}
    assert {*FAULTS, OWN} - changed <= {*QUIET, *slight}
    assert len(FAULTS) >= 25


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_checks_take_every_form_and_find_every_quiet_fault(kind, form):
    inputs = tuple(np.float64(np.float32(one)) for one in np.random.default_rng(0).normal(size=(2, 3, 2)))
    drawn = Drawn("product", lambda x, y: x * torch.sin(y), inputs, kind=kind, form=form)
    assert fastcheck.check_vjp(**drawn.arguments(drawn.backward)).passed
    for fault in QUIET:
        backward = planted(drawn, fault, np.random.default_rng(0))
        assert (backward is None) == (fault == "memory unwritten" and form == "tensors")
        if backward is not None:
            assert fastcheck.check_vjp(**drawn.arguments(backward)).verdict == "fail", fault
