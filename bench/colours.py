"""A 64 to 64 3x3 layer at 28x28, a user's own function, exhaustively by colours; beside it, `gradcheck`.

python bench/colours.py [--batch N] [--inputs] [--wrong] [--gradcheck DIMS]

The layer is PyTorch's convolution of arrays, float64. Colours check all 36,864 weights, and with --inputs all 50,176
inputs of a sample; the time is that of the whole check, examination of backward and noise included. All times are CPU
times, of one thread.

`gradcheck` of the whole layer would take minutes to hours, and Jacobians of 15 GB. Its two halves are timed instead:
its differences, of the first DIMS weights and all outputs (PyTorch's own function for them), and the whole of gradcheck
on the first `OUTPUTS` outputs of the layer, whose time is that of backward, twice for each output, but for the same
weights' differences. The first is in proportion to the weights, the second to the outputs, from which the time of the
whole layer follows: less than gradcheck would take, since it compares the Jacobians besides.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.gradcheck import get_numerical_jacobian

import fastcheck

CHANNELS, WIDTH, OUTPUTS = 64, 28, 64


def layer(batch, inputs, wrong):
    """Return forward and backward of arrays, and the arrays."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, CHANNELS, WIDTH, WIDTH))
    w = rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) / (9 * CHANNELS) ** 0.5

    def forward(x, w):
        with torch.no_grad():
            return F.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()

    def backward(v, x, w):
        x, w, v = (torch.from_numpy(np.ascontiguousarray(one)) for one in (x, w, v))
        dw = torch.nn.grad.conv2d_weight(x, w.shape, v, padding=1).numpy()
        dx = torch.nn.grad.conv2d_input(x.shape, w, v, padding=1).numpy() if inputs else None
        return dx, dw * (1.001 if wrong else 1)

    return forward, backward, (x, w)


def by_colours(batch, inputs, wrong):
    """Check the layer; return the report, the dimensions and the seconds."""
    forward, backward, arrays = layer(batch, inputs, wrong)
    start = time.process_time()
    report = fastcheck.check_vjp(forward, backward, arrays, structure="conv(padding=1)", dims="all", progress=False)
    seconds = time.process_time() - start
    return report, sum(tensor.dims_checked for tensor in report.tensors.values()), seconds


def by_gradcheck(batch, dims):
    """Return gradcheck's seconds for the differences of a weight, and for the backwards of an output."""
    _, _, (x, w) = layer(batch, False, False)
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    backwards = 0.0

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, few, outputs):
            full = torch.cat([few, w.reshape(-1)[dims:]]).reshape(w.shape)
            return F.conv2d(x, full, padding=1).reshape(-1)[:outputs]

        @staticmethod
        def backward(ctx, v):
            nonlocal backwards
            start = time.process_time()
            whole = F.pad(v, (0, batch * CHANNELS * WIDTH**2 - len(v))).reshape(batch, CHANNELS, WIDTH, WIDTH)
            result = torch.nn.grad.conv2d_weight(x, w.shape, whole, padding=1).reshape(-1)[:dims]
            backwards += time.process_time() - start
            return result, None

    few = w.reshape(-1)[:dims].clone().requires_grad_()
    outputs = batch * CHANNELS * WIDTH**2
    start = time.process_time()
    get_numerical_jacobian(lambda given: Layer.apply(*given, outputs), (few,), eps=1e-6)
    differences = time.process_time() - start
    assert torch.autograd.gradcheck(lambda few: Layer.apply(few, OUTPUTS), few, check_batched_grad=False)
    return differences / dims, backwards / OUTPUTS


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--inputs", action="store_true", help="check the inputs too")
    parser.add_argument("--wrong", action="store_true", help="a gradient that is wrong by 0.1 %% everywhere")
    parser.add_argument("--gradcheck", type=int, default=256, metavar="DIMS", help="weights that gradcheck gets")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    by_colours(asked.batch, False, False)  # compiles
    report, dims, seconds = by_colours(asked.batch, asked.inputs, asked.wrong)
    print(report)
    print(f"colours: {dims:,} dimensions in {seconds:.2f} s, {dims / seconds:,.0f} a second")
    for name, one in report.structure.items():
        print(f"  {name}: {one['colours']:,} colours, {one['calls']:,} calls, {one['alone']:,} entries by themselves")
    forward, _, arrays = layer(asked.batch, False, False)
    calls = [_seconds(forward, *arrays) for _ in range(50)]
    print(f"one forward: {1e3 * float(np.median(calls)):.2f} ms")
    difference, backward = by_gradcheck(asked.batch, asked.gradcheck)
    weights, outputs = arrays[1].size, asked.batch * CHANNELS * WIDTH**2
    whole = weights * difference + outputs * backward
    print(f"gradcheck: {1e3 * difference:.2f} ms for a weight, {1e3 * backward:.2f} ms for an output")
    for words, rate in (("differences alone", 1 / difference), ("the whole layer", weights / whole)):
        print(f"  {words}: {rate:,.0f} dimensions a second; by colours {dims / seconds / rate:,.0f} times as many")


def _seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


if __name__ == "__main__":
    main()
