"""One weight gradient among 2,359,296 slightly wrong: is it caught, and named by its index?

python bench/needle.py
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

import fastcheck

WIDE, FEW = ((1, 512, 14, 14), (512, 512, 3, 3)), ((1, 512, 3, 3), (512, 512, 3, 3))
PHI = {"vjp": lambda z: z, "tanh": torch.tanh, "square": lambda z: z * z / 2}

ROWS = [
    # shapes, dtype, loss, step, relative error
    (WIDE, "float64", "vjp", "auto", 1e-12),
    (WIDE, "float64", "vjp", 1e-5, 1e-9),
    (WIDE, "float64", "tanh", "auto", 1e-9),
    (WIDE, "float64", "square", "auto", 1e-9),
    (WIDE, "float32", "vjp", "auto", 1e-3),
    (FEW, "float32", "vjp", "auto", 1e-4),
]


def operands(shapes, dtype, loss):
    """Return input, weight, cotangent and PyTorch's weight gradient."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape) for shape in shapes)
    w *= np.sqrt(2 / np.prod(w.shape[1:]))
    v = rng.standard_normal((x.shape[0], w.shape[0], *x.shape[2:]))
    x, w, v = (torch.from_numpy(array.astype(dtype)) for array in (x, w, v))
    w.requires_grad_()
    (grad,) = torch.autograd.grad((v * PHI[loss](torch.nn.functional.conv2d(x, w, padding=1))).sum(), w)
    return *(array.detach().numpy() for array in (x, w, v)), grad.numpy()


def found(shapes, dtype, loss, step, relative):
    """Return the verdicts without and with the error, whether it alone is named, and seconds."""
    x, w, v, grad = operands(shapes, dtype, loss)
    place = np.unravel_index(np.argsort(np.abs(grad), axis=None)[grad.size // 2], grad.shape)
    wrong = grad.copy()
    wrong[place] *= 1 + relative

    def check(gradient):
        case = fastcheck.ConvCase(x, w, padding=1, loss=loss, grad_output=v, grads={"weight": gradient})
        return fastcheck.check(case, dims="all", step=step)

    right, start = check(grad), time.perf_counter()
    report = check(wrong)
    tensor = report.tensors["weight"]
    named = tensor.beyond_error_bar == 1 and tensor.worst[0].index == tuple(map(int, place))
    return right, report, named, time.perf_counter() - start


def main():
    print("| layer | gradient | loss | step | one weight wrong by | without | with | named | seconds |")
    print("| --- | --- | --- | --- | ---: | --- | --- | --- | ---: |")
    missed = 0
    for shapes, dtype, loss, step, relative in ROWS:
        right, wrong, named, seconds = found(shapes, dtype, loss, step, relative)
        inconclusive = right.tensors["weight"].undecided
        layer = f"512 to 512, {shapes[0][-1]} wide"
        outcome = f"{right.verdict}, {inconclusive} inconclusive"
        cells = (layer, dtype, loss, step, f"{relative:g}", outcome, wrong.verdict, named, f"{seconds:.1f}")
        print(f"| {' | '.join(map(str, cells))} |")
        missed += not (right.passed and not inconclusive and named)
    sys.exit(missed)


if __name__ == "__main__":
    main()
