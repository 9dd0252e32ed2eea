"""Gradient checkers side by side on one layer: each in a process of its own, so that its memory can be told.

python bench/peers.py NAME THREADS measures one and prints JSON; test_peers.py runs them all.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from memory import peak_above

INPUT, WEIGHT = (1, 64, 8, 8), (64, 64, 3, 3)
DIMS = int(np.prod(WEIGHT))
STEP = 1e-6
"""h of the peers that leave it to their user."""


@dataclass(frozen=True)
class Peer:
    """A gradient checker.

    Attributes
    ----------
    title, compares : str
        What it is, and what it compares the gradient with.
    imports : tuple of str
        Modules that are imported before memory is read.
    prepare : callable
        Called as prepare(threads), returns the check, which is called without arguments and returns whether the
        gradient passed.
    worked : int
        Dimensions that it differences when it is called once.
    dims : int
        Dimensions that it would check one by one; seconds are scaled from ``worked`` to these.
    rounds : int
        Measured calls after one that is not; with one round, the warm-up is a layer of four channels.
    """

    title: str
    compares: str
    imports: tuple[str, ...]
    prepare: Callable[[int], Callable[[], bool]]
    worked: int
    dims: int
    rounds: int = 3


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input, weight and cotangent."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape) for shape in (INPUT, WEIGHT, INPUT))  # type: ignore[return-value]


def _torch(threads):
    """Return PyTorch, input, weight, cotangent and the gradient of the loss by the weight."""
    import torch

    torch.set_num_threads(threads)
    x, w, v = (torch.from_numpy(array) for array in data())
    w.requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.conv2d(x, w, padding=1), w, v)
    return torch, x, w, v, grad


def _gradcheck(fast):
    def prepare(threads):
        torch, x, w, _, _ = _torch(threads)

        def layer(weight):
            return torch.nn.functional.conv2d(x[:, : weight.shape[1]], weight, padding=1)

        if not fast:  # twice a minute: warmed by a layer of four channels instead
            torch.autograd.gradcheck(layer, w[:4, :4].detach().clone().requires_grad_())
        return lambda: torch.autograd.gradcheck(layer, w, fast_mode=fast)

    return prepare


def _hand_loop(threads):
    torch, x, w, v, grad = _torch(threads)
    dims = _sampled(LOOPED)

    def loss():
        return float((v * torch.nn.functional.conv2d(x, w, padding=1)).sum())

    @torch.no_grad()
    def check():
        flat, numeric = w.view(-1), []
        for i in dims:
            saved = float(flat[i])
            flat[i] = saved + STEP
            above = loss()
            flat[i] = saved - STEP
            below = loss()
            flat[i] = saved
            numeric.append((above - below) / (2 * STEP))
        return np.allclose(numeric, grad.view(-1)[dims].numpy(), rtol=1e-4, atol=1e-4)

    return check


def _course_loop(threads):
    """The loop of a well-known course: its forward pass in four Python loops, perturbed entry by entry."""
    x, w, v = data()
    gradient, dims = _weight_gradient(x, v), _sampled(COURSE)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))

    def forward():
        out = np.empty(INPUT)
        for n in range(out.shape[0]):
            for f in range(out.shape[1]):
                for i in range(out.shape[2]):
                    for j in range(out.shape[3]):
                        out[n, f, i, j] = np.sum(padded[n, :, i : i + 3, j : j + 3] * w[f])
        return out

    def check():
        flat, numeric = w.reshape(-1), []
        for i in dims:
            saved = flat[i]
            flat[i] = saved + STEP
            above = forward()
            flat[i] = saved - STEP
            below = forward()
            flat[i] = saved
            numeric.append(np.sum((above - below) * v) / (2 * STEP))
        return np.allclose(numeric, gradient.reshape(-1)[dims], rtol=1e-4, atol=1e-4)

    return check


def _vmap(threads):
    torch, x, w, v, grad = _torch(threads)
    start = w.detach()

    def loss(weight):
        return (v * torch.nn.functional.conv2d(x, weight, padding=1)).sum()

    losses = torch.func.vmap(loss)

    @torch.no_grad()
    def check():
        dims = torch.arange(BATCH)
        moved = start.view(1, -1).repeat(BATCH, 1)
        moved[dims, dims] += STEP
        above = losses(moved.view(BATCH, *WEIGHT))
        moved[dims, dims] -= 2 * STEP
        below = losses(moved.view(BATCH, *WEIGHT))
        return np.allclose((above - below) / (2 * STEP), grad.view(-1)[dims], rtol=1e-4, atol=1e-4)

    return check


def _coloured(threads):
    from scipy.optimize._numdiff import approx_derivative, group_columns

    torch, x, w, v, grad = _torch(threads)
    structure = _dependence()
    groups = group_columns(structure)
    start = w.detach().numpy().reshape(-1)

    @torch.no_grad()
    def layer(flat):
        return torch.nn.functional.conv2d(x, torch.from_numpy(flat).view(WEIGHT), padding=1).numpy().reshape(-1)

    def check():
        jacobian = approx_derivative(layer, start, method="3-point", sparsity=(structure, groups))
        return np.allclose(jacobian.T @ v.numpy().reshape(-1), grad.numpy().reshape(-1), rtol=1e-4, atol=1e-4)

    return check


def _dependence():
    """Return which outputs depend on which weights, as a sparse matrix of shape (outputs, weights)."""
    from scipy.sparse import csr_array

    filters, rows, columns = INPUT[1], *INPUT[2:]
    f, c, i, j, p, q = np.ogrid[:filters, : WEIGHT[1], :3, :3, :rows, :columns]
    inside = (p + i - 1 >= 0) & (p + i - 1 < rows) & (q + j - 1 >= 0) & (q + j - 1 < columns)
    output = np.broadcast_to((f * rows + p) * columns + q, (*WEIGHT, rows, columns))
    weight = np.broadcast_to(((f * WEIGHT[1] + c) * 3 + i) * 3 + j, output.shape)
    chosen = np.broadcast_to(inside, output.shape)
    entries = np.ones(int(chosen.sum()))
    return csr_array((entries, (output[chosen], weight[chosen])), shape=(int(np.prod(INPUT)), DIMS))


def _check_grads(threads):
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)
    x, w, v = map(jax.numpy.asarray, data())

    @jax.jit
    def loss(weight):
        return (v * jax.lax.conv(x, weight, (1, 1), "SAME")).sum()

    def check():
        check_grads(loss, (w,), order=1, modes=["rev"])
        return True

    return check


def _fastcheck(threads):
    import fastcheck
    from fastcheck.convolutions import passes
    from fastcheck.convolutions.geometry import ConvGeometry

    x, w, v = data()
    with ThreadPoolExecutor(threads) as pool:
        grads = passes.backward(ConvGeometry.of(INPUT, WEIGHT, padding=1), x, w, v, pool, ("weight",))

    def check():
        # From arrays to the report, as its user calls it.
        report = fastcheck.check(
            fastcheck.ConvCase(x, w, padding=1, grad_output=v, grads=grads), dims="all", threads=threads
        )
        return report.passed and report.tensors["weight"].dims_checked == DIMS

    return check


def _weight_gradient(x, v):
    """Return the gradient of sum(v * output) by the weight, in NumPy."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, INPUT[2:], axis=(2, 3))
    return np.einsum("nfpq,ncijpq->fcij", v, windows)


def _sampled(count):
    return np.sort(np.random.default_rng(1).choice(DIMS, count, replace=False)).tolist()


LOOPED, COURSE, BATCH = 1000, 10, 256
_TORCH = ("torch",)

PEERS = {
    "fastcheck": Peer(
        "fastcheck.check, whole call",
        "two-sided differences, each within its own error bar; audit included",
        ("fastcheck.engine.coordinator",),
        _fastcheck,
        DIMS,
        DIMS,
        rounds=15,
    ),
    "gradcheck slow": Peer(
        "torch.autograd.gradcheck",
        "two-sided differences of every output by every weight, rtol 1e-3",
        _TORCH,
        _gradcheck(False),
        DIMS,
        DIMS,
        rounds=1,
    ),
    "gradcheck fast": Peer(
        "torch.autograd.gradcheck, fast_mode",
        "one random projection of the Jacobian: one number for all weights",
        _TORCH,
        _gradcheck(True),
        1,
        1,
        rounds=7,
    ),
    "hand loop": Peer(
        "hand loop in PyTorch",
        "two-sided differences of the loss, allclose",
        _TORCH,
        _hand_loop,
        LOOPED,
        DIMS,
    ),
    "course loop": Peer(
        "course-style loop in NumPy",
        "two-sided differences of the output, allclose",
        ("numpy",),
        _course_loop,
        COURSE,
        DIMS,
    ),
    "vmap": Peer(
        f"torch.func.vmap, {BATCH} perturbed weights at a time",
        "two-sided differences of the loss, allclose",
        _TORCH,
        _vmap,
        BATCH,
        DIMS,
    ),
    "coloured": Peer(
        "SciPy's approx_derivative, coloured",
        "two-sided differences of the output, 576 groups of 64 weights, allclose",
        (*_TORCH, "scipy.optimize", "scipy.sparse"),
        _coloured,
        DIMS,
        DIMS,
    ),
    "check_grads": Peer(
        "jax.test_util.check_grads",
        "the derivative along one random direction: one number for all weights",
        ("jax", "jax.test_util"),
        _check_grads,
        1,
        1,
        rounds=7,
    ),
}


def measure(name: str, threads: int) -> dict[str, object]:
    """Time one checker and read its memory, in a process that has done nothing else."""
    peer = PEERS[name]
    for module in peer.imports:
        importlib.import_module(module)
    seconds = []
    with peak_above() as memory:
        check = peer.prepare(threads)
        if peer.rounds > 1:
            check()
        for _ in range(peer.rounds):
            start = perf_counter()
            passed = check()
            seconds.append(perf_counter() - start)
            assert passed, name
    scale = peer.dims / peer.worked
    return {
        "name": name,
        "title": peer.title,
        "compares": peer.compares,
        "seconds": median(seconds) * scale,
        "rounds": peer.rounds,
        "dims": peer.dims,
        "dims_worked": peer.worked,
        "bytes": memory.bytes,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
