"""Two gradients that the user already has, judged by the rules of thumb.

Nothing is known of how they came about: the rules go by the coarser type of the two, and what is round-off shows in the
size of the other entries, and of the report's other tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastcheck import tally
from fastcheck.cases.arrays import as_floating
from fastcheck.cases.conv import PRECISIONS
from fastcheck.errors import FastcheckError
from fastcheck.geometry import index_of
from fastcheck.naming import nearest, refuse_unknown
from fastcheck.report import Kept, TensorReport
from fastcheck.step import rms
from fastcheck.tally import Tally
from fastcheck.verdict import MAX_RULE, NORM_RULE, Judgement, Verdict, norm_rule

ALIKE = 0.95
"""Cosine of the angle between two arrays of noise that chance hardly makes, unless they have two or three entries."""

FLOAT16_SUMS = 32 * 2.0**-11
"""Norm ratio that sums of up to 10^4 terms of both signs leave where they are kept in float16, as some kernels do."""


@dataclass(frozen=True)
class Arrays:
    """Two arrays of which nothing else is known.

    Attributes
    ----------
    tally : Tally
    precision : str
        Of the coarser one.
    largest, apart : float
        The largest value in size, and the largest difference.
    far, near : int
        Entries that break `MAX_RULE`: by more than the norm rule leaves to a typical entry of these arrays, and by no
        more. The latter are round-off of what the others have: of an entry 1e-12 of its neighbours no digit is left.
    others : float
        What is typical of the largest of the report's other tensors; 0 where there is none.
    alike : bool
        Whether one array is nearly a multiple of the other: that is no noise, however small.
    """

    tally: Tally
    precision: str
    largest: float
    apart: float
    far: int
    near: int
    others: float
    alike: bool

    @property
    def rule(self) -> float:
        """The largest norm ratio that is good."""
        return norm_rule(self.precision)

    @property
    def rules(self) -> str:
        """The rule that depends on the precision, in words."""
        return f"norm ratio at most {self.rule:.2g}: {self.precision}"

    @property
    def kept(self) -> tuple[bool, bool]:
        """Whether the rules of thumb hold, that of the norm ratio and that of the max ratio."""
        return self.tally.norm_ratio <= self.rule, not self.far

    @property
    def broken(self) -> str:
        """Which rules are broken, in words."""
        norm, largest = self.kept
        if not norm and not largest:
            return "both rules of thumb are broken"
        return f"the {'max' if norm else 'norm'} ratio breaks its rule of thumb"


class _Row(NamedTuple):
    """How two arrays are judged where a condition holds."""

    holds: Callable[[Arrays], bool]
    verdict: Verdict
    reason: str
    advice: str = ""


_SUBNORMAL = {"float16": 2.0**-25, "float32": 2.0**-150, "bfloat16": 2.0**-134}
"""Half of the distance between the smallest numbers of a type."""

_UNKNOWN_SCALE = "compare it in one call with tensors that are not zero: they show which values are round-off"
_ONLY_ARRAYS = "two arrays cannot tell round-off from a bug: check the layer itself, where error bars are computed"

_ROWS = (
    _Row(
        lambda found: found.tally.non_finite > 0,
        "fail",
        "{0.tally.non_finite:,} of {0.tally.dims:,} analytic values are nan or infinite",
    ),
    _Row(lambda found: found.largest == 0, "pass", "all values are zero in both"),
    _Row(
        lambda found: all(found.kept) and found.near > 0,
        "pass",
        "both rules of thumb hold ({0.rules}), but for {0.near:,} of {0.tally.dims:,} entries that differ by no more "
        "than round-off of a typical one",
    ),
    _Row(lambda found: all(found.kept), "pass", "both rules of thumb hold ({0.rules})"),
    _Row(
        lambda found: found.largest <= NORM_RULE * found.others and not found.alike,
        "pass",
        "no value exceeds {0.largest:.1e}, round-off beside what is typical of another tensor ({0.others:.1e})",
    ),
    _Row(
        lambda found: found.largest <= found.rule * found.others or found.apart <= NORM_RULE * found.others,
        "inconclusive",
        "they differ by up to {0.apart:.1e}, which may be round-off beside what is typical of another tensor "
        "({0.others:.1e})",
        _ONLY_ARRAYS,
    ),
    _Row(
        # Noise is not the exact opposite of noise.
        lambda found: found.others == 0 and found.largest <= NORM_RULE and found.tally.norm_ratio < math.inf,
        "inconclusive",
        "no value exceeds {0.largest:.1e}: round-off around zero, or a small gradient that is wrong",
        _UNKNOWN_SCALE,
    ),
    _Row(
        lambda found: found.apart <= _SUBNORMAL.get(found.precision, 0.0),
        "inconclusive",
        "they differ by no more than {0.precision} keeps of numbers as small as these",
        "scale the loss up: digits of such values are lost",
    ),
    _Row(
        lambda found: (
            found.precision == "float16"
            and found.tally.norm_ratio <= FLOAT16_SUMS
            and found.apart <= 10 * FLOAT16_SUMS * found.tally.typical
            and not any(found.kept)
        ),
        "inconclusive",
        "{0.broken} ({0.rules}), by no more than sums that are kept in float16 itself explain",
        "keep sums in float32, or take fewer terms to a sum: then the rules can judge",
    ),
    _Row(
        lambda found: not any(found.kept),
        "fail",
        "{0.broken} ({0.rules})",
        "start from the worst dimensions below",
    ),
    _Row(lambda found: True, "inconclusive", "{0.broken}, the other rule holds ({0.rules})", _ONLY_ARRAYS),
)
"""Of these the first that holds judges."""


def of_arrays(found: Arrays) -> Judgement:
    """Judge two arrays by the two rules of thumb."""
    row = next(row for row in _ROWS if row.holds(found))
    return Judgement(row.verdict, row.reason.format(found), row.advice)


def compared(analytic: Any, numeric: Any, precision: str | None, keep: bool) -> dict[str, TensorReport]:
    """Compare two gradients, tensor by tensor.

    Raises
    ------
    FastcheckError
        If shapes or names differ, an array is empty or of another dtype, a numeric value is not finite, or the
        precision is none.
    """
    if precision is not None:
        refuse_unknown("precision", precision, PRECISIONS)
    pairs = {name: _Pair.of(name, *pair) for name, pair in _matched(analytic, numeric).items()}
    found = {
        name: tally.fold(np.arange(pair.analytic.size), pair.analytic, pair.numeric, None)
        for name, pair in pairs.items()
    }
    typical = {name: pair.typical() for name, pair in pairs.items()}
    return {
        name: pair.report(
            found[name], precision, max((typical[other] for other in pairs if other != name), default=0.0), keep
        )
        for name, pair in pairs.items()
    }


def _matched(analytic: Any, numeric: Any) -> dict[str, tuple[Any, Any]]:
    """Match two arrays, or two mappings of arrays, by name."""
    if isinstance(analytic, Mapping) != isinstance(numeric, Mapping):
        raise FastcheckError("analytic and numeric are an array and a mapping: expected two arrays or two mappings")
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
    """Two arrays of a shape, flat and in float64, and the names of their types."""

    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    analytic: np.ndarray
    numeric: np.ndarray

    @classmethod
    def of(cls, name: str, analytic: Any, numeric: Any) -> _Pair:
        """Check two arrays."""
        a, n = as_floating(f"analytic {name}", analytic), as_floating(f"numeric {name}", numeric)
        if a.shape != n.shape:
            raise FastcheckError(f"numeric {name} has shape {n.shape}: expected {a.shape}, that of analytic {name}")
        if not a.size:
            raise FastcheckError(f"analytic {name} is empty: it has shape {a.shape}")
        finite = np.isfinite(n).ravel()
        if not finite.all():
            place = list(index_of(int(np.argmin(finite)), n.shape))
            raise FastcheckError(f"numeric {name} is {n[tuple(place)]} at index {place}: expected finite numbers")
        dtypes = (a.dtype.newbyteorder("=").name, n.dtype.newbyteorder("=").name)
        return cls(a.shape, dtypes, a.astype(np.float64).ravel(), n.astype(np.float64).ravel())

    def report(self, found: Tally, precision: str | None, others: float, keep: bool) -> TensorReport:
        """Judge them by their coarsest type, the declared one among them; ``others`` is as in `Arrays`."""
        coarsest = max((*self.dtypes, *([] if precision is None else [precision])), key=norm_rule)
        every = np.arange(found.dims)
        kept = Kept(every, self.analytic, self.numeric, None) if keep else None
        judgement = of_arrays(self._known(found, coarsest, others))
        return TensorReport.of(found, judgement, self.shape, precision=coarsest, kept=kept)

    @np.errstate(over="ignore", invalid="ignore")
    def _known(self, found: Tally, precision: str, others: float) -> Arrays:
        apart = np.abs(self.analytic - self.numeric)
        breaking = tally.relative_difference(self.analytic, self.numeric) >= MAX_RULE
        # The norm ratio is half of the relative difference. What overflows is no typical value.
        far = breaking & ~(apart < min(2 * norm_rule(precision) * found.typical, np.finfo(np.float64).max))
        largest = max(np.abs(self.analytic).max(), np.abs(self.numeric).max())
        counts = int(np.count_nonzero(far)), int(np.count_nonzero(breaking & ~far))
        return Arrays(found, precision, float(largest), float(apart.max()), *counts, others, self._alike())

    def typical(self) -> float:
        """Return the root mean square of the smaller array; 0 where it is not finite."""
        return min(rms(self.analytic), rms(self.numeric)) if self._finite() else 0.0

    def _finite(self) -> bool:
        return bool(np.isfinite(self.analytic).all())

    def _alike(self) -> bool:
        """Tell whether the angle between the arrays is small, or nearly a half turn."""
        sizes = [float(np.abs(array).max()) for array in (self.analytic, self.numeric)]
        if not self._finite() or not min(sizes):
            return False
        a, n = self.analytic / sizes[0], self.numeric / sizes[1]
        return bool(abs(a @ n) > ALIKE * np.linalg.norm(a) * np.linalg.norm(n))
