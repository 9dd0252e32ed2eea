"""The search for the mistakes that make a network's wrong gradients: the layer nearest the loss first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastcheck.networks.catalogue.table import CATALOGUE
from fastcheck.networks.culprits import Ways
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.mistakes import convolutions
from fastcheck.networks.mistakes.row import Carry, Row
from fastcheck.networks.penalty import Share
from fastcheck.networks.replay import Replay
from fastcheck.networks.suspects import RIGHT, Suspect

CONVOLUTIONS = ("conv", "conv_transpose")
"""Kinds of layers that have the mistakes of convolutions."""


class Candidate(NamedTuple):
    """A mistake in some rows.

    Attributes
    ----------
    bug, advice : str
    carries : dict of int to Carry
        By row; the loss has the number of rows.
    """

    bug: str
    advice: str
    carries: dict[int, Carry]


@dataclass
class Finding:
    """A mistake that makes the gradients of some tensors that failed.

    Attributes
    ----------
    bug, advice : str
    rows : list of int
        Where it was made.
    shares : dict of str to Share
        The tensors that it explains, each with its share of the regularisation's gradient.
    residuals : dict of str to float
    """

    bug: str
    advice: str
    rows: list[int]
    shares: dict[str, Share] = field(default_factory=dict)
    residuals: dict[str, float] = field(default_factory=dict)


class Search:
    """A search through the mistakes of the catalogue.

    Parameters
    ----------
    baseline : Baseline
    suspects : mapping of str to Suspect
        All tensors that were checked.
    ways : Ways
    """

    def __init__(self, baseline: Baseline, suspects: Mapping[str, Suspect], ways: Ways) -> None:
        self._passes, self._suspects, self._ways = baseline.passes, suspects, ways
        self._program = baseline.passes.program
        self._replay = Replay(baseline)
        self._settled = {name for name, one in suspects.items() if not one.failed}
        self._made: dict[int, Carry] = {}

    def findings(self) -> Iterator[list[Finding]]:
        """Yield the mistakes found, one after another; those of a list make the same arrays."""
        failed = [name for name, one in self._suspects.items() if one.failed]
        for name in sorted(failed, key=lambda name: -max(self._program.nodes_of(name))):
            if name in self._settled:
                continue
            found = self._of(name)
            if found:
                self._settled |= set(found[0].shares)
                yield found
            self._settled.add(name)  # what lies after it has been tried

    def _of(self, name: str) -> list[Finding]:
        """Return the mistakes that explain a tensor, and as many others as any does."""
        between = self._ways.between(name, self._settled)
        first = max([row for row in between if row < self._ways.loss])
        self._replay.start(self._made, first)
        fitting = [pair for group in self._candidates(between, first) for pair in self._fitting(group, between, name)]
        most = max((len(one.shares) for one, _ in fitting), default=0)
        best: dict[tuple[str, str], tuple[Finding, Candidate]] = {}
        for one, candidate in fitting:
            if len(one.shares) == most:
                best.setdefault((candidate.bug, candidate.advice), (one, candidate))
        if best:
            self._made |= next(iter(best.values()))[1].carries
        own = self._own(name) if most <= 1 else []
        return [*(one for one, _ in best.values()), *own]

    def _own(self, name: str) -> list[Finding]:
        """Return the mistakes of a convolution in its own weight or bias, from a right cotangent."""
        rows = self._program.nodes_of(name)
        if self._kinds()[rows[0]] not in CONVOLUTIONS or len(rows) > 1 or rows[0] in self._ways.behind(self._made):
            return []
        row, suspect = self._row(rows[0]), self._suspects[name]
        return [
            Finding(one.bug, one.advice, rows, {name: RIGHT}, {name: one.residual})
            for one in convolutions.own(row, suspect)
        ]

    def _row(self, number: int) -> Row:
        """Return a row of the right backward pass."""
        return Row(self._passes, number, [chunk.cotangents for chunk in self._passes.chunks])

    def _fitting(
        self, group: Iterator[Candidate], between: list[int], name: str
    ) -> Iterator[tuple[Finding, Candidate]]:
        """Yield those of one mistake's candidates that explain a tensor.

        In all layers of a kind it looks like in one as long as a single one lies between: it is tried where that fits.
        """
        found = False
        for candidate in group:
            several = len({*between} & {*candidate.carries}) > 1
            if len(candidate.carries) > 1 and not (found or several):
                continue
            one = self._tried(candidate, name)
            if one is not None:
                found = True
                yield one, candidate

    def _tried(self, candidate: Candidate, wanted: str) -> Finding | None:
        """Return what a mistake explains; None where that is not the tensor wanted, or it spoils what is right."""
        finding = Finding(candidate.bug, candidate.advice, list(candidate.carries))

        def arrive(name: str, gradient: np.ndarray) -> bool:
            suspect = self._suspects.get(name)
            if suspect is None:
                return True
            share = suspect.share(gradient)
            if share is not None and suspect.failed and name not in self._settled:
                finding.shares[name] = share
                finding.residuals[name] = suspect.residual(gradient, share)
            return share is not None or not (name == wanted or not suspect.failed)

        fits = self._replay.run(self._made | candidate.carries, arrive)
        finding.rows = sorted(self._replay.made & set(candidate.carries))
        return finding if fits and wanted in finding.shares else None

    def _candidates(self, between: list[int], first: int) -> Iterator[Iterator[Candidate]]:
        """Yield the candidates of each mistake: in one layer, nearest first, then in all layers of a kind."""
        kinds = self._kinds()
        if self._ways.loss in between:
            yield self._of_loss()
        for hypothesis in CATALOGUE:
            rows = [row for row in between if kinds.get(row) in hypothesis.kinds]
            for kind in dict.fromkeys(kinds[row] for row in rows):
                own = [row for row in rows if kinds[row] == kind]
                yield self._in_rows(hypothesis.bug, hypothesis.advice, hypothesis.carry, own, first)
        for row in between:
            if kinds.get(row) in CONVOLUTIONS and self._program.nodes[row].columns["a"] > 0:
                for one, variant in convolutions.of_input(self._row(row)):
                    bug = f"{one.bug}: {variant.detail}" if variant.detail else one.bug
                    carry = convolutions.handing_back(one.name, variant.detail)
                    yield self._in_rows(bug, one.advice, carry, [row], first)

    def _in_rows(self, bug: str, advice: str, carry: Carry, rows: list[int], first: int) -> Iterator[Candidate]:
        """Yield a mistake in single rows of one kind, then in all rows of it."""
        for row in rows:
            yield Candidate(bug, advice, {row: carry})
        kinds = self._kinds()
        every = [row for row in kinds if kinds[row] == kinds[rows[0]] and row <= first] if rows else []
        if len(every) > 1:
            yield Candidate(bug, advice, dict.fromkeys(every, carry))

    def _kinds(self) -> dict[int, str]:
        layers = self._passes.point.network.layers
        nodes = self._program.nodes
        return {row: layers[node.layer].kind for row, node in enumerate(nodes) if node.layer >= 0}

    def _of_loss(self) -> Iterator[Candidate]:
        network = self._passes.point.network
        for hypothesis in CATALOGUE:
            if {network.loss, network.reduction} & set(hypothesis.kinds):
                yield Candidate(hypothesis.bug, hypothesis.advice, {self._ways.loss: hypothesis.carry})
