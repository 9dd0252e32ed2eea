"""A network lowered to a table of rows and one vector of parameters, in the form that the kernels read.

`fastcheck_kernels.columns` describes the form. A row is one operation: a layer has at most one, and some have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.networks import layers
from fastcheck.networks.layers import Layer
from fastcheck.networks.network import Network
from fastcheck.networks.tensors import laid_out

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus")
"""Kinds of rows with units that can be dead or saturated."""

NODE_KINDS = (
    *("input", "conv", "max_pool", "avg_pool", "batch_norm", "frozen_norm", "layer_norm", "dropout", "flatten"),
    *(*ACTIVATIONS, "add", "concat", "group_norm", "softmax", "prelu", "embedding"),
)
"""Kinds of rows of the table, in the order of the numbers of `fastcheck_kernels.layers`
(`tests/networks/test_program.py`)."""

_NODE = {kind: number for number, kind in enumerate(NODE_KINDS)}

COLUMNS = (
    *("kind", "a", "b", "channels", "pixels", "cached", "starts", "lookup", "taps", "filters", "per_group"),
    *("weight", "bias", "packed", "init", "real", "extra", "back", "back_packed", "owner"),
)
"""Columns of the table, in the order of `fastcheck_kernels.columns`, which describes them."""

STAGE, MOST = 3 << 18, 256
"""Limits up to which more lanes make differencing faster: bytes of a row and its sources, and lanes."""


@dataclass
class Node:
    """A row of the table in the making: its columns, and its parts of the other arrays.

    Attributes
    ----------
    layer : int
        Position of its layer in the network; -1 for the input.
    columns : dict of str to int
    shape : tuple of int
        Shape of its output for one data point.
    lookup : int array or None, shape (taps, pixels)
        Input pixel for every tap and output pixel, -1 for padding.
    reals : float64 array
    """

    layer: int
    columns: dict[str, int]
    shape: Shape
    lookup: np.ndarray | None = None
    reals: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @property
    def kind(self) -> str:
        return NODE_KINDS[self.columns["kind"]]

    @property
    def is_one_slope(self) -> bool:
        """Whether its parameter is the slope of a prelu in all channels, of which it moves every one."""
        return self.kind == "prelu" and not self.columns["taps"]

    @property
    def entries(self) -> int:
        """Entries of its output for one data point."""
        return self.columns["channels"] * self.columns["pixels"]


class Program:
    """A network lowered for inputs of one shape.

    Layers that change nothing, such as dropout without a mask, have no row. A dense layer becomes a convolution of one
    pixel, and global pooling an average over the whole map.

    Parameters
    ----------
    network : Network
    input_shape : tuple of int
        Shape of one data point.
    buffers : mapping of str to arrays
        Running statistics of frozen batch normalisations, by "layer.running_mean".
    masked : collection of str
        Dropout layers that have a mask.
    tile : int
        Filters that kernels pack together (`fastcheck_kernels.tile.CHANNELS`).
    vector : int
        Lanes in a vector register.

    Attributes
    ----------
    nodes : list of Node
    tensors : dict of str to Tensor
        Where the vector of parameters has every tensor.
    params_size, packed_size : int
    starts, spots, lookup : int64 arrays
    """

    def __init__(
        self,
        network: Network,
        input_shape: Shape,
        buffers: Mapping[str, np.ndarray],
        masked: Any,
        tile: int,
        vector: int,
    ) -> None:
        self.network, self.input_shape = network, tuple(input_shape)
        self._tile, self._vector, self._buffers, self._masked = tile, vector, buffers, masked
        self.tensors = laid_out(network, input_shape)
        self.params_size = sum(tensor.size * len(tensor.starts) for tensor in self.tensors.values())
        self.nodes: list[Node] = []
        self.outputs = self._lowered()
        self.starts, self.spots, self.lookup = self._tables()
        self.packed_size = self._packing()

    def node_of(self, tensor: str) -> tuple[int, bool]:
        """Return the first row that uses a tensor, and whether it is a bias."""
        return self.nodes_of(tensor)[0], tensor.endswith(".bias")

    def nodes_of(self, tensor: str) -> list[int]:
        """Return the rows that use a tensor: one, or several where layers share it."""
        rows = {node.layer: row for row, node in enumerate(self.nodes)}
        return [rows[position] for position in self.tensors[tensor].starts]

    def layer_name(self, node: int) -> str:
        """Return the name of the layer that a row belongs to."""
        return self.network.names[self.nodes[node].layer]

    def readers(self) -> list[list[int]]:
        """Return, for every row, the rows that take its output."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for row, node in enumerate(self.nodes[1:], start=1):
            for source in {node.columns["a"], node.columns["b"]} - {-1}:
                readers[source].append(row)
        return readers

    def slots(self) -> tuple[list[int], list[int], int]:
        """Return the offsets of rows' outputs and of their normalised inputs in a cache with one lane, and its size.

        Kernels write whole tiles of filters. The filters that fill up the last tile need channels behind the real ones.
        """
        at, outputs, extras = 0, [], []
        for node in self.nodes:
            outputs.append(at)
            at += node.entries + self._tile * node.columns["pixels"]
        for node in self.nodes:
            extras.append(at)
            at += node.entries if "norm" in node.kind else 0
        return outputs, extras, at

    def table(self, period: int, masks: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the table and the layers' ``reals`` for caches of ``period`` lanes.

        Parameters
        ----------
        period : int
        masks : mapping of str to arrays
            Factors of dropout layers, (period, entries).
        """
        outputs, extras, _ = self.slots()
        rows = np.zeros((len(self.nodes), len(COLUMNS)), np.int64)
        reals: list[np.ndarray] = []
        at = 0
        for row, node in enumerate(self.nodes):
            numbers = node.reals
            if node.kind == "dropout":
                numbers = masks[self.layer_name(row)].T.reshape(-1)
            columns = node.columns | {"cached": outputs[row] * period, "extra": extras[row] * period, "real": at}
            rows[row] = [columns[name] for name in COLUMNS]
            reals.append(numbers)
            at += numbers.size
        return rows, np.concatenate(reals)

    def _lowered(self) -> list[int]:
        """Make the rows; return, for every layer, the row that holds its output."""
        shapes = self.network.shapes(self.input_shape)
        self._add(-1, "input", (-1, -1), self.input_shape)
        outputs: list[int] = []
        for position, (layer, taken) in enumerate(zip(self.network.layers, self.network.sources, strict=True)):
            inputs = [0 if source < 0 else outputs[source] for source in taken]
            before = [self.input_shape if source < 0 else shapes[source] for source in taken]
            outputs.append(self._layer(position, layer, inputs, before, shapes[position]))
        return outputs

    def _layer(self, position: int, layer: Layer, inputs: list[int], before: list[Shape], shape: Shape) -> int:
        source, given = inputs[0], before[0]
        if isinstance(layer, (layers.Add, layers.Concat)):
            return self._combined(position, layer, inputs, before)
        if isinstance(layer, layers.Conv):
            geometry = layer.geometry(given)
            return self._conv(position, _meeting(geometry, layer.padding_mode), geometry.groups, source, given, shape)
        if isinstance(layer, layers.ConvTranspose):
            geometry = layer.geometry(given)
            return self._conv(position, _meeting_back(geometry), geometry.groups, source, given, shape)
        if isinstance(layer, layers.Dense):
            return self._conv(position, np.zeros((1, 1), np.int64), 1, source, given, shape)
        if isinstance(layer, (layers.MaxPool, layers.AvgPool)):
            return self._pool(position, layer, source, given, shape)
        if isinstance(layer, layers.GlobalAvgPool):
            pixels = math.prod(given[1:])
            every = np.arange(pixels)[:, None]
            return self._add(position, "avg_pool", (source, -1), shape, lookup=every, reals=np.full(1, 1 / pixels))
        if isinstance(layer, (layers.BatchNorm, layers.LayerNorm)):
            return self._norm(position, layer, source, shape)
        if isinstance(layer, (layers.GroupNorm, layers.InstanceNorm)):
            sizes: dict[str, Any] = {"per_group": given[0] // layer.group_count(given)}
            own = sizes | (self._parameters(position) if layer.affine else {})
            return self._add(position, "group_norm", (source, -1), shape, reals=np.full(1, layer.eps), **own)
        if isinstance(layer, layers.Embedding):
            table: dict[str, Any] = {"taps": 1, "filters": shape[0], "per_group": layer.num_embeddings}
            return self._add(position, "embedding", (source, -1), shape, **table, **self._parameters(position))
        if isinstance(layer, layers.PReLU):
            slopes: dict[str, Any] = {"taps": int(layer.num_parameters > 1)}
            return self._add(position, "prelu", (source, -1), shape, **slopes, **self._parameters(position))
        if isinstance(layer, layers.Softmax):
            return self._add(position, "softmax", (source, -1), shape)
        if isinstance(layer, layers.Flatten):
            pixels = math.prod(given[1:])
            return source if pixels == 1 and len(given) == 1 else self._flat(position, source, shape, pixels)
        if isinstance(layer, layers.Dropout):
            return self._add(position, "dropout", (source, -1), shape) if layer.name in self._masked else source
        kind, real = _activation(layer)
        return self._add(position, kind, (source, -1), shape, reals=np.full(1, real))

    def _add(
        self,
        layer: int,
        kind: str,
        sources: tuple[int, int],
        shape: Shape,
        lookup: np.ndarray | None = None,
        reals: np.ndarray | None = None,
        **columns: int,
    ) -> int:
        """Append a row, and return its number."""
        given = {
            "kind": _NODE[kind],
            "a": sources[0],
            "b": sources[1],
            "channels": shape[0],
            "pixels": math.prod(shape[1:]),
            "weight": -1,
            "bias": -1,
            "owner": -1,
        }
        blank = dict.fromkeys(COLUMNS, 0)
        self.nodes.append(
            Node(layer, blank | given | columns, tuple(shape), lookup, np.zeros(1) if reals is None else reals)
        )
        return len(self.nodes) - 1

    def _flat(self, position: int, source: int, shape: Shape, pixels: int) -> int:
        return self._add(position, "flatten", (source, -1), shape, taps=pixels)

    def _parameters(self, position: int) -> dict[str, Any]:
        """Return the columns of a row that uses parameters: where they begin, and the row that they belong to."""
        layer, network = self.network.layers[position], self.network
        named = {name: self.tensors.get(f"{layer.owner}.{name}") for name in ("weight", "bias")}
        starts = {
            name: tensor.starts[position] for name, tensor in named.items() if tensor and position in tensor.starts
        }
        own = network.names.index(layer.owner)
        owner = next((row for row, node in enumerate(self.nodes) if node.layer == own), len(self.nodes))
        return starts | {"owner": owner}

    def _conv(self, position: int, lookup: np.ndarray, groups: int, source: int, given: Shape, shape: Shape) -> int:
        sizes: dict[str, Any] = {"taps": len(lookup), "filters": shape[0] // groups, "per_group": given[0] // groups}
        return self._add(position, "conv", (source, -1), shape, lookup=lookup, **sizes, **self._parameters(position))

    def _pool(self, position: int, layer: Any, source: int, given: Shape, shape: Shape) -> int:
        geometry = layer.geometry(given)
        lookup = _meeting(geometry)
        if isinstance(layer, layers.MaxPool):
            return self._add(position, "max_pool", (source, -1), shape, lookup=lookup)
        counts = np.count_nonzero(_meeting(layer.counted(given)) >= 0, axis=0)
        return self._add(position, "avg_pool", (source, -1), shape, lookup=lookup, reals=1.0 / counts)

    def _norm(self, position: int, layer: Any, source: int, shape: Shape) -> int:
        reals, kind = np.full(1, layer.eps), layer.kind
        if isinstance(layer, layers.BatchNorm) and layer.frozen:
            mean, var = (self._buffers[f"{layer.owner}.running_{name}"] for name in ("mean", "var"))
            reals, kind = np.concatenate([reals, mean, 1.0 / np.sqrt(var + layer.eps)]), "frozen_norm"
        return self._add(position, kind, (source, -1), shape, reals=reals, **self._parameters(position))

    def _combined(self, position: int, layer: Layer, inputs: list[int], before: list[Shape]) -> int:
        """Add rows that combine two inputs at a time; return the last one."""
        combined, channels = inputs[0], before[0][0]
        for other, shape in zip(inputs[1:], before[1:], strict=True):
            joined = (channels + shape[0], *shape[1:]) if layer.kind == "concat" else shape
            combined = self._add(position, layer.kind, (combined, other), joined, taps=channels)
            channels = joined[0]
        return combined

    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``starts``, ``spots`` and ``lookup`` of all rows, and write each row's offsets into its columns."""
        starts, spots, lookups = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)], [np.zeros(1, np.int64)]
        counts = {"starts": 0, "spots": 0, "lookup": 1}

        def add(pairs: np.ndarray, owners: np.ndarray, pixels: int) -> int:
            """Add (pixel, tap) pairs, in ascending order of the output pixels that own them; return their first row."""
            begin = counts["starts"]
            bounds = np.searchsorted(owners, np.arange(pixels + 1)) + counts["spots"]
            starts.append(bounds)
            spots.append(pairs)
            counts["starts"] += len(bounds)
            counts["spots"] += len(pairs)
            return begin

        for node in self.nodes:
            if node.lookup is None:
                continue
            node.columns["lookup"] = counts["lookup"]
            lookups.append(node.lookup.reshape(-1))
            counts["lookup"] += node.lookup.size
            pixel, tap = np.nonzero(node.lookup.T >= 0)
            node.columns["starts"] = add(
                np.stack([node.lookup.T[pixel, tap], tap], axis=1), pixel, node.columns["pixels"]
            )
            if node.kind == "conv":
                source = self.nodes[node.columns["a"]].columns["pixels"]
                back = node.lookup.T[pixel, tap]
                order = np.lexsort((tap, pixel, back))
                node.columns["back"] = add(np.stack([pixel, tap], axis=1)[order], back[order], source)
        return np.concatenate(starts), np.ascontiguousarray(np.concatenate(spots)), np.concatenate(lookups)

    def _packing(self) -> int:
        """Write the offsets of packed weights into all rows, and return their total size."""
        at = 0
        for node in self.nodes:
            if node.kind != "conv":
                continue
            columns = node.columns
            groups = columns["channels"] // columns["filters"]
            node.columns["packed"] = at
            at += groups * self._whole(columns["filters"]) * columns["per_group"] * columns["taps"]
            node.columns["back_packed"] = at
            at += groups * self._whole(columns["per_group"]) * columns["filters"] * columns["taps"]
            node.columns["init"] = at
            at += (columns["channels"] + self._tile) * self._vector
        return max(at, 1)

    def _whole(self, filters: int) -> int:
        return -(-filters // self._tile) * self._tile


def _meeting(geometry: ConvGeometry, padding_mode: str = "zeros") -> np.ndarray:
    """Return the input pixel for every tap and output pixel, -1 for zeros of the padding: int64 (taps, pixels)."""
    sizes, every = geometry.input_shape[2:], []
    for axis, size in enumerate(sizes):
        t = np.arange(geometry.weight_shape[2 + axis])[:, None]
        o = np.arange(geometry.output_shape[2 + axis])
        along = o * geometry.stride[axis] - geometry.padding[axis][0] + t * geometry.dilation[axis]
        every.append(_filled(along, size, padding_mode))
    return _joined(every, sizes)


def _meeting_back(geometry: ConvGeometry) -> np.ndarray:
    """Return the same for the adjoint of a convolution: its input pixels are the convolution's output pixels."""
    sizes, every = geometry.output_shape[2:], []
    for axis, size in enumerate(sizes):
        t = np.arange(geometry.weight_shape[2 + axis])[:, None]
        o = np.arange(geometry.input_shape[2 + axis])
        along, left = np.divmod(o + geometry.padding[axis][0] - t * geometry.dilation[axis], geometry.stride[axis])
        every.append(np.where((left == 0) & (along >= 0) & (along < size), along, -1))
    return _joined(every, sizes)


def _filled(along: np.ndarray, size: int, padding_mode: str) -> np.ndarray:
    """Return the pixels of an axis that stand at some positions, in the padding too; -1 for zeros."""
    if padding_mode == "replicate":
        return np.clip(along, 0, size - 1)
    if padding_mode == "circular":
        return along % size
    if padding_mode == "reflect":
        return (size - 1) - np.abs((size - 1) - np.abs(along))
    return np.where((along >= 0) & (along < size), along, -1)


def _joined(every: Sequence[np.ndarray], sizes: Shape) -> np.ndarray:
    """Return the pixels of a map for all combinations of taps, and of output pixels, along its axes."""
    pixels = np.zeros((1, 1), np.int64)
    for along, size in zip(every, sizes, strict=True):
        joined = np.where(
            (pixels[:, None, :, None] >= 0) & (along[None, :, None] >= 0),
            pixels[:, None, :, None] * size + along[None, :, None],
            -1,
        )
        pixels = joined.reshape(len(pixels) * len(along), -1)
    return pixels


def _activation(layer: Layer) -> tuple[str, float]:
    """Return an activation's kind of row, and its number (a slope or a scale; 0 without one)."""
    if isinstance(layer, layers.GELU):
        return ("gelu" if layer.approximate == "none" else "gelu_tanh"), 0.0
    numbers = {"leaky_relu": "negative_slope", "elu": "alpha", "softplus": "beta"}
    return layer.kind, float(getattr(layer, numbers[layer.kind])) if layer.kind in numbers else 0.0


def arena(program: Program, first: int, lanes: int) -> tuple[np.ndarray, int]:
    """Lay out the perturbed outputs of a row and of the rows after it in one arena, for ``lanes`` lanes.

    The arena is nearly all the memory that differencing takes beside the caches, and each thread has one, so that rows
    share it as variables share registers. A row's room is free again once all its readers are evaluated
    (tests/networks/test_program.py: never while it is still read). Where a single channel is perturbed, all channels
    stand for that one and share its room: their pitch is 0.

    All offsets and pitches are multiples of the lanes, so that for fewer lanes they need only be scaled. Channels of
    maps are one pixel further apart than they are long: with pitches near powers of two, the same pixel of all channels
    would fall on few lines of the cache (bench/test_network_speed.py measures the speed). Channels that are flattened
    are not spread, since flattening then moves no data: the flat row shares its input's room.

    Returns
    -------
    int64 array, shape (rows, 2)
        Offset of channel 0, and pitch of channels.
    int
        Size of the arena.
    """
    places = np.zeros((len(program.nodes), 2), np.int64)
    alone, reached = _reached(program, first)
    readers = program.readers()
    # A row's room ends with its last reader; the output has none, and its room is never free.
    ends = [max(rows, default=len(program.nodes)) for rows in readers]
    flat = {row for row, node in enumerate(program.nodes) if node.kind == "flatten"}
    for row in sorted(flat, reverse=True):  # a flat row's readers read its input's room
        source = program.nodes[row].columns["a"]
        ends[source] = max(ends[source], ends[row])
    taken: list[tuple[int, int, int]] = []
    size = 0
    for row in sorted(reached):
        node = program.nodes[row]
        source = node.columns["a"]
        if row in flat and source not in alone:
            places[row] = places[source, 0], lanes
            continue
        spaced = node.columns["pixels"] > 1 and not flat & set(readers[row])
        pitch = 0 if row in alone else (node.columns["pixels"] + spaced) * lanes
        spill = program._tile if node.kind == "conv" else 0  # for tiles that are written whole
        needed = (node.columns["channels"] + spill) * pitch or node.columns["pixels"] * lanes
        # Rooms that end before this row are free. One that ends with it is not: it is still being read.
        taken = [room for room in taken if room[2] >= row]
        at = _gap(taken, needed)
        taken.append((at, at + needed, ends[row]))
        places[row] = at, pitch
        size = max(size, at + needed)
    return places, size


def _gap(taken: list[tuple[int, int, int]], needed: int) -> int:
    """Return the lowest offset with enough room between the rooms (low, high, last reader) that are taken."""
    at = 0
    for low, high, _ in sorted(taken):
        if at + needed <= low:
            break
        at = max(at, high)
    return at


def _reached(program: Program, first: int) -> tuple[set[int], set[int]]:
    """Return the rows that a perturbed channel of the first row reaches in one channel only, and all that it does."""
    reached = {first}
    alone = set() if program.nodes[first].is_one_slope else {first}
    for row, node in enumerate(program.nodes[first + 1 :], start=first + 1):
        sources, again = {node.columns["a"], node.columns["b"]} & reached, node.columns["owner"] == first
        if not sources and not again:
            continue
        reached.add(row)
        joined = node.kind in ("add", "concat") and len(sources) > 1
        joined |= again and bool(sources)  # perturbed by its input in one channel, by its parameters in another
        joined |= node.kind == "concat" and node.columns["a"] == node.columns["b"]  # perturbed in two channels
        mixes = node.kind in ("layer_norm", "softmax") or (node.kind == "group_norm" and node.columns["per_group"] > 1)
        spreads = mixes or (node.kind == "conv" and node.columns["filters"] > 1)
        spreads |= node.kind == "flatten" and node.columns["taps"] > 1
        spreads = (spreads and bool(sources)) or (again and node.is_one_slope)
        if mixes:  # needs all channels of its input, cached ones included
            alone -= sources
        if sources <= alone and not joined and not spreads:
            alone.add(row)
    return alone, reached


def perturbed(program: Program, first: int) -> dict[int, int]:
    """Return the rows that a perturbed channel of the first row reaches, with about how many of their entries."""
    alone, rows = _reached(program, first)
    sizes = {row: program.nodes[row].columns for row in sorted(rows)}
    return {row: size["pixels"] * (1 if row in alone else size["channels"]) for row, size in sizes.items()}


def lanes(program: Program, first: int, points: int, period: int, dims: int) -> int:
    """Return the number of lanes for copies of a network with one perturbed channel: a multiple of two periods.

    There are as many as keep a row and its sources within `STAGE`, at most `MOST`; the ``dims`` dimensions of a channel
    fill them evenly.
    """
    unit = 2 * period
    counts = perturbed(program, first)
    sources = {row: {program.nodes[row].columns[side] for side in "ab"} & counts.keys() for row in counts}
    widest = max(count + max((counts[source] for source in sources[row]), default=0) for row, count in counts.items())
    units = max(1, min(MOST, STAGE // (8 * widest)) // unit)
    needed = -(-dims * points // period)
    return unit * -(-needed // -(-needed // units))
