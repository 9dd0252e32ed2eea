"""Every conv layer of published networks beside PyTorch's own backward pass and the machine's limit, in turns."""

import json

import children
import pytest

ROUNDS = 5
SIDES = [("vgg16", "weight", 1), ("vgg16", "input", 1), ("resnet50", "weight", 1), ("mobilenet_v2", "weight", 16)]
TARGETS = {256: 3.5, 512: 2.5}
"""Most backward passes of PyTorch that VGG-16's weights may cost, by the width of vectors."""


def _measured(width, network, tensor, threads, batch=1):
    arguments = {"network": network, "tensor": tensor, "threads": threads, "rounds": ROUNDS, "batch": batch}
    return children.call("measures.py", "network", json.dumps(arguments), environment=width.environment)


def _total(rows, name):
    return sum(row["alike"] * row[name] for row in rows)


@pytest.mark.parametrize(("network", "tensor", "batch"), SIDES)
def test_layers(benchmark, results, widths, threads, network, tensor, batch):
    width = next(width for width in widths if width.default)
    rows = benchmark.pedantic(_measured, args=(width, network, tensor, threads, batch), rounds=1)
    results.record(f"{network}_{tensor}", rows, threads=threads, batch=batch, simd_bits=width.bits, packages=("torch",))
    print(f"\n{network} {tensor}: {_total(rows, 'seconds') / _total(rows, 'torch_seconds'):.2f}x PyTorch")


def test_widths(benchmark, results, widths, threads):
    def run():
        found = []
        for width in widths:
            limits = children.call(
                "measures.py", "limit", json.dumps({"threads": threads}), environment=width.environment
            )
            rows = _measured(width, "vgg16", "weight", threads)
            totals = {name: _total(rows, name) for name in ("seconds", "torch_seconds")}
            target = TARGETS.get(width.bits, TARGETS[256])
            found.append(limits | totals | {"default": width.default, "target": target, "layers": rows})
        return found

    results.record("widths", benchmark.pedantic(run, rounds=1), threads=threads, packages=("torch",))
