"""Why the worst dimensions of a network's first layer agree as they do: units that they cross, and smaller steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck import tally
from fastcheck.cases.network import NetworkCase
from fastcheck.evaluators import penalty
from fastcheck.evaluators.network_bars import Ground
from fastcheck.evaluators.network_full import Crossing, Full
from fastcheck.geometry import index_of
from fastcheck.network import Penalty
from fastcheck.network_report import Explanation
from fastcheck.paths import Plan
from fastcheck.report import Kept, Report
from fastcheck.sweep import sweep

SHOWN = 3
"""Dimensions that are explained."""

NAMED = 3
"""Units that words name."""

TRIED = 8
"""Smaller steps, by factors of four, until none is crossed."""


def of_first_layer(
    case: NetworkCase, ground: Ground, report: Report, plan: Plan, points: Sequence[int]
) -> tuple[Explanation, ...]:
    """Explain the dimensions of the first layer that agree in the fewest digits.

    Parameters
    ----------
    case : NetworkCase
    ground : Ground
    report : Report
        Of a check that kept the per-dimension arrays.
    plan : Plan
    points : sequence of int
        What the user calls the data points.
    """
    name = next(iter(report.tensors))
    tensor = report.tensors[name]
    if tensor.kept is None or tensor.step is None:
        return ()
    places = _worst(tensor.kept)
    swept = sweep(
        case, tensor=name, dims=[int(tensor.kept.dims[i]) for i in places], threads=plan.threads, seed=plan.seed
    )
    return tuple(
        _explained(case, ground, points, name, tensor.kept, place, tensor.step, curve.brief())
        for place, curve in zip(places, swept.curves, strict=True)
    )


def _worst(kept: Kept) -> list[int]:
    """Return the places of the resolved dimensions that agree least."""
    ratio = tally.relative_difference(kept.analytic, kept.numeric)
    larger = np.maximum(np.abs(kept.analytic), np.abs(kept.numeric))
    finite = np.isfinite(larger)  # others have no digits that could agree
    resolved = larger > (0 if kept.error_bar is None else kept.error_bar)
    large = larger > 1e-9 * larger[finite].max(initial=0.0)
    # A kink can make a bar as wide as the value itself, and is what is to be explained.
    score = np.where(finite & (resolved | (ratio > 1e-6)), np.where(large, ratio, 0.0), -1.0)
    return [int(i) for i in np.lexsort((kept.dims, -score))[:SHOWN] if score[i] >= 0]


def _explained(
    case: NetworkCase,
    ground: Ground,
    points: Sequence[int],
    name: str,
    kept: Kept,
    place: int,
    step: float,
    swept: dict[str, Any],
) -> Explanation:
    full, dim = Full(ground.passes, name, ground.roundoff.loss), int(kept.dims[place])
    analytic, numeric = float(kept.analytic[place]), float(kept.numeric[place])
    found_at = full.crossings(dim, step)
    crossings = [crossing._replace(unit=(points[crossing.unit[0]], *crossing.unit[1:])) for crossing in found_at]
    quiet = _quiet(full, dim, step) if crossings else None
    value = None if quiet is None else _numeric(case, full, name, dim, quiet)
    found = Explanation(
        tensor=name,
        index=index_of(dim, case.grads[name].shape),
        analytic=analytic,
        numeric=numeric,
        digits=_digits(analytic, numeric),
        step=step,
        crossings=tuple(
            {key: value for key, value in crossing._asdict().items() if key != "amount"} for crossing in crossings
        ),
        quiet_step=quiet,
        quiet_numeric=value,
        quiet_digits=None if value is None else _digits(analytic, value),
        sweep=swept,
        words="",
    )
    return _with_words(found, crossings)


def _numeric(case: NetworkCase, full: Full, name: str, dim: int, step: float) -> float:
    """Return the numeric value with another step, regularisation included."""
    own = penalty.difference(case.penalties.get(name, Penalty()), case.point.params[name].reshape(-1)[[dim]], step)
    return float(full.numeric(np.array([dim]), step)[0]) / (2 * step) + float(own[0][0])


def _quiet(full: Full, dim: int, step: float) -> float | None:
    """Return the largest step, by factors of four, with which a dimension crosses nothing."""
    steps = [step * 0.25**count for count in range(1, TRIED + 1)]
    return next((smaller for smaller in steps if not full.crossings(dim, smaller)), None)


def _digits(a: float, n: float) -> float:
    return float(tally.digits(np.array(tally.relative_difference_of(a, n))))


def _with_words(found: Explanation, crossings: list[Crossing]) -> Explanation:
    place = f"{found.tensor}{list(found.index)}"
    words = [f"{place} agrees in {found.digits:.1f} digits at h = {found.step:.3g}."]
    if not crossings:
        words.append("No unit crosses a kink between -h and +h.")
    else:
        largest = sorted(crossings, key=lambda crossing: -crossing.amount)
        count = len(crossings)
        words.append(f"Between -h and +h {count} unit{'s cross' if count > 1 else ' crosses'} a kink:")
        words.append("; ".join(_told(crossing) for crossing in largest[:NAMED]) + ("; ..." if count > NAMED else "."))
    if found.quiet_digits is not None:
        verdict = "no bug" if found.quiet_digits > found.digits else "the kinks are not the reason"
        words.append(f"At h = {found.quiet_step:.3g} none does, and {found.quiet_digits:.1f} digits agree: {verdict}.")
    words.append(f"The sweep over h reads: {found.sweep['reading']}. {found.sweep['words']}")
    return replace(found, words=" ".join(words))


def _told(crossing: Crossing) -> str:
    """Say what one unit does."""
    if crossing.kind == "hinge":
        return (
            f"the hinge's term of data point {crossing.unit[0]} and class {crossing.unit[1]} goes from "
            f"{crossing.minus:.2g} to {crossing.plus:.2g}"
        )
    point, channel, *place = crossing.unit
    unit = f"{crossing.layer}, data point {point}, channel {channel}" + (f", place {tuple(place)}" if place else "")
    if crossing.kind == "winner":
        return f"{unit}: the largest entry is at {_places(crossing.minus)} and then at {_places(crossing.plus)}"
    return f"{unit}: {crossing.minus:.2g} becomes {crossing.plus:.2g}"


def _places(places: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join(str(place) for place in places[:2]) + (" and more" if len(places) > 2 else "")
