"""What naming the mistakes of a large layer costs: time and memory, beside its exhaustive check.

python bench/diagnosis_cost.py

A 512 to 512 layer, 3x3 at 28x28, with right gradients; with another mistake in each; and with the gradients of a true
convolution. Times are CPU times of all threads of a second check, memory is the peak that tracemalloc sees.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import torch
import torch.nn.functional as F

import fastcheck

SIZE, CHANNELS = 28, 512


def cases():
    """Yield the layer with each set of gradients, by words for it."""
    rng = np.random.default_rng(0)
    shapes = (1, CHANNELS, SIZE, SIZE), (CHANNELS, CHANNELS, 3, 3), (1, CHANNELS, SIZE, SIZE)
    x, w, v = (rng.normal(size=shape) for shape in shapes)
    right, turned = gradients(x, w, v), gradients(x, w[..., ::-1, ::-1].copy(), v)
    for words, (grad_x, grad_w) in {
        "right": right,
        "a mistake in each": (turned[0], right[1] / 2),
        "a true convolution": (turned[0], turned[1][..., ::-1, ::-1].copy()),
    }.items():
        yield words, fastcheck.ConvCase(x, w, padding=1, grad_output=v, grads={"input": grad_x, "weight": grad_w})


def gradients(x, w, v):
    """Return the gradients of a cross-correlation."""
    operands = [torch.from_numpy(one).requires_grad_() for one in (x, w)]
    found = torch.autograd.grad(F.conv2d(*operands, padding=1), operands, torch.from_numpy(v))
    return [grad.numpy() for grad in found]


def main():
    """Run it."""
    for words, case in cases():
        fastcheck.check(case, dims="all")
        start = time.process_time()
        report = fastcheck.check(case, dims="all")
        seconds = time.process_time() - start
        tracemalloc.start()
        fastcheck.check(case, dims="all")
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"{words}: {seconds:.2f} s, {peak:.0f} MiB")
        for name, tensor in report.tensors.items():
            print(f"  {name}: {tensor.diagnosis['bug'] if tensor.diagnosis else tensor.verdict}")


if __name__ == "__main__":
    main()
