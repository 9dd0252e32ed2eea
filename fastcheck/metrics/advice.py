"""The sentences that a report adds to its numbers: one table of sentences and conditions for each occasion.

A row is a sentence and the condition under which it holds. The first row of a table that holds is said, so special rows
stand before general ones. A sentence may quote the `Circumstances`: ``{0.step:g}`` is their step.
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
"""The parts of an error bar, as `Evaluator.bar_components` names them. Only black boxes have "steps"."""

CLOSE = 1e-4
"""Where most dimensions fail, and all of them agree better than this, the cause is rarely a mistake in a formula."""

LOOSE = 5e-3
"""The same limit where every dimension fails, each by a factor of its own."""

NEARLY_ALL = 0.9
"""A larger fraction of the dimensions counts as all of them: the mistake does not depend on their indices."""

NON_FINITE = "look for a division by zero, a logarithm of zero or an overflow in the backward pass"
"""Advice where an analytic value is nan or infinite."""

ALIKE = 1e-3
"""Factors between numeric and analytic values count as one constant where they differ by less than this fraction of
their distance from one."""


@dataclass(frozen=True)
class Circumstances:
    """The facts about a tensor that decide which sentence is said of it.

    Attributes
    ----------
    tally : Tally
    shape : tuple of int
        Shape of the tensor.
    evaluator : str
    step : float
        Nominal step.
    automatic : bool
        Whether the step was left to fastcheck.
    precision : str
        Precision of the gradient.
    subject : str
        What messages call the function that is differenced.
    black_box : bool
        Whether nothing is known of the loss but its values: it has no data points, maps or units.
    balanced : bool
        Whether an automatic step balances round-off against truncation or kinks, so that a larger one is no better.
    declared : bool
        Whether the accuracy of the loss was declared.
    bar_components : mapping of int to mapping
        Components of the error bars of ``tally.least`` and ``tally.widest``, by flat index; empty where they
        are unknown.
    disagreements : int
        Number of the audit's disagreements.
    blinding : HealthFinding, optional
        The reason why the gradient vanishes at this point, whatever the code is.
    sampled : bool
        Whether the checked dimensions are a complete sample of the tensor's.
    narrow_type : str
        The type that all values of the gradient fit, where that is narrower than its precision; else empty.
    narrow_rule : float
        Norm ratio that gradients computed in that type may have.
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
    bar_components: Mapping[int, Mapping[str, float]]
    disagreements: int = 0
    blinding: HealthFinding | None = None
    sampled: bool = False
    narrow_type: str = ""
    narrow_rule: float = 0.0
    subject: str = "the loss"

    @property
    def rounds_as_stored(self) -> bool:
        """Whether the gradient may have been computed in a narrower type than its array's: values and errors fit it."""
        return bool(self.narrow_type) and self.tally.norm_ratio <= self.narrow_rule

    @property
    def least(self) -> str:
        """The largest part of the bar of the dimension that agrees least; empty where it is unknown."""
        return self._main_part(self.tally.least)

    @property
    def noun(self) -> str:
        """The subject without its article."""
        return self.subject.removeprefix("the ")

    @property
    def widest(self) -> str:
        """The largest part of the widest bar; empty where it is unknown."""
        return self._main_part(self.tally.widest)

    def _main_part(self, finding: Finding | None) -> str:
        components = None if finding is None else self.bar_components.get(finding.dim)
        return "" if components is None else max(PARTS, key=lambda name: components.get(name, 0.0))

    @property
    def blind(self) -> bool:
        """Whether bars are too wide because of the point, and not because of kinks that a step crosses."""
        return self.blinding is not None and self.widest != "kinks"

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Those of the worst dimensions that lie outside their bars."""
        return tuple(one for one in self.tally.worst if not abs(one.analytic - one.numeric) <= one.error_bar)

    @property
    def apart(self) -> float:
        """The largest relative difference of a failing dimension that the report keeps; 0 where none fails."""
        kept = self.failing
        ratio = max((relative_difference_of(one.analytic, one.numeric) for one in kept), default=0.0)
        return ratio if self.tally.beyond <= len(kept) else max(ratio, self.tally.max_ratio_resolved)

    @property
    def agreeing(self) -> int:
        """Number of digits in which all failing dimensions agree."""
        return math.floor(-math.log10(self.apart)) if self.apart > 0 else 0

    @property
    def factor(self) -> float:
        """The constant numeric / analytic that several failing dimensions share; nan where there is none."""
        kept = self.failing
        if len(kept) < 2 or any(one.analytic == 0 or one.numeric == 0 for one in kept):
            return math.nan
        factors = [one.numeric / one.analytic for one in kept]
        middle = sorted(factors)[len(factors) // 2]
        alike = all(abs(one - middle) <= ALIKE * abs(middle - 1) for one in factors)
        return middle if alike and math.isfinite(middle) else math.nan

    @property
    def factor_in_words(self) -> str:
        """The factor, with three digits more than it takes to tell it from one."""
        apart = abs(self.factor - 1)
        return f"{self.factor:.{4 + max(0, math.ceil(-math.log10(apart)))}g}"

    @property
    def nearly_close(self) -> bool:
        """Whether most dimensions fail, but agree so well that the loss's accuracy may be the cause.

        Where many pass, they show that the loss is more accurate than that.
        """
        if not math.isnan(self.factor) or self.tally.beyond <= self.tally.dims / 2:
            return False
        return 0 < self.apart < (LOOSE if self.tally.dims == 1 or self.nearly_all else CLOSE)

    @property
    def nearly_all(self) -> bool:
        """Whether there are several dimensions and (nearly) all of them fail."""
        return self.tally.dims > 1 and self.tally.beyond >= NEARLY_ALL * self.tally.dims


class Row(NamedTuple):
    """A sentence, and the condition under which it is said."""

    sentence: str
    holds: Callable[[Circumstances], bool] = lambda facts: True


Table = tuple[Row, ...]


def said(table: Table, facts: Circumstances) -> str:
    """Return the first sentence of a table that holds, or an empty string where none does."""
    return next((row.sentence.format(facts) for row in table if row.holds(facts)), "")


MISTAKEN: Table = (
    Row("report this as a bug in fastcheck", lambda facts: facts.evaluator == "full"),
    Row("check with evaluator='full' (--evaluator full), and report this as a bug in fastcheck"),
)
"""Advice where the audit disagrees."""

OUTSIDE: Table = (
    Row(
        "all values are {0.narrow_type} numbers, and differ as its rounding would: if they were computed in it, give "
        "precision='{0.narrow_type}' (--precision {0.narrow_type})",
        lambda facts: facts.rounds_as_stored,
    ),
    Row(
        "{0.subject} may be less accurate than declared (noise=, relative_noise=): if so, declare a larger error",
        lambda facts: facts.declared and facts.nearly_close,
    ),
    Row(
        "all agree to at least {0.agreeing} digits: look for a constant with too few digits, or an approximation that "
        "is not {0.subject}'s; only if {0.subject} itself is no more accurate (a solver, an adaptive integrator), "
        "declare its error with noise= or relative_noise=",
        lambda facts: facts.black_box and facts.nearly_close,
    ),
    Row(
        "the analytic values of the worst dimensions are zero: is a term missing, or were they never written?",
        lambda facts: bool(facts.failing) and all(one.analytic == 0 for one in facts.failing),
    ),
    Row(
        "the numeric values of the worst dimensions are zero: does {0.subject} depend on them at this point?",
        lambda facts: bool(facts.failing) and all(one.numeric == 0 for one in facts.failing),
    ),
    Row(
        "numeric / analytic is -1 in the worst dimensions: look for a wrong sign",
        lambda facts: (
            bool(facts.failing)
            and all(abs(one.numeric + one.analytic) <= 2 * ALIKE * abs(one.analytic) for one in facts.failing)
        ),
    ),
    Row(
        "numeric / analytic is {0.factor_in_words} in the worst dimensions: look for a wrong or missing factor",
        lambda facts: abs(facts.factor - 1) > 0,
    ),
    Row(
        "compare the two values: do they differ by a factor, a sign or a missing term?",
        lambda facts: math.prod(facts.shape) < 2,
    ),
    Row(
        "nearly all dimensions fail: look for one mistake behind all (a missing term, a wrong operand, another "
        "{0.noun})",
        lambda facts: facts.nearly_all,
    ),
    Row(
        "one dimension fails: what is special about its index (a border, the last one, one that is used twice)?",
        lambda facts: facts.tally.beyond == 1,
    ),
    Row(
        "start with the worst dimensions: what do their indices have in common (a filter, a channel, a border tap)?",
        lambda facts: len(facts.shape) > 2 and not facts.black_box,
    ),
    Row(
        "start with the worst dimensions: what do their indices have in common (a row, a column)?",
        lambda facts: len(facts.shape) > 1,
    ),
    Row("start with the worst dimensions: what do their indices have in common?"),
)
"""Where to look first when dimensions lie outside their bars."""

NARROWER: Table = (
    Row("{0.blinding.advice}", lambda facts: facts.blind),
    Row(
        "differences with two steps contradict each other by more than the declared noise: declare more (noise=), or "
        "check at parameters of the scale on which {0.subject} varies",
        lambda facts: facts.widest == "steps" and facts.declared,
    ),
    Row(
        "differences with two steps contradict each other: {0.subject} varies on a scale far below the parameters' "
        "size, or has noise that was not detected; declare the noise (noise=), or check at parameters of that scale",
        lambda facts: facts.widest == "steps",
    ),
    Row(
        "use a {0.noun} that is more accurate than noise= or relative_noise= declares: the bars come from the "
        "declaration",
        lambda facts: facts.widest in ("round-off", "truncation") and facts.declared and facts.automatic,
    ),
    Row(
        "use a {0.noun} that rounds less (float64 throughout, no large constant in it), or check at a point where it "
        "bends less: step='auto' has balanced the two",
        lambda facts: facts.widest in ("round-off", "truncation") and facts.automatic and facts.black_box,
    ),
    Row(
        "check at another point, or with data whose magnitudes vary less: step='auto' has balanced round-off against "
        "truncation and kinks",
        lambda facts: (
            facts.automatic and (facts.widest == "truncation" or (facts.widest == "round-off" and facts.balanced))
        ),
    ),
    Row(
        "use a step larger than {0.step:g}, or data whose magnitudes vary less: the round-off of differences falls as "
        "1/h",
        lambda facts: facts.widest == "round-off" and facts.automatic,
    ),
    Row(
        "use a larger step, or step='auto': the round-off of differences falls as 1/h",
        lambda facts: facts.widest == "round-off",
    ),
    Row("use a smaller step, or step='auto': truncation falls as h^2", lambda facts: facts.widest == "truncation"),
    Row(
        "use a smaller step, or step='auto', which crosses fewer kinks; or kinks='exclude', which leaves these "
        "dimensions out",
        lambda facts: facts.widest == "kinks" and not facts.automatic and not facts.black_box,
    ),
    Row(
        "use a smaller step, or step='auto', which crosses fewer kinks",
        lambda facts: facts.widest == "kinks" and not facts.automatic and facts.tally.kinks > 0,
    ),
    Row(
        "use another step, or step='auto': the one-sided slopes differ, and no kink explains it",
        lambda facts: facts.widest == "kinks" and not facts.automatic,
    ),
    Row(
        "check with fewer data points, at another point, or with kinks='exclude': some units lie close to their kinks",
        lambda facts: facts.widest == "kinks" and not facts.black_box,
    ),
    Row(
        "check at another point, further from the kinks of {0.subject}",
        lambda facts: facts.widest == "kinks" and facts.tally.kinks > 0,
    ),
    Row(
        "check at another point: the one-sided slopes differ, and no kink explains it",
        lambda facts: facts.widest == "kinks",
    ),
    Row(
        "compute the gradient with sums that cancel less: its own rounding makes the bars this wide",
        lambda facts: facts.widest == "gradient" and facts.precision == "float64" and facts.black_box,
    ),
    Row("compute the gradient in float64", lambda facts: facts.widest == "gradient" and facts.black_box),
    Row(
        "check at a point where the gradient's sums cancel less, or with fewer terms in each (a smaller batch or map)",
        lambda facts: facts.widest == "gradient" and facts.precision == "float64",
    ),
    Row(
        "use fewer terms in each sum (a smaller batch or map), or compute the gradient in float64",
        lambda facts: facts.widest == "gradient",
    ),
)
"""Ways to narrow the widest bar."""

SOURCES: Table = (
    Row("differences with two steps, which contradict each other", lambda facts: facts.least == "steps"),
    Row("round-off of the differences at h = {0.step:g}", lambda facts: facts.least == "round-off"),
    Row(
        "truncation of the differences at h = {0.step:g}, which falls as h^2",
        lambda facts: facts.least == "truncation",
    ),
    Row(
        "kinks crossed between -h and +h, h = {0.step:g}",
        lambda facts: facts.least == "kinks" and facts.tally.kinks > 0,
    ),
    Row(
        "one-sided slopes at h = {0.step:g}, which differ through rounding or curvature (no kink was found)",
        lambda facts: facts.least == "kinks",
    ),
    Row(
        "round-off of the gradient's own sums, computed in {0.precision}",
        lambda facts: facts.least == "gradient",
    ),
)
"""Sources of the ratios of a tensor that lies inside its bars."""

NOTHING_RESOLVED: Table = (
    Row(
        "every dimension lies at a kink, where any slope between the one-sided ones is a subgradient",
        lambda facts: 0 < facts.tally.at_kink == facts.tally.dims,
    ),
    Row("all values are zero", lambda facts: facts.tally.vanishes),
    Row(
        "no value exceeds its error bar: {0.tally.at_kink:,} lie at a kink, where any slope between the one-sided ones "
        "is a subgradient, and no other is distinguishable from zero",
        lambda facts: facts.tally.at_kink > 0,
    ),
    Row("no value exceeds its error bar: none is distinguishable from zero (a typical one is {0.tally.typical:.0e})"),
)
"""The same where no dimension is resolved."""
