"""Findings about a program that was evaluated at probes, and about its gradient."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.common.naming import listed
from fastcheck.metrics.health import HealthFinding


def contradicted(
    failing: int,
    count: int,
    dims: int,
    places: Sequence[str],
    factor: float | None,
    tensors: Sequence[str],
    count_of_tensors: int,
) -> HealthFinding:
    """Describe directions that contradict the gradient.

    Parameters
    ----------
    failing, count, dims : int
        Numbers of directions that contradict it, of all directions, and of dimensions.
    places : sequence of str
        Entries of which one, wrong by itself, explains all directions.
    factor : float or None
        Numeric / analytic, where a factor explains them.
    tensors : sequence of str
        The tensors to blame: of the entries or the factor, else those contradicted where they move alone.
    count_of_tensors : int
        The number of all tensors.
    """
    words = f"{failing:,} of {count:,} directions over all {dims:,} dimensions contradict the gradient"
    some = 0 < len(tensors) < count_of_tensors
    whose = f" of {listed(tensors)}" * some
    if factor is not None:
        name = f"the gradient{whose} is off by a factor"
        words += f"; a factor of {factor:.5g} on the gradient{whose} explains it"
        mistake = "sign" if abs(factor + 1) < 1e-3 else "or missing factor"
        advice = f"numeric / analytic is {factor:.5g}: look for a wrong {mistake}"
    elif len(places) == 1:
        name = f"{places[0]} is wrong"
        words += f"; {places[0]} alone explains it, and all else agrees"
        advice = "what is special about this index (a border, the last one, one that is used twice)?"
    elif places:
        name = f"one of {listed(places, 4)} is wrong"
        words += f"; one of {listed(places, 4)} alone explains it"
        advice = "start with these entries; more --directions tell them apart"
    else:
        name = f"the gradient{whose} is wrong"
        words += f"; moved alone, {listed(tensors)} {'does' if len(tensors) == 1 else 'do'} too" * some
        words += "; moved alone, every array does too" * (1 < len(tensors) == count_of_tensors)
        advice = _where_to_look(some, len(tensors), count_of_tensors)
    return HealthFinding(name, words, advice, "fail", tuple(tensors) if some else ())


def _where_to_look(some: bool, wrong: int, count: int) -> str:
    if some:
        return "look for a missing term, a wrong operand, or an index that is off"
    if wrong or count == 1:
        return "is it the gradient of sum(grad_output * output), with the cotangent of the probes, at the first point?"
    return "probe one array after another (--only NAME) to see whose gradient is wrong"


def few_contradict(finding: HealthFinding) -> HealthFinding:
    """Return the finding of directions that are too few to decide: a bar may be small by chance."""
    advice = "so few decide nothing: probe again with another --seed, and more --directions or a smaller --step"
    return finding._replace(name="directions", verdict="inconclusive", advice=advice)


def beyond_steps(finding: HealthFinding, tensors: Sequence[str]) -> HealthFinding:
    """Return the finding of tensors with steep entries so small beside others that every step exceeds them."""
    has = "has" if len(tensors) == 1 else "have"
    words = (
        f"{finding.words}; but {listed(tensors)} {has} entries that are smaller than every step, with large gradients, "
        "which directions cannot follow"
    )
    advice = "put small entries into an array of their own, which moves by its own size"
    return finding._replace(name="directions", words=words, verdict="inconclusive", advice=advice, tensors=())


def differs_when_repeated(size: float) -> HealthFinding:
    """Describe a program whose outputs at the start point differ, weighted, by ``size`` relative to themselves."""
    return HealthFinding(
        "the program does not repeat itself",
        f"outputs at the start point differ by a relative {size:.1g} when they are evaluated again; the error bars "
        "include that",
        "if it is more than sums in another order: fix the seed, freeze dropout, and reset what is kept between points",
    )


def declared_accuracy(absolute: float, relative: float) -> HealthFinding:
    """Describe the declared accuracy of the outputs, absolute and relative; 0 where it is not declared."""
    parts = [f"{absolute:.3g}"] * bool(absolute) + [f"{relative:.3g} of its size"] * bool(relative)
    words = f"the error bars come from the declared accuracy: an output may be off by {' or '.join(parts)}"
    return HealthFinding("accuracy of the outputs", words)


def older_outputs(files: Sequence[str]) -> HealthFinding:
    """Describe outputs that were written before the points."""
    return HealthFinding(
        "older outputs",
        f"{listed(files)} {'is' if len(files) == 1 else 'are'} older than the points: they may belong to other ones",
        "run the program again",
    )
