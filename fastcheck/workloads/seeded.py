"""Convolutions and networks on seeded data, with gradients from a backward pass to be checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.networks.network import Network

OwnBackward = Callable[[ConvGeometry, Mapping[str, Any], Collection[str]], Mapping[str, Any]]
"""A backward pass of the user's, as `conv_case` calls it."""


def conv_case(
    geometry: ConvGeometry,
    name: str,
    seed: int,
    *,
    bias: bool,
    tensors: Collection[str],
    backward: str | OwnBackward = "reference",
    dtype: str = "float64",
    loss: str = "vjp",
    pool: Executor,
    threads: int = 1,
) -> ConvCase:
    """Make a convolution: input, bias and cotangent are standard normal, weights are scaled as in He et al. (2015).

    Parameters
    ----------
    geometry : ConvGeometry
    name : str
        Name of the data, which depend only on it, the seed and the geometry's shapes.
    seed : int
    bias : bool
        Whether the convolution has a bias.
    tensors : collection of str
        Tensors that get a gradient.
    backward : {"reference", "torch"} or callable
        Source of the gradients: this project's reference kernels, PyTorch's own convolution, or a function that is
        called as backward(geometry, arrays, tensors), with input, weight, bias (perhaps None) and grad_output by name.
    dtype : {"float64", "float32", "float16"}
        Type to which operands and gradients are rounded. PyTorch computes in it, the reference kernels in float64, and
        what a function returns stays as it is.
    loss : str
        As in `ConvCase`.
    pool : Executor
        Executes the kernels.
    threads : int
        Number of PyTorch's threads.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng([seed, *digest])
    x = rng.standard_normal(geometry.input_shape).astype(dtype)
    w = (rng.standard_normal(geometry.weight_shape) * np.sqrt(2 / geometry.terms)).astype(dtype)
    b = rng.standard_normal(geometry.shape_of("bias")).astype(dtype) if bias else None
    v = rng.standard_normal(geometry.output_shape).astype(dtype)
    cotangent = v if loss == "vjp" else _cotangent(geometry, x, w, b, v, loss, pool)
    if callable(backward):
        grads = backward(geometry, {"input": x, "weight": w, "bias": b, "grad_output": cotangent}, tensors)
    else:
        exact = _BACKWARDS[backward](geometry, x, w, cotangent, pool, threads, tensors)
        grads = {name: grad.astype(dtype, copy=False) for name, grad in exact.items()}
    return ConvCase(
        x,
        w,
        b,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        transposed=geometry.transposed,
        output_padding=geometry.output_padding,
        padding_mode=geometry.padding_mode,
        loss=loss,
        grad_output=v,
        grads=grads,
    )


def _cotangent(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    v: np.ndarray,
    loss: str,
    pool: Executor,
) -> np.ndarray:
    """Return the cotangent of the outputs before phi, v * phi'(z)."""
    from fastcheck.convolutions import passes  # imports Numba

    bias = np.zeros(geometry.shape_of("bias")) if b is None else b.astype(np.float64)
    z = passes.convolve(geometry, x.astype(np.float64), w.astype(np.float64), bias, pool)
    slope: np.ndarray = z if loss == "square" else z > 0 if loss == "relu" else 1 - np.tanh(z) ** 2
    return (v * slope).astype(v.dtype)


def _by_reference(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    v: np.ndarray,
    pool: Executor,
    threads: int,
    tensors: Collection[str],
) -> dict[str, np.ndarray]:
    from fastcheck.convolutions import passes  # imports Numba

    x, w, v = (array.astype(np.float64, copy=False) for array in (x, w, v))
    return passes.backward(geometry, x, w, v, pool, tensors)


def _by_torch(
    geometry: ConvGeometry,
    x: np.ndarray,
    w: np.ndarray,
    v: np.ndarray,
    pool: Executor,
    threads: int,
    tensors: Collection[str],
) -> dict[str, np.ndarray]:
    from fastcheck.adapters import torch  # imports PyTorch

    return torch.conv_backward(geometry, x, w, v, threads, tensors)


_BACKWARDS = {"reference": _by_reference, "torch": _by_torch}
BACKWARDS = tuple(_BACKWARDS)
"""Values of ``backward``."""


def network_point(
    network: Network, shape: tuple[int, ...], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters, data points and targets: initial weights, and everything else standard normal or uniform.

    Biases and normalisations are shifted by about a tenth, since at their initial values many results would coincide.
    """
    rng = np.random.default_rng([seed, len(shape)])
    params = network.initial(shape[1:], seed)
    for array in params.values():
        if array.ndim == 1:
            array += 0.1 * np.abs(rng.standard_normal(array.shape))
    x = rng.standard_normal(shape)
    output = network.shapes(shape[1:])[-1]
    if network.loss in ("softmax_cross_entropy", "multiclass_hinge"):
        return params, x, rng.integers(0, output[0], shape[0])
    size = (shape[0], *output)
    return params, x, rng.uniform(size=size) if network.loss == "logistic" else rng.standard_normal(size)


def reference_gradient(network: Network) -> Callable[[Any, Any, Any], dict[str, np.ndarray]]:
    """Return a function that computes the reference gradient of a network."""
    from fastcheck.networks.case import Point  # this and the following import Numba
    from fastcheck.networks.passes import Passes
    from fastcheck.networks.training import whole_gradient

    return lambda params, x, y: whole_gradient(Passes(Point.of(network, params, x, y)))
