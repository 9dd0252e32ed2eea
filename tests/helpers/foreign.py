"""Backward passes that others wrote, each with mistakes that one makes in such a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastcheck


@dataclass(frozen=True)
class Foreign:
    """A forward pass, its backward pass, a point, and wrong backward passes by the mistake that they make.

    They are called as `fastcheck.check_vjp` calls them.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: tuple[Any, ...]
    mistakes: Mapping[str, Callable[..., Any]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def judge(self) -> None:
        """Assert that the backward pass is right, without a remark, and that each mistake is found."""
        right = fastcheck.check_vjp(self.forward, self.backward, self.inputs, **self.options)
        assert right.passed, right.summary()
        remarks = [one for one in right.health if one.name != "blind spots"]  # some have a single sample
        assert remarks == [], right.health
        assert self.mistakes
        for name, wrong in self.mistakes.items():
            report = fastcheck.check_vjp(self.forward, wrong, self.inputs, **self.options)
            assert report.verdict == "fail", (name, report.summary())


def normals(*shapes: tuple[int, ...], seed: int = 7) -> tuple[np.ndarray, ...]:
    """Return arrays of normal numbers."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape) for shape in shapes)


def of_two(
    vjp: Callable[[Callable[..., Any]], Callable[..., Any]],
    forward: Callable[[Callable[..., Any]], Callable[..., Any]],
    function: Callable[..., Any],
    other: Callable[..., Any],
    inputs: tuple[Any, ...],
) -> Foreign:
    """Return a function differentiated automatically, and as its mistake what the same gives for another function.

    Parameters
    ----------
    vjp, forward : callable
        Take a function of the library's arrays, and return its backward and its forward pass of NumPy's.
    function, other : callable
    inputs : tuple of arrays
    """
    return Foreign(forward(function), vjp(function), inputs, {"another function": vjp(other)})
