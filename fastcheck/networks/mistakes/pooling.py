"""Wrong backward passes of pooling layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fastcheck.networks.layers import AvgPool, MaxPool
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back


def _lookup(row: Row) -> np.ndarray:
    """Return the input pixel of every tap and output pixel, -1 in the padding."""
    assert row.node.lookup is not None
    return row.node.lookup


def _windows(row: Row, padding: float) -> np.ndarray:
    """Return the entries of all windows: (channels, taps, output pixels, points)."""
    lookup = _lookup(row)
    entries: np.ndarray = np.where((lookup >= 0)[None, :, :, None], row.x[:, lookup], padding)
    return entries


def _scattered(row: Row, shares: np.ndarray) -> Carried:
    """Return every window's cotangent, times the share of each of its taps, added up at the input's pixels."""
    lookup, out = _lookup(row), np.zeros_like(row.x)
    for tap, pixels in enumerate(lookup):
        inside = pixels >= 0
        part = (shares[:, tap] * row.v)[:, inside]
        np.add.at(out.swapaxes(0, 1), pixels[inside], part.swapaxes(0, 1))
    return back(out)


def _one_tap(row: Row, chosen: np.ndarray) -> Carried:
    """Return the cotangents given to one tap of each window."""
    taps = len(_lookup(row))
    return _scattered(row, (np.arange(taps)[None, :, None, None] == chosen[:, None]).astype(np.float64))


def all_ties(row: Row) -> Carried:
    """Give a window's cotangent to each of several largest entries."""
    windows = _windows(row, -np.inf)
    return _scattered(row, (windows == windows.max(axis=1, keepdims=True)).astype(np.float64))


def split_ties(row: Row) -> Carried:
    """Divide a window's cotangent among several largest entries."""
    windows = _windows(row, -np.inf)
    largest = windows == windows.max(axis=1, keepdims=True)
    return _scattered(row, largest / largest.sum(axis=1, keepdims=True))


def last_tie(row: Row) -> Carried:
    """Give a window's cotangent to the last of several largest entries."""
    windows = _windows(row, -np.inf)
    return _one_tap(row, windows.shape[1] - 1 - windows[:, ::-1].argmax(axis=1))


def smallest(row: Row) -> Carried:
    """Give a window's cotangent to its smallest entry."""
    return _one_tap(row, _windows(row, np.inf).argmin(axis=1))


def largest_in_size(row: Row) -> Carried:
    """Give a window's cotangent to its entry of the largest size."""
    return _one_tap(row, np.abs(_windows(row, 0.0)).argmax(axis=1))


def second(row: Row) -> Carried | None:
    """Give a window's cotangent to its second largest entry."""
    windows = _windows(row, -np.inf)
    return None if windows.shape[1] < 2 else _one_tap(row, windows.argsort(axis=1, kind="stable")[:, -2])


def first_entry(row: Row) -> Carried:
    """Give a window's cotangent to its first entry, if that is not padding."""
    return _one_tap(row, np.zeros_like(row.v, np.int64))


def last_entry(row: Row) -> Carried:
    """Give a window's cotangent to its last entry, if that is not padding."""
    return _one_tap(row, np.full_like(row.v, len(_lookup(row)) - 1, dtype=np.int64))


def everywhere(row: Row) -> Carried:
    """Give a window's cotangent to all of its entries, undivided."""
    return _scattered(row, np.ones((1, len(_lookup(row)), 1, 1)))


def averaged(row: Row) -> Carried:
    """Give every entry of a window the same share of its cotangent, padding included."""
    taps = len(_lookup(row))
    return _scattered(row, np.full((1, taps, 1, 1), 1 / taps))


def averaged_beyond(row: Row) -> Carried | None:
    """Divide by the whole window where that reaches beyond the padding."""
    return averaged(row) if getattr(row.layer, "ceil_mode", False) else None


def averaged_twice(row: Row) -> Carried:
    """Divide by the size of the window twice."""
    shares = np.broadcast_to(row.node.reals**2, (row.node.columns["pixels"],))
    return _scattered(row, np.broadcast_to(shares[None, None, :, None], (1, *_lookup(row).shape, 1)))


def averaged_with_padding(row: Row) -> Carried | None:
    """Count what an average should not count, or leave out what it should."""
    layer = row.layer
    if not isinstance(layer, AvgPool):
        return None
    other = replace(layer, count_include_pad=not layer.count_include_pad)
    geometry = other.counted(row.shape_of(row.sources[0]))
    counts = np.ones(())
    for axis, size in enumerate(geometry.output_shape[2:]):
        along = np.arange(size) * geometry.stride[axis] - geometry.padding[axis][0]
        reach = along[:, None] + np.arange(geometry.weight_shape[2 + axis]) * geometry.dilation[axis]
        inside = ((reach >= 0) & (reach < geometry.input_shape[2 + axis])).sum(axis=1)
        counts = np.multiply.outer(counts, inside)
    shares = 1 / np.maximum(counts.reshape(-1), 1)
    return _scattered(row, np.broadcast_to(shares[None, None, :, None], (1, *_lookup(row).shape, 1)))


def overwritten(share: Callable[[Row], np.ndarray], last: bool = True) -> Carry:
    """Return the mistake that assigns each window's part where it should add: the last window, or the first, stays."""

    def carry(row: Row) -> Carried:
        shares, lookup, out = share(row), _lookup(row), np.zeros_like(row.x)
        pixels = range(lookup.shape[1])
        for pixel in pixels if last else reversed(pixels):
            for tap in np.flatnonzero(lookup[:, pixel] >= 0):
                part = np.broadcast_to(shares[:, tap, pixel] * row.v[:, pixel], row.v[:, pixel].shape)
                given = np.broadcast_to(shares[:, tap, pixel] != 0, part.shape)
                out[:, lookup[tap, pixel]][given] = part[given]
        return back(out)

    return carry


def winners(row: Row) -> np.ndarray:
    """Return 1 at each window's first largest entry."""
    windows = _windows(row, -np.inf)
    chosen = windows.argmax(axis=1)
    return (np.arange(windows.shape[1])[None, :, None, None] == chosen[:, None]).astype(np.float64)


def shares(row: Row) -> np.ndarray:
    """Return the share of each entry of an average."""
    own = np.broadcast_to(row.node.reals, (row.node.columns["pixels"],))
    return np.broadcast_to(own[None, None, :, None], (1, *_lookup(row).shape, 1))


def without_windows_beyond(row: Row) -> Carried | None:
    """Leave out the windows that reach beyond the map, which ``ceil_mode`` adds."""
    layer, given = row.layer, row.shape_of(row.sources[0])
    if not isinstance(layer, (MaxPool, AvgPool)) or not layer.ceil_mode:
        return None
    kept = replace(layer, ceil_mode=False).geometry(given).output_shape[2:]
    inside = np.zeros(row.node.shape[1:])
    inside[tuple(map(slice, kept))] = 1
    own = winners(row) if isinstance(layer, MaxPool) else shares(row)
    return _scattered(row, own * inside.reshape(1, 1, -1, 1))
