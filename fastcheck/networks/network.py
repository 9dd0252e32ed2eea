"""A network as data: named layers and their inputs, the loss and its regularisation. Nothing is compiled here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.common.errors import FastcheckError
from fastcheck.common.meanings import STATISTICS
from fastcheck.common.naming import nearest, offered, refuse_unknown
from fastcheck.networks.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    PReLU,
)

LOSSES = ("softmax_cross_entropy", "squared_error", "multiclass_hinge", "logistic")
"""Losses of a data point with output z and target y: -log softmax(z)[y]; sum (z - y)^2 / 2; the sum over the other
classes of max(0, z_j - z_y + margin) (Weston and Watkins 1999); sum log(1 + exp(z)) - y z."""

MULTIPLYING = (Conv, ConvTranspose, Dense)
"""Layers whose weights are regularised unless names say otherwise, and start at random."""

REDUCTIONS = ("mean", "sum")
"""Reductions over data points."""

LEARNT = (Conv, ConvTranspose, Dense, Embedding, BatchNorm, LayerNorm, GroupNorm, InstanceNorm, PReLU)
"""Layers that have parameters."""

TENSORS = ("weight", "bias")
"""Parameters of a layer."""

PRELU_SLOPE = 0.25
"""Initial slope of a prelu (He et al. 2015)."""

INPUT = "x"
"""Name of the network's input."""


@dataclass(frozen=True)
class Penalty:
    """Regularisation of one tensor: l2 / 2 * sum(w^2) + l1 * sum(\\|w\\|), whose gradient is l2 * w + l1 * sign(w)."""

    l2: float = 0.0
    l1: float = 0.0


class Network:
    """A network and its loss.

    Parameters
    ----------
    layers : sequence of Layer
        In order: each takes the output of the layer before, unless its ``input`` names another. The output of the last
        layer is the network's.
    loss : {"softmax_cross_entropy", "squared_error", "multiclass_hinge", "logistic"}
    l2, l1 : float, or mapping of names to floats
        Regularisation: l2 / 2 * sum(w^2) + l1 * sum(\\|w\\|). A single number is for the weights of all convolutions
        and dense layers. A mapping names parameter groups: a layer ("conv1") for its weight, or a tensor
        ("conv1.bias").
    margin : float
        Margin of the hinge.
    reduction : {"mean", "sum"}
        Reduction over data points. Regularisation is added afterwards.

    Attributes
    ----------
    layers : tuple of Layer
        All with a name.
    sources : tuple of tuple of int
        For every layer, the positions of the layers that it takes; -1 is the network's input.

    Raises
    ------
    FastcheckError
        If a name occurs twice or does not exist, or an argument is none of these. Shapes are checked once they are
        known.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: str = "softmax_cross_entropy",
        *,
        l2: float | Mapping[str, float] = 0.0,
        l1: float | Mapping[str, float] = 0.0,
        margin: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        refuse_unknown("loss", loss, LOSSES)
        refuse_unknown("reduction", reduction, REDUCTIONS)
        self.layers = named(layers)
        self.loss, self.reduction = loss, reduction
        self.margin = _number("margin", margin)
        self.sources = self._sources()
        self._refuse_unshareable()
        self._l2, self._l1 = self._groups("l2", l2), self._groups("l1", l1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(str(layer.name) for layer in self.layers)

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """Return the shapes of all layers' outputs for one data point of some shape.

        Raises
        ------
        FastcheckError
            If they do not fit together; the message names the layer, what it got and what it expects.
        """
        shapes: list[Shape] = []
        for layer, taken in zip(self.layers, self.sources, strict=True):
            inputs = [tuple(input_shape) if position < 0 else shapes[position] for position in taken]
            try:
                shapes.append(layer.shape(*inputs))
            except FastcheckError as error:
                raise FastcheckError(f"layer {layer.name!r} ({layer.kind}): {error}") from None
        return shapes

    def parameter_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of all parameters, by "layer.tensor"."""
        return self._arrays(input_shape, buffers=False)

    def buffer_shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the arrays without a gradient: running statistics of frozen batch normalisations."""
        return self._arrays(input_shape, buffers=True)

    def with_inputs(self, input_shape: Shape) -> list[tuple[Layer, Shape]]:
        """Return every layer with the shape of its input."""
        shapes = self.shapes(input_shape)
        inputs = [tuple(input_shape) if taken[0] < 0 else shapes[taken[0]] for taken in self.sources]
        return list(zip(self.layers, inputs, strict=True))

    def _arrays(self, input_shape: Shape, buffers: bool) -> dict[str, Shape]:
        named: dict[str, Shape] = {}
        owners = {layer.owner: layer for layer in self.layers if layer.shares is None}
        for layer, shape in self.with_inputs(input_shape):
            for tensor, wanted in (layer.buffers(shape) if buffers else layer.parameters(shape)).items():
                name = f"{layer.owner}.{tensor}"
                if layer.shares is None:
                    named[name] = wanted
                elif named.get(name) != wanted:
                    has = f"has {named[name]}" if name in named else "has none"
                    raise FastcheckError(
                        f"layer {layer.name!r} shares {layer.shares!r}, whose {tensor} does not fit: it {has}, "
                        f"expected {wanted}"
                    )
                elif getattr(layer, "groups", 1) != getattr(owners[layer.owner], "groups", 1):
                    raise FastcheckError(
                        f"layer {layer.name!r} shares {layer.shares!r}, which has other groups: expected the same"
                    )
        return named

    def penalties(self, names: Sequence[str]) -> dict[str, Penalty]:
        """Return the regularisation of every tensor that has one.

        Raises
        ------
        FastcheckError
            If ``l2`` or ``l1`` name a tensor that is not among ``names``.
        """
        for option, groups in (("l2", self._l2), ("l1", self._l1)):
            for name in groups:
                if name not in names:
                    raise FastcheckError(f"{option} names {name!r}{nearest(name, names)}: expected {offered(names)}")
        every = {name: Penalty(self._l2.get(name, 0.0), self._l1.get(name, 0.0)) for name in names}
        return {name: penalty for name, penalty in every.items() if penalty.l2 or penalty.l1}

    def initial(self, input_shape: Shape, seed: int = 0) -> dict[str, np.ndarray]:
        """Return parameters to start training from: He's weights, zero biases, random rows, normalisations at 1."""
        rng = np.random.default_rng(seed)
        kinds = {str(layer.name): layer for layer in self.layers}
        params = {}
        for name, shape in self.parameter_shapes(input_shape).items():
            layer, tensor = kinds[name.rpartition(".")[0]], name.rpartition(".")[2]
            if tensor == "bias":
                params[name] = np.zeros(shape)
            elif isinstance(layer, MULTIPLYING):
                params[name] = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
            elif isinstance(layer, Embedding):
                params[name] = rng.standard_normal(shape)
            else:
                params[name] = np.full(shape, PRELU_SLOPE if isinstance(layer, PReLU) else 1.0)
        for name, shape in self.buffer_shapes(input_shape).items():
            params[name] = np.zeros(shape) if name.endswith("mean") else np.ones(shape)
        return params

    def described(self) -> dict[str, Any]:
        """Return the network's entry in a report."""
        return {
            "layers": [f"{layer.name} ({layer.kind}{_sharing(layer)})" for layer in self.layers],
            "loss": self.loss,
            "reduction": self.reduction,
        }

    def _sources(self) -> tuple[tuple[int, ...], ...]:
        names = self.names
        sources = []
        for position, layer in enumerate(self.layers):
            wanted = [*([] if layer.input is None else [layer.input]), *layer.others()]
            positions = [self._position(name, position) for name in wanted]
            taken = tuple(positions if layer.input is not None else [position - 1, *positions])
            if isinstance(layer, Embedding) and taken[0] >= 0:
                raise FastcheckError(
                    f"layer {layer.name!r} is an embedding: expected its input to be {INPUT!r}, integers"
                )
            sources.append(taken)
        unread = set(range(len(names) - 1)) - {position for taken in sources for position in taken}
        if unread:
            raise FastcheckError(f"layer {names[min(unread)]!r} leads nowhere: no later layer takes its output")
        return tuple(sources)

    def _refuse_unshareable(self) -> None:
        """Refuse a layer that shares the parameters of none, of a later one or of one of another kind."""
        names, owners = self.names, [layer for layer in self.layers if layer.shares is None]
        for position, layer in enumerate(self.layers):
            if layer.shares is None:
                continue
            if not isinstance(layer, LEARNT):
                raise FastcheckError(
                    f"layer {layer.name!r} shares {layer.shares!r}: a {layer.kind} layer has no parameters"
                )
            alike = [str(one.name) for one in owners if one.kind == layer.kind and one.name in names[:position]]
            if layer.shares not in alike:
                such = f": {offered(alike)}" if alike else ""
                raise FastcheckError(
                    f"layer {layer.name!r} shares {layer.shares!r}{nearest(layer.shares, alike)}: expected an earlier "
                    f"{layer.kind} layer with parameters of its own{such}"
                )

    def _position(self, name: str, position: int) -> int:
        names, layer = self.names, self.layers[position]
        if name == INPUT:
            return -1
        if name not in names:
            raise FastcheckError(
                f"layer {layer.name!r} takes {name!r}{nearest(name, names[:position])}, which does not exist: expected "
                f"one of {', '.join((INPUT, *names[:position]))}"
            )
        if names.index(name) >= position:
            raise FastcheckError(
                f"layer {layer.name!r} takes {name!r}, which does not come before it: that would be a cycle"
            )
        return names.index(name)

    def _groups(self, option: str, value: Any) -> dict[str, float]:
        """Return the regularisation's weight for every tensor that has one, by name."""
        kinds = {str(layer.name): layer for layer in self.layers}
        if not isinstance(value, Mapping):
            number = _number(option, value)
            weighted = [
                name for name, layer in kinds.items() if isinstance(layer, MULTIPLYING) and layer.shares is None
            ]
            return {f"{name}.weight": number for name in weighted} if number else {}
        weights = {}
        for group, entry in value.items():
            name = str(group)
            layer = kinds.get(name) or kinds.get(name.rpartition(".")[0])
            if layer is None:
                raise FastcheckError(f"{option} names {name!r}{nearest(name, kinds)}: expected {offered(kinds)}")
            if not isinstance(layer, LEARNT):
                raise FastcheckError(f"{option} names {name!r}: a {layer.kind} layer has no parameters")
            if layer.shares is not None:
                raise FastcheckError(f"{option} names {name!r}: expected {layer.shares!r}, whose parameters it uses")
            tensor = f"{name}.weight" if name in kinds else name
            if tensor.rpartition(".")[2] not in TENSORS:
                raise FastcheckError(
                    f"{option} names {name!r}{nearest(name, _tensors(kinds))}: expected a weight or bias"
                )
            if tensor in weights:
                raise FastcheckError(f"{option} names {tensor!r} twice: expected {name!r} or the layer alone")
            weights[tensor] = _number(f"{option}[{name!r}]", entry)
        return weights


def _is_of_tensor(name: str) -> bool:
    """Whether a layer's name could be that of a tensor of another layer."""
    return "." in name and name.rpartition(".")[2] in (*TENSORS, *STATISTICS, "")


def _sharing(layer: Layer) -> str:
    return f", shares {layer.shares}" if layer.shares else ""


def _tensors(names: Iterable[str]) -> list[str]:
    return [f"{name}.{tensor}" for name in names for tensor in TENSORS]


def named(layers: Any) -> tuple[Layer, ...]:
    """Return the layers, all named; those without a name get their kind and a number."""
    found: list[Layer] = []
    if not isinstance(layers, Iterable):
        raise FastcheckError(f"layers is {layers!r}: expected a sequence of layers of fastcheck.layers")
    layers = tuple(layers)
    taken = {layer.name for layer in layers if isinstance(layer, Layer) and layer.name is not None}
    counts: dict[str, int] = {}
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise FastcheckError(f"layers[{position}] is {layer!r}: expected a layer of fastcheck.layers")
        name = layer.name
        while name is None:
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            candidate = f"{layer.kind}{counts[layer.kind]}"
            name = None if candidate in taken else candidate
        if not isinstance(name, str) or not name or name == INPUT or _is_of_tensor(name) or not name.isprintable():
            raise FastcheckError(
                f"layers[{position}] has the name {name!r}: expected printable characters that do not end like a "
                f"tensor's name (.weight), and not {INPUT!r}"
            )
        if any(name == other.name for other in found):
            raise FastcheckError(
                f"layers[{position}] has the name {name!r}, as another layer has: expected different ones"
            )
        found.append(layer.named(name))
    if not found:
        raise FastcheckError("layers is empty: expected at least one layer")
    return tuple(found)


def _number(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value < 1e300:
        raise FastcheckError(f"{name} is {value!r}: expected a finite number of at least 0")
    return float(value)
