"""Prints the norm ratio against h of every differencing kernel: run in a process of its own by tests/test_delta.py.

A difference that is really computed carries the rounding of z + d and z - d, which grows as 1/h. One that was folded
into 2d would not.
"""

import json
import sys

import numpy as np
from layers import case, layer

import fastcheck

STEPS = [10.0 ** -(k / 4) for k in range(12, 41)]

# Name: layer, tensor, evaluator, and which kernel it stands for.
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


def slope(a_layer, tensor, evaluator):
    """Fit the power of h with which the norm ratio falls."""
    made = case(a_layer, output=None)
    alone = fastcheck.ConvCase(
        made.input,
        made.weight,
        made.bias,
        grad_output=made.grad_output,
        grads={tensor: made.grads[tensor]},
        **a_layer.arguments,
    )
    ratios = [fastcheck.check(alone, dims="all", step=h, evaluator=evaluator) for h in STEPS]
    assert all(report.passed for report in ratios)
    ratios = [report.tensors[tensor].norm_ratio for report in ratios]
    return float(np.polyfit(np.log10(STEPS), np.log10(ratios), 1)[0])


if __name__ == "__main__":
    json.dump({name: slope(*path) for name, path in PATHS.items()}, sys.stdout)
