"""The choice of dimensions to check: all of a tensor's, or a seeded, stratified sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from fastcheck.common.arguments import LARGEST, Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, offered, shown

Dims = Literal["auto", "all"] | int | Mapping[str, Literal["auto", "all"] | int]

AUTO_WORK = 2e10
"""Multiply-adds that ``dims="auto"`` may spend on a tensor before it samples: seconds on one core."""

AUTO_SAMPLE = 1024
"""Least number of dimensions of a tensor that ``dims="auto"`` samples where it cannot take all (see `_automatic`)."""


def choose(dims: Any, shapes: Mapping[str, Shape], work: Mapping[str, int], seed: int) -> dict[str, np.ndarray | range]:
    """Choose the dimensions of every tensor.

    Parameters
    ----------
    dims : "auto", "all", int, or a mapping of tensor names to these
        A single number is the total for all tensors. It is spread over them evenly, and what a small tensor cannot take
        goes to the others.
    shapes : mapping of str to tuple of int
    work : mapping of str to int
        Multiply-adds of one dimension of each tensor.
    seed : int

    Returns
    -------
    dict of str to int64 array or range
        Flat indices in ascending order; a range where all are taken.

    Raises
    ------
    FastcheckError
        If ``dims`` is none of these.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = counts(dims, sizes, work)
    chosen: dict[str, np.ndarray | range] = {name: range(size) for name, size in sizes.items()}
    for position, (name, shape) in enumerate(shapes.items()):
        if wanted[name] >= sizes[name]:
            continue
        rng = np.random.default_rng([seed, position])
        # The bias continues through the filters where the weight stopped, so that together they include the most.
        first = wanted.get("weight", 0) if name == "bias" else 0
        chosen[name] = stratified(shape, wanted[name], rng, filters=_filter_order(shapes, seed), first=first)
    return chosen


def _filter_order(shapes: Mapping[str, Shape], seed: int) -> np.ndarray | None:
    filters = next((shapes[name][0] for name in ("weight", "bias") if shapes.get(name)), 0)
    return np.random.default_rng([seed, filters]).permutation(filters)


def counts(dims: Any, sizes: Mapping[str, int], work: Mapping[str, int]) -> dict[str, int]:
    """Return the number of dimensions to take of each tensor; arguments as in `choose`, with sizes for shapes."""
    if isinstance(dims, Mapping):
        for name in dims:
            if name not in sizes:
                raise FastcheckError(f"dims names {name!r}{nearest(name, sizes)}: expected {offered(sizes)}")
        return {name: _count(dims.get(name, "auto"), sizes[name], work[name]) for name in sizes}
    if isinstance(dims, str):
        return {name: _count(dims, sizes[name], work[name]) for name in sizes}
    return _spread(_number(dims), sizes)


def _number(dims: Any) -> int:
    if isinstance(dims, bool) or not isinstance(dims, (int, np.integer)) or not 1 <= dims < LARGEST:
        raise FastcheckError(f"dims is {shown(dims)}: expected 'all', 'auto' or a number from 1 to {LARGEST - 1}")
    return int(dims)


def _count(dims: Any, size: int, work: int) -> int:
    if dims == "all":
        return size
    if dims == "auto":
        return _automatic(size, work)
    return min(_number(dims), size)


def _automatic(size: int, work: int) -> int:
    if size * work <= AUTO_WORK:
        return size
    return min(size, max(AUTO_SAMPLE, int(AUTO_WORK // max(work, 1)) // 4))


def _spread(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Give every tensor an even share of a total; what is left over goes to the weight first."""
    shares = dict.fromkeys(sizes, 0)
    order = sorted(sizes, key=lambda name: (name != "weight", name))
    left = min(total, sum(sizes.values()))
    while left:
        with_room = [name for name in order if shares[name] < sizes[name]]
        share = max(1, left // len(with_room))
        for name in with_room:
            given = min(share, sizes[name] - shares[name], left)
            shares[name] += given
            left -= given
    return shares


def stratified(
    shape: Sequence[int], count: int, rng: np.random.Generator, filters: np.ndarray | None = None, first: int = 0
) -> np.ndarray | range:
    """Draw flat indices so that few of them cover much: every entry of axes 0 and 1, and every border position.

    Parameters
    ----------
    shape : sequence of int
        Axes 0 and 1 (filters and channels, or samples and channels), then spatial axes (taps, or pixels).
    count : int
        Number of indices to draw, at most the size.
    rng : Generator
    filters : int array, optional
        Order in which to visit axis 0, used where its length fits.
    first : int
        Position in that order at which to start.

    Returns
    -------
    int64 array, shape (count,), or range
        Distinct, in ascending order.
    """
    size = math.prod(shape)
    if count >= size:
        return range(size)
    rows = shape[0]
    columns = shape[1] if len(shape) > 1 else 1
    spatial = tuple(shape[2:])
    positions = _positions(spatial, count, rng)
    row_order = filters if filters is not None and len(filters) == rows else rng.permutation(rows)
    column_order = rng.permutation(columns)
    j = np.arange(count)
    # Each axis is walked in its own cycle. A completed cycle shifts the next axis: otherwise, axes of equal length
    # would run in step, and draw the same few combinations again and again.
    row = row_order[(first + j) % rows]
    column = column_order[(j + j // rows) % columns]
    position = positions[(j + j // max(rows, columns)) % len(positions)]
    drawn = np.unique((row * columns + column) * math.prod(spatial) + position)
    while len(drawn) < count:
        extra = rng.choice(size, size=min(size, 2 * (count - len(drawn))), replace=False)
        fresh = extra[~np.isin(extra, drawn)]
        drawn = np.union1d(drawn, fresh[: count - len(drawn)])
    return drawn.astype(np.int64)


def _positions(spatial: tuple[int, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Return spatial positions in order of use: up to three quarters of the draws take borders, which touch padding."""
    if not spatial:
        return np.arange(1)
    first = rng.permutation(_border(spatial))[: max(1, 3 * count // 4)]
    rest = np.delete(np.arange(math.prod(spatial)), first)
    return np.concatenate([first, rng.permutation(rest)[:count]])


@lru_cache(maxsize=64)
def _border(spatial: tuple[int, ...]) -> np.ndarray:
    """Return the flat indices of positions at an end of an axis longer than one; the array is shared, so read-only."""
    inside = np.zeros(spatial, dtype=bool)
    inside[tuple(slice(1, -1) if size > 1 else slice(None) for size in spatial)] = True
    return np.flatnonzero(~inside)
