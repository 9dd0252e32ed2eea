"""Wrong gradients of layers with weights: dense layers, convolutions, embeddings, prelus, and shared parameters."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fastcheck.diagnosis.problem import gradient
from fastcheck.networks.mistakes.convolutions import problem_of
from fastcheck.networks.mistakes.row import Carried, Carry, Row, back


def weight_not_transposed(row: Row) -> Carried | None:
    """Multiply the cotangent with the weight as the forward pass has it; only a square one lets that pass."""
    weight = row.parameter("weight")
    if weight is None or weight.shape[0] != weight.shape[1]:
        return None
    return back(np.einsum("oi,ipn->opn", weight, row.v))


def weight_reshaped(row: Row) -> Carried | None:
    """Reshape the weight where it is to be transposed."""
    weight = row.parameter("weight")
    if weight is None or weight.shape[0] == weight.shape[1]:
        return None
    return back(np.einsum("io,opn->ipn", weight.reshape(weight.shape[::-1]), row.v))


def nothing_back(row: Row) -> Carried | None:
    """Hand back zeros."""
    return None if row.sources[0] == 0 or len(row.right) > 1 else back(np.zeros_like(row.right[0]))


def input_before_activation(row: Row) -> Carried | None:
    """Take the input before the activation for the weight's gradient."""
    source = row.passes.program.nodes[row.sources[0]]
    if source.layer < 0 or source.shape != row.shape_of(source.columns["a"]):
        return None
    return _by(row, x=row.values(source.columns["a"]))


def cotangent_after_activation(row: Row) -> Carried | None:
    """Take the cotangent of the activation's output, without its slope, for the weight and the bias."""
    readers = row.passes.program.readers()[row.number]
    if len(readers) != 1 or row.passes.program.nodes[readers[0]].shape != row.node.shape:
        return None
    v = Row(row.passes, readers[0], row.cotangents).v
    found = _by(row, v=v)
    return found._replace(grads={**found.grads, "bias": v.sum(axis=(1, 2))}) if row.has("bias") else found


def _by(row: Row, x: np.ndarray | None = None, v: np.ndarray | None = None) -> Carried:
    """Return the weight's gradient by another input or cotangent."""
    x, v = row.x if x is None else x, row.v if v is None else v
    if row.layer.kind == "dense":
        return Carried(grads={"weight": np.einsum("opn,ipn->oi", v, x)})
    with ThreadPoolExecutor(1) as pool:
        return Carried(grads={"weight": gradient(problem_of(row, x=x, v=v), "weight", pool)})


def one_sample(number: int) -> Carry:
    """Return the mistake that counts one data point alone, in all that the layer hands back."""

    def carry(row: Row) -> Carried | None:
        return _of_samples(row, np.arange(row.v.shape[2]) == number % row.v.shape[2])

    return carry


def without_last_sample(row: Row) -> Carried | None:
    """Leave the last data point out."""
    return _of_samples(row, np.arange(row.v.shape[2]) < row.v.shape[2] - 1)


def _of_samples(row: Row, chosen: np.ndarray) -> Carried | None:
    if len(chosen) == 1:
        return None
    return Carried((row.right[0] * chosen, *row.right[1:]), _grads_of_samples(row, row.v * chosen))


def _grads_of_samples(row: Row, v: np.ndarray) -> dict[str, np.ndarray]:
    """Return the gradients with some data points' cotangents set to zero."""
    grads = dict[str, np.ndarray]()
    if row.has("weight") and row.layer.kind in ("dense", "conv", "conv_transpose"):
        grads.update(_by(row, v=v).grads)
    if row.has("weight") and row.layer.kind == "prelu":
        grads["weight"] = _prelu_weight(row, np.minimum(row.x, 0) * v)
    if row.has("weight") and "norm" in row.node.kind:
        grads["weight"] = (v * row.unit).sum(axis=_axes(row))
    if row.has("bias"):
        grads["bias"] = v.sum(axis=_axes(row))
    return grads


def _axes(row: Row) -> tuple[int, ...]:
    return (2,) if row.node.kind == "layer_norm" else (1, 2)


def params_of_one_sample(number: int) -> Carry:
    """Return the mistake that counts one data point alone in the parameters' gradients."""

    def carry(row: Row) -> Carried | None:
        points = row.v.shape[2]
        if points == 1:
            return None
        chosen = np.arange(points) == number % points
        return Carried(grads=_grads_of_samples(row, row.v * chosen))

    return carry


def params_averaged(row: Row) -> Carried | None:
    """Average the parameters' gradients over the data points where they are summed."""
    points = row.v.shape[2]
    return None if points == 1 else Carried(grads={name: grad / points for name, grad in row.grads.items()})


# Embeddings


def rows_assigned(row: Row) -> Carried:
    """Assign to a row's gradient where it should be added: the last use stays."""
    return _assigned(row, slice(None, None, -1))


def rows_of_first_use(row: Row) -> Carried:
    """Keep the first use of a row."""
    return _assigned(row, slice(None))


def _assigned(row: Row, order: slice) -> Carried:
    """Give each row the cotangent of its first use in some order."""
    table, used, v = _table(row)
    rows, first = np.unique(used[order], return_index=True)
    table[rows] = v[order][first]
    return Carried(grads={"weight": table})


def rows_averaged(row: Row) -> Carried:
    """Average over the uses of a row."""
    table, used, v = _table(row)
    np.add.at(table, used, v)
    return Carried(grads={"weight": table / np.maximum(np.bincount(used, minlength=len(table)), 1)[:, None]})


def rows_next(row: Row) -> Carried:
    """Write every row's gradient to the next one, as where words are counted from 1."""
    table, used, v = _table(row)
    np.add.at(table, (used + 1) % len(table), v)
    return Carried(grads={"weight": table})


def _table(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an empty table, the rows used, data point by data point, and the cotangent of each use."""
    weight = row.parameter("weight")
    assert weight is not None
    used = row.x.reshape(-1, row.x.shape[2]).T.reshape(-1).astype(np.int64)
    return np.zeros(weight.shape), used, row.v.transpose(2, 1, 0).reshape(-1, len(row.v))


# Slopes that are learnt


def _prelu_weight(row: Row, terms: np.ndarray) -> np.ndarray:
    per_channel = terms.sum(axis=(1, 2))
    weight = row.parameter("weight")
    assert weight is not None
    return per_channel if weight.size > 1 else per_channel.sum(keepdims=True)


def slopes_of_all_entries(row: Row) -> Carried:
    """Add up positive inputs too."""
    return Carried(grads={"weight": _prelu_weight(row, row.x * row.v)})


def slopes_without_input(row: Row) -> Carried:
    """Add up cotangents alone, where they are to be multiplied by the input."""
    return Carried(grads={"weight": _prelu_weight(row, row.v * (row.x < 0))})


def slopes_by_output(row: Row) -> Carried:
    """Multiply by the output where the input is right."""
    return Carried(grads={"weight": _prelu_weight(row, row.v * np.minimum(row.output, 0))})


def slope_as_relu(row: Row) -> Carried:
    """Hand back nothing where the input is negative."""
    return back(row.v * (row.x > 0))


# Shared parameters


def first_use_only(row: Row) -> Carried | None:
    """Leave the first use's gradient alone: later ones are overwritten."""
    return _scaled_use(row, lambda use, uses: 1.0 if use == 0 else 0.0)


def last_use_only(row: Row) -> Carried | None:
    """Leave the last use's gradient alone."""
    return _scaled_use(row, lambda use, uses: 1.0 if use == uses - 1 else 0.0)


def uses_averaged(row: Row) -> Carried | None:
    """Average over the uses."""
    return _scaled_use(row, lambda use, uses: 1 / uses)


def later_uses_twice(row: Row) -> Carried | None:
    """Count all uses but the first twice."""
    return _scaled_use(row, lambda use, uses: 1.0 if use == 0 else 2.0)


def _scaled_use(row: Row, factor: Callable[[int, int], float]) -> Carried | None:
    use, uses = row.use
    if uses == 1:
        return None
    return Carried(grads={name: factor(use, uses) * grad for name, grad in row.grads.items()})
