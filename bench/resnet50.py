"""What an exhaustive check of ResNet-50 takes, every parameter through the whole network: an estimate from its parts.

python bench/resnet50.py '{"size": 224}' prints the table of docs/benchmarks.md, and the figures behind it as JSON. It
takes a quarter of an hour and 15 GB; images of 64 pixels take five minutes and 4 GB.

A seeded sample of some tensors is differenced by one thread, as a check does it. The others are estimated by their
work and by the rate of a measured one. Seconds are the thread's own, so that others may use the machine meanwhile.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from time import thread_time
from typing import Any

import llvmlite.binding  # noqa: F401, which knows the processor that `machine.target` names
import numpy as np
from network_peers import whole_channels

from fastcheck.common import machine
from fastcheck.engine import coordinator, folding
from fastcheck.engine.differences import Chosen
from fastcheck.engine.shard_results import encode
from fastcheck.networks.case import NetworkCase, Point
from fastcheck.networks.differencer import PILOT_STEPS, PILOTS, automatic
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.evaluator import NetworkEvaluator, blocks_of
from fastcheck.networks.layers import Add, BatchNorm, Conv, Dense, GlobalAvgPool, Layer, MaxPool, ReLU
from fastcheck.networks.network import Network
from fastcheck.networks.partial import PartialEvaluation, needed_bytes, work
from fastcheck.networks.passes import Passes

STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
"""Blocks of a stage, and the filters of their 3x3 convolutions."""

PARAMETERS = 25_557_032
"""As torchvision counts them, batch normalisations and the last layer's biases included."""

MEASURED = (
    *("conv1.weight", "layer1_0_conv2.weight", "layer2_0_conv2.weight", "layer3_0_conv2.weight"),
    *("layer4_0_conv2.weight", "layer4_2_conv3.weight", "fc.weight"),
)
"""The first convolution, the first 3x3 one of each stage, the last one, and the dense layer."""

BUDGET = 2e11
"""Work of a sample; two blocks are taken even where that is more."""

ROUNDS = 3
"""Of which medians are taken."""

CORES = 1000

ROW_BYTES = 64
"""What a shard takes in a ledger beside its body."""


def resnet50() -> Network:
    """Return ResNet-50 as torchvision arranges it, the stride in the 3x3 convolutions, with frozen statistics."""
    layers: list[Layer] = [*_normalised("conv1", 64, 7, stride=2, padding=3), ReLU(), MaxPool(3, 2, 1, name="pool")]
    before = "pool"
    for stage, (blocks, width) in enumerate(STAGES, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            layers += _bottleneck(f"layer{stage}_{block}", before, width, stride, shortcut=block == 0)
            before = f"layer{stage}_{block}"
    return Network([*layers, GlobalAvgPool(), Dense(1000, name="fc")])


def _bottleneck(name: str, before: str, width: int, stride: int, shortcut: bool) -> Iterator[Layer]:
    yield from (*_normalised(f"{name}_conv1", width, 1, input=before), ReLU())
    yield from (*_normalised(f"{name}_conv2", width, 3, stride=stride, padding=1), ReLU())
    yield from _normalised(f"{name}_conv3", 4 * width, 1)
    other = before
    if shortcut:
        yield from _normalised(f"{name}_down", 4 * width, 1, stride=stride, input=before)
        other = f"{name}_down_norm"
    yield Add(other, input=f"{name}_conv3_norm")
    yield ReLU(name=name)


def _normalised(name: str, filters: int, kernel: int, **arguments: Any) -> tuple[Layer, Layer]:
    return Conv(filters, kernel, bias=False, name=name, **arguments), BatchNorm(frozen=True, name=f"{name}_norm")


def seeded_point(network: Network, size: int) -> Point:
    """Return one data point, and parameters at which the results of all layers are of about one size."""
    rng = np.random.default_rng(0)
    params = network.initial((3, size, size))
    for name, array in params.items():
        if name.endswith("bias"):
            array += 0.1 * rng.standard_normal(array.shape)
        if name.endswith(("conv3_norm.weight", "down_norm.weight")):
            array *= 0.5  # or sums would grow from block to block
    return Point.of(network, params, rng.standard_normal((1, 3, size, size)), np.array([3]))


@dataclass(frozen=True)
class Tensor:
    """A tensor, and what a check of it takes.

    Attributes
    ----------
    name, stage : str
    dims : int
    work : int
        Multiply-adds of a dimension.
    block : int
        Dimensions that a thread is handed at a time.
    smallest : bool
        Whether those are no more than fill the lanes.
    """

    name: str
    stage: str
    dims: int
    work: int
    block: int
    smallest: bool

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return math.ceil(self.dims / self.block)

    @property
    def together(self) -> int:
        """How many blocks a shard has."""
        return max(1, round(coordinator.SHARD_WORK / max(1.0, self.work * self.dims / self.blocks)))

    @property
    def shards(self) -> int:
        """How many shards a batch run cuts it into."""
        return math.ceil(self.blocks / self.together)


def tensors(passes: Passes) -> list[Tensor]:
    """Return all tensors of the network."""
    found = []
    for name, array in passes.point.params.items():
        cost, moved = work(passes.program, name, len(passes.point.x)), PartialEvaluation(passes, name)
        block = len(blocks_of(range(array.size), cost, moved.group, moved.dims_per_pass)[0])
        stage = name.replace(".", "_").partition("_")[0]
        found.append(Tensor(name, stage, array.size, cost, block, block <= moved.dims_per_pass))
    return found


class Counted:
    """Differences of a tensor, whose dimensions are counted."""

    def __init__(self, tables: PartialEvaluation) -> None:
        self._tables, self.dims = tables, 0
        self.kind, self.noise = tables.kind, tables.noise
        self.group, self.dims_per_pass = tables.group, tables.dims_per_pass

    def __call__(self, dims: np.ndarray, h: float) -> np.ndarray:
        """Difference dimensions."""
        self.dims += len(dims)
        return self._tables(dims, h)


def measured(case: NetworkCase, baseline: Baseline, tensor: Tensor) -> dict[str, Any]:
    """Measure a tensor: seconds of a dimension as a check takes them, and of one by itself with one step.

    The pilots are left out, and round-off taken as the model has it: they take as long as so many dimensions alone.
    """
    name, tables = tensor.name, Counted(PartialEvaluation(baseline.passes, tensor.name))
    baseline.cached(("scatter", name, tables.kind, 0), lambda: 1.0)
    evaluator = NetworkEvaluator(case, baseline, tables, name, "auto", 0)  # type: ignore[arg-type]
    blocks = _sample(evaluator.blocks(whole_channels(case.point.params[name].shape, 1)), tensor)
    dims = sum(map(len, blocks))
    seconds, found = _timed(lambda: [evaluator(block) for block in blocks])
    tries = tables.dims / dims / ROUNDS
    h, one = automatic(baseline.passes, name), np.arange(1)
    values = case.grads[name].reshape(-1)
    folded = [folding.fold(block, values[block.dims]) for block in found[: tensor.together]]
    part = coordinator.joined([coordinator.Block(one, 0, 0, None, None) for one in folded])
    return {
        "tensor": name,
        "sample": dims,
        "outside": sum(int((abs(values[one.dims] - one.numeric) > one.error_bar).sum()) for one in found),
        "tries": tries,
        "seconds": seconds / dims,
        "alone_seconds": _timed(lambda: tables(one, h))[0],
        "shard_bytes": len(encode(part)) + ROW_BYTES,
    }


def _sample(blocks: list[Chosen], tensor: Tensor) -> list[Chosen]:
    """Return seeded blocks, as many as come to `BUDGET`."""
    count = max(2, int(BUDGET / (tensor.work * len(blocks[0]))))
    chosen = np.random.default_rng(2).permutation(len(blocks))[:count]
    return [blocks[place] for place in sorted(chosen.tolist())]


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median of the seconds of this thread that calls take, and what the last one returns."""
    taken = []
    for _ in range(ROUNDS):
        start = thread_time()
        found = call()
        taken.append(thread_time() - start)
    return median(taken), found


def _by_rate(every: list[Tensor], rows: Iterable[dict[str, Any]], key: str) -> dict[str, float]:
    """Return seconds of a dimension of every tensor: as measured, or by its work and a measured tensor's rate."""
    works = {tensor.name: tensor.work for tensor in every}
    seconds = {row["tensor"]: row[key] for row in rows}
    found = {}
    for tensor in every:
        other = _like(tensor, every, seconds)
        found[tensor.name] = seconds[other] * tensor.work / works[other]
    return found


def _like(tensor: Tensor, every: Iterable[Tensor], measured_ones: Collection[str]) -> str:
    """Return the measured tensor that stands for one: itself, one of its stage with blocks alike, the last one."""
    if tensor.name in measured_ones:
        return tensor.name
    alike = [one.name for one in every if one.name in measured_ones and one.stage == tensor.stage and one.smallest]
    return alike[0] if alike and tensor.smallest else MEASURED[-2]


def stages(every: list[Tensor], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each stage takes, and what all of them do."""
    seconds, alone = (_by_rate(every, rows, f"{key}seconds") for key in ("", "alone_"))
    sizes = {row["tensor"]: row["shard_bytes"] for row in rows}
    names = {row["tensor"] for row in rows}

    def row(stage: str, chosen: list[Tensor]) -> dict[str, Any]:
        hours = {tensor.name: tensor.dims * seconds[tensor.name] / 3600 for tensor in chosen}
        return {
            "stage": stage,
            "tensors": len(chosen),
            "dims": sum(tensor.dims for tensor in chosen),
            "work": float(sum(tensor.dims * tensor.work for tensor in chosen)),
            "measured_hours": sum(taken for name, taken in hours.items() if name in names),
            "hours": sum(hours.values()),
            "pilot_seconds": sum(
                PILOTS * PILOT_STEPS * alone[one.name] * min(1.0, one.shards / CORES) for one in chosen
            ),
            "shards": sum(tensor.shards for tensor in chosen),
            "ledger_bytes": sum(one.shards * sizes[_like(one, every, sizes)] for one in chosen),
        }

    found = [
        row(stage, [tensor for tensor in every if tensor.stage == stage])
        for stage in dict.fromkeys(tensor.stage for tensor in every)
    ]
    return [*found, row("all", every)]


def measure(size: int = 224) -> dict[str, Any]:
    """Measure the parts with images of a size, and put the estimate together."""
    point = seeded_point(resnet50(), size)
    assert sum(array.size for array in point.params.values()) == PARAMETERS
    start = thread_time()
    baseline = Baseline.of(Passes(point), 0)
    opening = thread_time() - start
    every = tensors(baseline.passes)
    case = NetworkCase(point, baseline.passes.named(baseline.gradient), {})
    rows = [measured(case, baseline, tensor) for tensor in every if tensor.name in MEASURED]
    return {
        "size": size,
        "machine": machine.described(),
        "loss": baseline.passes.loss(),
        "opening_seconds": opening,
        "needed_bytes": needed_bytes(baseline.passes.program, point, 1),
        "peak_bytes": machine.peak_bytes(),
        "measured": rows,
        "stages": stages(every, rows),
    }


def table(found: dict[str, Any]) -> str:
    """Return the estimate as Markdown."""
    headings = ("part", "tensors", "dimensions", "multiply-adds", "core-hours", "of them measured", "shards")
    lines = [headings, ("---", *["---:"] * (len(headings) - 1))]
    for row in found["stages"]:
        hours = (f"{row[key]:,.2f}" if row[key] < 10 else f"{row[key]:,.0f}" for key in ("hours", "measured_hours"))
        counts = (f"{row['tensors']:,}", f"{row['dims']:,}", f"{row['work']:.1e}")
        lines.append((row["stage"], *counts, *hours, f"{row['shards']:,}"))
    whole = found["stages"][-1]
    opening, pilots = found["opening_seconds"], whole["pilot_seconds"]
    notes = [
        f"{CORES:,} cores: {whole['hours'] / CORES:,.2f} hours of differencing; before it "
        f"{(opening + pilots) / 3600:,.2f} hours of each worker: {opening:,.0f} s of passes, {pilots:,.0f} s of pilots",
        f"memory of a worker: at most {found['needed_bytes'] / 2**30:,.1f} GiB; this took "
        f"{(found['peak_bytes'] or 0) / 2**30:,.1f} GiB",
        f"ledger: {whole['ledger_bytes'] / 1e9:,.1f} GB",
    ]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes])


if __name__ == "__main__":
    result = measure(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else measure()
    print(table(result))
    print(json.dumps(result))
