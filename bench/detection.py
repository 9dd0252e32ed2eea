"""Which gradient checker catches which planted error, and which refuses gradients that are right.

python bench/detection.py prints JSON; test_detection.py records it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from statistics import median
from time import perf_counter
from typing import Any

import jax
import numpy as np
import planted
import torch
from jax.test_util import check_grads
from layer_examples import Layer, layer, operands, torch_backward, torch_forward

import fastcheck

LAYERS = {
    "plain": layer((2, 8, 3, 3), (16, 8, 3, 3), padding=1),
    "strided": layer((2, 8, 5, 5), (16, 8, 3, 3), stride=2, padding=1),
    "dilated": layer((2, 8, 5, 5), (16, 8, 3, 3), padding=1, dilation=2),
    "grouped": layer((2, 8, 3, 3), (16, 4, 3, 3), padding=1, groups=2),
    "depthwise": layer((2, 16, 3, 3), (16, 1, 3, 3), padding=1, groups=16),
}
"""All of 288 outputs: slow gradcheck makes every Jacobian three times, two of them by a backward pass an output."""
DTYPES = (np.float64, np.float32)
SEEDS = 5
"""Correct gradients of each layer; errors are planted in the first."""
STEP = 1e-5
"""h of the rules of thumb, which leave it to their user."""
SIZES = {f"1e-{digits}" if digits else "1": 10.0**-digits for digits in range(13)}
BUGS = [bug for bug in planted.MISTAKES if bug not in (planted.flips_one_sign, planted.is_wrong_in_the_tenth_digit)]
"""The other two are among the errors of one weight."""

VJPs = dict[str, np.ndarray]
Mistake = Callable[..., VJPs]
Judged = dict[str, tuple[bool, float]]
"""By checker, whether it refuses a gradient, and the seconds that it took."""


@dataclass(frozen=True, eq=False)
class Point:
    """Where a layer is differentiated: its operands and a cotangent."""

    layer: Layer
    operands: tuple[np.ndarray, np.ndarray, np.ndarray]
    grad_output: np.ndarray

    @classmethod
    def of(cls, layer: Layer, dtype: type, seed: int) -> Point:
        """Draw one."""
        arrays = operands(layer, seed, dtype)
        shape = torch_forward(layer, *map(torch.from_numpy, arrays)).shape
        return cls(layer, arrays, np.random.default_rng(seed + 1000).standard_normal(shape).astype(dtype))

    @cached_property
    def differences(self) -> VJPs:
        """Two-sided differences of the loss by the loop that everybody writes, in the operands' own dtype."""
        tensors = [torch.from_numpy(array.copy()) for array in self.operands]
        v = torch.from_numpy(self.grad_output)
        return {
            name: _differenced(tensor, lambda: (v * torch_forward(self.layer, *tensors)).sum().numpy()[()])
            for name, tensor in zip(("input", "weight", "bias"), tensors, strict=True)
        }


def _differenced(tensor: torch.Tensor, loss: Callable[[], Any]) -> np.ndarray:
    flat = tensor.numpy().reshape(-1)
    h, numeric = flat.dtype.type(STEP), np.empty_like(flat)
    for i, saved in enumerate(flat.copy()):
        flat[i] = saved + h
        above = loss()
        flat[i] = saved - h
        numeric[i] = (above - loss()) / (2 * h)
        flat[i] = saved
    return numeric.reshape(tensor.shape)


@dataclass(frozen=True)
class Subject:
    """A layer with a backward pass, right or wrong, as every checker gets it."""

    point: Point
    mistake: Mistake

    def backward(self, grad_output: np.ndarray) -> VJPs:
        """Return the VJPs that the layer's author would."""
        x, w, _ = self.point.operands
        return self.mistake(self.point.layer, x, w, grad_output)


# Checkers take a subject, and return by name whether they refuse it.


def _fastcheck(subject: Subject) -> dict[str, bool]:
    point = subject.point
    grads = subject.backward(point.grad_output)
    case = fastcheck.ConvCase(*point.operands, grad_output=point.grad_output, grads=grads, **point.layer.arguments)
    return {"fastcheck": fastcheck.check(case, dims="all", threads=1).verdict == "fail"}


class _TorchLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, subject: Subject, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.subject = subject
        return torch_forward(subject.point.layer, *tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> Any:
        grads = ctx.subject.backward(grad_outputs[0].numpy())
        return None, *(torch.from_numpy(np.ascontiguousarray(grad)) for grad in grads.values())


def _gradcheck(subject: Subject, *, fast_mode: bool = False) -> dict[str, bool]:
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in subject.point.operands]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that float32 will likely fail, which is what we want to know
        passed = torch.autograd.gradcheck(
            partial(_TorchLayer.apply, subject), tensors, fast_mode=fast_mode, raise_exception=False
        )
    return {"gradcheck, fast mode" if fast_mode else "gradcheck": not passed}


def _check_grads(subject: Subject) -> dict[str, bool]:
    forward = _jax_forward(subject.point.layer)
    function = jax.custom_vjp(forward)
    function.defvjp(
        lambda *arrays: (forward(*arrays), None), lambda _, v: tuple(subject.backward(np.asarray(v)).values())
    )
    try:
        check_grads(function, subject.point.operands, order=1, modes=["rev"])
    except AssertionError:
        return {"check_grads": True}
    return {"check_grads": False}


@cache
def _jax_forward(layer: Layer) -> Callable[..., jax.Array]:
    def forward(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        out = jax.lax.conv_general_dilated(
            x, w, layer.stride, layer.padding, rhs_dilation=layer.dilation, feature_group_count=layer.groups
        )
        return out + b[:, None, None]

    return jax.jit(forward)


def _rules_of_thumb(subject: Subject) -> dict[str, bool]:
    grads = subject.backward(subject.point.grad_output)
    tensors = fastcheck.compare(grads, subject.point.differences).tensors.values()
    return {
        "norm ratio": any(tensor.norm_ratio > 1e-9 for tensor in tensors),
        "max ratio": any(tensor.max_ratio >= 1e-2 for tensor in tensors),
    }


CHECKERS = (_fastcheck, _gradcheck, partial(_gradcheck, fast_mode=True), _check_grads, _rules_of_thumb)


def judged(subject: Subject) -> Judged:
    """Ask all checkers."""
    found: Judged = {}
    for check in CHECKERS:
        start = perf_counter()
        refused = check(subject)
        seconds = perf_counter() - start
        found |= {name: (verdict, seconds) for name, verdict in refused.items()}
    return found


# What is planted.


def scaled(factor: float, part: Any = slice(None)) -> Mistake:
    """Return a mistake that multiplies the gradient of some weights, by flat index."""

    def mistake(layer: Layer, x: np.ndarray, w: np.ndarray, v: np.ndarray) -> VJPs:
        right = planted.nothing(layer, x, w, v)
        weight = right["weight"].copy()
        weight.reshape(-1)[part] *= factor
        return {**right, "weight": weight}

    return mistake


def mistakes(point: Point) -> Iterator[tuple[str, str, Mistake]]:
    """Yield (kind, error, mistake) of all that can be planted in a layer."""
    right = planted.nothing(point.layer, *point.operands[:2], point.grad_output)
    one = int(np.argsort(np.abs(right["weight"]), axis=None)[right["weight"].size // 2])
    for error, size in SIZES.items():
        yield "every weight", error, scaled(1 + size)
    yield "one weight", "wrong sign", scaled(-1, one)
    for error, size in SIZES.items():
        yield "one weight", error, scaled(1 + size, one)
    for bug in BUGS:
        wrong = bug(point.layer, *point.operands[:2], point.grad_output)
        if any(not np.array_equal(right[name], wrong[name]) for name in right):  # without a stride, none is forgotten
            yield "bug", bug.__name__.replace("_", " "), bug


def subjects(dtype: type) -> Iterator[tuple[str, str, Subject]]:
    """Yield (kind, error, subject) of all that is checked in a dtype."""
    for each in LAYERS.values():
        points = [Point.of(each, dtype, seed) for seed in range(SEEDS)]
        for point in points:  # first: they are timed, and the rules of thumb difference a point only once
            yield "none", "", Subject(point, planted.nothing)
        for kind, error, mistake in mistakes(points[0]):
            yield kind, error, Subject(points[0], mistake)


def measure(dtype: type) -> list[dict[str, Any]]:
    """Return a row for every error: in how many cases it was planted, and by checker in how many it was refused."""
    cases: dict[tuple[str, str], list[Judged]] = {}
    for kind, error, subject in subjects(dtype):
        cases.setdefault((kind, error), []).append(judged(subject))
    return [
        {"dtype": np.dtype(dtype).name, "kind": kind, "error": error, "cases": len(found)} | _by_checker(found)
        for (kind, error), found in cases.items()
    ]


def _by_checker(cases: list[Judged]) -> dict[str, Any]:
    return {
        "refused": {name: sum(case[name][0] for case in cases) for name in cases[0]},
        "seconds": {name: median(case[name][1] for case in cases) for name in cases[0]},
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)  # the layers are too small for more
    planted.backward = torch_backward  # gradcheck calls for a gradient a million times
    print(json.dumps([row for dtype in DTYPES for row in measure(dtype)]))
