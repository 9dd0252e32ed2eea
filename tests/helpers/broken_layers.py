"""Layers whose gradients a broken backward pass made, and what failed in them, for diagnoses."""

import dataclasses

import numpy as np
import planted_backward
import planted_forward

import fastcheck
from fastcheck.diagnosis.evidence import Evidence


@dataclasses.dataclass(frozen=True)
class Layer:
    """The arguments of a convolution."""

    input_shape: tuple
    weight_shape: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    @property
    def arguments(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


def random_layer(rng, ranks=(1, 2, 2, 2, 3)):
    """A small layer in which most mistakes have an effect; square, strided, grouped by chance."""
    rank = int(rng.choice(ranks))
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, filters = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 5))
    square = rng.random() < 0.4

    def axes(low, high):
        return (int(rng.integers(low, high)),) * rank if square else tuple(map(int, rng.integers(low, high, rank)))

    taps, stride, dilation, before, more = axes(1, 5), axes(1, 4), axes(1, 3), axes(0, 3), axes(3, 9 - 2 * (rank == 3))
    after = before if rng.random() < 0.6 else axes(0, 3)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, taps, strict=True)]
    sizes = [max(e - lo - hi, 1) + m for e, lo, hi, m in zip(reach, before, after, more, strict=True)]
    padding = tuple(zip(before, after, strict=True))
    samples = int(rng.integers(1, 5))
    return Layer((samples, channels, *sizes), (filters, channels // groups, *taps), stride, padding, dilation, groups)


def operands(layer, rng):
    """Input, weight and cotangent, standard normal."""
    x, w = rng.standard_normal(layer.input_shape), rng.standard_normal(layer.weight_shape)
    axes = zip(x.shape[2:], layer.padding, layer.dilation, w.shape[2:], layer.stride, strict=True)
    out = [(n + low + high - d * (k - 1) - 1) // s + 1 for n, (low, high), d, k, s in axes]
    return x, w, rng.standard_normal((len(x), len(w), *out))


def planted(plant, seed, dtype=np.float64, ranks=(1, 2, 2, 2, 3)):
    """A case with wrong gradients, of the first random layer in which the plant has an effect; None if it has none."""
    rng = np.random.default_rng([seed, *plant.__name__.encode()])
    for _ in range(200):
        layer = random_layer(rng, ranks)
        x, w, v = (array.astype(dtype) for array in operands(layer, rng))
        right = planted_backward.backward(x, w, v, **layer.arguments)
        wrong = plant(layer, x, w, v, right)
        if wrong is None:
            continue
        grads = {name: wrong[name].astype(dtype) for name in ("input", "weight", "bias")}
        unlike = 1e-4 if dtype == np.float32 else 1e-9
        apart = {n: np.linalg.norm(wrong[n] - right[n]) / np.linalg.norm(right[n]) for n in grads}
        if max(apart.values()) > unlike:
            bias = np.zeros(len(w), dtype)
            return fastcheck.ConvCase(x, w, bias, **layer.arguments, grad_output=v, grads=grads)
    return None


def with_output(plant, seed, dtype=np.float64):
    """A case with a wrong output, of the first random layer in which the plant has an effect."""
    rng = np.random.default_rng([seed, *plant.__name__.encode()])
    for _ in range(2000):
        layer = random_layer(rng)
        x, w, _ = operands(layer, rng)
        b = rng.standard_normal(len(w))
        x, w, b = (array.astype(dtype) for array in (x, w, b))
        right = planted_forward.forward(x, w, b, **layer.arguments)
        wrong = plant(layer, x, w, b, right)
        unlike = 1e-4 if dtype == np.float32 else 1e-9
        if wrong is not None and np.linalg.norm(wrong - right) > unlike * np.linalg.norm(right):
            return of_output(layer, x, w, b, wrong.astype(dtype))
    raise AssertionError(plant.__name__)


def of_output(layer, x, w, b, output):
    """A case that declares an output, and an arbitrary gradient."""
    v = np.ones_like(output)
    return fastcheck.ConvCase(x, w, b, **layer.arguments, grad_output=v, grads={"bias": b}, output=output)


def failed(case, **options):
    """What failed in a case, as a check finds it."""
    report = fastcheck.check(case, keep=True, directions=0, **options)
    found = {}
    for name, tensor in report.tensors.items():
        if tensor.verdict == "fail":
            analytic = np.asarray(case.grads[name], np.float64)
            dims = np.arange(analytic.size) if tensor.dims is None else np.asarray(tensor.dims)
            found[name] = Evidence(name, analytic, dims, tensor.numeric, tensor.error_bar)
    return found
