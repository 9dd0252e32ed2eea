"""Whole networks differenced in PyTorch: torch.func.vmap at the chunk that suits each tensor best, and a loop by hand.

python bench/network_peers.py NAME '{"threads": 2}' measures one network, fastcheck beside both, and prints JSON;
"sides": ["vmap", "loop"] leaves fastcheck out.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from fastcheck import check_network
from fastcheck.networks.case import Point
from fastcheck.networks.differencer import automatic
from fastcheck.networks.evaluator import blocks_of
from fastcheck.networks.layers import Conv, Dense, Flatten, GlobalAvgPool, Layer, MaxPool, ReLU
from fastcheck.networks.network import Network
from fastcheck.networks.partial import PartialEvaluation, work
from fastcheck.networks.passes import Passes
from fastcheck.workloads.benchmark import PAUSE, Side, in_turns

STEP = 2.0**-20
"""h of the peers: at 2**-17 most of the larger network's dimensions cross a kink, at 2**-24 rounding is too much."""

CLOSE = 1e-7
"""Norm ratio against autograd that is needed before anything is timed."""

FURTHEST = 0.25
"""Part of the dimensions with a gradient that is left out of it: among them are those that cross a kink."""

PATIENCE = 3
"""The search ends after so many chunks that are no better: still larger ones may fill the memory and take minutes."""

SIDES = ("check", "raw", "vmap", "loop")
"""fastcheck's whole check and its differencing alone, and the two peers."""

Arrays = Mapping[str, np.ndarray]
Differencing = Callable[[], torch.Tensor]
"""Differences the dimensions that it was prepared for."""


class Case(NamedTuple):
    """A network with its parameters, a batch and the classes of its data points."""

    network: Network
    params: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Setup:
    """How a network is measured.

    Attributes
    ----------
    make : callable
        Returns the case.
    chunks : tuple of int
        Dimensions in one call of vmap, ascending, of which the best is searched: each has two copies of the tensor.
    dims : int
        Dimensions of a tensor that vmap differences, at most; of larger tensors a sample.
    loop_dims, ours : int
        The same for the loop, and for fastcheck, whose cost of a dimension depends on how many there are.
    rounds : int
        Turns, of which medians are taken.
    sides : tuple of str
        Of `SIDES`, those that are measured unless others are asked for.
    """

    make: Callable[[], Case]
    chunks: tuple[int, ...]
    dims: int
    loop_dims: int
    ours: int
    rounds: int
    sides: tuple[str, ...] = SIDES


def digits_cnn() -> Case:
    """Return a network for digits of 8x8 pixels, 3,658 parameters, with a batch of 8."""
    convs = [_conv(8), ReLU(), MaxPool(2), _conv(16), ReLU(), MaxPool(2)]
    return _case([*convs, Flatten(), Dense(32), ReLU(), Dense(10)], (1, 8, 8), batch=8)


def cifar_net() -> Case:
    """Return eight convolutions as in VGG for images of 32x32 pixels, 602,666 parameters, with a batch of 4."""
    layers: list[Layer] = []
    for width in (32, 64, 128):
        layers += [_conv(width), ReLU(), _conv(width), ReLU(), MaxPool(2)]
    layers += [_conv(128), ReLU(), _conv(128), ReLU(), Flatten(), Dense(10)]
    return _case(layers, (3, 32, 32), batch=4)


SETUPS = {
    "digits_cnn": Setup(digits_cnn, (16, 32, 64, 128, 256, 512, 1024, 2048), 4096, 200, 4096, rounds=7),
    "cifar_net": Setup(cifar_net, tuple(2**k for k in range(12)), 8, 4, 256, rounds=2, sides=SIDES[1:]),
}


def forward(layers: Iterable[Layer], params: Mapping[str, torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """Return what a chain of layers makes of a batch."""
    for layer in layers:
        match layer:
            case Conv():
                weight, bias = params[f"{layer.name}.weight"], params.get(f"{layer.name}.bias")
                z = functional.conv2d(z, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
            case Dense():
                z = functional.linear(z, params[f"{layer.name}.weight"], params.get(f"{layer.name}.bias"))
            case MaxPool():
                z = functional.max_pool2d(z, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            case ReLU():
                z = functional.relu(z)
            case Flatten():
                z = z.flatten(1)
            case GlobalAvgPool():
                z = z.mean((-2, -1))
            case _:
                raise NotImplementedError(layer.kind)
    return z


def gradients(network: Network, params: Arrays, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return autograd's gradient of every parameter."""
    leaves = {name: tensor.requires_grad_() for name, tensor in _tensors(params).items()}
    loss = functional.cross_entropy(forward(network.layers, leaves, torch.from_numpy(x)), torch.from_numpy(y))
    found = torch.autograd.grad(loss, list(leaves.values()))
    return {name: grad.numpy() for name, grad in zip(leaves, found, strict=True)}


def vmap_differencing(
    network: Network,
    params: Arrays,
    x: np.ndarray,
    y: np.ndarray,
    tensor: str,
    chunk: int,
    dims: np.ndarray,
    *,
    prefix_once: bool = True,
) -> Differencing:
    """Prepare two-sided differences by vmap over perturbed copies of one tensor, 2 * chunk of them at a time.

    The copies are made once, and between chunks only the entries that moved are written. Layers before the tensor run
    once for all chunks unless ``prefix_once=False``: then once a chunk, unbatched, as vmap does by itself.
    """
    values, entry = _tensors(params), torch.from_numpy(x)
    place = network.names.index(tensor.rpartition(".")[0])
    start = place if prefix_once else 0
    before, after = network.layers[:start], network.layers[start:]
    # Probabilities, since under vmap they take a tenth less than classes in the last layers.
    wanted = functional.one_hot(torch.from_numpy(y), _classes(network, x)).double()
    shape, flat = values[tensor].shape, values[tensor].reshape(-1)
    copies = flat.repeat(2 * chunk, 1)
    steps, row = torch.tensor([STEP, -STEP], dtype=flat.dtype).repeat(chunk), torch.arange(2 * chunk)
    blocks = torch.from_numpy(dims).split(chunk)

    @torch.no_grad()
    def run() -> torch.Tensor:
        z = forward(before, values, entry)

        def loss(moved: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(forward(after, values | {tensor: moved}, z), wanted)

        losses, found = torch.func.vmap(loss), []
        for block in blocks:
            count, column = 2 * len(block), block.repeat_interleave(2)
            copies[row[:count], column] += steps[:count]
            found.append(losses(copies[:count].view(count, *shape)))
            copies[row[:count], column] = flat[column]
        above, below = torch.cat(found).view(-1, 2).T
        return (above - below) / (2 * STEP)

    return run


def loop_differencing(
    network: Network, params: Arrays, x: np.ndarray, y: np.ndarray, tensor: str, dims: np.ndarray
) -> Differencing:
    """Prepare the loop that one writes by hand: an entry is moved, the whole network runs twice, and it is put back."""
    values, entry, target = _tensors(params), torch.from_numpy(x), torch.from_numpy(y)
    flat = values[tensor].view(-1)
    places = dims.tolist()

    def loss() -> float:
        return float(functional.cross_entropy(forward(network.layers, values, entry), target))

    @torch.no_grad()
    def run() -> torch.Tensor:
        found = []
        for i in places:
            saved = float(flat[i])
            flat[i] = saved + STEP
            above = loss()
            flat[i] = saved - STEP
            below = loss()
            flat[i] = saved
            found.append((above - below) / (2 * STEP))
        return torch.tensor(found, dtype=flat.dtype)

    return run


def vmap_seconds(
    network: Network,
    params: Arrays,
    x: np.ndarray,
    y: np.ndarray,
    tensor: str,
    chunks: Iterable[int],
    dims: int,
    *,
    rounds: int = 3,
    prefix_once: bool = True,
) -> dict[int, float]:
    """Return the seconds of a dimension for every chunk, the least of rounds after one whose values are verified.

    Up to ``dims`` dimensions of the tensor are differenced, in whole chunks where it has more. A chunk larger than the
    tensor stands as the tensor's size. The least, since a process that takes a core slows PyTorch many times over.
    """
    exact = gradients(network, params, x, y)[tensor].reshape(-1)
    found: dict[int, float] = {}
    for chunk in dict.fromkeys(min(chunk, exact.size) for chunk in chunks):
        chosen = whole_chunks(exact.size, chunk, dims)
        run = vmap_differencing(network, params, x, y, tensor, chunk, chosen, prefix_once=prefix_once)
        verify(run(), exact[chosen], f"vmap, {tensor}, chunk {chunk}")
        found[chunk] = min(_timed(run) for _ in range(rounds)) / len(chosen)
        if best(found) not in list(found)[-PATIENCE:]:
            break
    return found


def hand_loop_seconds(
    network: Network, params: Arrays, x: np.ndarray, y: np.ndarray, tensor: str, dims: int, *, rounds: int = 3
) -> float:
    """Return the seconds of a dimension of the loop, the least of rounds after one whose values are verified."""
    exact = gradients(network, params, x, y)[tensor].reshape(-1)
    chosen = sampled(exact.size, dims)
    run = loop_differencing(network, params, x, y, tensor, chosen)
    verify(run(), exact[chosen], f"loop, {tensor}")
    return min(_timed(run) for _ in range(rounds)) / len(chosen)


def best(seconds: Mapping[int, float]) -> int:
    """Return the chunk with the fewest seconds of a dimension."""
    return min(seconds, key=lambda chunk: seconds[chunk])


def fastcheck_seconds(
    network: Network, params: Arrays, x: np.ndarray, y: np.ndarray, tensor: str | None, dims: int, threads: int
) -> float:
    """Return the seconds of a check of up to ``dims`` dimensions of a tensor, or of all parameters, from its report.

    They are those of preparing, differencing and judging, without the audit.
    """
    chosen = "all" if tensor is None else dims
    only = None if tensor is None else [tensor]
    grads = gradients(network, params, x, y)
    report = check_network(network, params, grads, x, y, only=only, dims=chosen, threads=threads)
    assert report.passed, report.summary()
    return float(report.run["seconds"])


SHARES = 3
"""Parts of all work that each thread is handed, for them to end at about the same time."""


class Ours:
    """Fastcheck's two-sided differences alone, over threads: what the peers' sides are as well."""

    def __init__(self, case: Case, tensors: Iterable[str], dims: int, threads: int) -> None:
        passes = Passes(Point.of(case.network, case.params, case.x, case.y))
        passes.gradient()
        self._pool = ThreadPoolExecutor(threads)
        self._work = [block for tensor in tensors for block in self._blocks(passes, tensor, dims)]
        # Handing work to a thread takes as long as differencing a hundred dimensions.
        self._shares = [range(first, len(self._work), SHARES * threads) for first in range(SHARES * threads)]
        self.values = self()

    def __call__(self) -> list[np.ndarray]:
        """Difference all dimensions."""
        found = self._pool.map(lambda share: [(place, self._work[place]()) for place in share], self._shares)
        return [values for _, values in sorted(chain.from_iterable(found), key=lambda pair: pair[0])]

    @staticmethod
    def _blocks(passes: Passes, tensor: str, dims: int) -> Iterator[Callable[[], np.ndarray]]:
        moved, h = PartialEvaluation(passes, tensor), automatic(passes, tensor) / 8  # as small as the peers'
        every = whole_channels(passes.point.params[tensor].shape, dims)
        cost = work(passes.program, tensor, len(passes.point.x))
        for block in blocks_of(every, cost, moved.group, moved.dims_per_pass):
            yield lambda block=block: moved(block, h)[:, 0] / (2 * h)  # type: ignore[misc]


def sampled(size: int, dims: int) -> np.ndarray:
    """Return all dimensions of a tensor, or a sample of so many."""
    if dims >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(1).choice(size, dims, replace=False))


def whole_channels(shape: tuple[int, ...], dims: int) -> np.ndarray:
    """Return all dimensions of a tensor, or of two or more channels: those of one are differenced together."""
    columns = math.prod(shape[1:])
    channels = sampled(shape[0], max(dims // columns, 2))
    return (channels[:, None] * columns + np.arange(columns)).ravel()


def whole_chunks(size: int, chunk: int, dims: int) -> np.ndarray:
    """Return all dimensions of a tensor, or a sample that fills chunks: a part of one would cost more a dimension."""
    return sampled(size, dims if dims >= size else max(dims // chunk, 1) * chunk)


def verify(numeric: torch.Tensor, exact: np.ndarray, what: str) -> float:
    """Return the norm ratio of differences and autograd's gradient, kinks apart, and raise where it is not small."""
    found = numeric.numpy()
    kept = exact.size - int(FURTHEST * np.count_nonzero(exact))  # zeros, as of dead units, agree too easily to count
    near = np.argsort(abs(found - exact))[:kept]
    apart, size = (float(np.linalg.norm(array[near])) for array in (found - exact, found + exact))
    ratio = apart / size if size else 0.0
    if not ratio < CLOSE:
        raise AssertionError(f"{what}: norm ratio {ratio:.1e} against autograd")
    return ratio


def measure(name: str, threads: int, sides: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Measure every tensor of a network, sides in turns: seconds of a dimension, and vmap's best chunk.

    The last row, of all parameters, has averages over them: of tensors measured one by one or, where all dimensions
    are measured, of one check of everything beside vmap on tensor after tensor.
    """
    torch.set_num_threads(threads)
    setup = SETUPS[name]
    chosen = setup.sides if sides is None else tuple(sides)
    case = setup.make()
    rows = [_row(case, setup, tensor, threads, chosen) for tensor in case.params]
    return [*rows, _all(case, setup, rows, threads, chosen)]


def _all(case: Case, setup: Setup, rows: list[dict[str, Any]], threads: int, sides: tuple[str, ...]) -> dict[str, Any]:
    dims = sum(row["dims"] for row in rows)
    found = {"tensor": "all", "dims": dims, "chunk": None}
    found |= {key: sum(row["dims"] * row[key] for row in rows) / dims for key in rows[0] if key.endswith("seconds")}
    if max(row["dims"] for row in rows) > min(setup.dims, setup.ours):
        return found
    runs = [vmap_differencing(*case, row["tensor"], row["chunk"], np.arange(row["dims"])) for row in rows]
    every_one = Ours(case, case.params, dims, threads)
    every: dict[str, Side] = {
        "check": lambda: {"seconds": _warm(lambda: fastcheck_seconds(*case, None, dims, threads)) / dims},
        "raw": lambda: {"raw_seconds": _steady(every_one) / dims},
        "vmap": lambda: {"vmap_seconds": _paused(lambda: [run() for run in runs]) / dims},
    }
    return found | in_turns({name: side for name, side in every.items() if name in sides}, setup.rounds)


def _row(case: Case, setup: Setup, tensor: str, threads: int, sides: tuple[str, ...]) -> dict[str, Any]:
    size = case.params[tensor].size
    searched = vmap_seconds(*case, tensor, setup.chunks, setup.dims, rounds=setup.rounds)
    chunk = best(searched)
    filled, few = whole_chunks(size, chunk, setup.dims), sampled(size, setup.loop_dims)
    whole, ours = whole_channels(case.params[tensor].shape, setup.ours), min(size, setup.ours)
    vmapped = vmap_differencing(*case, tensor, chunk, filled)
    looped = loop_differencing(*case, tensor, few)
    verify(looped(), gradients(*case)[tensor].reshape(-1)[few], f"loop, {tensor}")
    differenced = Ours(case, [tensor], setup.ours, threads)
    values, right = torch.from_numpy(np.concatenate(differenced.values)), gradients(*case)[tensor].reshape(-1)[whole]
    verify(values, right, f"fastcheck, {tensor}")
    every: dict[str, Side] = {
        "check": lambda: {"seconds": _warm(lambda: fastcheck_seconds(*case, tensor, ours, threads)) / ours},
        "raw": lambda: {"raw_seconds": _steady(differenced) / len(whole)},
        "vmap": lambda: {"vmap_seconds": _paused(vmapped) / len(filled)},
        "loop": lambda: {"loop_seconds": _paused(looped) / len(few)},
    }
    medians = in_turns({name: every[name] for name in sides}, setup.rounds)
    return {"tensor": tensor, "dims": size, "chunk": chunk, "chunks": searched} | medians


def _case(layers: list[Layer], shape: tuple[int, ...], batch: int) -> Case:
    network = Network(layers)
    rng = np.random.default_rng(0)
    params = network.initial(shape)
    for name, array in params.items():
        if name.endswith("bias"):
            array += 0.1 * rng.standard_normal(array.shape)
    classes = network.shapes(shape)[-1][0]
    return Case(network, params, rng.standard_normal((batch, *shape)), rng.integers(0, classes, batch))


def _conv(width: int) -> Conv:
    return Conv(width, 3, padding=1)


def _classes(network: Network, x: np.ndarray) -> int:
    return math.prod(network.shapes(x.shape[1:])[-1])


def _tensors(params: Arrays) -> dict[str, torch.Tensor]:
    """Return copies, since the loop writes to them."""
    return {name: torch.tensor(array) for name, array in params.items()}


def _timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _warm(seconds: Callable[[], float]) -> float:
    """Return the seconds of the second of two runs: the first finds cold caches and sleeping threads."""
    seconds()
    return seconds()


def _steady(call: Callable[[], object]) -> float:
    """Return the seconds of a call, of a short one an average over about as long as the peers take."""
    first = _timed(call)
    if first > PAUSE:
        return first
    count = max(1, int(PAUSE / _timed(call)))
    return _timed(lambda: [call() for _ in range(count)]) / count


def _paused(call: Callable[[], object]) -> float:
    taken = _warm(lambda: _timed(call))
    sleep(PAUSE)  # PyTorch's threads spin for a while, and would take the next side's cores
    return taken


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], **json.loads(sys.argv[2]))))
