"""fastcheck.torch.check of whole networks, in one line: time in backward passes, and the limit of detection.

python bench/torch_check.py [transformer|resnet]

The networks of bench/directions.py, as modules with their loss. Times are CPU times of one thread, in units of one
backward pass, its forward pass included.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from directions import network

import fastcheck.torch


class WithLoss(torch.nn.Module):
    """A network and its loss."""

    def __init__(self, model, labels):
        super().__init__()
        self.model, self.labels = model, labels

    def forward(self, x):
        return F.cross_entropy(self.model(x), self.labels)


def report(kind):
    """Print the figures of a network."""
    model, x, y = network(kind)
    module = WithLoss(model, y)
    params = list(module.parameters())

    def backward():
        torch.autograd.grad(module(x), params)

    backward()
    unit = statistics.median(_seconds(backward) for _ in range(5))
    reports = []
    seconds = _seconds(lambda: reports.append(fastcheck.torch.check(module, x, progress=False)))
    (made,) = reports
    limits = sorted(made.directions["relative_limit"].values())
    print(
        f"{kind}: {made.verdict}, {made.directions['dims']:,} parameters, {seconds / unit:.0f} backward passes in all"
    )
    print(f"  relative limit {statistics.median(limits):.0e}, worst {max(limits):.0e}")
    print(f"  chance of missing {made.directions['chance_of_missing']:.0e}, {made.directions['calls']} forwards")


def _seconds(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", nargs="?", choices=("transformer", "resnet"), help="default: both")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for kind in [asked.network] if asked.network else ["transformer", "resnet"]:
        report(kind)


if __name__ == "__main__":
    main()
