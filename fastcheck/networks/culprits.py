"""Where a wrong gradient begins: the first wrong layer on the way back, what lies before it, and what it spoils."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fastcheck.networks.mistakes.row import sources_of
from fastcheck.networks.program import Program
from fastcheck.reports.layout import joined


class Ways:
    """The ways of cotangents through a network: from the loss, against the direction of the forward pass.

    Parameters
    ----------
    program : Program
    checked : collection of str
        The tensors that were checked.
    """

    def __init__(self, program: Program, checked: Collection[str]) -> None:
        self._program, self._checked = program, checked
        self._readers = program.readers()
        self._tensors: dict[int, list[str]] = {}
        for name in checked:
            for row in program.nodes_of(name):
                self._tensors.setdefault(row, []).append(name)

    @property
    def loss(self) -> int:
        """The number that stands for the loss."""
        return len(self._program.nodes)

    def of(self, row: int) -> list[str]:
        """Return the checked tensors of a row."""
        return self._tensors.get(row, [])

    def between(self, name: str, right: Collection[str]) -> list[int]:
        """Return the rows whose mistake may have made a tensor wrong, nearest first: its own, and what lies after them.

        The search ends at rows whose tensors are all right: their cotangents are, but not perhaps what they hand back.
        """
        found = dict[int, None]()
        ahead = sorted(self._program.nodes_of(name))
        own = set(ahead)
        while ahead:
            row = ahead.pop(0)
            if row in found:
                continue
            found[row] = None
            if row == self.loss or (row not in own and self._is_right(row, right)):
                continue
            ahead = sorted({*ahead, *(self._readers[row] or [self.loss])})
        return list(found)

    def _is_right(self, row: int, right: Collection[str]) -> bool:
        return bool(self.of(row)) and all(name in right for name in self.of(row))

    def behind(self, rows: Collection[int]) -> set[int]:
        """Return all rows that get their cotangents from these."""
        found, ahead = set[int](), [row for row in rows if row < self.loss]
        if self.loss in rows:
            return set(range(self.loss))
        while ahead:
            for source in sources_of(self._program.nodes[ahead.pop()]):
                if source not in found:
                    found.add(source)
                    ahead.append(source)
        return found

    def layers(self, rows: Collection[int]) -> list[str]:
        """Return the layers of some rows, by name and in order; the loss by its own."""
        names = dict.fromkeys(self._program.layer_name(row) for row in sorted(rows) if 0 < row < self.loss)
        return [*names, *(["the loss"] if self.loss in rows else [])]

    def words(self, right: Collection[str]) -> dict[str, str]:
        """Return where to look first, for each wrong tensor: by the culprit that it belongs to, or lies behind.

        Parameters
        ----------
        right : collection of str
            The tensors that are right; all others that were checked are wrong.
        """
        wrong = [name for name in self._checked if name not in right]
        words = dict[str, str]()
        for row in sorted({row for name in wrong for row in self._program.nodes_of(name)}, reverse=True):
            own = [name for name in self.of(row) if name in wrong and name not in words]
            if own and not any(row in self.behind([other]) for other in self._wrong_after(row, wrong)):
                said = self._of_culprit(row, wrong, right)
                victims = [name for name in wrong if self._rows(name) & self.behind([row])]
                words.update(dict.fromkeys([*own, *(name for name in victims if name not in words)], said))
        return words

    def _rows(self, name: str) -> set[int]:
        return set(self._program.nodes_of(name))

    def _wrong_after(self, row: int, wrong: Collection[str]) -> Iterator[int]:
        for name in wrong:
            yield from (other for other in self._rows(name) if other > row)

    def _of_culprit(self, row: int, wrong: Collection[str], right: Collection[str]) -> str:
        """Return the words for the first wrong layer on the way back."""
        layer, behind = self._program.layer_name(row), self.behind([row])
        victims = self.layers({other for other in behind for name in self.of(other) if name in wrong})
        victims = [name for name in victims if name != layer]
        mine = [name.rpartition(".")[2] for name in self.of(row) if name in wrong]
        rest = [name.rpartition(".")[2] for name in self.of(row) if name in right]
        checked = any(self.of(other) for other in behind)
        if not victims and checked:
            return (
                f"at {layer} alone: the layers behind it are right, and so are the cotangents that it receives and "
                f"hands back; only its own gradient of {joined(mine)} is wrong"
            )
        lies = f"; {_lie(victims)} behind it and {'receive' if len(victims) > 1 else 'receives'} its cotangent"
        if rest:
            back = ", and at what it hands back" if victims else ""
            return (
                f"at {layer}: its {joined(rest)} is right, so the cotangent that it receives is; look at its gradient "
                f"of {joined(mine)}{back}" + lies * bool(victims)
            )
        return f"at {self._before(row, wrong, right)}" + lies * bool(victims)

    def _before(self, row: int, wrong: Collection[str], right: Collection[str]) -> str:
        """Return the words for what the cotangent of a wrong layer came through."""
        layer = self._program.layer_name(row)
        name = next(name for name in self.of(row) if name in wrong)
        after = [other for other in self.between(name, right) if other > row]
        ends = self.layers([other for other in after if other < self.loss and self._is_right(other, right)])
        passed = [one for one in self.layers(after) if one not in ends]
        known = f"{joined(ends)}, right in {'its' if len(ends) == 1 else 'their'} own gradients" if ends else ""
        handed = f"what {joined(ends)} {'hands' if len(ends) == 1 else 'hand'} back" if ends else ""
        candidates = joined([*passed, *([handed] if handed else [])])
        since = f" ({known})" if known else ""
        return f"what lies between the loss and {layer}, the first wrong layer on the way back: {candidates}{since}"


def _lie(names: list[str]) -> str:
    return f"{joined(names)} {'lie' if len(names) > 1 else 'lies'}"
