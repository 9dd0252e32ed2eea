"""The frozen result of a sweep, and its JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from fastcheck.metrics.judged import Judged
from fastcheck.reports.layout import Row
from fastcheck.reports.outline import Block, Outline
from fastcheck.reports.readable import Readable
from fastcheck.reports.report import SCHEMA, WithJson, encode
from fastcheck.sweeps.curve import Curve


@dataclass(frozen=True, repr=False)
class Sweep(Judged, Readable, WithJson):
    """Curves of several dimensions. A sweep is true if none indicates a coding mistake.

    Attributes
    ----------
    curves : tuple of Curve
        Tensor by tensor, the worst dimension first unless dimensions were chosen.
    evaluator : str
    seed : int
    operands : dict or None
        Shapes and parameters of the case.
    run : dict
        Values that depend on the machine and the moment, as in `fastcheck.Report`.
    """

    curves: tuple[Curve, ...]
    evaluator: str
    seed: int
    operands: dict[str, Any] | None
    run: dict[str, Any]

    @property
    def order(self) -> dict[str, float | None]:
        """The median observed order of each tensor's dimensions, None where none shows one."""
        return self._medians("order")

    @property
    def slope(self) -> dict[str, float | None]:
        """The median round-off slope of each tensor's dimensions, None where none shows one."""
        return self._medians("slope")

    @property
    def passed(self) -> bool:
        """Whether no curve indicates a coding mistake."""
        return all(curve.reading != "coding mistake" for curve in self.curves)

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: 1 where a curve indicates a coding mistake, else 0."""
        return int(not self.passed)

    def of(self, tensor: str) -> tuple[Curve, ...]:
        """Return one tensor's curves."""
        return tuple(curve for curve in self.curves if curve.tensor == tensor)

    def outline(self) -> Outline:
        """Return what the sweep says in short: the text that ``print(sweep)`` prints."""
        mistaken = sum(curve.reading == "coding mistake" for curve in self.curves)
        head = (
            f"{mistaken:,} of {len(self.curves):,} curves indicate a coding mistake"
            if mistaken
            else f"none of {len(self.curves):,} curves indicates a coding mistake"
        )
        blocks = [Block(self._summary(tensor), tuple(map(_row, self.of(tensor)))) for tensor in self.order]
        notes = [f"{curve.tensor} {list(curve.index)}: {curve.words}" for curve in self.curves]
        return Outline("pass" if self.passed else "fail", head, head, tuple(blocks), tuple(notes))

    def summary(self) -> str:
        """Return each tensor's readings, order and slope in one line."""
        return "; ".join(self._summary(tensor) for tensor in self.order)

    def _summary(self, tensor: str) -> str:
        readings = Counter(curve.reading for curve in self.of(tensor))
        counted = ", ".join(f"{count} {reading}" for reading, count in readings.most_common())
        order, slope = (
            "none" if value is None else f"{value:.2f}" for value in (self.order[tensor], self.slope[tensor])
        )
        return f"{tensor}: {counted} (order {order}, round-off slope {slope})"

    def _medians(self, key: str) -> dict[str, float | None]:
        medians: dict[str, float | None] = {}
        for tensor in dict.fromkeys(curve.tensor for curve in self.curves):
            values = [value for curve in self.of(tensor) if (value := getattr(curve, key)) is not None]
            medians[tensor] = median(values) if values else None
        return medians

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as a dict for JSON, with nan and infinities as strings."""
        return encode(
            {
                "schema": SCHEMA,
                "evaluator": self.evaluator,
                "seed": self.seed,
                "order": self.order,
                "slope": self.slope,
                "operands": self.operands,
                "curves": self.curves,
                "run": self.run,
            }
        )


def _row(curve: Curve) -> Row:
    """Return a curve as a row: the dimension, its value at the best step, and the reading."""
    return Row(curve.index, curve.analytic, curve.best_numeric, curve.reading)
