"""The diagnosis of a forward pass that differs from the declared convolution: the bug's name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.precision import PRECISIONS
from fastcheck.convolutions.geometry import PADDING_MODES, ConvGeometry

Convolve = Callable[[ConvGeometry, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A forward pass: takes a geometry, input, weight and bias."""

_EXPLAINED = 1e-4
"""A variant explains a mismatch if it leaves less than this fraction of it."""

_MOST_ROUNDED = 1 / 4
"""Rounding in a coarser type shows in at least this fraction of all outputs that are not zero; a mistake may not."""


class Rounding(NamedTuple):
    """The rounding that was expected of a declared output, and what other precisions would do.

    Attributes
    ----------
    precision : str
        Precision of the declared output.
    bar : callable
        Takes a precision; returns the most that its rounding explains, for each output.
    """

    precision: str
    bar: Callable[[str], np.ndarray]


def of_forward(
    geometry: ConvGeometry,
    operands: tuple[np.ndarray, np.ndarray, np.ndarray],
    declared: np.ndarray,
    computed: np.ndarray,
    convolve: Convolve,
    rounding: Rounding,
) -> dict[str, str]:
    """Name the mistake, or the rounding, that would turn the computed output into the declared one.

    Parameters
    ----------
    geometry : ConvGeometry
    operands : tuple of float64 arrays
        Input, weight and bias.
    declared, computed : float64 arrays
        The output that the case declares, and the one that its geometry gives.
    convolve : callable
    rounding : Rounding

    Returns
    -------
    dict
        "bug", "evidence" and "try".
    """
    # Arrays are scaled to one before their norms are taken: squares of 1e160 or 1e-170 would leave float64.
    size = max(float(np.abs(declared).max()), float(np.abs(computed).max()))

    def norm(difference: np.ndarray) -> float:
        return float(np.linalg.norm((difference / size).ravel()))

    def factor() -> float:
        a, b = declared / size, computed / size
        return float(np.vdot(b, a) / np.vdot(b, b)) if b.any() else 0.0

    gap = norm(declared - computed)
    index = index_of(int(np.argmax(np.abs(declared / size - computed / size))), declared.shape)
    where = f"largest at index {list(index)}: declared {declared[index]:.6g}, computed {computed[index]:.6g}"
    for bug, variant, advice in _variants(geometry, operands, computed, convolve):
        left = norm(declared - variant())
        if left <= _EXPLAINED * gap:
            return {
                "bug": bug,
                "evidence": f"this explains all but {left / gap:.1e} of the difference, {where}",
                "try": advice,
            }
    scale = factor()
    if norm(declared - scale * computed) <= _EXPLAINED * gap:
        return {
            "bug": f"the output is scaled by {scale:.6g}",
            "evidence": f"the difference is {where}",
            "try": "look for a mean in place of a sum, or a factor applied twice",
        }
    coarser = _rounded_in(declared, computed, rounding)
    if coarser:
        return {
            "bug": f"the output differs as rounding in {coarser} would, and {rounding.precision} was expected",
            "evidence": f"{coarser} explains all of the difference, {where}",
            "try": f"if it was computed so, give precision='{coarser}' (--precision {coarser})",
        }
    return {
        "bug": "the declared output is not that of this convolution",
        "evidence": f"the difference is {where}",
        "try": f"check {_parameters(geometry)} and the order of the axes (N, C, then space)",
    }


def _parameters(geometry: ConvGeometry) -> str:
    return f"stride, padding, {'output_padding, ' * geometry.transposed}dilation, groups"


def _rounded_in(declared: np.ndarray, computed: np.ndarray, rounding: Rounding) -> str | None:
    """Return the finest precision coarser than the expected one whose rounding explains all differences."""
    apart = np.abs(declared - computed)
    differing = np.count_nonzero(apart > rounding.bar(rounding.precision))
    if differing < _MOST_ROUNDED * np.count_nonzero(computed):
        return None
    largest = np.abs(computed).max()
    for name in PRECISIONS[PRECISIONS.index(rounding.precision) + 1 :]:
        bar = rounding.bar(name)
        if (apart <= bar).all() and np.median(bar) < largest:  # below, anything would do
            return name
    return None


def _variants(
    geometry: ConvGeometry,
    operands: tuple[np.ndarray, np.ndarray, np.ndarray],
    computed: np.ndarray,
    convolve: Convolve,
) -> Iterator[tuple[str, Callable[[], np.ndarray], str]]:
    """Yield likely mistakes: the name, a function that returns the output with it, and what to try."""
    x, w, b = operands
    spread = b.reshape(1, -1, *(1,) * geometry.rank)
    spatial = tuple(range(2, 2 + geometry.rank))
    if b.any():
        yield "the bias is missing", lambda: computed - spread, "add the bias, or leave it out of the case"
        yield "the bias is added twice", lambda: computed + spread, "add the bias once"
    flipped = "the kernel is flipped"
    yield (
        flipped if geometry.transposed else f"{flipped} (a convolution, not a cross-correlation)",
        lambda: convolve(geometry, x, np.ascontiguousarray(np.flip(w, spatial)), b),
        "flip the weight along its spatial axes, or do not flip it in the forward pass",
    )
    if geometry.rank > 1 and len(set(w.shape[2:])) == 1:
        yield (
            "the kernel's spatial axes are transposed",
            lambda: convolve(geometry, x, np.ascontiguousarray(w.transpose(0, 1, *spatial[::-1])), b),
            "check the order of the weight's spatial axes",
        )
    for mode in () if geometry.transposed or not any(map(any, geometry.padding)) else PADDING_MODES:
        if mode != geometry.padding_mode:
            other = replace(geometry, padding_mode=mode)
            yield (
                f"the padding is that of padding_mode {mode!r}, not {geometry.padding_mode!r}",
                lambda other=other: convolve(other, x, w, b),  # type: ignore[misc]
                f"give padding_mode={mode!r}, or pad otherwise in the forward pass",
            )
    same = None if geometry.transposed else _tensorflows_same(geometry)
    if same not in (None, geometry.padding):
        other = replace(geometry, padding=same)
        yield (
            f'the padding is TensorFlow\'s "SAME", {same}',
            lambda: convolve(other, x, w, b),
            f"give padding={same}",
        )
    for axis in range(geometry.rank):
        for shift in (-1, 1):
            low, high = geometry.padding[axis]
            if low + shift < 0 or high - shift < 0:
                continue
            sides = [*geometry.padding]
            sides[axis] = (low + shift, high - shift)
            shifted = replace(geometry, padding=tuple(sides))
            yield (
                f"the padding along {geometry.axis_names[2 + axis]} is off by one "
                f"({low + shift} before and {high - shift} after)",
                lambda shifted=shifted: convolve(shifted, x, w, b),  # type: ignore[misc]
                f"check which side of the {'output is cropped' if geometry.transposed else 'input is padded'}, and by "
                "how much",
            )


def _tensorflows_same(geometry: ConvGeometry) -> tuple[tuple[int, int], ...] | None:
    """Return the padding with which TensorFlow divides sizes by the stride, where the outputs have such sizes."""
    sides = []
    for axis, (size, out) in enumerate(zip(geometry.input_shape[2:], geometry.output_shape[2:], strict=True)):
        stride, taps = geometry.stride[axis], geometry.weight_shape[2 + axis]
        if out != math.ceil(size / stride):
            return None
        total = max(0, (out - 1) * stride + geometry.dilation[axis] * (taps - 1) + 1 - size)
        sides.append((total // 2, total - total // 2))
    return tuple(sides)
