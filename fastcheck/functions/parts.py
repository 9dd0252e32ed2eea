"""Complex arrays as pairs of real ones, "x.real" and "x.imag", which are moved, differenced and judged like any other.

A complex gradient has two conventions. PyTorch's is dL/d(re) + i dL/d(im): the direction in which the loss L rises.
JAX's is its conjugate, for cotangents as well. Both return the gradient of the same L, so that a change of convention
changes the signs of imaginary parts, going in and coming out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.arrays import Floating, as_array, floating, is_complex
from fastcheck.common.errors import FastcheckError
from fastcheck.functions.state import Arrays

CONVENTIONS = ("torch", "jax")
"""Conventions of complex gradients, by the library whose autograd returns them."""

_REAL, _IMAG = ".real", ".imag"


@dataclass(frozen=True)
class Parts:
    """The real arrays that stand for arrays as the user has them, by name.

    Attributes
    ----------
    of : dict of str to tuple of str
        By the user's name: that name alone, or those of the real and the imaginary part.
    """

    of: dict[str, tuple[str, ...]]

    @classmethod
    def named(cls, names: Iterable[str], complex: Iterable[str]) -> Parts:
        """Name the parts of arrays, some of which are complex; refuse the name of a part for another array."""
        of: dict[str, tuple[str, ...]] = {
            name: (name + _REAL, name + _IMAG) if name in complex else (name,) for name in names
        }
        for name, parts in of.items():
            for part in parts:
                if part != name and part in of:
                    raise FastcheckError(f"{part!r} is the real or imaginary part of {name!r}: expected another name")
        return cls(of)

    def whole(self, part: str) -> tuple[str, str]:
        """Return the user's name for the array of a part, and what is to be added to it: nothing, or ".real"."""
        return next((name, part[len(name) :]) for name, parts in self.of.items() if part in parts)

    def split(self, name: str, label: str, value: Any, declared: str | None = None) -> dict[str, Floating]:
        """Read an array as its parts; refuse a complex one where a real one is expected.

        Parameters
        ----------
        name : str
        label : str
            The user's name for ``value``.
        value : array
        declared : str, optional
            The precision that the user declares.
        """
        parts = self.of[name]
        if len(parts) == 1:
            if is_complex(value):
                raise FastcheckError(f"{label} is complex: expected real numbers, as {name} has them; take its .real")
            return {name: floating(label, value, declared)}
        array = as_array(label, value)
        if array.dtype.kind != "c":
            real = floating(label, value, declared)
            return dict(zip(parts, (real, real._replace(values=np.zeros_like(real.values))), strict=True))
        return {part: floating(label, one) for part, one in zip(parts, (array.real, array.imag), strict=True)}

    def joined(self, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return an array as the user has it, of its parts."""
        parts = self.of[name]
        if len(parts) == 1:
            return arrays[name]
        real, imag = (arrays[part] for part in parts)
        made = np.empty(real.shape, np.complex128)
        made.real, made.imag = real, imag  # a sum would round, and lose signs of zeros
        return made

    def conjugated(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return parts of the conjugates of arrays: imaginary parts change their sign."""
        imaginary = {parts[1] for parts in self.of.values() if len(parts) == 2}
        return {name: -array if name in imaginary else array for name, array in arrays.items()}
