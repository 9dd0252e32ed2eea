"""The base of reports that show themselves: as text, in one line and in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastcheck.reports.outline import Outline


class Readable:
    """Base of what has an outline: its text, its one-line form and its table in a notebook."""

    if TYPE_CHECKING:

        def outline(self) -> Outline: ...

    def __str__(self) -> str:
        return "\n".join(self.outline().lines())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.outline().closing}>"

    def _repr_html_(self) -> str:
        from fastcheck.reports.notebook import html  # imported only in notebooks

        return html(self.outline())
