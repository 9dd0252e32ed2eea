"""The mistakes that a case cannot show, by what hides them, and a case that shows all, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from fastcheck.convolutions.geometry import ConvGeometry


def text(spots: Iterable[tuple[str, str]], suggested: ConvGeometry) -> str:
    """Return the text for ``--suggest``, of mistakes with their reasons and a case's geometry."""
    return "\n".join([*_by_reason(spots), *_suggestion(suggested)]) + "\n"


def _by_reason(spots: Iterable[tuple[str, str]]) -> Iterator[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for bug, reason in spots:
        by_reason[reason].append(bug)
    if not by_reason:
        yield "This case would show every known mistake."
        return
    count = sum(map(len, by_reason.values()))
    yield f"This case cannot show {count} known mistake{'s' * (count > 1)}:"
    for reason, bugs in by_reason.items():
        yield f"  {reason}, which hides:"
        yield from (f"    - {bug}" for bug in bugs)


def _suggestion(geometry: ConvGeometry) -> Iterator[str]:
    yield "A small case that would show all, of random arrays (leave out what your layer does not have):"
    arguments = geometry.described() | {"grad_output": geometry.output_shape}
    del arguments["output"]
    yield from (f"  {name} = {value}" for name, value in arguments.items())
