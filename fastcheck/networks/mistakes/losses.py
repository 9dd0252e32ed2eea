"""Wrong cotangents of losses. Rows here are the network's last one; outputs are (entries, points)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastcheck.networks.mistakes.activations import sigmoid
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back

Formula = Callable[[Row, np.ndarray, np.ndarray], np.ndarray]
"""Takes the last row, its outputs and the targets, one-hot where they are classes, both (entries, points); returns the
cotangent of each data point's own loss."""


def cotangent(formula: Formula) -> Carry:
    """Return the mistake whose cotangent is another formula's."""

    def carry(row: Row) -> Carried:
        z = row.output.reshape(-1, row.output.shape[2])
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            found = row.passes.weight * formula(row, z, _targets(row, len(z)))
        return back(np.nan_to_num(found, posinf=0.0, neginf=0.0).reshape(row.v.shape))

    return carry


def scaled(factor: Callable[[Row], float]) -> Carry:
    """Return the mistake that multiplies the cotangent by a number."""

    def carry(row: Row) -> Carried:
        return back(factor(row) * row.v)

    return carry


def points(row: Row) -> float:
    """Return the number of data points."""
    return float(row.v.shape[2])


def entries(row: Row) -> float:
    """Return the number of entries of a data point's output."""
    return float(row.v.shape[0] * row.v.shape[1])


def _targets(row: Row, size: int) -> np.ndarray:
    targets = row.passes.point.targets.T
    if row.passes.point.network.loss not in ("softmax_cross_entropy", "multiclass_hinge"):
        return targets
    return (np.arange(size)[:, None] == targets).astype(np.float64)


def softmax(z: np.ndarray) -> np.ndarray:
    """Return probabilities."""
    size = np.exp(z - z.max(axis=0))
    found: np.ndarray = size / size.sum(axis=0)
    return found


def probabilities(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p, without the one-hot target."""
    return softmax(z)


def only_true_class(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p - 1 for the true class, and nothing for the others."""
    return (softmax(z) - 1) * y


def minus_targets(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return -y: the mean of log p with its sum held constant."""
    return -y


def log_for_probabilities(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return log p - y."""
    return np.log(softmax(z)) - y


def outputs_for_probabilities(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return z - y."""
    return z - y


def softmax_twice(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return softmax(p) - y."""
    return softmax(softmax(z)) - y


def exponentials(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return exp(z) - y."""
    return np.exp(z) - y


def without_logarithm(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of -p for the true class: the loss without the logarithm."""
    p = softmax(z)
    return (p * y).sum(axis=0) * (p - y)


def without_softmax(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return -y / p: what is handed to the probabilities, without the softmax's own Jacobian."""
    return -y / softmax(z)


def times_jacobian(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the softmax's Jacobian applied to p - y: differentiated once more."""
    p = softmax(z)
    v = p - y
    return p * (v - (p * v).sum(axis=0))


def times_variance(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (p - y) p (1 - p)."""
    p = softmax(z)
    return (p - y) * p * (1 - p)


def binary_cross_entropy(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return sigmoid(z) - y."""
    return sigmoid(z) - y


def over_samples(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p - y with probabilities that sum to 1 over the data points."""
    return softmax(z.T).T - y


def other_class(by: int) -> Formula:
    """Return p - y with each target moved by so many classes."""
    return lambda row, z, y: softmax(z) - np.roll(y, by, axis=0)


def averaged_probabilities(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p - y with p alone divided by the number of data points."""
    return softmax(z) / z.shape[1] - y


def averaged_targets(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return p - y with y alone divided by the number of data points."""
    return softmax(z) - y / z.shape[1]


def first_sample(row: Row) -> Carried | None:
    """Count the first data point alone."""
    return _samples(row, np.arange(row.v.shape[2]) == 0)


def without_last_sample(row: Row) -> Carried | None:
    """Leave the last data point out."""
    return _samples(row, np.arange(row.v.shape[2]) < row.v.shape[2] - 1)


def _samples(row: Row, chosen: np.ndarray) -> Carried | None:
    return back(row.v * chosen)


def output_alone(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return z, without the target."""
    return z


def sign(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sign of z - y."""
    return np.sign(z - y)


def squared(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (z - y)^2."""
    return (z - y) ** 2


def added_target(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return z + y."""
    return z + y


def logistic_added(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return sigmoid(z) + y."""
    return sigmoid(z) + y


def logistic_alone(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return sigmoid(z)."""
    return sigmoid(z)


def logistic_squared(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (s - y) s (1 - s): of squared errors of probabilities."""
    s = sigmoid(z)
    return (s - y) * s * (1 - s)


def logistic_over(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (s - y) / (s (1 - s)): without the sigmoid's own slope."""
    s = sigmoid(z)
    return (s - y) / (s * (1 - s))


def logistic_of_sign(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return sigmoid(-z) - y."""
    return sigmoid(-z) - y


def _beyond(z: np.ndarray, y: np.ndarray, margin: float) -> np.ndarray:
    """Return 1 for each wrong class whose output comes within the margin of the true one's."""
    true = (z * y).sum(axis=0)
    found: np.ndarray = ((z - true + margin) > 0) * (1 - y)
    return found


def hinge_without_true_class(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Give the true class no gradient."""
    return _beyond(z, y, row.passes.point.network.margin)


def hinge_true_class_once(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Subtract 1 for the true class however many others come within the margin."""
    beyond = _beyond(z, y, row.passes.point.network.margin)
    return beyond - y * (beyond.sum(axis=0) > 0)


def hinge_true_class_always(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Subtract 1 for the true class, even where no other comes within the margin."""
    return _beyond(z, y, row.passes.point.network.margin) - y


def hinge_true_class_counted(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Count the true class among the others too: its margin against itself."""
    beyond = _beyond(z, y, row.passes.point.network.margin)
    return beyond - y * beyond.sum(axis=0) + y


def hinge_without_margin(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Leave the margin out."""
    beyond = _beyond(z, y, 0.0)
    return beyond - y * beyond.sum(axis=0)


def hinge_worst_only(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Count the class that is farthest beyond alone."""
    margin = row.passes.point.network.margin
    beyond = _beyond(z, y, margin)
    worst = beyond * (np.arange(len(z))[:, None] == np.where(y > 0, -np.inf, z).argmax(axis=0))
    return worst - y * worst.sum(axis=0)


def hinge_squared(row: Row, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of the squared hinge."""
    margin = row.passes.point.network.margin
    terms = 2 * _beyond(z, y, margin) * (z - (z * y).sum(axis=0) + margin)
    found: np.ndarray = terms - y * terms.sum(axis=0)
    return found
