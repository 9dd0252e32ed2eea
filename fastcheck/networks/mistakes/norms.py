"""Wrong backward passes of normalisations: of the batch, of a layer, of groups and of instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastcheck.networks.layers import BatchNorm, GroupNorm, InstanceNorm
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back

Average = Callable[[np.ndarray], np.ndarray]
"""Averages an activation over the entries that are normalised together, and repeats the average for each of them."""


class Parts(NamedTuple):
    """What the backward pass of a normalisation is made of.

    Attributes
    ----------
    g : array
        The cotangent times the weight.
    unit, inverse : arrays
        The normalised input, and 1 / standard deviation.
    average : callable
    size : float
        Number of entries that are normalised together.
    """

    g: np.ndarray
    unit: np.ndarray
    inverse: np.ndarray
    average: Average
    size: float


def right(parts: Parts) -> np.ndarray:
    """Return the gradient of the input."""
    return parts.inverse * (parts.g - parts.average(parts.g) - _variance_term(parts))


def _variance_term(parts: Parts) -> np.ndarray:
    return parts.unit * parts.average(parts.g * parts.unit)


def without_mean_term(parts: Parts) -> np.ndarray:
    """Return it with the mean held constant."""
    return parts.inverse * (parts.g - _variance_term(parts))


def without_variance_term(parts: Parts) -> np.ndarray:
    """Return it with the variance held constant."""
    return parts.inverse * (parts.g - parts.average(parts.g))


def without_both_terms(parts: Parts) -> np.ndarray:
    """Return it with both statistics held constant."""
    return parts.inverse * parts.g


def without_division(parts: Parts) -> np.ndarray:
    """Return it with sums where averages are right."""
    return parts.inverse * (parts.g - parts.size * (parts.average(parts.g) + _variance_term(parts)))


def without_deviation(parts: Parts) -> np.ndarray:
    """Return it without the division by the standard deviation."""
    return right(parts._replace(inverse=np.ones_like(parts.inverse)))


def by_variance(parts: Parts) -> np.ndarray:
    """Return it divided by the variance."""
    return right(parts._replace(inverse=parts.inverse**2))


def variance_term_twice(parts: Parts) -> np.ndarray:
    """Return it with twice the variance's term: without the half of the square root's slope."""
    return parts.inverse * (parts.g - parts.average(parts.g) - 2 * _variance_term(parts))


def variance_term_added(parts: Parts) -> np.ndarray:
    """Return it with the variance's term added, where it is subtracted."""
    return parts.inverse * (parts.g - parts.average(parts.g) + _variance_term(parts))


def one_less(parts: Parts) -> np.ndarray:
    """Return it with the variance's sum divided by one less than the number of entries."""
    more = parts.size / max(parts.size - 1, 1)
    return parts.inverse * (parts.g - parts.average(parts.g) - more * _variance_term(parts))


def of_input(formula: Callable[[Parts], np.ndarray]) -> Carry:
    """Return the mistake that hands back what a formula makes of the right parts."""

    def carry(row: Row) -> Carried | None:
        if row.node.kind == "frozen_norm":
            return None
        return back(formula(_parts(row, _together(row))))

    return carry


def frozen(formula: Callable[[Row], np.ndarray]) -> Carry:
    """Return the mistake that hands back another factor times the cotangent, under frozen statistics."""

    def carry(row: Row) -> Carried | None:
        return back(formula(row)) if row.node.kind == "frozen_norm" else None

    return carry


def _together(row: Row) -> Average:
    """Return the average over the entries that are normalised together."""
    if row.node.kind == "layer_norm":
        return of_layer
    if row.node.kind == "group_norm":
        return of_groups(row.node.columns["per_group"])
    return of_batch


def of_batch(array: np.ndarray) -> np.ndarray:
    """Return the averages over samples and space, of each channel."""
    return np.broadcast_to(array.mean(axis=(1, 2), keepdims=True), array.shape)


def of_layer(array: np.ndarray) -> np.ndarray:
    """Return the averages over channels and space, of each sample."""
    return np.broadcast_to(array.mean(axis=(0, 1), keepdims=True), array.shape)


def of_channels(array: np.ndarray) -> np.ndarray:
    """Return the averages over the channels, at each position of each sample."""
    return np.broadcast_to(array.mean(axis=0, keepdims=True), array.shape)


def of_space(array: np.ndarray) -> np.ndarray:
    """Return the averages over space, of each channel and sample."""
    return np.broadcast_to(array.mean(axis=1, keepdims=True), array.shape)


def of_samples(array: np.ndarray) -> np.ndarray:
    """Return the averages over samples, of each entry."""
    return np.broadcast_to(array.mean(axis=2, keepdims=True), array.shape)


def of_groups(size: int) -> Average:
    """Return the average over groups of so many channels and space, of each sample."""

    def average(array: np.ndarray) -> np.ndarray:
        parts = array.reshape(-1, size, *array.shape[1:])
        return np.broadcast_to(parts.mean(axis=(1, 2), keepdims=True), parts.shape).reshape(array.shape)

    return average


def _weight(row: Row) -> np.ndarray:
    """Return the weight of every entry, to be broadcast; 1 without any."""
    weight = row.parameter("weight")
    return np.ones((1, 1, 1)) if weight is None else weight.reshape(len(row.v), -1, 1)


def _parts(row: Row, average: Average, correction: int = 0, eps: float | None = None) -> Parts:
    """Return the parts by some statistics of the input."""
    count = row.v.size / np.unique(average(_labels(row))).size
    mean = average(row.x)
    var = average((row.x - mean) ** 2) * (count / max(count - correction, 1))
    inverse = 1 / np.sqrt(var + (_eps(row) if eps is None else eps))
    return Parts(row.v * _weight(row), (row.x - mean) * inverse, inverse, average, count)


def _labels(row: Row) -> np.ndarray:
    """Return numbers whose averages over groups of entries differ from group to group."""
    channels, pixels, points = row.v.shape
    places = np.ogrid[:channels, :pixels, :points]
    return places[0] * 1.0 + places[1] * 1e4 + places[2] * 1e8


def _eps(row: Row) -> float:
    return float(getattr(row.layer, "eps", 1e-5))


def by_statistics(average: Average, kinds: tuple[type, ...] = ()) -> Carry:
    """Return the mistake of statistics over other entries, in all gradients."""

    def carry(row: Row) -> Carried | None:
        if kinds and not isinstance(row.layer, kinds):
            return None
        parts = _parts(row, average)
        return Carried((right(parts),), _grads(row, parts.unit))

    return carry


def groups_of_one(row: Row) -> Carried | None:
    """Normalise every channel by itself."""
    return by_statistics(of_groups(1))(row) if isinstance(row.layer, GroupNorm) else None


def one_group(row: Row) -> Carried | None:
    """Normalise all channels together."""
    return by_statistics(of_layer)(row) if isinstance(row.layer, (GroupNorm, InstanceNorm)) else None


def uses_the_batch(row: Row) -> Carried | None:
    """Differentiate frozen statistics as if they were the batch's."""
    return by_statistics(of_batch)(row) if row.node.kind == "frozen_norm" else None


def samples_variance(row: Row) -> Carried | None:
    """Divide the variance by one less than the number of entries, in all gradients."""
    if row.node.kind == "frozen_norm":
        return None
    parts = _parts(row, _together(row), correction=1)
    term = parts.unit * parts.average(parts.g * parts.unit) * (parts.size / max(parts.size - 1, 1))
    return Carried((parts.inverse * (parts.g - parts.average(parts.g) - term),), _grads(row, parts.unit))


def without_eps(row: Row) -> Carried | None:
    """Leave eps out of all gradients."""
    if row.node.kind == "frozen_norm":
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = _parts(row, _together(row), eps=0.0)
        return Carried((right(parts),), _grads(row, parts.unit))


def without_weight(row: Row) -> Carried | None:
    """Leave the weight out of the input's gradient."""
    if not row.has("weight"):
        return None
    if row.node.kind == "frozen_norm":
        return back(row.v * _frozen_inverse(row))
    return back(right(_parts(row, _together(row))._replace(g=row.v)))


def _frozen_inverse(row: Row) -> np.ndarray:
    channels = len(row.v)
    return row.node.reals[1 + channels : 1 + 2 * channels].reshape(channels, 1, 1)


def frozen_without_deviation(row: Row) -> np.ndarray:
    """Return the cotangent times the weight alone."""
    return row.v * _weight(row)


def _grads(row: Row, unit: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weight's gradient by some normalised input."""
    if not row.has("weight"):
        return {}
    axes = (2,) if row.node.kind == "layer_norm" else (1, 2)
    return {"weight": (row.v * unit).sum(axis=axes)}


def weight_by_input(row: Row) -> Carried | None:
    """Multiply by the layer's input where its normalised input is right."""
    return Carried(grads=_grads(row, row.x)) if row.has("weight") else None


def weight_by_output(row: Row) -> Carried | None:
    """Multiply by the layer's output where its normalised input is right."""
    return Carried(grads=_grads(row, row.output)) if row.has("weight") else None


def weight_without_mean(row: Row) -> Carried | None:
    """Forget the mean in the weight's gradient."""
    if not row.has("weight"):
        return None
    if row.node.kind == "frozen_norm":
        return Carried(grads=_grads(row, row.x * _frozen_inverse(row)))
    return Carried(grads=_grads(row, row.x * _parts(row, _together(row)).inverse))


def weight_without_deviation(row: Row) -> Carried | None:
    """Forget the division by the standard deviation in the weight's gradient."""
    if not row.has("weight"):
        return None
    if row.node.kind == "frozen_norm":
        return Carried(grads=_grads(row, row.unit / _frozen_inverse(row)))
    return Carried(grads=_grads(row, row.unit / _parts(row, _together(row)).inverse))


BATCH = (BatchNorm,)
"""The kinds whose statistics are the batch's."""
