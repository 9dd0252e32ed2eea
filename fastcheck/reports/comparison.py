"""Two gradients that the user already has, judged by the rules of thumb.

Nothing is known of how they came about. So the rules follow the coarser type of the two, and the size of the other
entries, and of the report's other tensors, shows what is round-off. Round-off resembles neither other round-off nor
zeros, in its values or in their sizes: two arrays that resemble each other are no round-off, however small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.arrays import floating, gradient, holds_arrays
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, refuse_unknown
from fastcheck.common.precision import PRECISIONS, SMALLEST
from fastcheck.metrics import advice, tally
from fastcheck.metrics.judged import Judgement, Verdict
from fastcheck.metrics.tally import Tally
from fastcheck.metrics.verdict import MAX_RULE, NORM_RULE, norm_rule
from fastcheck.reports.tensor_report import Kept, TensorReport

FLOAT16_SUMS = 32 * 2.0**-11
"""Norm ratio that sums of up to 10^4 terms of both signs leave when they are kept in float16, as some kernels do."""

MULTIPLE = 1e-3
"""Two ratios of sizes are equal where they differ by less, relative to the larger; any other equality is chance."""

LEAST_NORMAL = {"float32": 2.0**-126, "tf32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
"""Smallest normal number, by precision (except float64): below it, a type holds fewer digits."""

RELATED = 3.0
"""Norm ratios between a third and this belong to arrays that are uncorrelated, or of quite different sizes."""


@dataclass(frozen=True)
class Arrays:
    """Metrics of two arrays of which nothing else is known.

    Attributes
    ----------
    tally : Tally
    precision : str
        Precision of the coarser array.
    largest, apart : float
        The largest magnitude of a value, and of a difference.
    far, near : int
        Numbers of entries that break `MAX_RULE`: by more than the norm rule grants a typical entry of these arrays, and
        by no more. The latter are round-off of the larger entries: one of 1e-12 of its neighbours has no digit left.
    underflow : bool
        Whether entries that differ by more than the norm rule grants differ by no more than what rounding changes below
        the type's smallest normal number.
    alike : bool
        Whether the arrays resemble each other as noise does not: in the sizes of most entries, up to a common factor,
        or in their values.
    scale : float
        Typical size of the smaller array's entries; 0 where a value is not finite.
    others : float
        Typical size of the largest of the report's other tensors; 0 where none gives a scale.
    """

    tally: Tally
    precision: str
    largest: float
    apart: float
    far: int
    near: int
    underflow: bool
    alike: bool
    scale: float
    others: float = 0.0

    @property
    def rule(self) -> float:
        """The largest good norm ratio."""
        return norm_rule(self.precision)

    @property
    def rules(self) -> str:
        """The rule that depends on the precision, in words."""
        return f"norm ratio at most {self.rule:.2g} in {self.precision}"

    @property
    def kept(self) -> tuple[bool, bool]:
        """Whether the two rules of thumb hold: for the norm ratio, and for the max ratio."""
        return self.tally.norm_ratio <= self.rule, not self.far

    @property
    def reference(self) -> float:
        """The scale that these arrays give to the report's other tensors; 0 where they may be noise themselves."""
        return self.scale if all(self.kept) or self.scale > NORM_RULE else 0.0

    @property
    def least_normal(self) -> float:
        """The smallest number that the coarser type holds with all its digits."""
        return LEAST_NORMAL.get(self.precision, 0.0)

    @property
    def broken(self) -> str:
        """The broken rules, in words."""
        norm, largest = self.kept
        if not norm and not largest:
            return "both rules of thumb are broken"
        return f"the {'max' if norm else 'norm'} ratio breaks its rule of thumb"


class _Row(NamedTuple):
    """The judgement on two arrays where a condition holds."""

    holds: Callable[[Arrays], bool]
    verdict: Verdict
    reason: str
    advice: str = ""


_UNKNOWN_SCALE = "compare it in one call with tensors that are not zero: they show which values are round-off"
_ONLY_ARRAYS = "check the layer itself, with error bars: two arrays alone cannot tell round-off from a bug"

_ROWS = (
    _Row(
        lambda arrays: arrays.tally.non_finite > 0,
        "fail",
        "{0.tally.non_finite:,} of {0.tally.dims:,} analytic values are nan or infinite",
        advice.NON_FINITE,
    ),
    _Row(lambda arrays: arrays.largest == 0, "pass", "all values are zero in both"),
    _Row(
        lambda arrays: all(arrays.kept) and arrays.near > 0,
        "pass",
        "both rules of thumb hold ({0.rules}), except for {0.near:,} of {0.tally.dims:,} entries, which differ by no "
        "more than the round-off of a typical one",
    ),
    _Row(lambda arrays: all(arrays.kept), "pass", "both rules of thumb hold ({0.rules})"),
    _Row(
        lambda arrays: arrays.largest <= NORM_RULE * arrays.others and not arrays.alike,
        "pass",
        "no value exceeds {0.largest:.1e}, which is round-off compared with the typical value of another tensor "
        "({0.others:.1e})",
    ),
    _Row(
        lambda arrays: arrays.largest <= NORM_RULE * arrays.others,
        "inconclusive",
        "no value exceeds {0.largest:.1e}, little compared with the typical value of another tensor ({0.others:.1e}), "
        "but the arrays resemble each other, as round-off would not",
        _ONLY_ARRAYS,
    ),
    _Row(
        lambda arrays: arrays.underflow,
        "inconclusive",
        "{0.broken} ({0.rules}), but by no more than rounding changes below the type's smallest normal number "
        "({0.least_normal:.2g}), where digits are lost",
        "scale the loss up, so that the gradient's values are larger",
    ),
    _Row(
        lambda arrays: arrays.largest <= arrays.rule * arrays.others or arrays.apart <= NORM_RULE * arrays.others,
        "inconclusive",
        "they differ by up to {0.apart:.1e}, which may be round-off compared with the typical value of another tensor "
        "({0.others:.1e})",
        _ONLY_ARRAYS,
    ),
    _Row(
        # Noise is never the exact opposite of noise.
        lambda arrays: arrays.others == 0 and arrays.largest <= NORM_RULE and arrays.tally.norm_ratio < math.inf,
        "inconclusive",
        "no value exceeds {0.largest:.1e}: round-off around zero, or a small gradient that is wrong",
        _UNKNOWN_SCALE,
    ),
    _Row(
        lambda arrays: (
            arrays.precision == "float16"
            and arrays.tally.norm_ratio <= FLOAT16_SUMS
            and arrays.apart <= 10 * FLOAT16_SUMS * arrays.tally.typical
            and not any(arrays.kept)
        ),
        "inconclusive",
        "{0.broken} ({0.rules}), but by no more than sums kept in float16 itself would explain",
        "keep sums in float32, or take fewer terms in each sum: then the rules can judge",
    ),
    _Row(
        lambda arrays: not any(arrays.kept),
        "fail",
        "{0.broken} ({0.rules})",
        "start with the worst dimensions",
    ),
    _Row(lambda arrays: True, "inconclusive", "{0.broken}, but the other rule holds ({0.rules})", _ONLY_ARRAYS),
)
"""Judgements in order: the first row that holds decides."""


def of_arrays(arrays: Arrays) -> Judgement:
    """Judge two arrays by the two rules of thumb."""
    row = next(row for row in _ROWS if row.holds(arrays))
    return Judgement(row.verdict, row.reason.format(arrays), row.advice)


def compared(analytic: Any, numeric: Any, precision: str | None, keep: bool) -> dict[str, TensorReport]:
    """Compare two gradients, tensor by tensor.

    Raises
    ------
    FastcheckError
        If shapes or names differ, an array is empty or of another dtype, a numeric value is not finite, or the
        precision is not a known one.
    """
    if precision is not None:
        refuse_unknown("precision", precision, PRECISIONS)
    pairs = {name: _Pair.of(name, *pair, precision) for name, pair in _matched(analytic, numeric).items()}
    measured = {name: pair.measured(precision) for name, pair in pairs.items()}
    reports = {}
    for name, pair in pairs.items():
        others = max((arrays.reference for other, arrays in measured.items() if other != name), default=0.0)
        reports[name] = pair.report(replace(measured[name], others=others), keep)
    return reports


def _matched(analytic: Any, numeric: Any) -> dict[str, tuple[Any, Any]]:
    """Match two arrays, or two mappings or lists of arrays."""
    if isinstance(analytic, Mapping) != isinstance(numeric, Mapping):
        raise FastcheckError("analytic and numeric are an array and a mapping: expected two arrays or two mappings")
    if holds_arrays(analytic) and holds_arrays(numeric):
        if len(analytic) != len(numeric):
            raise FastcheckError(f"numeric has {len(numeric)} arrays: expected {len(analytic)}, like analytic")
        return {f"gradient[{number}]": pair for number, pair in enumerate(zip(analytic, numeric, strict=True))}
    if not isinstance(analytic, Mapping):
        return {"gradient": (analytic, numeric)}
    for one, other, name in ((analytic, numeric, "numeric"), (numeric, analytic, "analytic")):
        for key in one:
            if key not in other:
                raise FastcheckError(f"{name} has no {key!r}{nearest(key, map(str, other))}")
    if not analytic:
        raise FastcheckError("analytic is an empty mapping: expected at least one array")
    return {str(key): (analytic[key], numeric[key]) for key in analytic}


class _Pair(NamedTuple):
    """Two arrays of the same shape, flat and in float64, and the names of their types."""

    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    analytic: np.ndarray
    numeric: np.ndarray

    @classmethod
    def of(cls, name: str, analytic: Any, numeric: Any, declared: str | None) -> _Pair:
        """Check two arrays, and convert them."""
        a, first = gradient(f"analytic {name}", analytic, declared)
        n, second = floating(f"numeric {name}", numeric, declared)
        if a.shape != n.shape:
            raise FastcheckError(f"numeric {name} has shape {n.shape}: expected {a.shape}, that of analytic {name}")
        if not a.size:
            raise FastcheckError(f"analytic {name} is empty: it has shape {a.shape}")
        finite = np.isfinite(n).ravel()
        if not finite.all():
            index = index_of(int(np.argmin(finite)), n.shape)
            raise FastcheckError(f"numeric {name} is {n[index]} at index {list(index)}: expected finite numbers")
        return cls(a.shape, (first, second), a.astype(np.float64).ravel(), n.astype(np.float64).ravel())

    def report(self, arrays: Arrays, keep: bool) -> TensorReport:
        """Judge the pair by its metrics."""
        kept = Kept(np.arange(arrays.tally.dims), self.analytic, self.numeric, None) if keep else None
        return TensorReport.of(arrays.tally, of_arrays(arrays), self.shape, precision=arrays.precision, kept=kept)

    @np.errstate(over="ignore", invalid="ignore")
    def measured(self, declared: str | None) -> Arrays:
        """Measure the pair. Its precision is the coarsest of the two types and the declared one."""
        folded = tally.fold(np.arange(self.analytic.size), self.analytic, self.numeric, None)
        precision = max((*self.dtypes, *([] if declared is None else [declared])), key=norm_rule)
        apart = np.abs(self.analytic - self.numeric)
        breaking = tally.relative_difference(self.analytic, self.numeric) >= MAX_RULE
        # The norm ratio is half of the relative difference. A typical value that overflows grants nothing.
        far = breaking & ~(apart < min(2 * norm_rule(precision) * folded.typical, np.finfo(np.float64).max))
        sizes = np.abs(self.analytic), np.abs(self.numeric)
        larger = np.maximum(*sizes)
        differing = apart > 2 * norm_rule(precision) * larger
        # Where both arrays have this type, both were rounded.
        lost = SMALLEST[precision] / 2 * max(1, self.dtypes.count(precision))
        return Arrays(
            folded,
            precision,
            largest=float(larger.max()),
            apart=float(apart.max()),
            far=int(np.count_nonzero(far)),
            near=int(np.count_nonzero(breaking & ~far)),
            underflow=bool(differing.any() and apart[differing].max() <= lost),
            alike=not 1 / RELATED <= folded.norm_ratio <= RELATED or _in_one_ratio(*sizes),
            scale=min(_typical(size) for size in sizes),
        )


def _in_one_ratio(sizes: np.ndarray, others: np.ndarray) -> bool:
    """Whether most sizes are the same multiple of the others, among entries where either is not zero.

    A single size is always a multiple of the other: it counts unless the two are of quite different sizes.
    """
    present = np.maximum(sizes, others) > 0
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ratios = sizes[present] / others[present]
        middle = float(np.sort(ratios)[len(ratios) // 2]) if len(ratios) else 0.0
        if not 0 < middle < math.inf:
            return False
        alike = int(np.count_nonzero(np.abs(ratios - middle) <= MULTIPLE * middle))
    return alike > len(ratios) / 2 and (len(ratios) > 1 or MULTIPLE < middle < 1 / MULTIPLE)


def _typical(sizes: np.ndarray) -> float:
    """Return the root mean square of sizes, or 0 where one is not finite."""
    largest = float(sizes.max())
    if largest == 0 or not math.isfinite(largest):
        return 0.0
    return largest * math.sqrt(np.mean(np.square(sizes / largest)))
