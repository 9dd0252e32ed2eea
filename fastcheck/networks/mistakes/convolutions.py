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
from fastcheck.diagnosis.problem import Problem, flat, of_case
from fastcheck.networks.layers import Conv, ConvTranspose
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back
from fastcheck.networks.suspects import Suspect


def case_of(row: Row, grads: dict[str, np.ndarray] | None = None) -> ConvCase:
    """Return a layer's convolution as a case of its own, with its cotangent and some gradients."""
    layer = row.layer
    assert isinstance(layer, (Conv, ConvTranspose))
    geometry = layer.geometry(row.shape_of(row.sources[0]))
    options: dict[str, Any] = {"stride": geometry.stride, "padding": geometry.padding, "dilation": geometry.dilation}
    if isinstance(layer, ConvTranspose):
        options |= {"transposed": True, "output_padding": layer.output_padding}
    else:
        options |= {"padding_mode": layer.padding_mode}
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
