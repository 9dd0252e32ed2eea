"""The forward kernel beside PyTorch's float64 convolution: the same layer, the same threads, one run.

pytest bench/test_forward.py
"""

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter, sleep

import numpy as np
import pytest
import torch

from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry

LAYERS = {
    "512 to 512, 14 wide": ((1, 512, 14, 14), (512, 512, 3, 3)),
    "256 to 256, 28 wide": ((1, 256, 28, 28), (256, 256, 3, 3)),
    "256 to 256, 56 wide": ((1, 256, 56, 56), (256, 256, 3, 3)),
    "128 to 128, 112 wide": ((1, 128, 112, 112), (128, 128, 3, 3)),
    "64 to 64, 224 wide": ((1, 64, 224, 224), (64, 64, 3, 3)),
    "3 to 64, 224 wide": ((1, 3, 224, 224), (64, 3, 3, 3)),
}


def _sides(name, threads):
    """Return (flop, ours, PyTorch's): the same forward pass twice, to be called."""
    input_shape, weight_shape = LAYERS[name]
    geometry = ConvGeometry.of(input_shape, weight_shape, padding=1)
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal(input_shape), rng.standard_normal(weight_shape), rng.standard_normal(weight_shape[0])
    pool = ThreadPoolExecutor(threads)
    tensors = [torch.from_numpy(array) for array in (x, w, b)]
    flop = 2 * int(np.prod(geometry.output_shape)) * geometry.terms

    def ours():
        return passes.convolve(geometry, x, w, b, pool)

    def theirs():
        return torch.nn.functional.conv2d(*tensors, padding=1).numpy()

    np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-10)
    return flop, ours, theirs


@pytest.mark.parametrize("side", ["fastcheck", "pytorch"])
@pytest.mark.parametrize("name", LAYERS)
def test_forward(benchmark, name, side, threads):
    flop, ours, theirs = _sides(name, threads)
    benchmark.group = f"forward, {name}, {threads} threads"
    benchmark.pedantic(ours if side == "fastcheck" else theirs, rounds=7, warmup_rounds=1)
    if benchmark.stats:
        benchmark.extra_info["GFLOP/s"] = flop / benchmark.stats.stats.median / 1e9


@pytest.mark.parametrize("name", LAYERS)
def test_at_least_40_percent_of_pytorch(name, threads):
    flop, ours, theirs = _sides(name, threads)
    seconds = {ours: [], theirs: []}
    for _ in range(5):  # in turns, so that a busy machine slows both
        for side, taken in seconds.items():
            sleep(0.1)  # PyTorch's threads spin for a while after a call and would take the other side's cores
            side()
            for _ in range(5):
                start = perf_counter()
                side()
                taken.append(perf_counter() - start)
    speed = {side: flop / median(taken) / 1e9 for side, taken in seconds.items()}
    print(f"\n{name}: {speed[ours]:.1f} GFLOP/s, PyTorch {speed[theirs]:.1f}, ratio {speed[ours] / speed[theirs]:.2f}")
    assert speed[ours] >= 0.4 * speed[theirs]
