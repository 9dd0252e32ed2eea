"""Likely causes for arrays that do not fit a network: other orders of axes, other names, other forms of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import STATISTICS, meant
from fastcheck.common.naming import nearest, offered
from fastcheck.networks.network import Network


@contextmanager
def explaining(network: Network, params: Mapping[str, Any], x: Shape, y: Shape = ()) -> Iterator[None]:
    """Add to a refusal of x and params the order of axes in which they would fit, if there is one.

    Parameters
    ----------
    network : Network
    params : mapping of str to arrays, or to their headers
        By "layer.tensor".
    x, y : Shape
    """
    try:
        yield
    except FastcheckError as error:
        hint = _order_of_x(network, params, x, y)
        raise FastcheckError(f"{error}; {hint}" if hint else str(error)) from None


def _order_of_x(network: Network, params: Mapping[str, Any], x: Shape, y: Shape) -> str:
    if len(x) == 2 and x[1] in y and x[0] != x[1] and _fit(network, params, x[:1]):
        return "x has its data points in columns: give x.T"
    if 2 <= len(x) <= 4 and _fit(network, params, (1, *x[1:])):
        return "x has no channel axis: give x[:, None]"
    if 3 <= len(x) <= 5 and _fit(network, params, (x[-1], *x[1:-1])):
        return f"x looks channels-last: give x.transpose{(0, len(x) - 1, *range(1, len(x) - 1))}"
    return ""


def _fit(network: Network, params: Mapping[str, Any], point: Shape) -> bool:
    """Whether the parameters are those of a network of data points of this shape."""
    try:
        wanted = network.parameter_shapes(point)
    except FastcheckError:
        return False
    return all(name in params and np.shape(params[name]) == shape for name, shape in wanted.items())


def refuse_name(label: str, name: str, network: Network, named: Mapping[str, Any], wanted: Mapping[str, Shape]) -> None:
    """Refuse a name that a network does not have, and say what it is likely to be.

    Parameters
    ----------
    label : str
        The user's name for the arrays: "params", "grads".
    name : str
    network : Network
    named : mapping of str to arrays
        All of them.
    wanted : mapping of str to Shape
        The network's own.
    """
    layer = name.rpartition(".")[0]
    given = {key: np.shape(one) for key, one in named.items() if not meant(key.rpartition(".")[2], STATISTICS)}
    same = [min(one, one[::-1]) for one in given.values()] == [min(one, one[::-1]) for one in wanted.values()]
    if same and not given.keys() & wanted.keys():
        theirs, ours = next(iter(given)), next(iter(wanted))
        instead = f", or name its layer {layer!r}" if layer and "." not in layer else ""
        raise FastcheckError(
            f"{label} has the name {name!r}: rename {theirs!r} to {ours!r}{instead}, and so on; the arrays fit in this "
            "order"
        )
    raise FastcheckError(f"{label} has the name {name!r}{nearest(name, wanted)}: expected {offered(wanted)}")


def transposed(given: Shape, expected: Shape, parameter: bool) -> str:
    """Return what to do with a parameter, or a gradient, whose axes are in another order, or an empty string."""
    too = ", and its gradient's" * parameter
    if len(given) == 2 and given == expected[::-1]:
        return f"(out, in) = {expected}: give its transpose{too}"
    axes = len(given)
    by = (axes - 1, axes - 2, *range(axes - 2))
    if 3 <= axes == len(expected) and tuple(given[axis] for axis in by) == expected:
        return f"{expected}: it looks channels-last (HWIO); give .transpose{by}{too}"
    return ""


def labels(y: np.ndarray, points: int, classes: int) -> str:
    """Return what to do with labels in another form, or an empty string."""
    for axis, shape in ((1, (points, classes)), (0, (classes, points))):
        if y.shape == shape and np.isin(y, (0, 1)).all() and (y.sum(axis) == 1).all():
            return f"; they look one-hot: give y.argmax(axis={axis})"
    if y.ndim > 1 and y.size == points:
        return "; give y.ravel()"
    if y.shape == (points,) and y.dtype.kind == "f" and (y == np.rint(y)).all():
        return "; give y.astype(int)"
    if y.dtype.kind in "iu" and y.size and y.min() >= 1 and y.max() == classes:
        return "; they look counted from 1: give y - 1"
    return ""
