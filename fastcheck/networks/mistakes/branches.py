"""Wrong backward passes where branches meet or part, and where entries are put in another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.networks.mistakes.row import Carried, Carry, Row, back


def dropped(place: int) -> Carry:
    """Return the mistake that hands nothing back to one input of a sum or a concatenation."""
    return _branch(place, lambda array: np.zeros_like(array))


def doubled(place: int) -> Carry:
    """Return the mistake that counts one branch twice."""
    return _branch(place, lambda array: 2 * array)


def _branch(place: int, change: Callable[[np.ndarray], np.ndarray]) -> Carry:
    def carry(row: Row) -> Carried | None:
        if row.node.kind not in ("add", "concat"):
            return None
        return Carried(tuple(change(one) if at == place else one for at, one in enumerate(row.right)))

    return carry


def averaged(row: Row) -> Carried | None:
    """Divide the cotangent by the number of branches."""
    if row.node.kind != "add" or not row.is_last_of_layer:
        return None
    count = 1 + len(row.layer.others())
    return Carried(tuple(one / count for one in row.right))


def exchanged(row: Row) -> Carried | None:
    """Split the cotangent of a concatenation in the reversed order."""
    if row.node.kind != "concat":
        return None
    cut = len(row.right[1])
    return Carried((row.v[cut:], row.v[:cut]))


def not_read(row: Row) -> Carried | None:
    """Hand nothing back to an input that other layers read too: their cotangents are assigned, not added."""
    readers = row.passes.program.readers()
    if row.node.kind in ("add", "concat") or row.sources[0] == 0 or len(readers[row.sources[0]]) < 2:
        return None
    return back(np.zeros_like(row.right[0]))


def read_twice(row: Row) -> Carried | None:
    """Count what a layer hands back to an input that other layers read too twice."""
    readers = row.passes.program.readers()
    if row.node.kind in ("add", "concat") or row.sources[0] == 0 or len(readers[row.sources[0]]) < 2:
        return None
    return back(2 * row.right[0])


def channels_last(row: Row) -> Carried | None:
    """Take the flat cotangent for channels-last."""
    return _unflattened(row, lambda rank: (*range(1, rank), 0))


def axes_reversed(row: Row) -> Carried | None:
    """Take the flat cotangent for one with all axes reversed (Fortran's order)."""
    return _unflattened(row, lambda rank: tuple(reversed(range(rank))))


def space_transposed(row: Row) -> Carried | None:
    """Take the flat cotangent for one with its last two axes exchanged."""
    return _unflattened(row, lambda rank: (*range(rank - 2), rank - 1, rank - 2) if rank > 2 else None)


def samples_last(row: Row) -> Carried | None:
    """Reshape all data points' cotangents at once, in the wrong order."""
    channels, pixels, points = row.x.shape
    flat = row.v.reshape(-1, points)
    return back(flat.T.reshape(-1).reshape(channels, pixels, points))


def _unflattened(row: Row, order: Callable[[int], tuple[int, ...] | None]) -> Carried | None:
    """Return the cotangent put into the input's shape as if its entries were in another order of axes."""
    shape = row.shape_of(row.sources[0])
    axes = order(len(shape))
    if axes is None or row.node.kind != "flatten":
        return None
    points = row.v.shape[2]
    wrong = row.v.reshape(*(shape[axis] for axis in axes), points)
    back_to = [*np.argsort(axes), len(shape)]
    return back(wrong.transpose(back_to).reshape(shape[0], -1, points))


def softmax_diagonal(row: Row) -> Carried:
    """Keep s (1 - s) of a softmax's Jacobian."""
    return back(row.output * (1 - row.output) * row.v)


def softmax_without_sum(row: Row) -> Carried:
    """Keep s v, with the sum held constant."""
    return back(row.output * row.v)


def softmax_passes(row: Row) -> Carried:
    """Pass the cotangent on as it is."""
    return back(row.v.copy())


def softmax_sum_only(row: Row) -> Carried:
    """Forget the factor s of a softmax's Jacobian."""
    return back(row.v - (row.output * row.v).sum(axis=0, keepdims=True))


def log_softmax(row: Row) -> Carried:
    """Hand back what a log-softmax does."""
    return back(row.v - row.output * row.v.sum(axis=0, keepdims=True))


def softmax_over(axis: int) -> Carry:
    """Return the mistake of a softmax over pixels (1) or samples (2)."""

    def carry(row: Row) -> Carried | None:
        if row.x.shape[axis] == 1:
            return None
        size = np.exp(row.x - row.x.max(axis=axis, keepdims=True))
        s = size / size.sum(axis=axis, keepdims=True)
        return back(s * (row.v - (s * row.v).sum(axis=axis, keepdims=True)))

    return carry
