"""What a buggy backward pass does to a problem: the replays that the catalogue names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.naming import listed
from fastcheck.diagnosis.problem import SPACE, Gradient, Problem, folded, gradient

Rearrange = Callable[[Problem], Problem]

NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""The spatial axes in words, by rank."""


def _same(problem: Problem) -> Problem:
    return problem


def _kept(array: np.ndarray) -> np.ndarray:
    return array


@dataclass(frozen=True)
class Variant:
    """One way to make a mistake: four stages, each of which is by default what a right backward pass does.

    Attributes
    ----------
    detail : str
        What tells it from other variants of its hypothesis; may be empty.
    before : callable
        Rearranges the whole problem: samples, groups and channels too. Views where possible.
    within : callable
        Rearranges space alone, so that it works on a part of the problem.
    gradient : callable
    after : callable
        Rearranges the gradient, in space alone unless ``whole``.
    whole : bool
        Whether ``gradient`` or ``after`` works on the whole only.
    """

    detail: str = ""
    before: Rearrange = _same
    within: Rearrange = _same
    gradient: Gradient = gradient
    after: Callable[[np.ndarray], np.ndarray] = _kept
    whole: bool = False


Variants = Iterator[Variant]


def along(problem: Problem, axes: Iterable[int]) -> str:
    """Return the words for some spatial axes; empty for all."""
    chosen = [NAMES[problem.rank][axis] for axis in axes]
    return "" if len(chosen) == problem.rank else f"along {listed(chosen)}"


def subsets(problem: Problem, counts: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, ...]]:
    """Yield all the spatial axes that count, then fewer of them."""
    axes = [axis for axis in range(problem.rank) if counts(axis)]
    for size in range(len(axes), 0, -1):
        yield from itertools.combinations(axes, size)


def _put(values: Shape, axes: Iterable[int], value: Callable[[int], int]) -> Shape:
    chosen = set(axes)
    return tuple(value(axis) if axis in chosen else old for axis, old in enumerate(values))


def _spatial(axes: Iterable[int]) -> tuple[int, ...]:
    return tuple(SPACE + axis for axis in axes)


# The kernel.


def flipped_kernel(problem: Problem) -> Variants:
    """Flip the kernel along axes with several taps."""
    for axes in subsets(problem, lambda axis: problem.taps[axis] > 1):
        yield Variant(
            _only(problem, axes, lambda axis: problem.taps[axis] > 1),
            lambda p, axes=axes: replace(p, w=np.flip(p.w, _spatial(axes))),  # type: ignore[misc]
        )


def _only(problem: Problem, axes: tuple[int, ...], counts: Callable[[int], bool]) -> str:
    """Return the words for axes, where they are not all that count."""
    return "" if len(axes) == sum(map(counts, range(problem.rank))) else f"{along(problem, axes)} only"


def turned_kernel(problem: Problem) -> Variants:
    """Exchange spatial axes of the kernel, and turn it by a quarter."""
    for order in _orders(problem.taps):
        every = (0, 1, 2, *_spatial(order))
        yield Variant("its spatial axes are exchanged", lambda p, every=every: replace(p, w=p.w.transpose(every)))  # type: ignore[misc]
        for axis in order if problem.rank == 2 else ():
            yield Variant(
                "it is turned by 90 degrees",
                lambda p, every=every, axis=axis: replace(p, w=np.flip(p.w.transpose(every), SPACE + axis)),  # type: ignore[misc]
            )


def _orders(sizes: Shape) -> Iterator[tuple[int, ...]]:
    """Yield the other orders of axes that leave sizes as they are; axes of size one tell nothing."""
    for order in itertools.permutations(range(len(sizes))):
        if order != tuple(range(len(sizes))) and tuple(sizes[axis] for axis in order) == sizes:
            if any(sizes[axis] > 1 for axis, old in enumerate(order) if axis != old):
                yield order


def unswapped_channels(problem: Problem) -> Variants:
    """Read the kernel's memory as if its channel axes had been exchanged."""
    groups, filters, channels, *taps = problem.w.shape
    if min(filters, channels) > 1:
        yield Variant(
            before=lambda p: replace(p, w=p.w.reshape(groups, channels, filters, *taps).swapaxes(1, 2)),
        )
        yield Variant(
            "nor is it flipped",
            lambda p: replace(p, w=np.flip(p.w, p.axes).reshape(groups, channels, filters, *taps).swapaxes(1, 2)),
        )


def kernel_memory(problem: Problem) -> Variants:
    """Read the kernel's memory in other orders of axes."""
    groups, filters, channels, *taps = problem.w.shape
    if min(channels, math.prod(taps)) > 1:
        yield Variant(
            "as filters, taps, channels",
            lambda p: replace(p, w=np.moveaxis(p.w.reshape(groups, filters, *taps, channels), -1, 2)),
        )
    if filters > 1 and math.prod(taps) * channels > 1 and groups == 1:
        yield Variant(
            "as taps, channels, filters",
            lambda p: replace(p, w=np.moveaxis(p.w.reshape(1, *taps, channels, filters), (-1, -2), (1, 2))),
        )


# What the weight gradient is made of, and how it is stored.


def flipped_cotangent(problem: Problem) -> Variants:
    """Flip the cotangent in space."""
    return _flipped_operand(problem, "v")


def flipped_input(problem: Problem) -> Variants:
    """Flip the input in space."""
    return _flipped_operand(problem, "x")


def _flipped_operand(problem: Problem, name: str) -> Variants:
    sizes = getattr(problem, name).shape[SPACE:]
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        yield Variant(
            _only(problem, axes, lambda axis: sizes[axis] > 1),
            within=lambda p, axes=axes: p.having(**{name: np.flip(getattr(p, name), _spatial(axes))}),  # type: ignore[misc]
        )


def turned_weight_gradient(problem: Problem) -> Variants:
    """Flip the weight gradient along its taps, or exchange their axes."""
    several = [axis for axis in range(problem.rank) if problem.taps[axis] > 1]
    for axes in subsets(problem, several.__contains__):
        yield Variant(
            f"its taps are flipped {_only(problem, axes, several.__contains__)}".rstrip(),
            after=lambda g, axes=axes: np.flip(g, _spatial(axes)),  # type: ignore[misc]
        )
    for order in _orders(problem.taps):
        yield Variant(
            "its spatial axes are exchanged",
            after=lambda g, order=order: g.transpose(0, 1, 2, *_spatial(order)),  # type: ignore[misc]
        )


def stored_weight_gradient(problem: Problem) -> Variants:
    """Store the weight gradient in the memory of another order of axes."""
    groups, filters, channels, *taps = shape = problem.w.shape
    if min(filters, channels) > 1:
        yield Variant("as channels, filters, taps", after=lambda g: g.swapaxes(1, 2).reshape(shape), whole=True)
        if filters != channels:
            yield Variant(
                "filters and channels are exchanged",
                after=lambda g: g.reshape(groups, channels, filters, *taps).swapaxes(1, 2),
                whole=True,
            )
    if channels > 1 and math.prod(taps) > 1:
        yield Variant("as filters, taps, channels", after=lambda g: np.moveaxis(g, 2, -1).reshape(shape), whole=True)
        yield Variant(
            "filters, taps, channels are taken for filters, channels, taps",
            after=lambda g: np.moveaxis(g.reshape(groups, filters, *taps, channels), -1, 2),
            whole=True,
        )
    if groups == 1 and filters > 1 and channels * math.prod(taps) > 1:
        yield Variant(
            "as taps, channels, filters", after=lambda g: np.moveaxis(g, (1, 2), (-1, -2)).reshape(shape), whole=True
        )


# Stride and dilation.


def missing_stride(problem: Problem) -> Variants:
    """Walk with a stride of one: the cotangent is not dilated."""
    strided = [axis for axis in range(problem.rank) if problem.stride[axis] > 1]
    for axes in subsets(problem, strided.__contains__):
        believed = _put(problem.stride, axes, lambda _: 1)
        detail = _only(problem, axes, strided.__contains__)
        yield Variant(detail, within=partial(replace, stride=believed))
        if any(problem.low[axis] for axis in axes):
            low = _put(problem.low, axes, lambda _: 0)
            yield Variant(
                f"{detail}{', ' * bool(detail)}and neither is the padding there",
                within=partial(replace, stride=believed, low=low),
            )


def repeated_cotangent(problem: Problem) -> Variants:
    """Repeat entries of the small array in place of putting zeros between them."""
    if max(problem.stride) > 1:

        def within(p: Problem) -> Problem:
            small = p.small
            for axis, times in enumerate(p.stride, SPACE):
                small = np.repeat(small, times, axis)
            return replace(p, small=small, stride=(1,) * p.rank)

        yield Variant(within=within)


def exchanged_strides(problem: Problem) -> Variants:
    """Use the stride for the dilation and the dilation for the stride."""
    if problem.stride != problem.dilation:
        yield Variant(within=lambda p: replace(p, stride=p.dilation, dilation=p.stride))


def missing_dilation(problem: Problem) -> Variants:
    """Walk along adjacent taps."""
    dilated = [axis for axis in range(problem.rank) if problem.dilation[axis] > 1]
    for axes in subsets(problem, dilated.__contains__):
        believed = _put(problem.dilation, axes, lambda _: 1)
        yield Variant(_only(problem, axes, dilated.__contains__), within=partial(replace, dilation=believed))


def missing_both(problem: Problem) -> Variants:
    """Walk with neither stride nor dilation."""
    ones = (1,) * problem.rank
    if max(problem.stride) > 1 and max(problem.dilation) > 1:
        yield Variant(within=partial(replace, stride=ones, dilation=ones))


def mixed_axes(problem: Problem) -> Variants:
    """Use the parameters of one spatial axis for another."""
    names = {"stride": problem.stride, "padding": problem.low, "dilation": problem.dilation}
    told = {name: values for name, values in names.items() if len(set(values)) > 1}
    if len(told) > 1:
        yield Variant("in all arguments", within=lambda p: _reversed(p, told))
    for name, values in told.items():
        yield Variant(f"in the {name}", within=lambda p, name=name: _reversed(p, [name]))  # type: ignore[misc]
        for axis in range(problem.rank):
            one = {"padding": "low"}.get(name, name), (values[axis],) * problem.rank
            yield Variant(
                f"the {name} {along(problem, [axis])} is used for all axes",
                within=lambda p, one=one: replace(p, **dict([one])),  # type: ignore[misc]
            )


def _reversed(problem: Problem, names: Iterable[str]) -> Problem:
    keys = [{"padding": "low"}.get(name, name) for name in names]
    return replace(problem, **{key: getattr(problem, key)[::-1] for key in keys})


# Padding and place.


def missing_padding(problem: Problem) -> Variants:
    """Take no notice of the padding: the border of the padded gradient is not cropped."""
    padded = [axis for axis in range(problem.rank) if problem.low[axis]]
    for axes in subsets(problem, padded.__contains__):
        low = _put(problem.low, axes, lambda _: 0)
        yield Variant(_only(problem, axes, padded.__contains__), within=partial(replace, low=low))


def wrong_side(problem: Problem) -> Variants:
    """Crop on the wrong side."""
    low, high = problem.low, problem.high
    both = tuple(map(sum, zip(low, high, strict=True)))
    found = {"all of it before each axis": both, "what belongs after an axis is cropped before it": high}
    for detail, believed in found.items():
        if believed != low and any(believed):
            yield Variant(detail, within=partial(replace, low=believed))


def padding_off_by_one(problem: Problem) -> Variants:
    """Pad or crop by one more or one less."""
    for axes in subsets(problem):
        for more in (1, -1):
            low = _put(problem.low, axes, lambda axis, more=more: problem.low[axis] + more)  # type: ignore[misc]
            words = f"one {'more' if more > 0 else 'less'} than the padding"
            yield Variant(f"{words} {along(problem, axes)}".rstrip(), within=partial(replace, low=low))


def full_padding(problem: Problem) -> Variants:
    """Use the kernel's extent less the padding for the padding, or twice the padding."""
    reach = tuple(d * (k - 1) for d, k in zip(problem.dilation, problem.taps, strict=True))
    less = tuple(r - low for r, low in zip(reach, problem.low, strict=True))
    twice = tuple(2 * low for low in problem.low)
    for detail, low in (("the kernel's size less one less the padding is used", less), ("it is cropped twice", twice)):
        if low != problem.low:
            yield Variant(detail, within=partial(replace, low=low))


def misplaced_remainder(problem: Problem) -> Variants:
    """Put the rows that no window meets before the others."""
    extents = [d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.taps, strict=True)]
    sizes = zip(problem.big.shape[SPACE:], problem.low, problem.high, extents, problem.stride, strict=True)
    rest = [(size + low + high - extent) % stride for size, low, high, extent, stride in sizes]
    for share, detail in ((1, "all of them come first"), (2, "half of them come first")):
        low = tuple(low - one // share for low, one in zip(problem.low, rest, strict=True))
        if low != problem.low:
            yield Variant(detail, within=partial(replace, low=low))


def shifted(problem: Problem) -> Variants:
    """Shift the gradient in space, with zeros or with what leaves the other side."""
    reach = range(-3, 4) if problem.rank < 3 else range(-2, 3)
    moves = [move for move in itertools.product(reach, repeat=problem.rank) if any(move)]
    for move in sorted(moves, key=lambda one: sum(map(abs, one))):
        low = tuple(old - one for old, one in zip(problem.low, move, strict=True))
        yield Variant(f"by {_moved(move)}", within=partial(replace, low=low))


def rolled(problem: Problem) -> Variants:
    """Shift the cotangent around its borders."""
    sizes = problem.v.shape[SPACE:]
    for axis, size in enumerate(sizes):
        for move in (1, -1) if size > 1 else ():
            yield Variant(
                f"by {move} {along(problem, [axis])}".rstrip(),
                within=lambda p, axis=axis, move=move: p.having(v=np.roll(p.v, move, SPACE + axis)),  # type: ignore[misc]
            )


def _moved(move: Shape) -> str:
    return str(move[0]) if len(move) == 1 else f"({', '.join(map(str, move))})"


def dropped_copies(problem: Problem) -> Variants:
    """Crop the padding's gradient where it should be added to the entries that were copied."""
    if problem.sources:

        def cropped(p: Problem, tensor: str, pool: Executor) -> np.ndarray:
            uncropped = gradient(replace(p, sources=()), tensor, pool)
            inside = tuple(_inside(sources) for sources in p.sources)
            return uncropped[(slice(None),) * SPACE + inside]

        yield Variant(gradient=cropped)


def _inside(sources: np.ndarray) -> slice:
    """Return where a padded axis holds what was padded: the entries in order."""
    size = int(sources.max()) + 1
    whole = np.arange(size)
    start = next(i for i in range(len(sources) - size + 1) if (sources[i : i + size] == whole).all())
    return slice(start, start + size)


# Groups, samples, memory.


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


def one_group(problem: Problem) -> Variants:
    """Leave all groups but one without a gradient."""
    groups = len(problem.w)
    for kept, detail in ((0, "the first"), (groups - 1, "the last")) if groups > 1 else ():
        yield Variant(
            f"only {detail} has one",
            before=lambda p, kept=kept: p.having(v=_masked(p.v, 1, slice(kept, kept + 1))),  # type: ignore[misc]
        )


def _masked(array: np.ndarray, axis: int, kept: slice) -> np.ndarray:
    """Return an array that is zero but for some entries along an axis."""
    place = (slice(None),) * axis + (kept,)
    masked = np.zeros_like(array)
    masked[place] = array[place]
    return masked


def one_sample(problem: Problem) -> Variants:
    """Count a single sample."""
    samples = len(problem.v)
    for kept, detail in ((0, "only the first"), (samples - 1, "only the last")) if samples > 1 else ():
        cut = slice(kept, kept + 1)
        yield Variant(detail, before=lambda p, cut=cut: replace(p, big=p.big[cut], small=p.small[cut]))  # type: ignore[misc]
    if samples > 1:
        yield Variant("all but the last", before=lambda p: replace(p, big=p.big[:-1], small=p.small[:-1]))
        yield Variant("all but the first", before=lambda p: replace(p, big=p.big[1:], small=p.small[1:]))


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


def one_filter(problem: Problem) -> Variants:
    """Count a single filter in an input gradient."""
    count = problem.v.shape[2]
    axis = problem.filters_axis
    for kept, detail in ((-1, "only the last"), (0, "only the first")) if count > 1 else ():
        cut = slice(kept, kept + 1 or None)
        yield Variant(
            detail,
            lambda p, cut=cut: p.having(v=p.v[:, :, cut], w=p.w[(slice(None),) * axis + (cut,)]),  # type: ignore[misc]
        )


def mixed_samples(problem: Problem) -> Variants:
    """Flatten samples and space of an operand in one order, and read them in another."""
    if len(problem.v) == 1:
        return
    for name, words in (("v", "cotangent"), ("x", "input")):
        for detail, change in _FLATTENED.items():
            yield Variant(
                f"in the {words}, {detail}",
                lambda p, name=name, change=change: p.having(**{name: change(getattr(p, name))}),  # type: ignore[misc]
            )


def _samples_as_channels(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return array.reshape(groups, channels, samples, *space).transpose(2, 0, 1, *range(SPACE, array.ndim))


def _samples_last(array: np.ndarray) -> np.ndarray:
    """Flatten channels first, samples last; read samples before space."""
    samples, groups, channels, *space = array.shape
    return np.moveaxis(np.moveaxis(array, 0, -1).reshape(groups, channels, samples, *space), 2, 0)


def _samples_first(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return np.moveaxis(np.moveaxis(array, 0, 2).reshape(groups, channels, *space, samples), -1, 0)


_FLATTENED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "which is reshaped to (channels, -1) without a transposition": _samples_as_channels,
    "which is flattened with the samples last": _samples_last,
    "which is flattened with the samples first": _samples_first,
    "which is transposed to channels first and read as samples first": lambda array: np.moveaxis(array, 0, 2).reshape(
        array.shape
    ),
}


def mixed_layouts(problem: Problem) -> Variants:
    """Read the memory of an operand channels-last, or the other way round."""
    for name, words in (("v", "cotangent"), ("x", "input")):
        channels, space = math.prod(getattr(problem, name).shape[1:3]), math.prod(getattr(problem, name).shape[3:])
        if min(channels, space) > 1:
            for detail, change in _LAYOUTS.items():
                yield Variant(
                    f"the {words} {detail}",
                    lambda p, name=name, change=change: p.having(**{name: change(getattr(p, name))}),  # type: ignore[misc]
                )


def _read_last(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    whole = array.reshape(samples, *space, groups * channels)
    return np.moveaxis(whole, -1, 1).reshape(array.shape)


def _written_last(array: np.ndarray) -> np.ndarray:
    samples, groups, channels, *space = array.shape
    return np.moveaxis(array.reshape(samples, groups * channels, *space), 1, -1).reshape(array.shape)


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "is read as NHWC": _read_last,
    "is written as NHWC and read as NCHW": _written_last,
}


def gradient_layouts(problem: Problem) -> Variants:
    """Return the input gradient channels-last, or the other way round."""
    shape = problem.x.shape
    if min(math.prod(shape[1:3]), math.prod(shape[3:])) > 1:
        for detail, change in _LAYOUTS.items():
            yield Variant(f"it {detail}", after=change, whole=True)


def turned_maps(problem: Problem) -> Variants:
    """Exchange height and width of an operand."""
    for name, words in (("v", "cotangent"), ("x", "input")):
        for order in _orders(getattr(problem, name).shape[SPACE:]):
            yield Variant(
                f"of the {words}",
                within=lambda p, name=name, order=order: p.having(  # type: ignore[misc]
                    **{name: getattr(p, name).transpose(0, 1, 2, *_spatial(order))}
                ),
            )


# Terms that are left out.


def overwritten_windows(problem: Problem) -> Variants:
    """Assign a window's share of the input gradient where it should be added."""
    if any(s < d * (k - 1) + 1 for s, d, k in zip(problem.stride, problem.dilation, problem.taps, strict=True)):
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


def _winning(problem: Problem, tensor: str, pool: Executor, last: bool) -> np.ndarray:
    """Return the input gradient to which one window alone contributes at each position."""
    found = np.zeros(problem.big.shape)
    tables = [_winners(problem, axis, last) for axis in range(problem.rank)]
    for tap in itertools.product(*map(range, problem.taps)):
        places, windows = zip(*(table[k] for table, k in zip(tables, tap, strict=True)), strict=True)
        v = problem.small[(..., *np.ix_(*windows))]
        w = problem.w[(..., *tap)]
        met = np.matmul(w.swapaxes(1, 2), v.reshape(*v.shape[:3], -1))
        found[(..., *np.ix_(*places))] = met.reshape(*found.shape[:3], *v.shape[3:])
    return folded(problem, found)


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


def one_position(problem: Problem) -> Variants:
    """Count the windows of one position, row or column alone: assigned where they should be added."""
    for axes in subsets(problem, lambda axis: problem.v.shape[SPACE + axis] > 1):
        words = "" if len(axes) == problem.rank else f" {along(problem, axes)}"
        yield Variant(f"only the last position{words} counts", within=partial(_last_only, axes=axes))
    if len(problem.v) > 1 and math.prod(problem.v.shape[SPACE:]) > 1:
        yield Variant(
            "only the last position of the last sample counts",
            lambda p: replace(p, big=p.big[-1:], small=p.small[-1:]),
            partial(_last_only, axes=tuple(range(problem.rank))),
        )


def _last_only(problem: Problem, axes: Iterable[int]) -> Problem:
    v = problem.v
    for axis in axes:
        v = _masked(v, SPACE + axis, slice(-1, None))
    return problem.having(v=v)


def dropped_positions(problem: Problem) -> Variants:
    """Leave out the first or last row or column of the outputs."""
    sizes = problem.v.shape[SPACE:]
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        for which, kept in (("last", slice(None, -1)), ("first", slice(1, None))):
            yield Variant(
                f"the {which} position {along(problem, axes) or 'along each axis'}",
                within=partial(_kept_positions, axes=axes, kept=kept),
            )
    inside = [_interior(problem, axis) for axis in range(problem.rank)]
    if not problem.transposed and any(cut != slice(0, size) for cut, size in zip(inside, sizes, strict=True)):
        yield Variant("those whose windows meet the padding", within=lambda p: _inner(p, inside))


def _kept_positions(problem: Problem, axes: Iterable[int], kept: slice) -> Problem:
    v = problem.v
    for axis in axes:
        v = _masked(v, SPACE + axis, kept)
    return problem.having(v=v)


def _interior(problem: Problem, axis: int) -> slice:
    """Return the windows along an axis that meet no padding."""
    stride, low, size = problem.stride[axis], problem.low[axis], problem.big.shape[SPACE + axis]
    reach = problem.dilation[axis] * (problem.taps[axis] - 1)
    windows = range(problem.small.shape[SPACE + axis])
    inside = [one for one in windows if 0 <= one * stride - low and one * stride - low + reach < size]
    return slice(inside[0], inside[-1] + 1) if inside else slice(0, 0)


def _inner(problem: Problem, inside: Iterable[slice]) -> Problem:
    v = problem.v
    for axis, kept in enumerate(inside, SPACE):
        v = _masked(v, axis, kept)
    return problem.having(v=v)


def unwritten_entries(problem: Problem) -> Variants:
    """Leave rows or columns of the input gradient zero."""
    sizes = problem.x.shape[SPACE:] if not problem.sources else tuple(int(one.max()) + 1 for one in problem.sources)
    for axes in subsets(problem, lambda axis: sizes[axis] > 1):
        words = along(problem, axes) or "along each axis"
        for count in range(1, 4):
            if any(sizes[axis] <= count for axis in axes):
                continue
            number = f"{count} positions" if count > 1 else "position"
            for which, kept in (("last", slice(None, -count)), ("first", slice(count, None))):
                yield Variant(f"the {which} {number} {words}", after=partial(_cut, axes=axes, kept=kept))
            if all(sizes[axis] > 2 * count for axis in axes):
                kept = slice(count, -count)
                yield Variant(f"the first and last {number} {words}", after=partial(_cut, axes=axes, kept=kept))


def _cut(gradient: np.ndarray, axes: Iterable[int], kept: slice) -> np.ndarray:
    for axis in axes:
        gradient = _masked(gradient, SPACE + axis, kept)
    return gradient


# The bias.


def averaged_bias(problem: Problem) -> Variants:
    """Divide the bias gradient by what it was summed over."""
    samples, positions = len(problem.v), math.prod(problem.v.shape[SPACE:])
    counts = {
        f"over the {samples} samples": samples,
        f"over the {positions} output positions": positions,
        f"over all {samples * positions} samples and positions": samples * positions,
    }
    for words, count in counts.items():
        if count > 1:
            yield Variant(words, after=lambda g, count=count: g / count)  # type: ignore[misc]


def bias_axes(problem: Problem) -> Variants:
    """Sum over other axes than the channels', where one of these has as many entries."""
    flat_shape = (problem.v.shape[0], math.prod(problem.v.shape[1:3]), *problem.v.shape[3:])
    names = ("samples", "channels", *NAMES[problem.rank])
    for axis, size in enumerate(flat_shape):
        if axis != 1 and size == flat_shape[1] > 1:
            left = f"one entry is left for each of the {names[axis]}"
            yield Variant(left, gradient=partial(_kept_axis, axis=axis), whole=True)


def _kept_axis(problem: Problem, tensor: str, pool: Executor, axis: int) -> np.ndarray:
    samples, groups, channels, *space = problem.v.shape
    whole = problem.v.reshape(samples, groups * channels, *space)
    return whole.sum(axis=tuple(one for one in range(whole.ndim) if one != axis)).reshape(groups, channels)


# Arithmetic and the loss.


def narrowed(problem: Problem) -> Variants:
    """Round operands to a narrower type."""
    for operands in (("x", "v", "w"), ("x",), ("w",), ("v",), ("x", "w"), ("x", "v"), ("v", "w")):
        for name, change in _ROUNDED.items():
            words = "all operands" if len(operands) == 3 else listed([_OPERANDS[one] for one in operands])
            yield Variant(
                f"{words} to {name}",
                within=lambda p, operands=operands, change=change: p.having(  # type: ignore[misc]
                    **{one: change(getattr(p, one)) for one in operands}
                ),
            )


_OPERANDS = {"x": "the input", "v": "the cotangent", "w": "the weight"}


def narrowed_result(problem: Problem) -> Variants:
    """Round the gradient to a narrower type."""
    for name, change in _ROUNDED.items():
        yield Variant(f"the gradient to {name}", after=change)


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
