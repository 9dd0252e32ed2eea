"""The manifest of a folder of probes: what its files hold, and in which order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief
from fastcheck.common.opened import opened

NAME = "probes.json"

SCHEMA = 1

FACTORS = (4, 2, 1)
"""Multiples of a step at which a direction is probed, to both sides: the largest first, since it defines the move."""

STARTS = 5
"""Times that the start point itself is evaluated, spread over all points: a program that does not repeat itself, or
depends on what it evaluated before, shows."""

SAMPLES = 9
"""Points for each spacing at which noise is measured (`fastcheck.functions.ecnoise`)."""


class Point(NamedTuple):
    """A point at which the program is evaluated.

    Attributes
    ----------
    direction : int
        The start point is moved along it; -1 for the direction along which noise is measured.
    by : float
        By so many times the direction; 0 at the start point.
    """

    direction: int
    by: float


@dataclass(frozen=True)
class Stored:
    """An array in a file of the folder.

    Attributes
    ----------
    name, file : str
    dtype : str
        A NumPy name, such as "float64". Raw files are little-endian.
    shape : tuple of int
        The shape at one point.
    crc32 : int
        Of all entries, as the file holds them.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    crc32: int

    @property
    def size(self) -> int:
        """The number of entries at one point."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Output:
    """An output that the program is to write, by its name and shape."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The points, in order.

    Attributes
    ----------
    directions : int
        Directions in which all tensors move.
    own : int
        Further directions for each tensor, in which it moves alone.
    tensors : int
        Number of tensors.
    steps : tuple of float
        Steps h of each direction, the largest first: it is probed at h, 2h and 4h, to both sides.
    bottom : float
        A step far below, probed at ±h alone: it shows whether the program varies on a scale far below the steps; 0
        without one.
    spacings : tuple of float
        Distances between points where noise is measured, as fractions of the entries.
    """

    directions: int
    own: int
    tensors: int
    steps: tuple[float, ...]
    bottom: float
    spacings: tuple[float, ...]

    @property
    def total(self) -> int:
        """The number of directions."""
        return self.directions + self.own * self.tensors

    def moves(self, direction: int, tensor: int) -> bool:
        """Return whether a tensor, by its position, moves in a direction."""
        return direction < self.directions or (direction - self.directions) // self.own == tensor

    def alike(self, direction: int) -> range:
        """Return the directions in which the same tensors move."""
        if direction < self.directions:
            return range(self.directions)
        first = direction - (direction - self.directions) % self.own
        return range(first, first + self.own)

    def points(self) -> Iterator[Point]:
        """Yield all points."""
        between = {math.ceil(self.total * part / (STARTS - 2)) for part in range(STARTS - 2)}
        for direction in range(self.total):
            if direction in between:
                yield Point(0, 0.0)
            for by in (*(factor * step for step in self.steps for factor in FACTORS), self.bottom):
                if by:
                    yield Point(direction, -by)
                    yield Point(direction, by)
        yield Point(0, 0.0)
        for spacing in self.spacings:
            yield from (Point(-1, number * spacing) for number in range(1, SAMPLES + 1))
        yield Point(0, 0.0)


@dataclass(frozen=True)
class Manifest:
    """All that a folder of probes says of itself.

    Attributes
    ----------
    schema : int
    fastcheck, numpy : str
        Versions.
    seed : int
    format : {"raw", "npy"}
    count : int
        Number of points.
    plan : Plan
    tensors : tuple of Stored
        Those that move: files of all points, one after another.
    constants : tuple of Stored
        Arrays that do not move, once each.
    outputs : tuple of Output
    cotangents : tuple of Stored
        The loss is the sum of cotangent * output; an output of one number without a cotangent counts with 1.
    balanced : bool
        Whether a gradient balanced the moves of the tensors.
    """

    schema: int
    fastcheck: str
    numpy: str
    seed: int
    format: Literal["raw", "npy"]
    count: int
    plan: Plan
    tensors: tuple[Stored, ...]
    constants: tuple[Stored, ...]
    outputs: tuple[Output, ...]
    cotangents: tuple[Stored, ...]
    balanced: bool

    @property
    def dims(self) -> int:
        """The number of entries that move."""
        return sum(tensor.size for tensor in self.tensors)

    def to_json(self) -> str:
        """Return the manifest as text."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read(folder: str | Path) -> Manifest:
    """Read the manifest of a folder.

    Raises
    ------
    FastcheckError
        If the folder has none, or it is damaged or of another version.
    """
    from pydantic import TypeAdapter, ValidationError  # imported here, so that `import fastcheck` stays quick

    path = Path(folder) / NAME
    if not path.is_file():
        raise FastcheckError(f"{folder} has no {NAME}: expected a folder that `fastcheck probe` wrote")
    with opened(path) as file:
        text = file.read()
    try:
        manifest = TypeAdapter(Manifest).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FastcheckError(f"{path} is damaged: {f'{where}: ' * bool(where)}{brief(first['msg'])}") from None
    if manifest.schema != SCHEMA:
        raise FastcheckError(f"{path} has schema {manifest.schema}: this version reads schema {SCHEMA}")
    if manifest.plan.tensors != len(manifest.tensors) or manifest.count != sum(1 for _ in manifest.plan.points()):
        raise FastcheckError(f"{path} is damaged: its plan is not that of its {manifest.count:,} points")
    return manifest
