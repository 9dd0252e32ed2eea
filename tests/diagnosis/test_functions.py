"""Mistakes in backward passes of arrays are named from the arrays around them; right passes pass, noise has no name."""

import numpy as np
import pytest

import fastcheck
from fastcheck.diagnosis.diagnosed import UNKNOWN
from tests.helpers.planted_functions import PLANTED

SEEDS = range(20)


def _words(key, planted):
    return key.partition(" (")[0].format(last=planted.inputs[0].ndim - 1)


def _found(planted, backward):
    report = fastcheck.check_vjp(planted.forward, backward, planted.inputs)
    found = {name: one.diagnosis for name, one in report.tensors.items() if one.diagnosis is not None}
    return report, found


def _said(diagnosis):
    return f"{diagnosis['bug']}; {diagnosis['evidence']}"


def _in_type(backward, dtype):
    def of(*arrays):
        return [None if one is None else one.astype(dtype) for one in backward(*arrays)]

    return of


def _share_named(key, dtype):
    named = []
    for seed in SEEDS:
        planted = PLANTED[key](np.random.default_rng(seed))
        _, found = _found(planted, _in_type(planted.wrong, dtype))
        named.append(bool(found) and all(_words(key, planted) in _said(one) for one in found.values()))
    return sum(named) / len(named)


@pytest.mark.parametrize(("dtype", "share"), [("float64", 0.95), ("float32", 0.85)])
@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_mistake_is_named(key, dtype, share):
    assert _share_named(key, dtype) >= share
