"""What a program returned at the points: its outputs, weighted, beside what the analytic gradient says."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastcheck.common.arrays import refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.precision import UNITS
from fastcheck.common.progress import ProgressHook
from fastcheck.functions.noise import unit_of_values
from fastcheck.functions.state import Arrays
from fastcheck.probes import files
from fastcheck.probes.files import Source
from fastcheck.probes.manifest import FACTORS, Manifest, Point, Stored


@dataclass
class Evaluated:
    """Values at all points, and the moves as they are stored.

    A point's value is the sum of v * (y - y0) over all outputs, y0 being those at the start point: outputs are
    differenced entry by entry before they meet the cotangent v.

    Attributes
    ----------
    points : list of Point
    values : float64 array
        nan or infinite where an output is.
    promised : float64 array
        Sum of a * (x - x0) over all entries, at each point.
    along : float64 array, shape (directions, tensors)
        Sum of a * move over the entries of a tensor, for each direction.
    moves : float64 array, shape (directions, tensors)
        The smallest move of an entry that moves, by direction and tensor; 0 where it does not move.
    uneven : float64 array
        At each point of a direction, by how much it differs from that multiple of the move, relative to it: inputs
        are rounded to their type.
    bound : float
        Declared bound on the error of a value; 0 without one.
    magnitude : float
        Size that the weighted sum of outputs would have, were their signs random.
    rounding : float
        Standard deviation of the sum's last rounding: of the outputs that change anywhere.
    single : bool
        Whether outputs have no more digits than float32.
    """

    points: list[Point]
    values: np.ndarray
    promised: np.ndarray
    along: np.ndarray
    moves: np.ndarray
    uneven: np.ndarray
    bound: float = 0.0
    magnitude: float = 0.0
    rounding: float = 0.0
    single: bool = False
    starts: list[int] = field(default_factory=list)


def start_of(folder: Path, manifest: Manifest) -> Arrays:
    """Return the start point, as it is stored."""
    return {tensor.name: np.array(_blocks(folder, manifest, tensor)[0], np.float64) for tensor in manifest.tensors}


def largest_moves(folder: Path, manifest: Manifest, tensor: Stored, part: slice) -> np.ndarray:
    """Return the moves of some entries in every direction, from the points that are furthest apart.

    Returns
    -------
    float64 array, shape (directions, entries)
    """
    blocks = _blocks(folder, manifest, tensor)
    pairs = _widest(manifest)
    return np.array([(blocks[high, part].astype(np.float64) - blocks[low, part]) / (2 * by) for low, high, by in pairs])


def evaluate(
    folder: Path,
    manifest: Manifest,
    outputs: Mapping[str, Source],
    cotangents: Arrays,
    grads: Arrays,
    noise: tuple[float, float],
    progress: ProgressHook,
) -> Evaluated:
    """Read all points and all outputs, one point after another.

    ``noise`` is the declared accuracy of an output, absolute and relative to its size.

    Raises
    ------
    FastcheckError
        If a file has another size or type, or is damaged; or if an output is not finite at the start point.
    """
    points = list(manifest.plan.points())
    result = Evaluated(
        points,
        np.zeros(len(points)),
        np.zeros(len(points)),
        np.zeros((manifest.plan.total, len(manifest.tensors))),
        np.zeros((manifest.plan.total, len(manifest.tensors))),
        np.zeros(len(points)),
        starts=[number for number, point in enumerate(points) if not point.by],
    )
    _read_outputs(result, manifest, outputs, cotangents, noise, progress)
    off = np.zeros((2, len(points)))
    for position, tensor in enumerate(manifest.tensors):
        _read_moves(result, off, folder, manifest, position, grads[tensor.name].reshape(-1), progress)
    with np.errstate(invalid="ignore"):
        result.uneven = np.where(off[1] > 0, np.sqrt(off[0] / np.where(off[1] > 0, off[1], 1.0)), 0.0)
    return result


def _read_outputs(
    result: Evaluated,
    manifest: Manifest,
    outputs: Mapping[str, Source],
    cotangents: Arrays,
    noise: tuple[float, float],
    progress: ProgressHook,
) -> None:
    squares, roundings = 0.0, 0.0
    singles = []
    for output in manifest.outputs:
        weights = cotangents[output.name].reshape(-1)
        stack = files.stacked(outputs[output.name], f"output {output.name}", manifest.count, weights.size)
        start = stack[0].reshape(-1).astype(np.float64)
        refuse_non_finite(f"{outputs[output.name]} at the start point", start)
        moving = np.zeros(weights.size, bool)
        for number in range(len(result.points)):
            progress(f"output {output.name}", number, len(result.points))
            with np.errstate(all="ignore"):
                change = stack[number].reshape(-1).astype(np.float64) - start
                result.values[number] += float(weights @ change)
            moving |= change != 0
        unit = max(UNITS[stack.dtype.newbyteorder("=").name], unit_of_values(start))
        singles.append(unit >= UNITS["float32"])
        sizes = np.abs(weights * start)
        result.bound += float(np.maximum(noise[0] * np.abs(weights), noise[1] * sizes).sum())
        squares += float(sizes @ sizes)
        roundings += unit**2 / 3 * float(sizes[moving] @ sizes[moving])
    result.magnitude, result.rounding = math.sqrt(squares), math.sqrt(roundings)
    result.single = all(singles)


def _read_moves(
    result: Evaluated,
    off: np.ndarray,
    folder: Path,
    manifest: Manifest,
    position: int,
    grad: np.ndarray,
    progress: ProgressHook,
) -> None:
    """Add what one tensor's moves promise, and how uneven they are."""
    tensor = manifest.tensors[position]
    blocks = _blocks(folder, manifest, tensor)
    start = blocks[0].astype(np.float64)
    crc, along, current = 0, np.zeros(start.shape), -1
    widest = {low: (high, by) for low, high, by in _widest(manifest)}
    for number, point in enumerate(result.points):
        progress(tensor.name, number, len(result.points))
        block = blocks[number]
        crc = zlib.crc32(np.ascontiguousarray(block).view(np.uint8).data, crc)
        if number in widest:
            high, by = widest[number]
            along, current = (blocks[high].astype(np.float64) - block) / (2 * by), point.direction
            result.along[current, position] = float(grad @ along)
            if manifest.plan.moves(current, position):
                result.moves[current, position] = float(np.abs(along).min())
        change = block - start
        result.promised[number] += float(grad @ change)
        if point.by and point.direction == current:
            change -= point.by * along
            off[0, number] += float(change @ change)
            off[1, number] += float(along @ along) * point.by**2
    if crc != tensor.crc32:
        raise FastcheckError(
            f"{folder / tensor.file} has changed since it was written: expected the points of `fastcheck probe` "
            "(probe again, and let the program write to other files)"
        )


def _blocks(folder: Path, manifest: Manifest, tensor: Stored) -> np.ndarray:
    """Return a tensor at all points, from its file, shape (points, entries)."""
    path = folder / tensor.file
    if not path.is_file():
        raise FastcheckError(f"{path} is missing: expected the points of `fastcheck probe`")
    what = f"{tensor.name}"
    stack = files.stacked(Source(path), what, manifest.count, tensor.size)
    if stack.dtype.newbyteorder("=") != np.dtype(tensor.dtype):
        raise FastcheckError(f"{path} has {stack.dtype} numbers: expected {tensor.dtype}, as it was written")
    return stack.reshape(manifest.count, tensor.size)


def _widest(manifest: Manifest) -> list[tuple[int, int, float]]:
    """Return the places of the two points of each direction that are furthest apart, and half of their distance."""
    by = FACTORS[0] * manifest.plan.steps[0]
    points = list(manifest.plan.points())
    return [(number, number + 1, by) for number, point in enumerate(points) if point.direction >= 0 and point.by == -by]
