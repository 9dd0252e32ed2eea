"""Differences carry round-off: the norm ratio of a correct gradient rises as 1/h for every differencing kernel.

A difference that is really computed carries the rounding of z + d and z - d. One that the compiler folded into 2d, or a
formula in disguise, would not. Kernels are compiled for one width of vectors; .ci/run repeats this at another.
"""

import numpy as np
import pytest
from layer_examples import case, layer

import fastcheck

STEPS = [10.0 ** -(k / 4) for k in range(12, 41)]

PATHS = {
    "reduce": (layer((1, 4, 30, 30), (5, 4, 3, 3), padding=1), "weight", "delta"),
    "reduce, taps left over": (layer((1, 2, 30, 30), (5, 2, 2, 2)), "weight", "delta"),
    "reduce, bias": (layer((1, 2, 12, 12), (60, 2, 2, 2)), "bias", "delta"),
    "spread, filters side by side": (layer((1, 8, 7, 7), (256, 8, 3, 3), padding=1), "weight", "delta"),
    "spread, positions": (layer((1, 8, 30, 30), (6, 8, 3, 3), padding=1), "input", "delta"),
    "spread, one row": (layer((1, 6, 30, 30), (6, 1, 3, 3), groups=6), "input", "delta"),
    "perturb, input": (layer((1, 3, 9, 9), (4, 3, 3, 3)), "input", "local"),
    "perturb, weight": (layer((1, 3, 9, 9), (4, 3, 3, 3)), "weight", "local"),
    "perturb, whole": (layer((1, 3, 9, 9), (4, 3, 3, 3)), "weight", "full"),
}
"""Layer, tensor and evaluator by the kernel that they take."""


@pytest.mark.jit
@pytest.mark.parametrize("kernel", PATHS)
def test_round_off_grows_as_the_step_falls(kernel):
    a_layer, tensor, evaluator = PATHS[kernel]
    alone = case(a_layer, grads={tensor: case(a_layer).grads[tensor]}, output=None)
    reports = [fastcheck.check(alone, dims="all", step=h, evaluator=evaluator) for h in STEPS]
    assert all(report.passed for report in reports)
    ratios = [report.tensors[tensor].norm_ratio for report in reports]
    slope = np.polyfit(np.log10(STEPS), np.log10(ratios), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
