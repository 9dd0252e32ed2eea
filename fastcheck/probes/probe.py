"""Probes: a folder of points around a start point, for a program to evaluate."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Literal

import numpy as np

from fastcheck.common.arguments import Shape, integer, positive
from fastcheck.common.arrays import floating, refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.machine import versions
from fastcheck.common.naming import listed, refuse_unknown
from fastcheck.common.progress import ProgressHook
from fastcheck.common.writing import whole_folder
from fastcheck.probes import directions, files
from fastcheck.probes.directions import SPACINGS, STEPS, Lines
from fastcheck.probes.files import ENDINGS, Writer
from fastcheck.probes.manifest import NAME, SCHEMA, Manifest, Output, Plan, Point, Stored

OWN = 2
"""Further directions for each tensor, in which it moves alone: they show which gradient is wrong."""

MOST_OWN = 8
"""Largest number of tensors that get directions of their own."""

ALONE = "output"
"""Name of the output where none is named: a single number, the loss."""


class Probes:
    """Points around a start point, ready to be written.

    Parameters
    ----------
    arrays : mapping of str to array
        The start point: float64 or float32 arrays move; others do not.
    only : collection of str, optional
        Names of the arrays that move. By default, all of floating point do.
    grads : mapping of str to array, optional
        A gradient that balances how far the tensors move.
    outputs : mapping of str to shapes, optional
        The program's outputs. By default one number, the loss.
    count : int
        Number of directions over all tensors.
    step : float, optional
        The step; by default, two that suit the type.
    format : {"raw", "npy"}
    seed : int

    Raises
    ------
    FastcheckError
        If an argument is invalid.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        only: Collection[str] | None = None,
        grads: Mapping[str, np.ndarray] | None = None,
        outputs: Mapping[str, tuple[int, ...]] | None = None,
        count: int = 24,
        step: float | None = None,
        format: Literal["raw", "npy"] = "raw",
        seed: int = 0,
    ) -> None:
        self._format, self._seed, self._balanced = format, seed, grads is not None
        self._params = _moving(arrays, only)
        self._constants = {name: array for name, array in arrays.items() if name not in self._params}
        self._outputs = {ALONE: ()} if outputs is None else dict(outputs)
        self._refuse_names()
        weights = directions.weights(self._params, grads)
        self._lines = Lines(self._params, weights, seed)
        dtype = min((array.dtype for array in self._params.values()), key=lambda dtype: dtype.itemsize)
        steps: tuple[float, ...] = STEPS[dtype.name] if step is None else (positive("step", step),)
        self._lines.refuse_overflow(max(steps))
        steps = self._lines.usable(steps)
        several = 2 <= len(self._params) <= MOST_OWN
        self.plan = Plan(
            directions=integer("directions", count, least=1, most=10_000),
            own=OWN * several,
            tensors=len(self._params),
            steps=steps,
            bottom=self._lines.bottom(steps),
            spacings=SPACINGS[dtype.name],
        )
        self._cotangents = directions.drawn(self._outputs, dtype, seed)
        self._count = sum(1 for _ in self.plan.points())

    @property
    def bytes(self) -> int:
        """Size of the files of all points."""
        return self._count * sum(array.nbytes for array in self._params.values())

    def write(self, folder: str | Path, replace: bool, progress: ProgressHook) -> Manifest:
        """Write all files, or none.

        Raises
        ------
        FastcheckError
            If the folder is not empty (unless it has probes, and may be ``replaced``), or cannot be written.
        """
        with whole_folder(folder, NAME, replace) as place:
            free = shutil.disk_usage(place).free
            if self.bytes > free:
                raise FastcheckError(
                    f"{folder} needs {self.bytes:,} bytes for {self._count:,} points, and {free:,} are free: expected "
                    "fewer --directions, or tensors (--only)"
                )
            manifest = self._written(place, progress)
            (place / NAME).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def _written(self, place: Path, progress: ProgressHook) -> Manifest:
        cotangents = {f"grad_{name}": array for name, array in self._cotangents.items() if array.size > 1}
        made = versions()
        return Manifest(
            schema=SCHEMA,
            fastcheck=made["fastcheck"],
            numpy=made["numpy"],
            seed=self._seed,
            format=self._format,
            count=self._count,
            plan=self.plan,
            tensors=self._write_points(place, progress),
            constants=tuple(self._write_one(place, name, array) for name, array in self._constants.items()),
            outputs=tuple(Output(name, shape) for name, shape in self._outputs.items()),
            cotangents=tuple(self._write_one(place, name, array) for name, array in cotangents.items()),
            balanced=self._balanced,
        )

    def _write_points(self, place: Path, progress: ProgressHook) -> tuple[Stored, ...]:
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(self._writer(place, name, (self._count, *array.shape), array.dtype))
                for name, array in self._params.items()
            }
            for number, point in enumerate(self.plan.points()):
                progress("points", number, self._count)
                for position, (name, writer) in enumerate(writers.items()):
                    moves = point.direction < 0 or self.plan.moves(point.direction, position)
                    writer.write(self._lines.at(point if moves else Point(0, 0.0), name))
        return tuple(self._stored(name, self._params[name], writer) for name, writer in writers.items())

    def _write_one(self, place: Path, name: str, array: np.ndarray) -> Stored:
        with self._writer(place, name, array.shape, array.dtype) as writer:
            writer.write(array)
        return self._stored(name, array, writer)

    def _writer(self, place: Path, name: str, shape: Shape, dtype: np.dtype) -> AbstractContextManager[Writer]:
        return closing(Writer(place / self._file(name), self._format, shape, dtype))

    def _stored(self, name: str, array: np.ndarray, writer: Writer) -> Stored:
        return Stored(name, self._file(name), array.dtype.name, array.shape, writer.crc32)

    def _file(self, name: str) -> str:
        return name + ENDINGS[self._format]

    def _refuse_names(self) -> None:
        """Refuse names that are no names of files, or that two files would share."""
        names = [*self._params, *self._constants]
        taken = {*names, *(f"grad_{name}" for name in names)}
        for name in (*names, *self._outputs):
            if not name or name[0] in ".-" or any(mark in name for mark in "/\\:=\0") or not name.isprintable():
                raise FastcheckError(f"{name!r} names a file: expected letters, digits, and marks such as . _ -")
        for name in self._outputs:
            if taken & {name, f"grad_{name}"}:
                raise FastcheckError(f"output {name!r} has the name of an input: expected another one")


def _moving(arrays: Mapping[str, np.ndarray], only: Collection[str] | None) -> dict[str, np.ndarray]:
    """Return the arrays that move, in their types and in C's order."""
    for name in only or ():
        refuse_unknown("--only", name, tuple(arrays))
    moving = {}
    for name, array in arrays.items():
        if array.dtype.kind in "iub" and not (only and name in only):
            continue
        if only is None or name in only:
            values = floating(name, array).values
            if array.dtype.newbyteorder("=") not in (np.float64, np.float32):
                raise FastcheckError(
                    f"{name} has dtype {array.dtype}: expected float64 or float32 (store the same values as float32, "
                    "and let the program round them)"
                )
            if not array.size:
                raise FastcheckError(f"{name} is empty: it has shape {array.shape}")
            refuse_non_finite(name, values)
            moving[name] = np.array(values, values.dtype.newbyteorder("="), order="C")
    if not moving:
        raise FastcheckError(f"none of {listed(arrays, 6) or 'no arrays'} is of floating point: nothing could be moved")
    return moving


def read_balance(given: Sequence[str], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read a gradient of some arrays, to balance how far they move."""
    wanted = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    sources = files.find("grads", wanted, given, Path())
    found = {name: source for name, source in sources.items() if source is not None}
    return {
        name: files.array(source, name, arrays[name].shape).values.astype(np.float64) for name, source in found.items()
    }


def amount(count: int) -> str:
    """Return a number of bytes in words."""
    power = min(3, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"
