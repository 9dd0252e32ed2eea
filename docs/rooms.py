"""Draw the rooms of fastcheck, and who imports whom, into docs/architecture.md.

python docs/rooms.py [--check]

The picture comes from the import statements themselves. Rooms are the packages below fastcheck/, with check.py and
kernels/ beside them; the modules that only pass on public names (__init__.py, layers.py, zoo.py, ...) are left out.
An arrow's number counts pairs of modules of which one imports the other. --check writes nothing, and ends with status 1
where the page is not what this script makes.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = Path("docs") / "architecture.md"

KERNELS = "fastcheck_kernels"

OPEN, CLOSE = "<!-- rooms: written by docs/rooms.py -->\n", "<!-- end -->"

Arrows = Counter[tuple[str, str]]
"""How many imports run from one room to another."""


def modules(root: Path) -> dict[str, Path]:
    """Return the files of both packages by their dotted names."""
    files: dict[str, Path] = {}
    for parent, package in ((root, "fastcheck"), (root / "kernels", KERNELS)):
        for path in sorted((parent / package).rglob("*.py")):
            parts = path.relative_to(parent).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def room_of(module: str, rooms: list[str]) -> str | None:
    """Return the room of a module, None where it only passes on public names."""
    package, *rest = module.split(".")
    name = "kernels" if package == KERNELS else rest[0] if rest else ""
    return name if name in rooms else None


def floors(root: Path) -> list[str]:
    """Return the rooms from top to bottom, in the order that import-linter enforces."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    names = [name.strip() for layer in layers for name in layer.split("|")]
    rooms = ["kernels" if name == KERNELS else name.removeprefix("fastcheck.") for name in names]
    return [room for room in rooms if room in ("kernels", "check") or (root / "fastcheck" / room).is_dir()]


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of ours that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                names.add(member if member in known else node.module)
    return names & known.keys()


def arrows(root: Path, rooms: list[str]) -> Arrows:
    """Count the imports between rooms.

    Raises
    ------
    SystemExit
        If one runs upward, or a module lies in no room.
    """
    known, found = modules(root), Arrows()
    for module, path in known.items():
        room = room_of(module, rooms)
        if room is None and module.count("."):
            if (root / "fastcheck" / module.split(".")[1]).is_dir():
                raise SystemExit(f"{module} lies in no layer of pyproject.toml's import rules")
            continue
        for other in sorted(imported(path, known)):
            target = room_of(other, rooms)
            if room is None or target is None or room == target:
                continue
            if rooms.index(target) < rooms.index(room):
                raise SystemExit(f"{module} imports {other}: {room} lies below {target}")
            found[room, target] += 1
    return found


def direct(found: Arrows) -> Iterator[tuple[str, str]]:
    """Give the arrows that no longer way replaces: the picture with all of them is a ball of wool."""
    below: dict[str, set[str]] = {}
    for room, other in found:
        below.setdefault(room, set()).add(other)

    def reached(room: str) -> set[str]:
        nearest = below.get(room, set())
        return nearest.union(*map(reached, nearest))

    for room, other in found:
        if not any(other in reached(between) for between in below[room] - {other}):
            yield room, other


def drawing(root: Path) -> str:
    """Return the picture and the table below it, in Markdown."""
    rooms = floors(root)
    found = arrows(root, rooms)
    shown = sorted(direct(found), key=lambda arrow: tuple(map(rooms.index, arrow)))
    lines = ["```mermaid", "graph TD"]
    lines += [f"    {room}[{room}{'.py' * (room == 'check')}]" for room in rooms]
    lines += [f"    {room} -- {found[room, other]} --> {other}" for room, other in shown]
    lines += ["```", "", "| room | imports from |", "|---|---|"]
    for room in rooms:
        targets = [f"{other} {found[room, other]}" for other in rooms if found[room, other]]
        lines.append(f"| `{room}` | {', '.join(targets) or 'nothing'} |")
    return "\n".join(lines) + "\n"


def drawn(page: str, root: Path) -> str:
    """Return a page with the drawing between its markers."""
    marked = re.compile(f"(?<={re.escape(OPEN)}).*?(?={re.escape(CLOSE)})", re.DOTALL)
    page, places = marked.subn(lambda match: drawing(root), page)
    if places != 1:
        raise SystemExit(f"{PAGE} has {places} places for the rooms: expected 1")
    return page


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Draw the rooms, or compare the page with what would be drawn."""
    path = root / PAGE
    page = path.read_text()
    made = drawn(page, root)
    if arguments == ["--check"]:
        if made != page:
            print(f"{PAGE} is not what its imports make: run python docs/rooms.py", file=sys.stderr)
        return int(made != page)
    path.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
