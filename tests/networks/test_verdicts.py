"""Verdicts on networks that are hard to difference: right gradients never fail, and no wrong tensor passes.

`bench/network_false_alarms.py` does the same with many more, and takes a seed by ``--only``.
"""

import numpy as np
import pytest
from hard_networks import FAMILIES, HALF, draw
from network_faults import WHOLE, Planting, has_nothing_to_gain, slopes
from searches import examples

pytestmark = pytest.mark.jit

FIRST = 36_000 * len(FAMILIES)
COUNT = examples(96) // 12


def _seeds(family):
    """Return seeds of a family; the first is that of `FIRST`."""
    return range(FIRST + [*FAMILIES].index(family), FIRST + COUNT * len(FAMILIES), len(FAMILIES))


@pytest.mark.search
@pytest.mark.parametrize("family", FAMILIES)
def test_right_gradients_never_fail_and_wrong_tensors_do(family):
    for seed in _seeds(family):
        hard = draw(seed)
        assert hard.family == family
        right = hard.check()
        assert right.verdict in ("pass", "inconclusive"), (seed, hard.described, right.verdict)
        kind = "a tensor halved" if hard.computed in HALF else [*WHOLE][seed // len(FAMILIES) % len(WHOLE)]
        wrong = WHOLE[kind](Planting(hard, np.random.default_rng(seed)))
        if wrong is not None:
            report = hard.check(wrong)
            told = report.verdict in ("fail", "inconclusive") or (report.passed and _is_subgradient(hard, wrong))
            assert told, (seed, hard.described, kind, report.verdict)


def _is_subgradient(hard, wrong):
    """Return whether everything that was changed lies between the one-sided slopes of the loss."""
    for name, grad in hard.grads.items():
        for place in np.flatnonzero(wrong[name] != grad):
            low, high = slopes(hard, name, place)
            if not low <= wrong[name].flat[place] <= high:
                return False
    return True


@pytest.mark.search
def test_few_right_gradients_are_inconclusive():
    seeds = range(FIRST + 50 * len(FAMILIES), FIRST + 50 * len(FAMILIES) + examples(200))
    found = [(seed, hard) for seed in seeds if (hard := draw(seed)).computed not in HALF]
    undecided = [
        (seed, hard.described)
        for seed, hard in found
        if hard.check().verdict == "inconclusive" and not has_nothing_to_gain(hard)
    ]
    assert len(undecided) <= 0.04 * len(found), undecided
