"""What a report says beside its numbers: one table of conditions and sentences for each occasion.

A row is a sentence and the condition that it holds under; of a table the first row that holds is said, so that the
special stand before the general. A sentence may show what it is said of: ``{0.step:g}`` is the step of the
`Circumstances`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastcheck.common.arguments import Shape
from fastcheck.metrics.tally import Finding, Tally, relative_difference_of

if TYPE_CHECKING:
    from fastcheck.metrics.health import HealthFinding

PARTS = ("round-off", "truncation", "kinks", "gradient", "steps")
"""Parts of an error bar, as `Evaluator.parts` names them; "steps" is for black boxes alone."""

CLOSE = 1e-4
"""Where most dimensions fail and all of those agree better than this, that rarely comes from a mistake in a formula."""

LOOSE = 5e-3
"""The same where every dimension fails, each by another factor."""

NEARLY_ALL = 0.9
"""A larger part of the dimensions is as good as all of them: what is wrong is not in their indices."""

NON_FINITE = "look for a division by zero, a logarithm of zero or an overflow in the backward pass"
"""What to do where an analytic value is nan or infinite."""

ALIKE = 1e-3
"""Factors between numeric and analytic values are one constant where they differ by less, beside what parts them from
one."""


@dataclass(frozen=True)
class Circumstances:
    """What is known of a tensor when a sentence about it is chosen.

    Attributes
    ----------
    tally : Tally
    shape : tuple of int
        Of the tensor.
    evaluator : str
    step : float
        The nominal step.
    automatic : bool
        Whether the step was left to fastcheck.
    precision : str
        That of the gradient.
    black_box : bool
        Whether the loss is a function of which nothing else is known: without data points, maps or units.
    balanced : bool
        Whether an automatic step balances round-off against truncation or kinks, so that no larger one is better.
    declared : bool
        Whether the accuracy of the loss was declared.
    parts : mapping of int to mapping
        Parts of the error bars of ``tally.least`` and ``tally.widest``, by flat index; empty where they are unknown.
    disagreements : int
        Of the audit.
    blinding : HealthFinding, optional
        What makes the gradient vanish at this point, whatever the code is.
    sampled : bool
        Whether the dimensions are a whole sample of the tensor's.
    """

    tally: Tally
    shape: Shape
    evaluator: str
    step: float
    automatic: bool
    precision: str
    black_box: bool
    balanced: bool
    declared: bool
    parts: Mapping[int, Mapping[str, float]]
    disagreements: int = 0
    blinding: HealthFinding | None = None
    sampled: bool = False

    @property
    def least(self) -> str:
        """The largest part of the bar of the dimension that agrees least; empty where it is unknown."""
        return self._main_part(self.tally.least)

    @property
    def widest(self) -> str:
        """The largest part of the widest bar; empty where it is unknown."""
        return self._main_part(self.tally.widest)

    def _main_part(self, found: Finding | None) -> str:
        parts = None if found is None else self.parts.get(found.dim)
        return "" if parts is None else max(PARTS, key=lambda name: parts.get(name, 0.0))

    @property
    def blind(self) -> bool:
        """Whether the point is the reason of bars that are too wide, and not kinks that a step crosses."""
        return self.blinding is not None and self.widest != "kinks"

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The worst dimensions that lie outside their bars."""
        return tuple(one for one in self.tally.worst if not abs(one.analytic - one.numeric) <= one.error_bar)

    @property
    def apart(self) -> float:
        """The largest relative difference of a failing dimension, as far as a report keeps them; 0 without any."""
        kept = self.failing
        ratio = max((relative_difference_of(one.analytic, one.numeric) for one in kept), default=0.0)
        return ratio if self.tally.beyond <= len(kept) else max(ratio, self.tally.max_ratio_resolved)

    @property
    def agreeing(self) -> int:
        """Digits in which all failing dimensions agree."""
        return math.floor(-math.log10(self.apart)) if self.apart > 0 else 0

    @property
    def factor(self) -> float:
        """The one constant numeric / analytic of several failing dimensions; nan where there is none."""
        kept = self.failing
        if len(kept) < 2 or any(one.analytic == 0 or one.numeric == 0 for one in kept):
            return math.nan
        factors = [one.numeric / one.analytic for one in kept]
        middle = sorted(factors)[len(factors) // 2]
        alike = all(abs(one - middle) <= ALIKE * abs(middle - 1) for one in factors)
        return middle if alike and math.isfinite(middle) else math.nan

    @property
    def factor_in_words(self) -> str:
        """The factor with as many digits as part it from one, and three more."""
        apart = abs(self.factor - 1)
        return f"{self.factor:.{4 + max(0, math.ceil(-math.log10(apart)))}g}"

    @property
    def nearly_close(self) -> bool:
        """Whether most fail and agree so well that the loss may be to blame; the others would show its accuracy."""
        if not math.isnan(self.factor) or self.tally.beyond <= self.tally.dims / 2:
            return False
        return 0 < self.apart < (LOOSE if self.tally.dims == 1 or self.nearly_all else CLOSE)

    @property
    def nearly_all(self) -> bool:
        """Whether (nearly) every one of several dimensions fails."""
        return self.tally.dims > 1 and self.tally.beyond >= NEARLY_ALL * self.tally.dims


class Row(NamedTuple):
    """A sentence, and when it is said."""

    sentence: str
    holds: Callable[[Circumstances], bool] = lambda found: True


Table = tuple[Row, ...]


def said(table: Table, found: Circumstances) -> str:
    """Return the first sentence of a table that holds; nothing where none does."""
    return next((row.sentence.format(found) for row in table if row.holds(found)), "")


MISTAKEN: Table = (
    Row("report this as a bug of fastcheck", lambda found: found.evaluator == "full"),
    Row("check with --evaluator full, and report this as a bug of fastcheck"),
)
"""What to do where the audit disagrees."""

OUTSIDE: Table = (
    Row(
        "the accuracy that was declared (noise=, relative_noise=) may be more than the loss has: declare less of it",
        lambda found: found.declared and found.nearly_close,
    ),
    Row(
        "all agree to at least {0.agreeing} digits, and the loss may be accurate to no more (a solver, an adaptive "
        "integrator, a sum in another order): declare its accuracy by noise= (1e-8: absolute) or relative_noise=",
        lambda found: found.black_box and found.nearly_close,
    ),
    Row(
        "the analytic values of the worst dimensions are zero: is a term missing, or were they never written?",
        lambda found: bool(found.failing) and all(one.analytic == 0 for one in found.failing),
    ),
    Row(
        "the numeric values of the worst dimensions are zero: does the loss depend on them at this point?",
        lambda found: bool(found.failing) and all(one.numeric == 0 for one in found.failing),
    ),
    Row(
        "numeric / analytic is -1 in the worst dimensions: a sign?",
        lambda found: (
            bool(found.failing)
            and all(abs(one.numeric + one.analytic) <= 2 * ALIKE * abs(one.analytic) for one in found.failing)
        ),
    ),
    Row(
        "numeric / analytic is {0.factor_in_words} in the worst dimensions: a factor?",
        lambda found: abs(found.factor - 1) > 0,
    ),
    Row("compare the two values: is it a factor, a sign, or a missing term?", lambda found: math.prod(found.shape) < 2),
    Row(
        "nearly all dimensions fail: look at what they share (a missing term, a wrong operand, another loss)",
        lambda found: found.nearly_all,
    ),
    Row(
        "one dimension fails: what is special about its index (a border, the last one, one that is used twice)?",
        lambda found: found.tally.beyond == 1,
    ),
    Row(
        "start from the worst dimensions: what do their indices have in common (a filter, a channel, a border tap)?",
        lambda found: len(found.shape) > 2 and not found.black_box,
    ),
    Row(
        "start from the worst dimensions: what do their indices have in common (a row, a column)?",
        lambda found: len(found.shape) > 1,
    ),
    Row("start from the worst dimensions: what do their indices have in common?"),
)
"""Where to look first when dimensions lie outside their bars."""

NARROWER: Table = (
    Row("{0.blinding.advice}", lambda found: found.blind),
    Row(
        "two steps contradict each other beyond the noise that was declared: declare more (noise=), or check with "
        "parameters of the scale that the loss varies on",
        lambda found: found.widest == "steps" and found.declared,
    ),
    Row(
        "two steps contradict each other: the loss varies on a scale far below its entries, or has noise that was not "
        "seen; declare the noise (noise=), or check with parameters of that scale",
        lambda found: found.widest == "steps",
    ),
    Row(
        "a loss that is more accurate than noise= or relative_noise= declares: the bars come from that",
        lambda found: found.widest in ("round-off", "truncation") and found.declared and found.automatic,
    ),
    Row(
        "a loss that rounds less (float64 throughout, no large constant in it), or another point, where it bends less: "
        "step='auto' has balanced the two",
        lambda found: found.widest in ("round-off", "truncation") and found.automatic and found.black_box,
    ),
    Row(
        "another point, or data of more even sizes: step='auto' has balanced round-off against truncation and kinks",
        lambda found: (
            found.automatic and (found.widest == "truncation" or (found.widest == "round-off" and found.balanced))
        ),
    ),
    Row(
        "a step larger than {0.step:g}, or data of more even sizes: the differences' round-off falls as 1/h",
        lambda found: found.widest == "round-off" and found.automatic,
    ),
    Row(
        "a larger step, or step='auto': the differences' round-off falls as 1/h",
        lambda found: found.widest == "round-off",
    ),
    Row("a smaller step, or step='auto': truncation falls as h^2", lambda found: found.widest == "truncation"),
    Row(
        "a smaller step, or step='auto', which crosses fewer kinks; or kinks='exclude', which leaves them out",
        lambda found: found.widest == "kinks" and not found.automatic and not found.black_box,
    ),
    Row(
        "a smaller step, or step='auto', which crosses fewer kinks",
        lambda found: found.widest == "kinks" and not found.automatic and found.tally.kinks > 0,
    ),
    Row(
        "another step, or step='auto': the one-sided slopes differ, and no kink explains it",
        lambda found: found.widest == "kinks" and not found.automatic,
    ),
    Row(
        "fewer data points, another point, or kinks='exclude': these units are near their kinks",
        lambda found: found.widest == "kinks" and not found.black_box,
    ),
    Row(
        "another point, further from the kinks of the loss",
        lambda found: found.widest == "kinks" and found.tally.kinks > 0,
    ),
    Row("another point: the one-sided slopes differ, and no kink explains it", lambda found: found.widest == "kinks"),
    Row(
        "a gradient whose sums cancel less: its own rounding is as large",
        lambda found: found.widest == "gradient" and found.precision == "float64" and found.black_box,
    ),
    Row("a gradient computed in float64", lambda found: found.widest == "gradient" and found.black_box),
    Row(
        "another point, where the gradient's sums cancel less, or fewer terms to a sum (a smaller batch or map)",
        lambda found: found.widest == "gradient" and found.precision == "float64",
    ),
    Row(
        "fewer terms to a sum (a smaller batch or map), or a gradient computed in float64",
        lambda found: found.widest == "gradient",
    ),
)
"""What would narrow the widest bar."""

SOURCES: Table = (
    Row("steps that contradict each other", lambda found: found.least == "steps"),
    Row("round-off of the differences at h = {0.step:g}", lambda found: found.least == "round-off"),
    Row(
        "truncation of the differences at h = {0.step:g}, which falls as h^2",
        lambda found: found.least == "truncation",
    ),
    Row(
        "kinks crossed between -h and +h, h = {0.step:g}",
        lambda found: found.least == "kinks" and found.tally.kinks > 0,
    ),
    Row(
        "one-sided slopes at h = {0.step:g} that differ by what rounding or curvature leaves: no kink was found",
        lambda found: found.least == "kinks",
    ),
    Row(
        "round-off of the gradient's own sums, computed in {0.precision}",
        lambda found: found.least == "gradient",
    ),
)
"""What the ratios of a tensor come from that lies inside its bars."""

NOTHING_RESOLVED: Table = (
    Row(
        "every dimension lies at a kink, where any slope between the one-sided ones is a subgradient",
        lambda found: 0 < found.tally.at_kink == found.tally.dims,
    ),
    Row("all values are zero", lambda found: found.tally.vanishes),
    Row(
        "no value exceeds its error bar: {0.tally.at_kink:,} lie at a kink, where any slope between the one-sided ones "
        "is a subgradient, and no other is distinguishable from zero",
        lambda found: found.tally.at_kink > 0,
    ),
    Row("no value exceeds its error bar: none is distinguishable from zero (a typical one is {0.tally.typical:.0e})"),
)
"""The same where no dimension is resolved."""
