"""Functions of the kind that PyTorch's own tests of operators give to gradcheck, and faults planted in their backward.

Inputs are float64, smooth points: no ties, no kinks nearby.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def _normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def _positive(*shape):
    return (_normal(*shape).detach().abs() + 0.5).requires_grad_()


def _distinct(*shape):
    """Values that differ by 0.01 or more, so that the largest of a window stays so."""
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(0))
    return (order.to(torch.float64).reshape(shape) / 100).requires_grad_()


def _definite(n):
    a = _normal(n, n).detach()
    return (a @ a.T / n + torch.eye(n, dtype=torch.float64)).requires_grad_()


def _indices(high, *shape):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0))


def _square(side):
    """Side such that a square matrix of that side is of moderate condition."""
    return (_normal(side, side).detach() / side**0.5 + 2 * torch.eye(side, dtype=torch.float64)).requires_grad_()


def operators(size):
    """Return functions and inputs by name; ``size`` is about the number of entries that are differentiated."""
    side = math.isqrt(size)
    half = math.isqrt(size // 2)
    maps = max(4, math.isqrt(size // 8))
    return {
        "exp": (torch.exp, [_normal(side, side)]),
        "log": (torch.log, [_positive(side, side)]),
        "tanh": (torch.tanh, [_normal(side, side)]),
        "erf": (torch.erf, [_normal(side, side)]),
        "rsqrt": (torch.rsqrt, [_positive(side, side)]),
        "gelu": (F.gelu, [_normal(side, side)]),
        "softplus": (F.softplus, [_normal(side, side)]),
        "sum": (lambda x: x.pow(2).sum(1), [_normal(side, side)]),
        "var": (lambda x: x.var(0), [_normal(side, side)]),
        "logsumexp": (lambda x: x.logsumexp(1), [_normal(side, side)]),
        "prod": (lambda x: x.prod(1), [_positive(size // 8, 8)]),
        "norm": (lambda x: torch.linalg.vector_norm(x, dim=1), [_normal(side, side)]),
        "cumsum": (lambda x: torch.cumsum(x.sin(), 1), [_normal(side, side)]),
        "matmul": (torch.matmul, [_normal(half, half), _normal(half, half, seed=1)]),
        "bmm": (torch.bmm, [_normal(4, half // 2, half // 2), _normal(4, half // 2, half // 2, seed=1)]),
        "einsum": (
            lambda a, b: torch.einsum("ij,kj->ki", a, b).sin(),
            [_normal(half, half), _normal(half, half, seed=1)],
        ),
        "linear": (F.linear, [_normal(8, half), _normal(half, half, seed=1), _normal(half, seed=2)]),
        "conv1d": (F.conv1d, [_normal(2, 4, size // 12), _normal(6, 4, 3, seed=1), _normal(6, seed=2)]),
        "conv2d": (
            lambda x, w: F.conv2d(x, w, stride=2, padding=1),
            [_normal(2, 4, maps, maps), _normal(6, 4, 3, 3, seed=1)],
        ),
        "conv_transpose2d": (
            lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1),
            [_normal(2, 4, maps, maps), _normal(4, 3, 3, 3, seed=1)],
        ),
        "max_pool2d": (lambda x: F.max_pool2d(x, 2), [_distinct(2, 4, 2 * (maps // 2), 2 * (maps // 2))]),
        "avg_pool2d": (lambda x: F.avg_pool2d(x.square(), 3, padding=1), [_normal(2, 4, maps, maps)]),
        "layer_norm": (
            lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b),
            [_normal(side, side), _normal(side, seed=1), _normal(side, seed=2)],
        ),
        "batch_norm": (
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            [_normal(side, side), _normal(side, seed=1), _normal(side, seed=2)],
        ),
        "softmax": (lambda x: F.softmax(x, 1), [_normal(side, side)]),
        "gather": (lambda x: x.sin().gather(1, _indices(side, side, 5)), [_normal(side, side)]),
        "scatter_add": (
            lambda x: torch.zeros(side, side, dtype=x.dtype).scatter_add(0, _indices(side, side, side), x.exp()),
            [_normal(side, side)],
        ),
        "index_select": (lambda x: x.cos()[_indices(side, 2 * side)], [_normal(side, side)]),
        "inv": (torch.linalg.inv, [_square(side)]),
        "solve": (torch.linalg.solve, [_square(side), _normal(side, 3, seed=1)]),
        "cholesky": (lambda a: torch.linalg.cholesky((a + a.T) / 2), [_definite(side)]),
        "slogdet": (lambda a: torch.linalg.slogdet(a)[1], [_square(side)]),
        "eigvalsh": (lambda a: torch.linalg.eigvalsh((a + a.T) / 2), [_normal(min(side, 12), min(side, 12))]),
    }


def wrong(function, change):
    """Return the function with a backward pass whose first gradient is changed."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return function(*inputs)

        @staticmethod
        def backward(ctx, grad_output):
            with torch.enable_grad():
                inputs = [one.detach().requires_grad_() for one in ctx.saved_tensors]
                grads = torch.autograd.grad(function(*inputs), inputs, grad_output)
            return (change(grads[0]), *grads[1:])

    return Wrong.apply


def everywhere(grad):
    """Return a gradient that is off by a relative 1e-4."""
    return grad * (1 + 1e-4)


def in_one_entry(grad):
    """Return a gradient whose largest entry is off by a relative 1e-4."""
    flat = grad.clone().reshape(-1)
    flat[flat.abs().argmax()] *= 1 + 1e-4
    return flat.reshape(grad.shape)


FAULTS = {"all by 1e-4": everywhere, "an entry by 1e-4": in_one_entry}
