"""A network at one point: parameters, data points and targets, and the gradients that somebody computed there."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.arrays import Floating, as_array, finite, gradient
from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import COUNTER, STATISTICS, meant
from fastcheck.common.naming import listed, nearest, offered, refuse_unknown
from fastcheck.common.precision import PRECISIONS
from fastcheck.engine.settings import Settings
from fastcheck.networks import likely_causes
from fastcheck.networks.layers import BatchNorm, Dropout, Embedding
from fastcheck.networks.network import Network, Penalty

if TYPE_CHECKING:
    from fastcheck.networks.pipeline import NetworkPipeline

EVALUATORS = ("network", "full")
"""Names of the evaluators."""


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Point:
    """A point at which a network is evaluated, all arrays checked and float64.

    Attributes
    ----------
    network : Network
    params, buffers : dict of str to array
        By "layer.tensor", in the network's order.
    x : array, shape (N, ...)
    targets : array, shape (N, targets of a data point)
        One class for each data point, or one number for each entry of the output.
    masks : dict of str to array, shape (N, entries)
        Factors of dropout layers: mask / (1 - p).
    ignored : tuple of str
        Names among the given parameters that no result depends on: PyTorch's counters of batches, and running
        statistics in training.
    """

    network: Network
    params: Arrays
    buffers: Arrays
    x: np.ndarray
    targets: np.ndarray
    masks: Arrays
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, network: Network, params: Any, x: Any, y: Any, masks: Any = None, precision: str | None = None
    ) -> Point:
        """Check everything that a network is evaluated at, and return the point.

        Parameters
        ----------
        network : Network
        params : mapping
            From "layer.tensor" to arrays, or from layers to mappings of tensors to arrays.
        x : array, shape (N, channels, spatial...) or (N, features)
        y : array
            Labels 0 to K - 1 of shape (N,) for softmax and hinge, else an array shaped as the output.
        masks : mapping of dropout layers to arrays of zeros and ones, optional
            The analytic pass's masks, shaped as the layer's output. A dropout layer without a mask is off.
        precision : str, optional
            The declared precision: under "bfloat16", arrays of uint16 are the bits of such numbers.

        Raises
        ------
        FastcheckError
            If a name is missing or unknown, a shape does not fit, a number is not finite, or a label is out of range.
        """
        if not isinstance(network, Network):
            raise FastcheckError(f"network is {type(network).__name__}: expected a fastcheck.Network")
        x, labels = finite("x", x, precision), as_array("y", y)
        named = without_aliases(network, flat("params", params))
        with likely_causes.explaining(network, named, x.shape, labels.shape):
            shapes, wanted, buffers = _shapes(network, x.shape)
            arrays = _matched(network, "params", without_unread(network, named), wanted | buffers, precision)
        for name in buffers:
            if name.endswith("running_var") and (arrays[name] < 0).any():
                raise FastcheckError(f"params[{name!r}] has a negative entry: expected variances")
        _enough(network, shapes, x)
        _refuse_missing_rows(network, x)
        return cls(
            network,
            {name: arrays[name] for name in wanted},
            {name: arrays[name] for name in buffers},
            x,
            _targets(network, labels, len(x), shapes[-1], precision),
            _factors(network, masks, len(x), shapes),
            tuple(name for name in named if name not in arrays),
        )

    @classmethod
    def outline(cls, network: Network, shape: Shape, masked: Collection[str] = ()) -> Point:
        """Return a point of data of this shape, with masks for the named dropout layers, that takes no memory.

        It serves estimates made before the data are read: each of its arrays repeats the number one.

        Raises
        ------
        FastcheckError
            If there are no data of this shape, or the network cannot take them.
        """
        _, wanted, kept = _shapes(network, shape)
        params, buffers = (
            {name: np.broadcast_to(1.0, one) for name, one in shapes.items()} for shapes in (wanted, kept)
        )
        masks = {name: np.broadcast_to(1.0, shape[:1]) for name in masked}
        return cls(network, params, buffers, np.broadcast_to(1.0, shape), np.broadcast_to(1.0, shape[:1]), masks)

    @property
    def shape(self) -> Shape:
        """Shape of a data point."""
        return self.x.shape[1:]

    def taking(self, chosen: np.ndarray) -> Point:
        """Return the point with the chosen data points alone."""
        masks = {name: factors[chosen] for name, factors in self.masks.items()}
        return replace(self, x=self.x[chosen], targets=self.targets[chosen], masks=masks)

    def with_params(self, params: Arrays) -> Point:
        """Return the point with other parameters."""
        return replace(self, params=params)


@dataclass(frozen=True)
class NetworkCase:
    """A network at a point, with the analytic gradient of its objective there.

    Attributes
    ----------
    point : Point
    grads : dict of str to array
        Gradients of the tensors to check; float64, float32 or float16 (bfloat16 as float32).
    penalties : dict of str to Penalty
        Regularisation that is part of the objective; empty where it is off.
    removed : dict of str to Penalty
        Regularisation whose gradient was subtracted from the given one.
    precision : str or None
        Precision of the analytic pass, where the gradients' dtype does not show it.
    bfloat16 : frozenset of str
        Tensors whose gradient was given as bfloat16, and is kept as float32.
    """

    point: Point
    grads: Arrays
    penalties: dict[str, Penalty]
    precision: str | None = None
    removed: dict[str, Penalty] = field(default_factory=dict)
    bfloat16: frozenset[str] = frozenset()
    evaluators: ClassVar[tuple[str, ...]] = EVALUATORS

    @classmethod
    def of(
        cls,
        network: Network,
        params: Any,
        grads: Any,
        x: Any,
        y: Any,
        *,
        masks: Any = None,
        precision: str | None = None,
    ) -> NetworkCase:
        """Check a network, its point and its gradient; the arguments are those of `fastcheck.check_network`.

        Raises
        ------
        FastcheckError
            If an argument does not fit.
        """
        precision_known(precision)
        point = Point.of(network, params, x, y, masks, precision)
        penalties = network.penalties(list(point.params))
        given = gradients("grads", grads, point, precision=precision)
        return cls(point, given.arrays, penalties, precision, bfloat16=given.bfloat16)

    def operand(self, name: str) -> np.ndarray:
        """Return a tensor's parameters."""
        return self.point.params[name]

    def pipeline(self, settings: Settings) -> NetworkPipeline:
        """Return the pipeline that checks the case alone with these settings; imports Numba."""
        from fastcheck.networks.error_bars import Baseline
        from fastcheck.networks.passes import Passes
        from fastcheck.networks.pipeline import NetworkPipeline

        return NetworkPipeline(self, settings, Baseline.of(Passes(self.point), settings.seed))

    def described(self) -> dict[str, Any]:
        """Return the network and its data as a report states them."""
        regularised = {name: {"l2": penalty.l2, "l1": penalty.l1} for name, penalty in self.penalties.items()}
        return self.point.network.described() | {"x": list(self.point.x.shape), "regularised": regularised}

    def precision_of(self, name: str) -> str:
        """Return the precision that a gradient was computed in."""
        if name in self.bfloat16:
            return "bfloat16"
        return self.precision or self.grads[name].dtype.newbyteorder("=").name


class Gradients(NamedTuple):
    """Gradients by name, and the names of those that were given as bfloat16."""

    arrays: Arrays
    bfloat16: frozenset[str] = frozenset()


def gradients(
    label: str, grads: Any, point: Point, only: tuple[str, ...] | None = None, precision: str | None = None
) -> Gradients:
    """Return the gradients of the tensors to check, after checking names, dtypes and shapes.

    Parameters
    ----------
    label : str
        The user's name for the gradients.
    grads : mapping
        In the form of params.
    point : Point
    only : tuple of str, optional
        Layers and tensors to check; by default all.
    precision : str, optional
        The declared precision: under "bfloat16", arrays of uint16 are the bits of such numbers.

    Raises
    ------
    FastcheckError
        If a name is missing or unknown, or a shape or dtype does not fit. A gradient that is not finite is not bad
        input: it fails the check.
    """
    wanted = {name: array.shape for name, array in point.params.items()}
    chosen = list(wanted) if only is None else _chosen(only, wanted)
    named = without_unread(point.network, without_aliases(point.network, flat(label, grads)))
    buffers = {name: array.shape for name, array in point.buffers.items()}
    _known(point.network, label, named, wanted | buffers)
    matched = dict[str, Floating]()
    for name in chosen:
        if name not in named:
            raise FastcheckError(f"{label} has no {name!r}: expected {offered(chosen)} (only= limits what is checked)")
        matched[name] = gradient(f"{label}[{name!r}]", named[name], precision)
        _fits(f"{label}[{name!r}]", matched[name].values, wanted[name])
    return Gradients(
        {name: np.array(one.values, one.values.dtype.newbyteorder("="), order="C") for name, one in matched.items()},
        frozenset(name for name, one in matched.items() if one.precision == "bfloat16"),
    )


def precision_known(precision: Any) -> None:
    """Refuse an unknown precision."""
    if precision is not None:
        refuse_unknown("precision", precision, PRECISIONS)


def flat(label: str, given: Any) -> dict[str, Any]:
    """Return arrays by "layer.tensor", given in that form or as one mapping for each layer."""
    if not isinstance(given, Mapping):
        module = ", such as its .state_dict()" * hasattr(given, "state_dict")
        raise FastcheckError(
            f"{label} is {type(given).__name__}: expected a mapping of layers' names to arrays{module}"
        )
    named: dict[str, Any] = {}
    for name, value in given.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for tensor, array in inner:
            named[f"{name}.{tensor}" if tensor else str(name)] = array
    return named


def without_unread(network: Network, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays without those of a state_dict that no result depends on.

    They are PyTorch's counters of batches, and running statistics of batch normalisations that are not frozen.
    """
    training = {one.name for one in network.layers if isinstance(one, BatchNorm) and not one.frozen}
    read = {}
    for name, array in named.items():
        layer, _, tensor = name.rpartition(".")
        if tensor != COUNTER and not (layer in training and meant(tensor, STATISTICS)):
            read[name] = array
    return read


def without_aliases(network: Network, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays without those of layers that share another's: a state_dict has the same ones under both names."""
    owners = {layer.name: layer.owner for layer in network.layers if layer.shares}
    kept = {}
    for name, array in named.items():
        layer, _, tensor = name.rpartition(".")
        other = f"{owners.get(layer)}.{tensor}"
        if other not in named or not np.array_equal(as_array(name, array), as_array(other, named[other])):
            kept[name] = array
    return kept


def _chosen(only: tuple[str, ...], wanted: Mapping[str, Shape]) -> list[str]:
    known = [*wanted, *(name.rpartition(".")[0] for name in wanted)]
    for name in only:
        if name not in known:
            raise FastcheckError(f"only names {name!r}{nearest(name, known)}: expected {offered(dict.fromkeys(known))}")
    return [name for name in wanted if name in only or name.rpartition(".")[0] in only]


def _known(network: Network, label: str, named: Mapping[str, Any], wanted: Mapping[str, Shape]) -> None:
    for name in named:
        if name not in wanted:
            likely_causes.refuse_name(label, name, network, named, wanted)


def _matched(
    network: Network, label: str, named: Mapping[str, Any], wanted: Mapping[str, Shape], precision: str | None
) -> Arrays:
    _known(network, label, named, wanted)
    missing = [name for name in wanted if name not in named]
    if missing:
        raise FastcheckError(f"{label} has no {listed(map(repr, missing), 6)}: expected {offered(wanted)}")
    matched = {}
    for name, shape in wanted.items():
        _fits(f"{label}[{name!r}]", as_array(f"{label}[{name!r}]", named[name]), shape)
        matched[name] = finite(f"{label}[{name!r}]", named[name], precision)
    return matched


def _fits(label: str, array: np.ndarray, shape: Shape) -> None:
    if array.shape != shape:
        expected = likely_causes.transposed(array.shape, shape, label.startswith("params")) or str(shape)
        raise FastcheckError(f"{label} has shape {array.shape}: expected {expected}")


def _shapes(network: Network, shape: Shape) -> tuple[list[Shape], dict[str, Shape], dict[str, Shape]]:
    """Return the shapes of outputs, parameters and buffers for data of a shape (N, ...)."""
    if 0 in shape:
        raise FastcheckError(f"x is empty: it has shape {shape}")
    if len(shape) < 2:
        raise FastcheckError(f"x has shape {shape}: expected data points along axis 0, then the axes of each")
    point = shape[1:]
    shapes, wanted = network.shapes(point), network.parameter_shapes(point)
    if not wanted:
        raise FastcheckError("network has no parameters: there is no gradient to check")
    return shapes, wanted, network.buffer_shapes(point)


def _enough(network: Network, shapes: list[Shape], x: np.ndarray) -> None:
    """Refuse batch statistics of a single entry: normalised, it is always zero."""
    for layer, shape in zip(network.layers, shapes, strict=True):
        if isinstance(layer, BatchNorm) and not layer.frozen and len(x) * math.prod(shape[1:]) == 1:
            raise FastcheckError(
                f"layer {layer.name!r} (batch_norm): it got one entry per channel ({len(x)} data point of {shape}), "
                "whose variance is zero: expected at least two data points, or frozen=True"
            )


def _refuse_missing_rows(network: Network, x: np.ndarray) -> None:
    """Refuse an input that does not name the rows of an embedding."""
    for layer in network.layers:
        if isinstance(layer, Embedding):
            wrong = np.argwhere((x < 0) | (x >= layer.num_embeddings) | (x != np.rint(x)))
            if len(wrong):
                index = wrong[0].tolist()
                raise FastcheckError(
                    f"x is {x[tuple(index)]:g} at index {index}: expected integers from 0 to "
                    f"{layer.num_embeddings - 1}, the rows of layer {layer.name!r}"
                )


def _targets(network: Network, y: np.ndarray, points: int, output: Shape, precision: str | None) -> np.ndarray:
    """Return the targets, (N, targets of a data point)."""
    if network.loss in ("softmax_cross_entropy", "multiclass_hinge"):
        return _labels(network.loss, y, points, output)
    array = finite("y", y, precision)
    if array.shape == (points,) and output == (1,):
        array = array[:, None]
    if array.shape != (points, *output):
        advice = "; give y.T" * (array.shape == (points, *output)[::-1])
        raise FastcheckError(f"y has shape {array.shape}: expected {(points, *output)}{advice}")
    if network.loss == "logistic" and not ((array >= 0) & (array <= 1)).all():
        raise FastcheckError("y has an entry outside 0 to 1: expected probabilities, for the logistic loss")
    return array.reshape(points, -1)


def _labels(loss: str, y: np.ndarray, points: int, output: Shape) -> np.ndarray:
    if len(output) != 1 or output[0] < 2:
        raise FastcheckError(f"the network's output has shape {output}: expected (classes,), at least two, for {loss}")
    advice = likely_causes.labels(y, points, output[0])
    if y.dtype.kind not in "iu":
        raise FastcheckError(f"y has dtype {y.dtype}: expected integers, the classes 0 to {output[0] - 1}{advice}")
    if y.shape != (points,):
        raise FastcheckError(f"y has shape {y.shape}: expected ({points},), a class for each data point of x{advice}")
    outside = (y < 0) | (y >= output[0])
    if outside.any():
        position = int(np.argmax(outside))
        raise FastcheckError(
            f"y is {y[position]} at index {position}: expected classes from 0 to {output[0] - 1}{advice}"
        )
    return y.astype(np.float64)[:, None]


def _factors(network: Network, masks: Any, points: int, shapes: list[Shape]) -> Arrays:
    """Return the factors of the dropout layers that have a mask."""
    given = {} if masks is None else masks
    if not isinstance(given, Mapping):
        raise FastcheckError(f"masks is {type(given).__name__}: expected a mapping of dropout layers' names to arrays")
    known = {str(layer.name): number for number, layer in enumerate(network.layers) if isinstance(layer, Dropout)}
    factors = {}
    for name, mask in given.items():
        if name not in known:
            expected = ", ".join(known) or "none, since the network has no dropout"
            raise FastcheckError(f"masks has the name {name!r}{nearest(name, known)}: expected {expected}")
        layer, array = network.layers[known[name]], as_array(f"masks[{name!r}]", mask)
        assert isinstance(layer, Dropout)
        _fits(f"masks[{name!r}]", array, (points, *shapes[known[name]]))
        if not np.isin(array, (0, 1)).all():
            raise FastcheckError(
                f"masks[{name!r}] has entries other than 0 and 1: expected 1 where an entry is kept, before 1/(1 - p)"
            )
        factors[name] = array.astype(np.float64).reshape(points, -1) / (1.0 - layer.p)
    return factors
