"""Mistakes of convolutions inside a network, out of the catalogue of convolutions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fastcheck.convolutions.case import ConvCase
from fastcheck.diagnosis.catalogue import CATALOGUE, Hypothesis
from fastcheck.diagnosis.convolutions import replayed
from fastcheck.diagnosis.evidence import Diagnosis, Evidence
from fastcheck.diagnosis.mistakes.variant import Variant
from fastcheck.diagnosis.problem import Problem, flat, gradient, of_case
from fastcheck.networks.layers import Conv, ConvTranspose
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back
from fastcheck.networks.suspects import Suspect


def case_of(row: Row, grads: dict[str, np.ndarray] | None = None, mode: str | None = None) -> ConvCase:
    """Return a layer's convolution as a case of its own, with its cotangent and some gradients.

    ``mode`` stands in for the layer's own padding mode.
    """
    layer = row.layer
    assert isinstance(layer, (Conv, ConvTranspose))
    geometry = layer.geometry(row.shape_of(row.sources[0]))
    options: dict[str, Any] = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    if isinstance(layer, ConvTranspose):
        options |= {"transposed": True, "output_padding": layer.output_padding}
    else:
        options |= {"padding_mode": mode or layer.padding_mode}
    weight = row.parameter("weight")
    return ConvCase(
        points_first(row, row.x, row.sources[0]),
        weight,
        row.parameter("bias"),
        groups=geometry.groups,
        grad_output=points_first(row, row.v, row.number),
        grads={"weight": np.zeros_like(weight)} if grads is None else grads,
        **options,
    )


def points_first(row: Row, array: np.ndarray, like: int) -> np.ndarray:
    """Return an activation as users have it, (N, C, spatial...)."""
    shape = row.shape_of(like)
    return np.ascontiguousarray(np.moveaxis(array, 2, 0)).reshape(-1, *shape)


def points_last(array: np.ndarray) -> np.ndarray:
    """Return an activation as rows have it."""
    points, channels = array.shape[:2]
    return np.ascontiguousarray(np.moveaxis(array.reshape(points, channels, -1), 0, 2))


def problem_of(row: Row, x: np.ndarray | None = None, v: np.ndarray | None = None) -> Problem:
    """Return a layer's backward pass, perhaps with another input or cotangent."""
    changed = Row(row.passes, row.number, row.cotangents, row.right, row.grads)
    changed.__dict__["x"] = row.x if x is None else x
    changed.__dict__["v"] = row.v if v is None else v
    with ThreadPoolExecutor(1) as pool:
        return of_case(case_of(changed), pool)


def of_input(row: Row) -> Iterator[tuple[Hypothesis, Variant]]:
    """Yield the mistakes that a layer's input gradient can have."""
    problem = problem_of(row)
    for hypothesis in CATALOGUE:
        if "input" in hypothesis.tensors and not hypothesis.last_resort and problem.rank >= hypothesis.least_rank:
            for variant in hypothesis.variants(problem):
                yield hypothesis, variant


def handing_back(name: str, detail: str) -> Carry:
    """Return a mistake of the catalogue in the input gradient, by its name and its variant's detail."""

    def carry(row: Row) -> Carried | None:
        problem = problem_of(row)
        hypothesis = next(one for one in CATALOGUE if one.name == name)
        if problem.rank < hypothesis.least_rank:
            return None
        variant = next((one for one in hypothesis.variants(problem) if one.detail == detail), None)
        if variant is None:
            return None
        with ThreadPoolExecutor(1) as pool:
            changed = variant.within(variant.before(problem))
            found = variant.after(variant.gradient(changed, "input", pool))
        size = math.prod(row.right[0].shape)
        return back(points_last(flat(found))) if found.size == size else None

    return carry


def groups_rolled(by: int) -> Carry:
    """Return the mistake that hands each group's input the cotangent of a neighbour's."""

    def carry(row: Row) -> Carried | None:
        groups = getattr(row.layer, "groups", 1)
        return back(np.roll(row.right[0], by * (len(row.x) // groups), axis=0)) if groups > 1 else None

    return carry


def groups_reversed(row: Row) -> Carried | None:
    """Hand the input of the groups back in the opposite order."""
    groups = getattr(row.layer, "groups", 1)
    if groups < 3:  # of two, it is a roll
        return None
    parts = row.right[0].reshape(groups, -1, *row.right[0].shape[1:])
    return back(parts[::-1].reshape(row.right[0].shape))


def padded_as(mode: str) -> Carry:
    """Return the mistake of another padding mode, in all gradients."""

    def carry(row: Row) -> Carried | None:
        layer = row.layer
        if not isinstance(layer, Conv) or layer.padding_mode == mode or not _has_room(row, layer, mode):
            return None
        with ThreadPoolExecutor(1) as pool:
            problem = of_case(case_of(row, mode=mode), pool)
            weight, x = (gradient(problem, tensor, pool) for tensor in ("weight", "input"))
        return Carried((points_last(flat(x)),), {"weight": weight})

    return carry


def _has_room(row: Row, layer: Conv, mode: str) -> bool:
    """Return whether there is padding, and the map has enough pixels to fill it so."""
    sizes = row.shape_of(row.sources[0])[1:]
    most = [size - 1 if mode == "reflect" else size for size in sizes]
    sides = layer.geometry(row.shape_of(row.sources[0])).padding
    inside = mode in ("zeros", "replicate") or all(max(pair) <= room for pair, room in zip(sides, most, strict=True))
    return inside and any(map(any, sides))


def own(row: Row, suspect: Suspect) -> list[Diagnosis]:
    """Return the mistakes that make the layer's own weight or bias gradient, from its cotangent in a row.

    The regularisation's gradient is taken off first.
    """
    tensor = suspect.name.rpartition(".")[2]
    right = row.parameter(tensor)
    assert right is not None
    data = (suspect.given - (suspect.right - suspect.reference)).reshape(right.shape)
    evidence = Evidence(tensor, data, np.arange(data.size), suspect.reference, suspect.bars)
    return replayed(case_of(row, {tensor: data}), {tensor: evidence}) if evidence.failing.any() else []
