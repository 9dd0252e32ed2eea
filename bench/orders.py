"""Orders of convergence and slopes of round-off that sweeps find, for every loss and for a black box.

python bench/orders.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from layer_examples import layer, operands, torch_forward

import fastcheck

PHI = {"vjp": lambda z: z, "square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}
DIMS = list(range(0, 144, 7))


def convolution(loss, seed=0):
    """A layer of 144 weights under a loss, with PyTorch's gradient."""
    a_layer = layer((2, 4, 10, 10), (4, 4, 3, 3), padding=1)
    x, w, b = operands(a_layer, seed)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b)]
    out = torch_forward(a_layer, *tensors)
    v = np.random.default_rng([seed, 1]).standard_normal(out.shape)
    (grad,) = torch.autograd.grad((torch.from_numpy(v) * PHI[loss](out)).sum(), tensors[1])
    return fastcheck.ConvCase(x, w, b, grad_output=v, loss=loss, grads={"weight": grad.numpy()}, **a_layer.arguments)


def log_sum_exp(seed=0):
    """A black box of 21 parameters."""
    matrix = np.random.default_rng(seed).standard_normal((40, len(DIMS)))

    def loss(p):
        z = matrix @ p
        return z.max() + np.log(np.exp(z - z.max()).sum())

    def grad(p):
        e = np.exp(matrix @ p - (matrix @ p).max())
        return matrix.T @ (e / e.sum())

    return fastcheck.FunctionCase(loss, grad, np.random.default_rng([seed, 1]).standard_normal(len(DIMS)))


def main():
    print("| function | dimensions | order in the h^2 range | slope in the round-off range | readings |")
    print("| --- | ---: | ---: | ---: | --- |")
    wrong = 0
    for name, case, dims in (
        *((f"convolution, {loss}", convolution(loss), DIMS) for loss in PHI),
        ("black box, log-sum-exp", log_sum_exp(), list(range(len(DIMS)))),
    ):
        (tensor,) = case.grads
        found = fastcheck.sweep(case, tensor=tensor, dims=dims)
        order, slope = found.order[tensor], found.slope[tensor]
        readings = sorted({curve.reading for curve in found.curves})
        shown = "none" if order is None else f"{order:.2f}"
        print(f"| {name} | {len(found.curves)} | {shown} | {slope:.2f} | {', '.join(readings)} |")
        curved = name.endswith(("tanh", "exp"))
        wrong += (abs(order - 2) > 0.1 if order is not None else curved) or (order is not None and not curved)
        wrong += abs(slope + 1) > 0.1
    sys.exit(wrong)


if __name__ == "__main__":
    main()
