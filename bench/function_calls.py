"""How calls of a user's loss are run: a small CNN as Python, as NumPy and compiled; and what a check adds to calls.

python bench/function_calls.py [--images N]

The CNN (two 3x3 convolutions, a pool, two dense layers; 1,458 parameters) is written as loops, which Python runs or
Numba compiles, and as NumPy calls. Each check covers every parameter; the compiled loss and its loop are compiled
before. A plain loop of two-sided differences is timed beside the NumPy loss with more images. The overhead is measured
on a loss of about 50 us: what twice as many entries add to the time, beside what their calls take. All times are CPU
times, of one thread.
"""

from __future__ import annotations

import argparse
import time

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

import fastcheck

SHAPES = ((4, 1, 3, 3), (4,), (8, 4, 3, 3), (8,), (128, 8), (8,), (8, 10), (10,))
"""Weights and biases of the layers."""

PLAIN_IMAGES = 128
"""Images with which a plain loop is compared: about 1.5 ms a call."""

CALL = 50e-6
"""Seconds of a call, about, of the loss that overhead is measured on."""

ENTRIES = 10_000


def problem(images):
    """Return pixels, labels and parameters."""
    rng = np.random.default_rng(0)
    params = tuple(rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:]))) for shape in SHAPES)
    return rng.normal(size=(images, 14, 14)), rng.integers(0, 10, images), params


def loops(pixels, labels):
    """Return the loss as loops, for Python and Numba alike."""

    def loss(params):
        w1, b1, w2, b2, w3, b3, w4, b4 = params
        total = 0.0
        for n in range(len(pixels)):
            pooled = np.zeros((4, 6, 6))
            for c in range(4):
                for i in range(12):
                    for j in range(12):
                        z = b1[c]
                        for r in range(3):
                            for s in range(3):
                                z += w1[c, 0, r, s] * pixels[n, i + r, j + s]
                        pooled[c, i // 2, j // 2] += np.tanh(z) / 4
            hidden = b3.copy()
            for c in range(8):
                for i in range(4):
                    for j in range(4):
                        z = b2[c]
                        for d in range(4):
                            for r in range(3):
                                for s in range(3):
                                    z += w2[c, d, r, s] * pooled[d, i + r, j + s]
                        unit = np.tanh(z)
                        for k in range(8):
                            hidden[k] += unit * w3[16 * c + 4 * i + j, k]
            scores = b4.copy()
            for k in range(8):
                unit = np.tanh(hidden[k])
                for m in range(10):
                    scores[m] += unit * w4[k, m]
            total += np.log(np.exp(scores).sum()) - scores[labels[n]]
        return total / len(pixels)

    return loss


def by_numpy(pixels, labels):
    """Return the loss as NumPy calls."""

    def conv(x, w, b):
        windows = sliding_window_view(x, (3, 3), axis=(2, 3))
        return np.tensordot(windows, w, axes=([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2) + b[:, None, None]

    def loss(params):
        w1, b1, w2, b2, w3, b3, w4, b4 = params
        pooled = np.tanh(conv(pixels[:, None], w1, b1)).reshape(-1, 4, 6, 2, 6, 2).mean((3, 5))
        flat = np.tanh(conv(pooled, w2, b2)).reshape(len(pixels), -1)
        scores = np.tanh(flat @ w3 + b3) @ w4 + b4
        return float(np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(pixels)), labels]))

    return loss


def gradient(pixels, labels):
    """Return the gradient, by PyTorch."""

    def grad(params):
        w1, b1, w2, b2, w3, b3, w4, b4 = tensors = [torch.from_numpy(one).requires_grad_() for one in params]
        pooled = F.avg_pool2d(torch.tanh(F.conv2d(torch.from_numpy(pixels[:, None]), w1, b1)), 2)
        flat = torch.tanh(F.conv2d(pooled, w2, b2)).reshape(len(pixels), -1)
        scores = torch.tanh(flat @ w3 + b3) @ w4 + b4
        loss = F.cross_entropy(scores, torch.from_numpy(labels))
        return tuple(one.numpy() for one in torch.autograd.grad(loss, tensors))

    return grad


def checked(loss, grad, params, **options):
    """Return the CPU seconds of a check, of every entry by default."""
    options = {"dims": "all", "directions": 0} | options
    start = time.process_time()
    report = fastcheck.check_gradient(loss, grad, params, progress=False, **options)
    seconds = time.process_time() - start
    assert report.passed, report
    return seconds


def naive(loss, params):
    """Return the CPU seconds of two-sided differences of every entry, in a plain loop."""
    start, moved = time.process_time(), tuple(one.copy() for one in params)
    for array in moved:
        flat = array.reshape(-1)
        for dim, here in enumerate(flat.tolist()):
            for value in (here + 1e-5, here - 1e-5):
                flat[dim] = value
                loss(moved)
            flat[dim] = here
    return time.process_time() - start


def one_call(loss, params, least=0.2):
    """Return the CPU seconds of a call from Python."""
    count, start = 0, time.process_time()
    while time.process_time() - start < least:
        loss(params)
        count += 1
    return (time.process_time() - start) / count


def beside_plain_loop():
    """Print the time of checks beside that of a plain loop over every entry."""
    pixels, labels, params = problem(PLAIN_IMAGES)
    loss, grad = by_numpy(pixels, labels), gradient(pixels, labels)
    loop, every = naive(loss, params), checked(loss, grad, params)
    some = checked(loss, grad, params, dims=8, directions=20)
    print(f"a plain loop, two NumPy calls an entry, {1e3 * one_call(loss, params):.2f} ms each: {loop:.2f} s")
    print(f"  check of every entry {every / loop:.2f} times that; of 8 entries, and 20 directions, {some:.2f} s")


def overhead(entries):
    """Return seconds beside those of calls, those of calls, and their number, of a check of so many entries."""
    inside, count = 0.0, 0

    def loss(p):
        nonlocal inside, count
        start = time.thread_time()
        value = float(np.cosh(p[:64]).sum() + p[64:96] @ p[96:128])
        while time.thread_time() - start < CALL:
            pass
        inside, count = inside + time.thread_time() - start, count + 1
        return value

    def grad(p):
        zeros = np.zeros(entries - 128)
        return np.concatenate([np.sinh(p[:64]), p[96:128], p[64:96], zeros])

    point = np.random.default_rng(2).normal(size=entries)
    seconds = checked(loss, grad, point)
    beside, calls, made = seconds - inside, inside, count
    start, inside = time.process_time(), 0.0
    for _ in range(made):
        loss(point)
    return beside - (time.process_time() - start - inside), calls, made


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pixels, labels, params = problem(asked.images)
    grad, python = gradient(pixels, labels), loops(pixels, labels)
    compiled = numba.njit(python)
    checked(compiled, grad, params)  # compiles
    print(f"{sum(one.size for one in params):,} parameters, {asked.images} images")
    whole = checked(compiled, grad, params)
    for words, loss in (("compiled", compiled), ("NumPy", by_numpy(pixels, labels)), ("Python", python)):
        seconds = whole if loss is compiled else checked(loss, grad, params)
        call = f"{1e6 * one_call(loss, params):9,.1f} us a call"
        print(f"{words:>8}: {call}, check {seconds:7.3f} s, {seconds / whole:7.1f}x")
    beside_plain_loop()
    few, many = overhead(ENTRIES), overhead(2 * ENTRIES)
    beside, calls, made = (after - before for before, after in zip(few, many, strict=True))
    print(f"overhead at {1e6 * CALL:.0f} us a call: {few[0] / few[1]:.1%} for {ENTRIES:,} entries ({few[2]:,} calls)")
    print(f"  and {beside / calls:.1%}, {1e6 * beside / made:.2f} us a call, for as many more ({made:,} calls)")


if __name__ == "__main__":
    main()
