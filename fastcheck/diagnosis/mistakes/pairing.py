"""Groups and samples that meet other groups' and samples' arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.diagnosis.mistakes.variant import Variant, Variants
from fastcheck.diagnosis.problem import SPACE, Problem


def wrong_groups(problem: Problem) -> Variants:
    """Pair groups of filters with other groups' channels."""
    groups = len(problem.w)
    if groups == 1:
        return
    for name, words in (("x", "input"), ("v", "cotangent"), ("w", "kernel")):
        axis = 0 if name == "w" else 1
        for detail, change in _REGROUPED.items():
            yield Variant(
                f"{detail}, in the {words}",
                lambda p, name=name, axis=axis, change=change: p.having(**{name: change(getattr(p, name), axis)}),  # type: ignore[misc]
            )


def _interleaved(array: np.ndarray, axis: int) -> np.ndarray:
    """Take channel i for one of group i % groups."""
    shape = array.shape
    other = (*shape[:axis], shape[axis + 1], shape[axis], *shape[axis + 2 :])
    return array.reshape(other).swapaxes(axis, axis + 1)


def _deinterleaved(array: np.ndarray, axis: int) -> np.ndarray:
    return array.swapaxes(axis, axis + 1).reshape(array.shape)


def _first_for_all(array: np.ndarray, axis: int) -> np.ndarray:
    first = np.take(array, [0], axis)
    return np.broadcast_to(first, array.shape)


_REGROUPED: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "the first group is used for all": _first_for_all,
    "groups are in the opposite order": np.flip,
    "groups are one further": lambda array, axis: np.roll(array, 1, axis),
    "groups are one behind": lambda array, axis: np.roll(array, -1, axis),
    "channels of groups are interleaved": _interleaved,
    "interleaved channels are taken apart": _deinterleaved,
}


def ignored_groups(problem: Problem) -> Variants:
    """Let all filters count for every channel."""
    groups, filters, channels, *taps = problem.w.shape
    if groups > 1 and not problem.transposed:

        def before(p: Problem) -> Problem:
            v = p.v.reshape(len(p.v), 1, groups * filters, *p.v.shape[SPACE:])
            w = p.w.reshape(1, groups * filters, channels, *taps)
            return p.having(
                v=np.broadcast_to(v, (len(v), groups, *v.shape[2:])), w=np.broadcast_to(w, (groups, *w.shape[1:]))
            )

        yield Variant(before=before)


def first_cotangent_for_all(problem: Problem) -> Variants:
    """Use one sample's cotangent, or input, for all samples."""
    if len(problem.v) > 1:
        for name, words in (("v", "cotangent"), ("x", "input")):
            for kept, which in ((0, "first"), (-1, "last")):
                yield Variant(
                    f"the {words} of the {which}",
                    lambda p, name=name, kept=kept: p.having(  # type: ignore[misc]
                        **{name: np.broadcast_to(getattr(p, name)[kept], getattr(p, name).shape)}
                    ),
                )


def mixed_outputs(problem: Problem) -> Variants:
    """Return the mean or the sum over the samples, or one sample's output for all."""
    if len(problem.v) > 1:
        for detail, change in _RESAMPLED.items():
            yield Variant(detail, after=change, whole=True)


_RESAMPLED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all samples have their mean": lambda z: np.broadcast_to(z.mean(axis=0), z.shape),
    "all samples have their sum": lambda z: np.broadcast_to(z.sum(axis=0), z.shape),
    "all samples have the output of the first": lambda z: np.broadcast_to(z[0], z.shape),
    "all samples have the output of the last": lambda z: np.broadcast_to(z[-1], z.shape),
    "samples are in the opposite order": lambda z: z[::-1],
}


def summed_groups(problem: Problem) -> Variants:
    """Let every filter meet the channels of all groups."""
    if len(problem.w) > 1:
        yield Variant(before=lambda p: p.having(x=np.broadcast_to(p.x.sum(axis=1, keepdims=True), p.x.shape)))


def mixed_channels(problem: Problem) -> Variants:
    """Use one channel of the input, or the sum of all, for every channel of a group."""
    if problem.w.shape[2] > 1 and not problem.transposed:
        for detail, change in _RECHANNELED.items():

            def before(p: Problem, change: Callable[[np.ndarray], np.ndarray] = change) -> Problem:
                return p.having(x=np.broadcast_to(change(p.x), p.x.shape))

            yield Variant(detail, before)


_RECHANNELED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the first is used for all": lambda x: x[:, :, :1],
    "the last is used for all": lambda x: x[:, :, -1:],
    "their sum is used for all": lambda x: x.sum(axis=2, keepdims=True),
    "they are in the opposite order": lambda x: x[:, :, ::-1],
}
