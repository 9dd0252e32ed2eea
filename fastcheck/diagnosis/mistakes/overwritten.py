"""Windows whose shares are assigned where they should be added."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import Executor
from functools import partial

import numpy as np

from fastcheck.diagnosis.mistakes.variant import Variant, Variants
from fastcheck.diagnosis.problem import SPACE, Problem, folded, in_space


def overwritten_windows(problem: Problem) -> Variants:
    """Assign a window's share of the input gradient where it should be added."""
    if not problem.transposed and overlap(problem):  # a transposed one gathers, and writes every entry once
        for last in (True, False):
            which = "last" if last else "first"
            yield Variant(f"the {which} window that meets an entry wins", gradient=partial(_winning, last=last))
            if problem.v.shape[2] > 1:
                yield Variant(
                    f"the {which} filter's {which} window wins",
                    lambda p, last=last: p.having(  # type: ignore[misc]
                        v=p.v[:, :, -1:] if last else p.v[:, :, :1], w=p.w[:, -1:] if last else p.w[:, :1]
                    ),
                    gradient=partial(_winning, last=last),
                )


def overwritten_outputs(problem: Problem) -> Variants:
    """Assign a window's share of a transposed convolution's output where it should be added."""
    if problem.transposed and overlap(problem):
        for last, which in ((True, "last"), (False, "first")):
            yield Variant(f"the {which} window that meets an entry wins", gradient=partial(_winning, last=last))


def overlap(problem: Problem) -> bool:
    """Tell whether two windows meet one entry of the input, with two taps."""
    axes = zip(problem.stride, problem.dilation, problem.taps, problem.small.shape[SPACE:], strict=True)
    apart = ((math.lcm(s, d), s, d, k, windows) for s, d, k, windows in axes)
    return any(both // d < k and both // s < windows for both, s, d, k, windows in apart)


def _winning(problem: Problem, tensor: str, pool: Executor, last: bool) -> np.ndarray:
    """Return the big array to which one window alone contributes at each position: input gradient, or output."""
    found = np.zeros(problem.big.shape)
    tables = [_winners(problem, axis, last) for axis in range(problem.rank)]
    for tap in itertools.product(*map(range, problem.taps)):
        places, windows = zip(*(table[k] for table, k in zip(tables, tap, strict=True)), strict=True)
        v = problem.small[in_space(np.ix_(*windows))]
        w = problem.w.reshape(*problem.w.shape[:SPACE], -1)[..., np.ravel_multi_index(tap, problem.taps)]
        met = np.matmul(w.swapaxes(1, 2), v.reshape(*v.shape[:SPACE], -1))
        found[in_space(np.ix_(*places))] = met.reshape(*found.shape[:SPACE], *v.shape[SPACE:])
    return found + problem.bias if tensor == "output" else folded(problem, found)


def _winners(problem: Problem, axis: int, last: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each tap of an axis, the positions whose winning window meets them with it, and these windows."""
    stride, dilation, low = problem.stride[axis], problem.dilation[axis], problem.low[axis]
    size, windows = problem.big.shape[SPACE + axis], problem.small.shape[SPACE + axis]
    winner: dict[int, tuple[int, int]] = {}
    for window in range(windows) if last else reversed(range(windows)):
        for tap in range(problem.taps[axis]):
            winner[stride * window + dilation * tap - low] = window, tap
    tables: list[list[tuple[int, int]]] = [[] for _ in range(problem.taps[axis])]
    for place, (window, tap) in winner.items():
        if 0 <= place < size:
            tables[tap].append((place, window))
    return [tuple(np.array(one, dtype=np.int64).reshape(-1, 2).T) for one in tables]  # type: ignore[misc]
