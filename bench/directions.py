"""Directions over whole networks: their time in backward passes, the limit of detection, and one wrong entry found.

python bench/directions.py [transformer|resnet]

A transformer of 3.4 million parameters and a ResNet-18-like network of 2.8 million with batch statistics, in PyTorch,
float64, as a loss and a gradient of arrays. Times are CPU times of one thread, in units of one backward pass: the
median of five calls of the gradient, its forward pass included.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fastcheck.engine.culprits import localise
from fastcheck.engine.directions import COUNT, Directions, finite_values
from fastcheck.functions import noise
from fastcheck.functions.case import FunctionCase
from fastcheck.functions.directions import LossLines


class Block(nn.Module):
    """A block of a transformer: causal attention and a perceptron, each behind a layer normalisation."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        samples, length, width = x.shape
        split = self.qkv(self.before_attention(x)).reshape(samples, length, 3, self.heads, width // self.heads)
        attended = F.scaled_dot_product_attention(*split.permute(2, 0, 3, 1, 4), is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(samples, length, width))
        return x + self.down(F.gelu(self.up(self.before_perceptron(x))))


class Transformer(nn.Module):
    """A small language model."""

    def __init__(self, tokens=512, width=256, blocks=4, length=64):
        super().__init__()
        self.embedding, self.place = nn.Embedding(tokens, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(blocks))
        self.last, self.out = nn.LayerNorm(width), nn.Linear(width, tokens)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.place
        for block in self.blocks:
            x = block(x)
        return self.out(self.last(x)).flatten(0, 1)


class Residual(nn.Module):
    """Two convolutions with batch normalisation, beside a shortcut."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.first, self.second = _conv(channels, filters, 3, stride), _conv(filters, filters, 3, 1)
        same = channels == filters and stride == 1
        self.shortcut = nn.Identity() if same else _conv(channels, filters, 1, stride)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def _conv(channels, filters, size, stride):
    conv = nn.Conv2d(channels, filters, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters, track_running_stats=False))


def _resnet(width=32):
    layers, channels = [_conv(3, width, 3, 1), nn.ReLU()], width
    for filters, stride in _residuals(width):
        layers.append(Residual(channels, filters, stride))
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def _residuals(width):
    """Yield filters and stride of each residual block."""
    for factor in (1, 2, 4, 8):
        yield factor * width, 2 if factor > 1 else 1
        yield factor * width, 1


def network(kind):
    """Return a network, its input and its labels."""
    torch.manual_seed(0)
    if kind == "transformer":
        return Transformer().double(), torch.randint(0, 512, (4, 64)), torch.randint(0, 512, (4 * 64,))
    return _resnet().double(), torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.randint(0, 10, (8,))


def functions(kind):
    """Return loss, gradient and parameters, as arrays."""
    model, x, y = network(kind)
    params = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}

    def value(tensors):
        return F.cross_entropy(torch.func.functional_call(model, tensors, (x,)), y)

    def loss(arrays):
        with torch.no_grad():
            return value({name: torch.from_numpy(array) for name, array in arrays.items()}).item()

    def grad(arrays):
        tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in arrays.items()}
        found = torch.autograd.grad(value(tensors), list(tensors.values()))
        return {name: one.numpy() for name, one in zip(tensors, found, strict=True)}

    return loss, grad, params


def planted(grad):
    """Return a gradient with one entry of median size 1 % off, and the place of that entry."""
    place = []

    def wrong(arrays):
        grads = grad(arrays)
        name = list(grads)[len(grads) // 2]
        flat = grads[name].reshape(-1)
        dim = int(np.argsort(np.abs(flat))[flat.size // 2])
        flat[dim] *= 1.01
        place[:] = [name, dim]
        return grads

    return wrong, place


def measured(loss, grad, params):
    """Run the directions; return them, and the seconds for the gradient's noise and for them."""
    case = FunctionCase(loss, grad, params)
    start = time.process_time()
    errors = noise.of_gradient(case, 0)
    between = time.process_time()
    along = LossLines(case, finite_values(case.grads))
    lines = Directions(along, case.grads, errors, 0, COUNT, lambda: None)
    lines.run()
    if lines.contradicting:
        localise(lines)
    return lines, between - start, time.process_time() - between


def report(kind):
    """Print the figures of a network."""
    loss, grad, params = functions(kind)
    loss(params), grad(params)
    unit = statistics.median(_seconds(grad, params) for _ in range(5))
    forward = statistics.median(_seconds(loss, params) for _ in range(5))
    lines, for_noise, for_lines = measured(loss, grad, params)
    wrong, place = planted(grad)
    found, _, for_search = measured(loss, wrong, params)
    limits = sorted(lines.described()["relative_limit"].values())
    total = sum(array.size for array in params.values())
    print(f"{kind}: {total:,} parameters in {len(params)} tensors; forward {forward / unit:.2f} of a backward pass")
    times = f"{for_lines / unit:.0f} backward passes, noise of the gradient {for_noise / unit:.0f}"
    print(f"  {lines.lines.calls} forwards: {times}")
    middle, worst = statistics.median(limits), max(limits)
    print(f"  chance of missing {lines.chance:.0e}; relative limit {middle:.0e}, worst {worst:.0e}")
    print(f"  {lines.contradicting} of {len(lines.done) + len(lines.guards)} contradict the right gradient")
    words = "named" if found.named == {place[0]: [place[1]]} else f"not named: {found.named}"
    print(f"  one entry 1 % off: {words}, in {for_search / unit:.0f} backward passes ({found.lines.calls} forwards)")


def _seconds(function, argument):
    start = time.process_time()
    function(argument)
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
