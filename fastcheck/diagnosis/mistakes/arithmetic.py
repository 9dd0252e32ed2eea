"""Roundings to narrower types, slopes of the loss, and activations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fastcheck.common.naming import listed
from fastcheck.common.precision import UNITS
from fastcheck.diagnosis.mistakes.variant import Variant, Variants
from fastcheck.diagnosis.problem import Problem


def narrowed(problem: Problem) -> Variants:
    """Round operands to a narrower type; products of two bytes are summed in float32."""
    for operands in (tuple(_OPERANDS), ("x",), ("w",), ("v",), ("x", "w"), ("x", "v"), ("v", "w")):
        for name, change in _ROUNDED.items():
            words = "all operands" if len(operands) == len(_OPERANDS) else listed([_OPERANDS[one] for one in operands])
            yield Variant(
                f"{words} to {name}",
                within=lambda p, operands=operands, change=change: p.having(  # type: ignore[misc]
                    **{one: change(getattr(p, one)) for one in operands}
                ),
                sums=0.0 if name == "float32" else UNITS["float32"],
                advice=_NARROW.format(name) + _OR_TF32 * (name == "float16"),
            )


_NARROW = (
    "look for an array or a constant of a narrower type (astype, np.float32, a default dtype); if it is meant so, give "
    "precision='{0}' (--precision {0})"
)

_OR_TF32 = ", or 'tf32', whose digits are as many"

_OPERANDS = {"x": "the input", "v": "the cotangent", "w": "the weight", "bias": "the bias"}


def narrowed_result(problem: Problem) -> Variants:
    """Round the gradient, or the output, to a narrower type."""
    for name, change in _ROUNDED.items():
        yield Variant(f"to {name}", after=change)


@np.errstate(over="ignore")
def _as_type(array: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    return array.astype(dtype).astype(np.float64)


def _as_bfloat16(array: np.ndarray) -> np.ndarray:
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


_ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": partial(_as_type, dtype=np.float32),
    "float16": partial(_as_type, dtype=np.float16),
    "bfloat16": _as_bfloat16,
}


def missing_slope(problem: Problem) -> Variants:
    """Leave out the slope of the loss, or use another."""
    if problem.unsloped is None or problem.output is None:
        return
    unsloped, output = problem.unsloped, problem.output
    yield Variant("", lambda p: p.having(v=unsloped))
    yield Variant("it is multiplied twice", lambda p: p.having(v=_twice(p.v, unsloped)))
    yield Variant("a relu's mask is taken of the cotangent", lambda p: p.having(v=unsloped * (unsloped > 0)))
    yield Variant("1 - z^2 of the output itself is used", lambda p: p.having(v=unsloped * (1 - output**2)))
    yield Variant("it is taken at tanh(z)", lambda p: p.having(v=unsloped * (1 - np.tanh(np.tanh(output)) ** 2)))
    if problem.x.shape == output.shape:
        yield Variant("a relu's mask is taken of the input", lambda p: p.having(v=unsloped * (p.x > 0)))


def _twice(sloped: np.ndarray, unsloped: np.ndarray) -> np.ndarray:
    """Return a cotangent times the slope that has been multiplied already."""
    return np.divide(sloped**2, unsloped, out=np.zeros_like(sloped), where=unsloped != 0)


def activated(problem: Problem) -> Variants:
    """Return the output after an activation."""
    for name, (change, slope) in _ACTIVATIONS.items():
        yield Variant(f"it is {name}", after=change, slope=slope)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def _leaky(low: float) -> tuple[_Elementwise, _Elementwise]:
    return lambda z: np.where(z > 0, z, low * z), lambda z: np.where(z > 0, 1.0, low)


_Elementwise = Callable[[np.ndarray], np.ndarray]

_ACTIVATIONS: dict[str, tuple[_Elementwise, _Elementwise]] = {
    "relu(z)": _leaky(0.0),
    "tanh(z)": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "z^2 / 2": (lambda z: z**2 / 2, lambda z: z),
    "sigmoid(z)": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "z sigmoid(z)": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))),
    "a leaky relu of slope 0.01": _leaky(0.01),
    "a leaky relu of slope 0.1": _leaky(0.1),
    "a leaky relu of slope 0.2": _leaky(0.2),
}
"""Activations of an output z, and their slopes."""
