"""Where a wrong gradient begins: the first wrong layer on the way back, what lies before it, and what it spoils."""

from __future__ import annotations

from collections.abc import Collection

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
        names = dict.fromkeys(self._name(row) for row in sorted(rows) if 0 < row < self.loss)
        return [*names, *(["the loss"] if self.loss in rows else [])]

    def _name(self, row: int) -> str:
        layer = self._program.network.layers[self._program.nodes[row].layer]
        return f"{layer.name} (shares {layer.shares})" if layer.shares else str(layer.name)

    def words(self, right: Collection[str]) -> dict[str, str]:
        """Return where to look first, for each wrong tensor: by the culprit that it belongs to, or lies behind.

        Parameters
        ----------
        right : collection of str
            The tensors that are right; all others that were checked are wrong.
        """
        wrong = [name for name in self._checked if name not in right]
        spoilt = [row for row in range(self.loss) if self._is_spoilt(row, wrong, right)]
        words = {
            name: self._of_own(row, wrong, right) for row in self._tensors for name in self.of(row) if name in wrong
        }
        said = set[int]()
        for row in reversed(spoilt):
            if row in said:
                continue
            victims = [other for other in spoilt if other in self.behind([row])]
            text = self._of_culprit(row, victims, wrong, right)
            own = [other for other in (row, *victims) if other not in said]
            words |= {name: text for other in own for name in self.of(other) if name in wrong}
            said |= {row, *victims}
        return words

    def _is_spoilt(self, row: int, wrong: Collection[str], right: Collection[str]) -> bool:
        """Return whether a row's cotangent may be wrong: it has a wrong gradient, and no right weight."""
        own = self.of(row)
        return any(name in wrong for name in own) and not any(_is_telling(name) and name in right for name in own)

    def _rows(self, name: str) -> set[int]:
        return set(self._program.nodes_of(name))

    def _parts(self, row: int, names: Collection[str]) -> str:
        return joined([name.rpartition(".")[2] for name in self.of(row) if name in names])

    def _of_own(self, row: int, wrong: Collection[str], right: Collection[str]) -> str:
        """Return the words for a layer with a right weight, whose cotangent is right."""
        return (
            f"at the layer's own gradient of {self._parts(row, wrong)}: its {self._parts(row, right)} is right, and so "
            "is the cotangent that it receives"
        )

    def _of_culprit(self, row: int, victims: list[int], wrong: Collection[str], right: Collection[str]) -> str:
        """Return the words for the first layer on the way back whose cotangent may be wrong."""
        layer, mine = self._program.layer_name(row), self._parts(row, wrong)
        names = [name for name in self.layers(victims) if name != layer]
        behind = [other for other in self.behind([row]) if self.of(other)]
        if not names and behind:
            return (
                f"at {layer}'s own gradient of {mine}: the layers behind it are right, and so are the cotangents that "
                "it receives and hands back"
            )
        before = f"{self._before(row, right)}{_behind(names)}"
        if self._parts(row, right):
            return (
                f"at {layer}'s gradient of {mine}, or at what moves cotangents about but keeps their sum, since its "
                f"{self._parts(row, right)} is right: {before}"
            )
        return f"at what lies between the loss and {layer}, the first wrong layer on the way back: {before}"

    def of_mistake(self, rows: Collection[int], explained: Collection[str], right: Collection[str]) -> str:
        """Return where to look first for a mistake that makes some tensors wrong: where it was made, what is behind."""
        own, behind = self.layers(rows), self.behind(rows)
        others = [name for name in explained if not self._rows(name) & {*rows}]
        victims = self.layers({row for name in others for row in self._rows(name)} & behind)
        after = [name for row in behind for name in self.of(row)]
        fine = "; what lies behind is right" if after and all(name in right for name in after) else ""
        return f"at {joined(own)}{_behind(victims) or fine}"

    def _before(self, row: int, right: Collection[str]) -> str:
        """Return the words for what the cotangent of a wrong layer came through."""
        name = next(name for name in self.of(row) if name not in right)
        after = [other for other in self.between(name, right) if other > row]
        ends = self.layers([other for other in after if other < self.loss and self._is_right(other, right)])
        passed = [one for one in self.layers(after) if one not in ends]
        known = f"{joined(ends)}, right in {'its' if len(ends) == 1 else 'their'} own gradients" if ends else ""
        handed = f"what {joined(ends)} {'hands' if len(ends) == 1 else 'hand'} back" if ends else ""
        candidates = joined([*passed, *([handed] if handed else [])])
        since = f" ({known})" if known else ""
        return f"{candidates}{since}"


def _is_telling(name: str) -> bool:
    """Return whether a gradient tells if its cotangent is right: a bias has the same for cotangents of the same sum."""
    return not name.endswith(".bias")


def _behind(victims: list[str]) -> str:
    """Return the words for the layers that a wrong cotangent reaches."""
    if not victims:
        return ""
    verbs = ("lie", "receive") if len(victims) > 1 else ("lies", "receives")
    return f"; {joined(victims)} {verbs[0]} behind and {verbs[1]} the wrong cotangent"
