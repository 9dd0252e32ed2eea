"""Results as JSON, a section a comparison, and the tables of docs/benchmarks.md made from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import llvmlite.binding  # noqa: F401, which knows the processor that `machine.target` names
import tables

from fastcheck.common import machine

ROOT = Path(__file__).parent.parent
JSON, PAGE = ROOT / "bench" / "results" / "results.json", ROOT / "docs" / "benchmarks.md"


class Results:
    """Where a section is recorded, with the command that measures it again."""

    def __init__(self, command: str) -> None:
        self._command = command

    def record(self, section: str, rows: list[dict[str, Any]], *, packages: tuple[str, ...] = (), **facts: Any) -> None:
        """Replace a section of the JSON file, and its table."""
        described = machine.described()
        described["versions"] |= machine.versions(*packages)
        sections = load()
        sections[section] = {"command": self._command, "machine": described, **facts, "rows": rows}
        JSON.parent.mkdir(exist_ok=True)
        JSON.write_text(json.dumps({"schema": 1, "sections": sections}, indent=1, sort_keys=True) + "\n")
        write_page()


def load() -> dict[str, Any]:
    """Return the sections that were recorded."""
    sections: dict[str, Any] = json.loads(JSON.read_text())["sections"] if JSON.exists() else {}
    return sections


def write_page() -> None:
    """Put the table of every recorded section between its markers."""
    PAGE.write_text(with_tables(PAGE.read_text(), load()))


def with_tables(page: str, sections: dict[str, Any]) -> str:
    """Return a page with the tables of these sections between their markers, the others as they were."""
    for name, section in sections.items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        table = tables.TABLES[name](section)
        page, places = marked.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
        assert places == 1, f"{PAGE.name} has {places} places for {name}"
    return page


if __name__ == "__main__":
    write_page()
