"""Random networks at points where they are hard to difference, with PyTorch's own gradients, which are right.

Each family is one circumstance that makes arithmetic, kinks or statistics hard; the rest of a network is random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import network_examples
import numpy as np
import torch
import torch_network

import fastcheck
from fastcheck.common.errors import FastcheckError
from fastcheck.networks.layers import (
    ELU,
    GELU,
    PADDING_MODES,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from fastcheck.networks.network import INPUT, LOSSES, REDUCTIONS, Network

torch.set_num_threads(1)  # so that no sum depends on it; for networks this small more would be slower

Arrays = dict[str, np.ndarray]

TYPES = {"float64": 0.55, "float32": 0.3, "float16": 0.075, "bfloat16": 0.075}
"""What gradients are computed in, and how often."""

HALF = ("float16", "bfloat16")

LARGEST = 600
"""Parameters of a network; a deep one may have more."""

LOST = 0.25
"""Part of a tensor's gradient that rounding may change at most, where half precision is to be called right."""


@dataclass(frozen=True)
class Hard:
    """A network at a point, and its right gradient.

    Attributes
    ----------
    network : Network
    params : dict of str to float64 array
        Buffers too. They, and the data, are numbers of ``computed``.
    x, y : array
    masks : dict of str to array
    grads : dict of str to array
        As PyTorch computed them in ``computed``; those in bfloat16 are float32 arrays.
    truth : dict of str to float64 array
        The same in float64.
    computed : {"float64", "float32", "float16", "bfloat16"}
    family, described : str
    layers, data : tuple of str
        Kinds of layers, and what is special about parameters and data.
    """

    network: Network
    params: Arrays
    x: np.ndarray
    y: np.ndarray
    masks: Arrays
    grads: Arrays
    truth: Arrays
    computed: str
    family: str
    described: str
    layers: tuple[str, ...]
    data: tuple[str, ...]

    def check(self, grads: Arrays | None = None) -> fastcheck.NetworkReport:
        """Check these gradients, by default the right ones."""
        return fastcheck.check_network(
            self.network,
            self.params,
            self.grads if grads is None else grads,
            self.x,
            self.y,
            masks=self.masks,
            precision=self.computed if self.computed == "bfloat16" else None,
            threads=1,
            keep=True,
        )


# Layers

ACTIVATIONS: dict[str, Callable[[np.random.Generator], Layer]] = {
    "relu": lambda rng: ReLU(),
    "leaky_relu": lambda rng: LeakyReLU(float(rng.choice([0.01, 0.2, 0.5]))),
    "prelu": lambda rng: PReLU(),
    "elu": lambda rng: ELU(float(rng.choice([1.0, 0.5, 2.0]))),
    "gelu": lambda rng: GELU("tanh" if _sometimes(rng) else "none"),
    "silu": lambda rng: SiLU(),
    "tanh": lambda rng: Tanh(),
    "sigmoid": lambda rng: Sigmoid(),
    "softplus": lambda rng: Softplus(float(rng.choice([1.0, 0.5, 2.0]))),
}
KINKED = ("relu", "leaky_relu", "prelu")
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
BOUNDED = ("tanh", "sigmoid")
TAILED = ("gelu", "silu", "elu", "softplus", "sigmoid", "tanh")


class Stack:
    """Layers in a row, for data points of some shape; each has a name, so that later ones can take it."""

    def __init__(self, rng: np.random.Generator, points: int, shape: Sequence[int]) -> None:
        self.rng, self.points, self.layers = rng, points, list[Layer]()
        self.inputs = list[tuple[int, ...]]()
        self.shapes, self.last = {INPUT: tuple(shape)}, INPUT

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the last layer puts out."""
        return self.shapes[self.last]

    def put(self, layer: Layer) -> str:
        """Add a layer, and return its name."""
        name = f"{layer.kind}{1 + sum(other.kind == layer.kind for other in self.layers)}"
        shape = layer.shape(self.shapes[layer.input or self.last], *(self.shapes[other] for other in layer.others()))
        self.inputs.append(self.shapes[layer.input or self.last])
        self.layers.append(layer.named(name))
        self.shapes[name], self.last = shape, name
        return name

    def share(self, layer: Layer) -> Layer:
        """Return a layer that may share the parameters of an earlier one, where one has the same."""
        wanted = layer.parameters(self.shape)
        alike = [
            other.name
            for other, given in zip(self.layers, self.inputs, strict=True)
            if other.kind == layer.kind and other.shares is None and other.parameters(given) == wanted
        ]
        return replace(layer, shares=str(self.rng.choice(alike))) if alike and _sometimes(self.rng, 0.3) else layer

    def fit(self, make: Callable[[np.random.Generator, tuple[int, ...]], Layer]) -> None:
        """Add the first of some random layers that fits what there is, if any does."""
        for _ in range(8):
            try:
                self.put(make(self.rng, self.shape))
            except FastcheckError:
                continue
            return

    def activate(self, among: Sequence[str]) -> None:
        """Add one of some activations."""
        self.put(ACTIVATIONS[self.rng.choice(among)](self.rng))

    def normalise(self, kinds: Sequence[str] = ("batch", "frozen", "layer", "group", "instance")) -> None:
        """Add a normalisation; statistics of a batch need more than one entry."""
        kind = self.rng.choice(kinds)
        if kind == "batch" and self.points * np.prod(self.shape[1:]) == 1:
            kind = "layer"
        eps = float(self.rng.choice([1e-5, 1e-5, 1e-3]))
        if kind == "group" or (kind == "instance" and np.prod(self.shape[1:]) < 4):
            groups = self.rng.choice([g for g in range(1, self.shape[0]) if self.shape[0] % g == 0] or [1])
            self.put(GroupNorm(int(groups), eps, _sometimes(self.rng, 0.7)))
            return
        if kind == "instance":
            self.put(InstanceNorm(eps, _sometimes(self.rng)))
            return
        self.put(LayerNorm(eps) if kind == "layer" else BatchNorm(eps, frozen=kind == "frozen"))

    def join(self) -> None:
        """Add or append the results of an earlier layer, where one has their shape."""
        earlier = [name for name, shape in self.shapes.items() if shape == self.shape and name != self.last]
        beside = [name for name, shape in self.shapes.items() if shape[1:] == self.shape[1:] and name != self.last]
        if earlier and _sometimes(self.rng, 0.7):
            self.put(Add(str(self.rng.choice(earlier))))
        elif beside and self.shape[0] < 8:
            self.put(Concat(str(self.rng.choice(beside))))

    def vary(self, among: Sequence[str], normalised: float = 0.25) -> None:
        """Add what may stand between two layers with weights."""
        if _sometimes(self.rng, normalised):
            self.normalise()
        self.activate(among)
        if _sometimes(self.rng, 0.05):
            self.put(Softmax())
        if _sometimes(self.rng, 0.1):
            self.put(Dropout(float(self.rng.choice([0.2, 0.5]))))
        if _sometimes(self.rng, 0.2):
            self.join()


def _conv(rng: np.random.Generator, shape: tuple[int, ...]) -> Layer:
    rank = len(shape) - 1
    groups = int(rng.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
    if _sometimes(rng, 0.15):
        stride, most = _per_axis(rng, rank, [1, 2, 2]), max(1, 4 // groups)
        return ConvTranspose(
            groups * int(rng.integers(1, 1 + most)), _per_axis(rng, rank, [1, 2, 3]), stride, groups=groups
        )
    padding: Any = (0, 1, "same", "valid", tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (rank, 2))))[
        int(rng.integers(5))
    ]
    stride = 1 if padding == "same" else _per_axis(rng, rank, [1, 1, 2])
    return Conv(
        groups * int(rng.integers(1, 1 + max(1, 4 // groups))),
        _per_axis(rng, rank, [1, 2, 2, 3]),
        stride,
        padding,
        _per_axis(rng, rank, [1, 1, 1, 2]),
        groups,
        _sometimes(rng, 0.85),
        padding_mode=str(rng.choice(PADDING_MODES, p=[0.7, 0.1, 0.1, 0.1])),
    )


def _pool(rng: np.random.Generator, shape: tuple[int, ...]) -> Layer:
    rank = len(shape) - 1
    kernel = tuple(min(taps, size) for taps, size in zip(_per_axis(rng, rank, [1, 2, 2, 3]), shape[1:], strict=True))
    padding = int(_sometimes(rng, 0.3))
    stride = None if _sometimes(rng) else _per_axis(rng, rank, [1, 1, 2])
    ceil_mode = _sometimes(rng, 0.3)
    if _sometimes(rng):
        return MaxPool(kernel, stride, padding, _per_axis(rng, rank, [1, 1, 1, 2]), ceil_mode)
    return AvgPool(kernel, stride, padding, _sometimes(rng), ceil_mode)


def _per_axis(rng: np.random.Generator, rank: int, among: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(entry) for entry in rng.choice(among, rank))


def _sometimes(rng: np.random.Generator, part: float = 0.5) -> bool:
    return bool(rng.random() < part)


def _decades(rng: np.random.Generator, low: float, high: float) -> float:
    return float(10.0 ** rng.uniform(low, high))


# Architectures: each takes a generator, a number of data points and activations, and returns the layers but the last


def dense(rng: np.random.Generator, points: int, among: Sequence[str], normalised: float = 0.25) -> Stack:
    """Two to five dense layers, with all that may stand between them."""
    stack = Stack(rng, points, (int(rng.integers(3, 9)),))
    for _ in range(int(rng.integers(1, 5))):
        stack.put(Dense(int(rng.integers(3, 9)), bias=_sometimes(rng, 0.9)))
        stack.vary(among, normalised)
    return stack


def maps(rng: np.random.Generator, points: int, among: Sequence[str], normalised: float = 0.25) -> Stack:
    """Convolutions and pools of one to three axes."""
    sizes = {1: (6, 10), 2: (4, 7), 3: (2, 5)}
    rank = int(rng.choice([1, 2, 2, 3]))
    stack = Stack(rng, points, (int(rng.integers(1, 4)), *rng.integers(*sizes[rank], rank)))
    for _ in range(int(rng.integers(1, 4))):
        stack.fit(_conv)
        stack.vary(among, normalised)
        if _sometimes(rng):
            stack.fit(_pool)
    stack.put(GlobalAvgPool() if _sometimes(rng, 0.3) else Flatten())
    return stack


def deep(rng: np.random.Generator, points: int, among: Sequence[str]) -> Stack:
    """Plain layers of about six units, one after another."""
    stack, width = Stack(rng, points, (6,)), int(rng.integers(4, 7))
    activation = [str(rng.choice(among))]
    for _ in range(int(rng.integers(8, 30))):
        stack.put(stack.share(Dense(width)))
        stack.activate(activation)
    return stack


def residual(rng: np.random.Generator, points: int, among: Sequence[str]) -> Stack:
    """Residual blocks, some of them normalised."""
    stack, normalised = Stack(rng, points, (5,)), _sometimes(rng)
    width, activation = int(rng.integers(4, 7)), [str(rng.choice(among))]
    stack.put(Dense(width))
    for _ in range(int(rng.integers(2, 6))):
        skip = stack.last
        stack.put(stack.share(Dense(width)))
        if normalised:
            stack.normalise(["batch", "batch", "layer"])
        stack.activate(activation)
        stack.put(stack.share(Dense(width)))
        stack.put(Add(skip))
        if _sometimes(rng):
            stack.activate(activation)
    return stack


def normalised(rng: np.random.Generator, points: int, among: Sequence[str]) -> Stack:
    """A normalisation after every layer with weights."""
    return dense(rng, points, among, 1.0) if _sometimes(rng, 0.6) else maps(rng, points, among, 1.0)


def batch_normalised(rng: np.random.Generator, points: int, among: Sequence[str]) -> Stack:
    """One or two layers, each with its batch normalisation, and often a plain one after them."""
    flat = _sometimes(rng, 0.6) and points > 1
    stack = Stack(rng, points, (5,) if flat else (2, 4, 4))
    for _ in range(int(rng.integers(1, 3))):
        stack.put(Dense(int(rng.integers(3, 6))) if flat else Conv(int(rng.integers(2, 4)), 2))
        stack.normalise(["batch"])
        stack.activate(among)
    if not flat:
        stack.put(Flatten())
    if _sometimes(rng, 0.6):
        stack.put(Dense(5))
        stack.activate(tuple(ACTIVATIONS))
    return stack


def normalised_once(rng: np.random.Generator, points: int, among: Sequence[str]) -> Stack:
    """A batch normalisation between a dense layer and a curved one."""
    stack = Stack(rng, points, (6,))
    stack.put(Dense(5))
    stack.normalise(["batch"])
    stack.activate(among)
    stack.put(Dense(5))
    stack.activate(("tanh", "tanh", "sigmoid", "softplus", "gelu"))
    return stack


SHALLOW = (dense, dense, maps)
ANY = (dense, maps, residual, normalised)


# Points


@dataclass
class Draft:
    """A network and its point while circumstances change it."""

    rng: np.random.Generator
    network: Network
    params: Arrays
    x: np.ndarray
    notes: list[str] = field(default_factory=list)
    slope_at_zero: float = 0.0
    """The sign that l1's gradient takes for zeros."""

    @property
    def last(self) -> str:
        """The last layer's name."""
        return str(self.network.layers[-1].name)

    def before(self, kinds: Sequence[str]) -> list[str]:
        """Return the layers with a bias whose results one of some kinds of layers takes, at once or normalised."""
        found = []
        layers = self.network.layers
        for layer, taken in zip(layers, self.network.sources, strict=True):
            if layer.kind in kinds and taken[0] >= 0 and f"{layers[taken[0]].name}.bias" in self.params:
                found.append(str(layers[taken[0]].name))
        return found

    def of(self, kinds: Sequence[str]) -> list[str]:
        """Return the layers of some kinds."""
        return [str(layer.name) for layer in self.network.layers if layer.kind in kinds]


def drafted(
    rng: np.random.Generator,
    architectures: Sequence[Callable[..., Stack]],
    among: Sequence[str] = tuple(ACTIVATIONS),
    points: Sequence[int] = (1, 3, 3, 4, 4, 16),
    **options: Any,
) -> Draft:
    """Return a random network at an ordinary point.

    Parameters
    ----------
    rng : Generator
    architectures : sequence of callables
        Of which one is taken, with activations ``among`` these.
    points : sequence of int
        How many data points there may be.
    **options : optional
        Of `Network`, instead of random ones.
    """
    while True:
        architecture = architectures[int(rng.integers(len(architectures)))]
        count = int(rng.choice(points))
        stack = architecture(rng, count, among)
        stack.put(Dense(int(rng.integers(2, 6))))
        loss = str(rng.choice(LOSSES))
        network = Network(stack.layers, **({"loss": loss} | _reduced(rng) | options))
        size = sum(int(np.prod(shape)) for shape in network.parameter_shapes(stack.shapes[INPUT]).values())
        if size <= LARGEST or architecture is deep:
            break
    if "l1" not in options and _sometimes(rng, 0.3):
        network = _regularised(rng, network, stack.shapes[INPUT])
    params = network_examples.parameters(network, stack.shapes[INPUT], rng)
    return Draft(rng, network, params, rng.normal(size=(count, *stack.shapes[INPUT])))


def _reduced(rng: np.random.Generator) -> dict[str, Any]:
    return {"reduction": str(rng.choice(REDUCTIONS, p=[0.7, 0.3])), "margin": float(rng.choice([1.0, 1.0, 0.3]))}


def _regularised(rng: np.random.Generator, network: Network, shape: tuple[int, ...], least_l1: int = 0) -> Network:
    """Return the same network with regularisation of all weights or of some groups."""
    options = {"loss": network.loss, "reduction": network.reduction, "margin": network.margin}
    names = list(network.parameter_shapes(shape))
    for option, least in (("l2", 0), ("l1", least_l1)):
        how = max(least, int(rng.integers(3)))
        if how == 1:
            options[option] = _decades(rng, -3, -0.5)
        if how == 2:
            groups = rng.choice(names, min(len(names), int(rng.integers(1, 4))), replace=False)
            options[option] = {str(name): _decades(rng, -3, -0.5) for name in groups}
    return Network(network.layers, **options)


# Families: what is hard about them


def ordinary(rng: np.random.Generator) -> Draft:
    """Nothing hard: all kinds of layers, losses and regularisation."""
    return drafted(rng, ANY)


def geometries(rng: np.random.Generator) -> Draft:
    """Convolutions and pools."""
    return drafted(rng, [maps])


def depth(rng: np.random.Generator) -> Draft:
    """Plain deep relu networks, some at many equal points."""
    draft = drafted(rng, [deep], KINKED, (3, 4, 16))
    if _sometimes(rng, 0.2):
        _equal(draft)
    return draft


def residuals(rng: np.random.Generator) -> Draft:
    """Sums of many branches."""
    return drafted(rng, [residual])


def normalisations(rng: np.random.Generator) -> Draft:
    """Normalisations after every layer."""
    return drafted(rng, [normalised])


def few_values(rng: np.random.Generator) -> Draft:
    """Pixels of 256 values, or of two."""
    draft = drafted(rng, SHALLOW)
    top = int(rng.choice([255, 255, 1]))
    draft.x = rng.integers(0, top + 1, draft.x.shape) / top
    draft.notes.append(f"pixels of {top + 1} values")
    if _sometimes(rng):
        _zero_biases(draft)
    return draft


def constant_images(rng: np.random.Generator) -> Draft:
    """Images whose pixels are all alike: maxima tie, and variances may vanish."""
    draft = drafted(rng, [maps, maps, batch_normalised, dense])
    values = draft.x[(..., *(slice(0, 1) for _ in draft.x.shape[2:]))] if draft.x.ndim > 2 else draft.x[:, :1]
    draft.x = np.broadcast_to(np.ones_like(values) if _sometimes(rng, 0.3) else values, draft.x.shape).copy()
    draft.notes.append("constant images")
    return draft


def equal_points(rng: np.random.Generator) -> Draft:
    """Data points that are all the same, often before a batch normalisation."""
    draft = drafted(rng, [batch_normalised, batch_normalised, dense, maps], points=(3, 4, 16))
    _equal(draft)
    return draft


def zeros(rng: np.random.Generator) -> Draft:
    """Relus exactly on their kinks: zero inputs and biases, or rows of zeros; opposed pairs; a hinge without margin."""
    draft = drafted(rng, SHALLOW, (*KINKED, "relu", "elu"))
    if _sometimes(rng, 0.1):
        options = {"loss": "multiclass_hinge", "reduction": draft.network.reduction, "margin": 0.0}
        draft.network = Network(draft.network.layers, **options)
        _zero_rows(draft, whole=True)
    if _sometimes(rng, 0.6):
        draft.x[rng.random(len(draft.x)) < rng.choice([0.3, 1.0])] = 0.0
        draft.notes.append("zero inputs")
    else:
        for name in draft.before(KINKED):
            draft.params[f"{name}.weight"][rng.random(len(draft.params[f"{name}.weight"])) < 0.4] = 0.0
        draft.notes.append("zero rows before relus")
    _zero_biases(draft)
    if _sometimes(rng, 0.4):
        _oppose(draft)
    return draft


def scales(rng: np.random.Generator) -> Draft:
    """Data, or a layer's parameters, far from one."""
    draft, factor = drafted(rng, ANY), float(rng.choice([1e-4, 1e3]))
    if _sometimes(rng, 0.7):
        draft.x *= factor
        draft.notes.append(f"data times {factor:g}")
    else:
        name = str(rng.choice(draft.of(("dense", "conv"))))
        for tensor in (f"{name}.weight", f"{name}.bias"):
            if tensor in draft.params:
                draft.params[tensor] *= factor
        draft.notes.append(f"{name} times {factor:g}")
    return draft


def dead(rng: np.random.Generator) -> Draft:
    """Relu units that no data point opens: one, or all of a layer."""
    draft = drafted(rng, (*SHALLOW, residual), (*KINKED, "relu", "elu"))
    for name in draft.before(KINKED):
        bias = draft.params[f"{name}.bias"]
        closed = rng.random(len(bias)) < (1.0 if _sometimes(rng, 0.2) else 0.5)
        closed[rng.integers(len(bias))] = True
        bias[closed] = -float(rng.choice([20.0, 1e3]))
        draft.notes.append("dead units")
    return draft


def saturated(rng: np.random.Generator) -> Draft:
    """Tanh and sigmoid with pre-activations of 2 to 16."""
    draft = drafted(rng, SHALLOW, BOUNDED)
    size = float(rng.choice([2, 4, 8, 16]))
    for name in draft.before(BOUNDED):
        draft.params[f"{name}.weight"] *= size
        draft.params[f"{name}.bias"] *= size
    draft.notes.append(f"pre-activations of {size:g}")
    return draft


def tails(rng: np.random.Generator) -> Draft:
    """Single units in the tails of gelu, silu, elu, softplus and sigmoid."""
    draft = drafted(rng, SHALLOW, ("gelu", "gelu", "silu", "elu", "softplus", "sigmoid", "tanh"))
    at = float(rng.choice([-5, -6, -8, -12, -25]))
    for name in draft.before(TAILED):
        unit = int(rng.integers(len(draft.params[f"{name}.bias"])))
        draft.params[f"{name}.weight"][unit] *= 0.1
        draft.params[f"{name}.bias"][unit] = at
    draft.notes.append(f"units at {at:g}")
    return draft


def saturated_losses(rng: np.random.Generator) -> Draft:
    """Outputs so large that a softmax or a logistic is 0 or 1."""
    draft = drafted(rng, SHALLOW, loss=str(rng.choice(["softmax_cross_entropy", "logistic"])))
    size = float(rng.choice([10, 30, 100, 300]))
    for tensor in ("weight", "bias"):
        draft.params[f"{draft.last}.{tensor}"] *= size
    draft.notes.append(f"outputs times {size:g}")
    return draft


def zero_last(rng: np.random.Generator) -> Draft:
    """A last layer that begins with zeros, or has one row of them."""
    loss = str(rng.choice([*LOSSES, "multiclass_hinge", "multiclass_hinge"]))
    draft = drafted(rng, ANY, loss=loss)
    _zero_rows(draft, whole=_sometimes(rng))
    return draft


def zero_gamma(rng: np.random.Generator) -> Draft:
    """Normalisations that begin with zero weights, all or some of them, often before a relu and curved layers."""
    draft = drafted(rng, [normalised, batch_normalised, normalised_once], (*KINKED, "relu", "relu", "tanh"))
    for name in draft.of(NORMS):
        if f"{name}.weight" not in draft.params:
            continue
        chosen = rng.random(draft.params[f"{name}.weight"].shape) < rng.choice([0.4, 1.0, 1.0])
        chosen.flat[rng.integers(chosen.size)] = True
        draft.notes.append("zero gammas")
        draft.params[f"{name}.weight"][chosen] = 0.0
        if _sometimes(rng, 0.85):
            draft.params[f"{name}.bias"][chosen] = 0.0
    if _sometimes(rng):
        for name in draft.of(("dense",)):
            draft.params[f"{name}.weight"] *= 2
    return draft


def large_biases(rng: np.random.Generator) -> Draft:
    """Biases before a batch normalisation, which takes them off again."""
    draft = drafted(rng, [batch_normalised], points=(3, 4, 4, 16))
    size = float(rng.choice([3, 10, 10, 30]))
    for name in draft.before(["batch_norm"]):
        bias = draft.params[f"{name}.bias"]
        bias[...] = size * rng.choice([-1, 1], bias.shape)
    draft.notes.append(f"biases of {size:g} before normalisations")
    return draft


def zeros_with_l1(rng: np.random.Generator) -> Draft:
    """Parameters of exactly zero under l1, whose sign code takes for 0, 1 or -1."""
    draft = drafted(rng, SHALLOW)
    draft.network = _regularised(rng, draft.network, draft.x.shape[1:], least_l1=1)
    for name in draft.network.parameter_shapes(draft.x.shape[1:]):
        part = 1.0 if name.endswith(".bias") and _sometimes(rng) else 0.3
        draft.params[name][rng.random(draft.params[name].shape) < part] = 0.0
    draft.slope_at_zero = float(rng.choice([0, 1, -1]))
    draft.notes.append(f"zeros under l1, with sign {draft.slope_at_zero:g}")
    return draft


def _equal(draft: Draft) -> None:
    draft.x[:] = draft.x[0]
    draft.notes.append("equal points")


def _zero_biases(draft: Draft) -> None:
    for name in draft.params:
        if name.endswith(".bias"):
            draft.params[name][...] = 0.0
    draft.notes.append("zero biases")


def _zero_rows(draft: Draft, whole: bool) -> None:
    rows = slice(None) if whole else int(draft.rng.integers(len(draft.params[f"{draft.last}.bias"])))
    for tensor in ("weight", "bias"):
        draft.params[f"{draft.last}.{tensor}"][rows] = 0.0
    draft.notes.append("zeros in the last layer" if whole else "a zero row of the last layer")


def _oppose(draft: Draft) -> None:
    """Make units in pairs of opposite weights, so that relu(z) - relu(-z) may have kinks that cancel."""
    for name in draft.before(KINKED):
        weight = draft.params[f"{name}.weight"]
        pairs = len(weight) // 2
        weight[pairs : 2 * pairs] = -weight[:pairs]
    draft.notes.append("opposed units")


FAMILIES: dict[str, Callable[[np.random.Generator], Draft]] = {
    family.__name__: family
    for family in (
        *(ordinary, geometries, depth, residuals, normalisations, few_values, constant_images, equal_points, zeros),
        *(scales, dead, saturated, tails, saturated_losses, zero_last, zero_gamma, large_biases, zeros_with_l1),
    )
}
"""Each takes a generator and returns one of its networks."""


def draw(seed: int) -> Hard:
    """Return the network of a seed; families take turns."""
    family = family_of(seed)
    rng = np.random.default_rng([seed, *family.encode()])
    draft = FAMILIES[family](rng)
    computed = str(rng.choice([*TYPES], p=[*TYPES.values()]))
    outputs = draft.network.shapes(draft.x.shape[1:])[-1]
    y = network_examples.targets(draft.network, outputs, len(draft.x), rng)
    masks = network_examples.masks_of(draft.network, draft.x.shape[1:], len(draft.x), rng)
    return _computed(draft, y, masks if _sometimes(rng, 0.8) else {}, computed, family) or _computed(
        draft, y, masks, "float32", family
    )


def family_of(seed: int) -> str:
    """Return the family that a seed draws from."""
    return [*FAMILIES][seed % len(FAMILIES)]


def _computed(draft: Draft, y: np.ndarray, masks: Arrays, computed: str, family: str) -> Hard | None:
    """Return a draft with its gradient in some type; None where that overflows, or loses the gradient."""
    network = draft.network
    params = {name: rounded(array, computed) for name, array in draft.params.items()}
    x, y = rounded(draft.x, computed), rounded(y, computed) if y.dtype.kind == "f" else y
    grads, truth = (_gradients(draft, params, x, y, masks, dtype) for dtype in (computed, "float64"))
    if not all(np.isfinite(grad).all() for grad in grads.values()) or (computed in HALF and _is_lost(grads, truth)):
        return None
    kinds = tuple(layer.kind for layer in network.layers)
    data = tuple(draft.notes)
    penalised = " regularised" * bool(network.penalties([*network.parameter_shapes(x.shape[1:])]))
    described = (
        f"{family}: {computed}, N={len(x)} of {x.shape[1:]}, {' '.join(kinds)}, {network.loss} {network.reduction}"
        f"{penalised}{', masked' * bool(masks)}; {', '.join(data) or 'normal'}"
    )
    return Hard(network, params, x, y, masks, grads, truth, computed, family, described, kinds, data)


def _is_lost(grads: Arrays, truth: Arrays) -> bool:
    """Return whether a tensor that matters is far from its gradient in float64, as where a relu's sign was rounded."""
    sizes = {name: float(np.sqrt(np.mean(array**2))) for name, array in truth.items()}
    least = 1e-3 * max(sizes.values())
    off = {name: float(np.sqrt(np.mean((grads[name].astype(np.float64) - truth[name]) ** 2))) for name in truth}
    return any(off[name] > LOST * size for name, size in sizes.items() if size > least)


def _gradients(draft: Draft, params: Arrays, x: np.ndarray, y: np.ndarray, masks: Arrays, computed: str) -> Arrays:
    grads = torch_network.gradients(draft.network, params, x, y, masks, dtype=getattr(torch, computed))[1]
    for name, penalty in draft.network.penalties([*grads]).items():
        at_zero = draft.slope_at_zero * penalty.l1 * (params[name] == 0)
        grads[name] = rounded(grads[name] + at_zero, computed).astype(grads[name].dtype)
    return grads


def rounded(array: np.ndarray, computed: str) -> np.ndarray:
    """Return the nearest numbers of a type, as float64."""
    with np.errstate(over="ignore"):
        found: np.ndarray = torch.tensor(array, dtype=getattr(torch, computed)).double().numpy()
    return found
