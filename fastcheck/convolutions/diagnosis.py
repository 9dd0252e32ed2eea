"""The diagnosis of a forward pass that differs from the declared convolution: the bug's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.convolutions.geometry import ConvGeometry

Convolve = Callable[[ConvGeometry, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A forward pass: takes a geometry, input, weight and bias."""

_EXPLAINED = 1e-4
"""A variant explains a mismatch if it leaves less than this fraction of it."""


def of_forward(
    geometry: ConvGeometry,
    operands: tuple[np.ndarray, np.ndarray, np.ndarray],
    declared: np.ndarray,
    computed: np.ndarray,
    convolve: Convolve,
) -> dict[str, str]:
    """Name the mistake that would turn the computed output into the declared one.

    Parameters
    ----------
    geometry : ConvGeometry
    operands : tuple of float64 arrays
        Input, weight and bias.
    declared, computed : float64 arrays
        The output that the case declares, and the one that its geometry gives.
    convolve : callable

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
    return {
        "bug": "the declared output is not that of this convolution",
        "evidence": f"the difference is {where}",
        "try": "check stride, padding, dilation, groups and the order of the axes (N, C, then space)",
    }


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
    yield (
        "the kernel is flipped (a convolution, not a cross-correlation)",
        lambda: convolve(geometry, x, np.ascontiguousarray(np.flip(w, spatial)), b),
        "flip the weight along its spatial axes, or do not flip it in the forward pass",
    )
    if geometry.rank > 1 and len(set(w.shape[2:])) == 1:
        yield (
            "the kernel's spatial axes are transposed",
            lambda: convolve(geometry, x, np.ascontiguousarray(w.transpose(0, 1, *spatial[::-1])), b),
            "check the order of the weight's spatial axes",
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
                "check which side of the input is padded, and by how much",
            )
