"""Random functions of arrays with backward passes by PyTorch's autograd, and faults to plant in those."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

F = torch.nn.functional

Tensors = Sequence[torch.Tensor]
Backward = Callable[[Tensors, Tensors], list[torch.Tensor]]
"""Takes the cotangents and all inputs, and returns a gradient of each input of floating-point numbers."""

KINDS = ("float64", "float32 gradient", "float32 with a reference")
"""Everything in float64; backward in float32; forward and backward in float32, with forward in float64 beside it."""

FORMS = ("tensors", "arrays", "dict", "cache")
"""How inputs are handed over: PyTorch's tensors, NumPy's arrays, those by name, and as a cache that forward makes."""


@dataclass(frozen=True)
class Drawn:
    """A function of tensors, and how it is checked.

    Attributes
    ----------
    name : str
    function : callable
        Takes tensors of float64 or float32, and of integers; returns a tensor, or a tuple of tensors.
    inputs : tuple of arrays
        float64, or integers.
    mistakes : mapping of str to callables
        Functions whose gradients are those of a common mistake; what they return is shaped as the function's.
    kind, form : str
        Among `KINDS` and `FORMS`.
    options : mapping
        Keyword arguments for `fastcheck.check_vjp`.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    kind: str = KINDS[0]
    form: str = FORMS[0]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def floating(self) -> list[int]:
        """The positions of inputs of floating-point numbers."""
        return [place for place, array in enumerate(self.inputs) if array.dtype.kind == "f"]

    @property
    def unit(self) -> float:
        """The unit round-off of backward."""
        return 2.0**-53 if self.kind == "float64" else 2.0**-24

    def described(self) -> str:
        """Return words for the function, its inputs' shapes and how it is checked."""
        shapes = " ".join("x".join(map(str, array.shape)) or "number" for array in self.inputs)
        return f"{self.name} of {shapes}, {self.kind}, {self.form}{', a sample' * ('dims' in self.options)}"

    def names(self) -> list[str]:
        """Return the names that a report gives the gradients."""
        return [f"x{place}" if self.form == "dict" else f"input {place}" for place in self.floating]

    def backward(self, cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        """Return the right gradients, by autograd."""
        return self.of(self.function)(cotangents, inputs)

    def of(self, function: Callable[..., Any]) -> Backward:
        """Return the backward pass of another function."""

        def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
            dtype = torch.float64 if self.kind == "float64" else torch.float32
            made = [one.detach().to(dtype, copy=True) if one.is_floating_point() else one for one in inputs]
            wanted = [made[place].requires_grad_() for place in self.floating]
            pairs = [
                (out, v.to(out.dtype))
                for out, v in zip(_tuple(function(*made)), cotangents, strict=True)
                if out.requires_grad
            ]
            if not pairs:
                return [torch.zeros_like(one) for one in wanted]
            found = torch.autograd.grad([out for out, _ in pairs], wanted, [v for _, v in pairs], allow_unused=True)
            return [torch.zeros_like(one) if grad is None else grad for one, grad in zip(wanted, found, strict=True)]

        return backward

    def arguments(self, backward: Backward) -> dict[str, Any]:
        """Return the arguments of `fastcheck.check_vjp` for a backward pass."""
        dtype = np.float32 if self.kind == KINDS[2] else np.float64
        arrays = [array.astype(dtype) if array.dtype.kind == "f" else array for array in self.inputs]
        tensors = self.form == "tensors"

        def given(values: Sequence[Any]) -> list[Any]:
            return [one.numpy() if isinstance(one, torch.Tensor) and not tensors else one for one in values]

        def forward(*args: Any, **named: Any) -> Any:
            values = [*args, *named.values()]
            out = self.function(*_as_tensors(values))
            found = tuple(given(out)) if isinstance(out, tuple) else given([out])[0]
            return (found, values) if self.form == "cache" else found

        def backwards(v: Any, *args: Any, **named: Any) -> Any:
            values = args[0] if self.form == "cache" else [*args, *named.values()]
            grads = iter(given(backward(_as_tensors(_tuple(v)), _as_tensors(values))))
            found = [next(grads) if place in self.floating else None for place in range(len(values))]
            return dict(zip((f"x{place}" for place in range(len(values))), found, strict=True)) if named else found

        def reference(*args: Any, **named: Any) -> Any:
            found = forward(*args, **named)
            return found[0] if self.form == "cache" else found

        inputs = [torch.from_numpy(array.copy()) for array in arrays] if tensors else arrays
        return {
            "forward": forward,
            "backward": backwards,
            "inputs": {f"x{place}": one for place, one in enumerate(inputs)} if self.form == "dict" else inputs,
            "has_cache": self.form == "cache",
            "reference": reference if self.kind == KINDS[2] else None,
            "keep": True,
            **self.options,
        }


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _as_tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    with warnings.catch_warnings(action="ignore"):  # of read-only memory
        return [one if isinstance(one, torch.Tensor) else _as_tensor(np.asarray(one)) for one in values]


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return the same memory; a copy of what has negative strides, as PyTorch has none."""
    return torch.from_numpy(array if min((0, *array.strides)) == 0 else array.copy())


# Functions


class _Draw:
    """Sizes, arrays and choices."""

    def __init__(self, rng: np.random.Generator, large: bool) -> None:
        self.rng, self.n, self.d, self.k = rng, *(int(rng.integers(2, 6)) for _ in range(3))
        if large:
            self.n, self.d, self.k = (int(rng.integers(16, 40)) for _ in range(3))

    def __call__(self, *shape: int, scale: float | None = None) -> np.ndarray:
        """Return normal numbers, by default of a random size."""
        size = 10.0 ** self.rng.uniform(-1, 0.5) if scale is None else scale
        return size * self.rng.normal(size=shape)

    def weights(self, rows: int, columns: int) -> np.ndarray:
        """Return a matrix that keeps sizes, more or less."""
        return self(rows, columns, scale=10.0 ** self.rng.uniform(-0.5, 0.5) / np.sqrt(rows))

    def labels(self, count: int, classes: int) -> np.ndarray:
        """Return integers."""
        return self.rng.integers(0, classes, count)

    def of(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return choices[int(self.rng.integers(len(choices)))]


def _stop(x: torch.Tensor) -> torch.Tensor:
    return x.detach()


def smooth(a: _Draw) -> Drawn:
    """Perceptrons, elementwise functions, sums and products."""
    n, d, k = a.n, a.d, a.k
    bend = a.of(torch.tanh, torch.sigmoid, F.gelu, F.silu, F.softplus, torch.sin, torch.erf, F.mish)
    return a.of(
        lambda: Drawn(
            "perceptron",
            lambda x, w, b, u: bend(x @ w + b) @ u,
            (a(n, d), a.weights(d, k), a(k), a.weights(k, 3)),
            {
                "slope at the output": lambda x, w, b, u: _slope_at_output(bend, x @ w + b) @ u,
                "activation forgotten": lambda x, w, b, u: (x @ w + b) @ u,
            },
        ),
        lambda: Drawn(
            "elementwise",
            lambda x, y: x * torch.exp(-y * y / 4) + torch.sin(x),
            (a(n, d), a(n, d)),
            {"one use forgotten": lambda x, y: _stop(x) * torch.exp(-y * y / 4) + torch.sin(x)},
        ),
        lambda: Drawn(
            "product of a row",
            lambda x, y: torch.prod(x, 1) + torch.cumsum(y, 0)[:, 0] ** 2,
            (a(n, d), a(n, d)),
            {"sums from the end": lambda x, y: torch.prod(x, 1) + torch.cumsum(y.flip(0), 0).flip(0)[:, 0] ** 2},
        ),
        lambda: Drawn(
            "bilinear",
            lambda x, w, y: torch.einsum("ni,kij,nj->nk", x, w, y),
            (a(n, d), a(k, d, d), a(n, d)),
            {"transposed": lambda x, w, y: torch.einsum("ni,kji,nj->nk", x, w, y)},
        ),
        lambda: Drawn(
            "two outputs",
            lambda x, w: (x @ w, (x * x).sum()),
            (a(n, d), a.weights(d, k)),
            {
                "second output forgotten": lambda x, w: (x @ w, _stop((x * x).sum())),
                "half of a square": lambda x, w: (x @ w, (x * x).sum() / 2),
            },
        ),
        lambda: Drawn(
            "cross entropy",
            lambda z, y: F.cross_entropy(z, y),
            (a(n, d), a.labels(n, d)),
            {
                "sum for mean": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
                "labels shifted": lambda z, y: F.cross_entropy(z, (y + 1) % z.shape[1]),
            },
        ),
        lambda: Drawn(
            "embedding",
            lambda table, ids, w: torch.tanh(F.embedding(ids, table) @ w),
            (a(d, k), a.labels(n, d), a.weights(k, 2)),
            {"token 0 is padding": lambda table, ids, w: torch.tanh(F.embedding(ids, table, padding_idx=0) @ w)},
        ),
    )()


def _slope_at_output(bend: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """Return an activation whose slope is taken at its output in place of its input."""
    return z + _stop(bend(z) - z) if bend is torch.relu else bend(_stop(bend(z)) + z - _stop(z))


def relu(a: _Draw) -> Drawn:
    """Functions with kinks."""
    n, d, k = a.n, a.d, a.k
    bend = a.of(F.relu, F.leaky_relu, F.elu, F.hardtanh, F.relu6, torch.abs, F.softshrink, F.hardswish)
    return a.of(
        lambda: Drawn(
            "kinked perceptron",
            lambda x, w, b, u: bend(x @ w + b) @ u,
            (a(n, d), a.weights(d, k), a(k), a.weights(k, 3)),
            {"mask forgotten": lambda x, w, b, u: (x @ w + b) @ u},
        ),
        lambda: Drawn(
            "deep relu",
            lambda x, w, u, t: F.relu(F.relu(F.relu(x @ w) @ u) @ t),
            (a(n, d), a.weights(d, k), a.weights(k, k), a.weights(k, d)),
            {"last mask forgotten": lambda x, w, u, t: F.relu(F.relu(x @ w) @ u) @ t},
        ),
        lambda: Drawn(
            "relu and convolution",
            lambda x, w, b: F.relu(F.conv2d(x, w, b, padding=1)),
            (a(2, 2, 4, n), a(k, 2, 3, 3), a(k)),
            {
                "kernel flipped": lambda x, w, b: F.relu(F.conv2d(x, w.flip(2, 3), b, padding=1)),
                "mask forgotten": lambda x, w, b: F.conv2d(x, w, b, padding=1),
            },
        ),
        lambda: Drawn(
            "residual",
            lambda x, w: x + F.relu(x @ w),
            (a(n, d), a.weights(d, d)),
            {"shortcut forgotten": lambda x, w: _stop(x) + F.relu(x @ w)},
        ),
        lambda: Drawn(
            "hinge",
            lambda x, w, y: F.relu(1 - (2 * (y > 0) - 1).to(x.dtype) * (x @ w)).mean() + 0.05 * (w * w).sum(),
            (a(n, d), a.weights(d, 1)[:, 0], a.labels(n, 2)),
            {
                "l2 missing": lambda x, w, y: F.relu(1 - (2 * (y > 0) - 1).to(x.dtype) * (x @ w)).mean() + 0 * w.sum(),
                "l2 doubled": lambda x, w, y: (
                    F.relu(1 - (2 * (y > 0) - 1).to(x.dtype) * (x @ w)).mean() + 0.1 * (w * w).sum()
                ),
            },
        ),
    )()


def maxima(a: _Draw) -> Drawn:
    """Maxima, medians, sorting and pooling."""
    n, d, k = a.n, a.d, a.k
    return a.of(
        lambda: Drawn(
            "max pool",
            lambda x: F.max_pool2d(x, 2, stride=1),
            (a(1, k, 4, n),),
            {"as average": lambda x: F.avg_pool2d(x, 2, stride=1)},
        ),
        lambda: Drawn(
            "maximum of a row",
            lambda x, w: torch.amax(x @ w, 1),
            (a(n, d), a.weights(d, k)),
            {"first wins": lambda x, w: (x @ w)[:, 0], "as mean": lambda x, w: (x @ w).mean(1)},
        ),
        lambda: Drawn(
            "larger of two",
            lambda x, y: torch.maximum(x, y) * torch.minimum(x, 2 * y),
            (a(n, d), a(n, d)),
            {"smaller forgotten": lambda x, y: torch.maximum(x, y) * _stop(torch.minimum(x, 2 * y))},
        ),
        lambda: Drawn(
            "sorted",
            lambda x, w: torch.sort(x, dim=1).values @ w,
            (a(n, d), a.weights(d, k)),
            {"order forgotten": lambda x, w: x @ w + _stop((torch.sort(x, dim=1).values - x) @ w)},
        ),
        lambda: Drawn(
            "largest two",
            lambda x: torch.topk(x, 2, dim=1).values,
            (a(n, d),),
            {"exchanged": lambda x: torch.topk(x, 2, dim=1).values.flip(1)},
        ),
        lambda: Drawn(
            "median and running maximum",
            lambda x: (torch.median(x, 0).values, torch.cummax(x, 1).values),
            (a(n, d),),
            {"median forgotten": lambda x: (_stop(x[0]), torch.cummax(x, 1).values)},
        ),
        lambda: Drawn(
            "clipped",
            lambda x, w: torch.clamp(x @ w, -0.5, 0.7),
            (a(n, d), a.weights(d, k)),
            {"limits forgotten": lambda x, w: x @ w},
        ),
    )()


def _moments(x: torch.Tensor, axis: int | tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    mean = x.mean(axis, keepdim=True)
    return mean, ((x - mean) ** 2).mean(axis, keepdim=True) + 1e-5


def normalisation(a: _Draw) -> Drawn:
    """Layer, batch, group, instance and root-mean-square normalisation; unit vectors."""
    n, d, k = a.n, a.d, a.k
    name, shape, axis = a.of(
        ("layer norm", (n, d), 1), ("batch norm", (n + 2, d), 0), ("instance norm", (n, d, 3, 3), (2, 3))
    )
    affine = (1, d) if len(shape) == 2 else (1, d, 1, 1)

    def normal(
        x: torch.Tensor, g: torch.Tensor, b: torch.Tensor, mean: Any = lambda m: m, size: Any = lambda s: s
    ) -> torch.Tensor:
        m, s = _moments(x, axis)
        return (x - mean(m)) / torch.sqrt(size(s)) * g.reshape(affine) + b.reshape(affine)

    def of_groups(x: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 2, g, b)

    return a.of(
        lambda: Drawn(
            name,
            normal,
            (a(*shape), a(d), a(d)),
            {
                "mean is constant": lambda x, g, b: normal(x, g, b, mean=_stop),
                "deviation is constant": lambda x, g, b: normal(x, g, b, size=_stop),
                "statistics are constant": lambda x, g, b: normal(x, g, b, mean=_stop, size=_stop),
                "one sample too few": lambda x, g, b: normal(x, g, b, size=lambda s: s * 1.25),
            },
        ),
        lambda: Drawn(
            "group norm",
            of_groups,
            (a(2, 4, 3, n), a(4), a(4)),
            {
                "one group": lambda x, g, b: F.group_norm(x, 1, g, b),
                "gamma is constant": lambda x, g, b: of_groups(x, _stop(g), b),
            },
        ),
        lambda: Drawn(
            "root mean square",
            lambda x, g: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * g,
            (a(n, d), a(d)),
            {"size is constant": lambda x, g: x * _stop(torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)) * g},
        ),
        lambda: Drawn(
            "unit vectors",
            lambda x, w: (x / torch.linalg.norm(x, dim=-1, keepdim=True)) @ w,
            (a(n, d), a.weights(d, k)),
            {"length is constant": lambda x, w: (x / _stop(torch.linalg.norm(x, dim=-1, keepdim=True))) @ w},
        ),
        lambda: Drawn(
            "softmax",
            lambda x: torch.softmax(x, -1),
            (a(n, d),),
            {
                "wrong axis": lambda x: torch.softmax(x, 0),
                "sum is constant": lambda x: torch.exp(x) / _stop(torch.exp(x).sum(-1, keepdim=True)),
            },
        ),
        lambda: Drawn(
            "log softmax",
            lambda x: torch.log_softmax(x, -1),
            (a(n, d),),
            {"sum is constant": lambda x: x - _stop(torch.logsumexp(x, -1, keepdim=True))},
        ),
    )()


def attention(a: _Draw) -> Drawn:
    """Attention: causal or not, of several heads, with a bias."""
    n, d, k = a.n, a.d, a.k
    heads, width = 2, 3
    above = torch.ones(n, n, dtype=torch.bool).triu(1)

    def attend(q: Any, key: Any, v: Any, scale: float = 1.0, weights: Any = lambda p: p, mask: Any = None) -> Any:
        scores = scale * (q @ key.transpose(-1, -2)) / q.shape[-1] ** 0.5
        return weights(torch.softmax(scores if mask is None else scores.masked_fill(mask, -1e9), -1)) @ v

    def of_heads(x: torch.Tensor, w: torch.Tensor, o: torch.Tensor, mask: Any = above) -> torch.Tensor:
        q, key, v = (x @ w).reshape(n, 3, heads, width).permute(1, 2, 0, 3)
        return attend(q, key, v, mask=mask).transpose(0, 1).flatten(1) @ o

    return a.of(
        lambda: Drawn(
            "attention",
            attend,
            (a(n, d), a(n + 1, d), a(n + 1, k)),
            {
                "scale forgotten": lambda q, key, v: attend(q, key, v, scale=q.shape[-1] ** 0.5),
                "weights are constant": lambda q, key, v: attend(q, key, v, weights=_stop),
                "key is constant": lambda q, key, v: attend(q, _stop(key), v),
            },
        ),
        lambda: Drawn(
            "causal attention",
            lambda q, key, v: attend(q, key, v, mask=above),
            (a(n, d), a(n, d), a(n, k)),
            {"not causal": attend},
        ),
        lambda: Drawn(
            "self-attention of heads",
            of_heads,
            (a(n, d), a.weights(d, 3 * heads * width), a.weights(heads * width, d)),
            {"not causal": lambda x, w, o: of_heads(x, w, o, mask=None)},
        ),
        lambda: Drawn(
            "attention with a bias",
            lambda q, key, v, b: torch.softmax(q @ key.T + b, -1) @ v,
            (a(n, d), a(k, d), a(k, 2), a(k)),
            {"bias of one row": lambda q, key, v, b: torch.softmax(q @ key.T + _first_row(b, n), -1) @ v},
        ),
    )()


def _first_row(b: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a bias whose gradient is that of the first row, not the sum."""
    return torch.stack([b] + [_stop(b)] * (rows - 1))


def recurrent(a: _Draw) -> Drawn:
    """Recurrent cells over several steps."""
    n, d, k = a.n, a.d, a.k
    steps = int(a.rng.integers(2, 6))

    def elman(x: Any, w: Any, u: Any, h: Any, keep: Any = lambda one: one) -> Any:
        for row in x:
            h = torch.tanh(row @ w + keep(h) @ u)
        return h

    def gru(x: Any, w: Any, u: Any, h: Any, keep: Any = lambda one: one) -> Any:
        for row in x:
            r, z, c = (row @ w).chunk(3, -1)
            s, t, e = (keep(h) @ u).chunk(3, -1)
            gate = torch.sigmoid(z + t)
            h = (1 - gate) * torch.tanh(c + torch.sigmoid(r + s) * e) + gate * h
        return h

    def lstm(x: Any, w: Any, u: Any, h: Any, cell: Any, keep: Any = lambda one: one) -> Any:
        for row in x:
            i, f, g, o = (row @ w + h @ u).chunk(4, -1)
            cell = torch.sigmoid(f) * keep(cell) + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(cell)
        return h, cell

    return a.of(
        lambda: Drawn(
            "elman",
            elman,
            (a(steps, n, d), a.weights(d, k), a.weights(k, k), a(n, k)),
            {"one step back": lambda *arrays: elman(*arrays, keep=_stop)},
        ),
        lambda: Drawn(
            "gru",
            gru,
            (a(steps, n, d), a.weights(d, 3 * k), a.weights(k, 3 * k), a(n, k)),
            {"gates of a constant": lambda *arrays: gru(*arrays, keep=_stop)},
        ),
        lambda: Drawn(
            "lstm",
            lstm,
            (a(steps, n, d), a.weights(d, 4 * k), a.weights(k, 4 * k), a(n, k), a(n, k)),
            {"cell is constant": lambda *arrays: lstm(*arrays, keep=_stop)},
        ),
    )()


def convolutions(a: _Draw) -> Drawn:
    """Convolutions, strided, dilated, in groups, transposed; average pooling and resizing."""
    n, k = a.n, a.k
    stride, padding, dilation = int(a.rng.integers(1, 3)), int(a.rng.integers(3)), int(a.rng.integers(1, 3))
    options = {"stride": stride, "padding": padding, "dilation": dilation}

    def resized(x: torch.Tensor, corners: bool = False) -> torch.Tensor:
        return F.interpolate(F.avg_pool2d(x, 2), (5, 4), mode="bilinear", align_corners=corners)

    return a.of(
        lambda: Drawn(
            "convolution",
            lambda x, w, b: F.conv2d(x, w, b, **options),
            (a(2, 2, 5, 6), a(k, 2, 3, 2), a(k)),
            {
                "kernel flipped": lambda x, w, b: F.conv2d(x, w.flip(2), b, **options),
                "one sample": lambda x, w, b: torch.cat([F.conv2d(x[:1], w, b, **options)] * 2),
            },
        ),
        lambda: Drawn(
            "depthwise convolution",
            lambda x, w: F.conv2d(x, w, groups=2, **options),
            (a(n, 2, 5, 6), a(4, 1, 2, 2)),
            {"groups in reverse": lambda x, w: F.conv2d(x.flip(1), w, groups=2, **options)},
        ),
        lambda: Drawn(
            "transposed convolution",
            lambda x, w: F.conv_transpose2d(x, w, stride=stride),
            (a(2, 2, 3, n), a(2, k, 2, 2)),
            {"kernel flipped": lambda x, w: F.conv_transpose2d(x, w.flip(3), stride=stride)},
        ),
        lambda: Drawn(
            "average pool and resizing",
            lambda x: F.interpolate(F.avg_pool2d(x, 2), (5, 4), mode="bilinear"),
            (a(2, 2, 6, 2 * n),),
            {
                "corners aligned": lambda x: F.interpolate(
                    F.avg_pool2d(x, 2), (5, 4), mode="bilinear", align_corners=True
                )
            },
        ),
        lambda: Drawn(
            "convolution in time",
            lambda x, w: torch.tanh(F.conv1d(F.pad(x, (2, 0)), w)),
            (a(2, 2, n + 3), a(k, 2, 3)),
            {"not causal": lambda x, w: torch.tanh(F.conv1d(F.pad(x, (1, 1)), w))},
        ),
    )()


def matrices(a: _Draw) -> Drawn:
    """Solutions, inverses, determinants and factors."""
    d = a.d if a.d < 6 else 6

    def definite(x: torch.Tensor) -> torch.Tensor:
        return x @ x.T / d + torch.eye(d, dtype=x.dtype)

    return a.of(
        lambda: Drawn(
            "solution",
            lambda x, b: torch.linalg.solve(definite(x), b),
            (a(d, d), a(d, 2)),
            {"matrix is constant": lambda x, b: torch.linalg.solve(_stop(definite(x)), b) + 0 * x.sum()},
        ),
        lambda: Drawn(
            "log of a determinant",
            lambda x: torch.logdet(definite(x)),
            (a(d, d),),
            {"determinant": lambda x: torch.linalg.det(definite(x))},
        ),
        lambda: Drawn(
            "cholesky",
            lambda x: torch.linalg.cholesky(definite(x)),
            (a(d, d),),
            {"half": lambda x: torch.linalg.cholesky(definite(x)) / 2},
        ),
        lambda: Drawn(
            "exponential",
            torch.matrix_exp,
            (a(d, d, scale=1 / d),),
            {"transposed": lambda x: torch.matrix_exp(x.T)},
        ),
    )()


FAMILIES: dict[str, Callable[[_Draw], Drawn]] = {
    family.__name__: family
    for family in (smooth, relu, maxima, normalisation, attention, recurrent, convolutions, matrices)
}
"""Each takes what draws, and returns one of its functions."""

SAMPLED = 0.15
"""Fraction of the functions that are large, so that a sample and directions check them."""


def draw(family: str, seed: int) -> Drawn:
    """Return a function of a family, and how it is checked: the same for the same seed."""
    rng = np.random.default_rng([seed, *family.encode()])
    kind, form = (str(rng.choice(options)) for options in (KINDS, FORMS))
    large = family in ("smooth", "relu", "normalisation", "attention") and rng.random() < SAMPLED
    made = FAMILIES[family](_Draw(rng, large))
    inputs = made.inputs
    if kind != "float64":
        inputs = tuple(one.astype(np.float32).astype(one.dtype) if one.dtype.kind == "f" else one for one in inputs)
    options = {"seed": int(rng.integers(1000))} | ({"dims": 6} if large else {})
    return Drawn(made.name, made.function, inputs, made.mistakes, kind, form, options)


# Faults: each takes a function and a generator, and returns a backward pass, or None where it cannot be planted

Fault = Callable[[Drawn, np.random.Generator], Backward | None]


def _changed(change: Callable[[torch.Tensor, np.random.Generator, Drawn], torch.Tensor | None]) -> Fault:
    """Return the fault that changes the gradient of one input, always in the same way."""

    def fault(drawn: Drawn, rng: np.random.Generator) -> Backward | None:
        place, seed = int(rng.integers(len(drawn.floating))), int(rng.integers(2**31))
        probe = torch.from_numpy(drawn.inputs[drawn.floating[place]].copy())
        if change(probe, np.random.default_rng(seed), drawn) is None:
            return None

        def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
            grads = drawn.backward(cotangents, inputs)
            changed = change(grads[place].clone(), np.random.default_rng(seed), drawn)
            assert changed is not None
            grads[place] = changed
            return grads

        return backward

    return fault


def _factor(factor: float) -> Fault:
    return _changed(lambda grad, rng, drawn: factor * grad)


def _of_samples(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor | None:
    count = drawn.inputs[drawn.floating[0]].shape[:1]
    return None if count in ((), (1,)) else grad / count[0]


def _transposed(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor | None:
    if grad.ndim < 2 or min(grad.shape[-2:]) == 1:
        return None
    return grad.transpose(-1, -2).reshape(grad.shape).clone()


def _along(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Fault:
    """Return the fault that changes a gradient along an axis longer than 1."""

    def along(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor | None:
        axes = [axis for axis, size in enumerate(grad.shape) if size > 1]
        return change(grad, int(rng.choice(axes))) if axes else None

    return _changed(along)


def _last_forgotten(grad: torch.Tensor, axis: int) -> torch.Tensor:
    grad.select(axis, -1).zero_()
    return grad


def _one_row(grad: torch.Tensor, axis: int) -> torch.Tensor:
    grad.select(axis, 0).mul_(1.5)
    return grad


def _entry(change: Callable[[float, float], float]) -> Fault:
    """Return the fault that changes one entry; it takes the entry and a typical one."""

    def one(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor:
        flat, place = grad.reshape(-1), int(rng.integers(grad.numel()))
        typical = float(torch.linalg.norm(flat.double())) / len(flat) ** 0.5
        flat[place] = change(float(flat[place]), typical)
        return flat.reshape(grad.shape)

    return _changed(one)


def _largest(factor: float) -> Fault:
    def largest(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor:
        flat = grad.reshape(-1)
        flat[int(flat.abs().argmax())] *= factor
        return flat.reshape(grad.shape)

    return _changed(largest)


def _pair(grad: torch.Tensor, rng: np.random.Generator, drawn: Drawn) -> torch.Tensor | None:
    if grad.numel() < 2:
        return None
    flat, places = grad.reshape(-1), rng.choice(grad.numel(), 2, replace=False)
    flat[places.tolist()] = flat[places[::-1].tolist()].clone()
    return flat.reshape(grad.shape)


def _exchanged(drawn: Drawn, rng: np.random.Generator) -> Backward | None:
    shapes = [drawn.inputs[place].shape for place in drawn.floating]
    pairs = [(i, j) for i in range(len(shapes)) for j in range(i) if shapes[i] == shapes[j]]
    if not pairs:
        return None
    i, j = pairs[int(rng.integers(len(pairs)))]

    def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        grads = drawn.backward(cotangents, inputs)
        grads[i], grads[j] = grads[j], grads[i]
        return grads

    return backward


def _given(change: Callable[[torch.Tensor], torch.Tensor], of_inputs: bool = False) -> Fault:
    """Return the fault that reads the cotangents, or the inputs, wrongly."""

    def fault(drawn: Drawn, rng: np.random.Generator) -> Backward:
        def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
            if of_inputs:
                return drawn.backward(cotangents, [change(x) if x.is_floating_point() else x for x in inputs])
            return drawn.backward([change(v) for v in cotangents], inputs)

        return backward

    return fault


def _as_if_contiguous(x: torch.Tensor) -> torch.Tensor:
    """Return what code reads that assumes contiguous memory, as far as there is memory."""
    strides = torch.empty(x.shape, device="meta").stride()
    there = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    return x.as_strided(x.shape, strides) if there >= x.numel() else x


def _ignored_strides(of_inputs: bool) -> Fault:
    """Return the fault that takes all memory for contiguous; None where the gradient does not depend on it."""

    def fault(drawn: Drawn, rng: np.random.Generator) -> Backward | None:
        wrong = _given(_as_if_contiguous, of_inputs)(drawn, rng)
        inputs = _as_tensors(drawn.inputs)
        cotangents = [1 + torch.rand(out.shape, dtype=out.dtype) for out in _tuple(drawn.function(*inputs))]
        right = drawn.backward(cotangents, inputs)
        strided = [_strided(one) if one.is_floating_point() else one for one in (inputs if of_inputs else cotangents)]
        found = wrong(*((cotangents, strided) if of_inputs else (strided, inputs)))
        return None if all(map(torch.equal, found, right)) else wrong

    return fault


def _strided(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, 0 * x], -1)[..., 0]


def _only_first_sample(v: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros_like(v)
    kept[:1] = v[:1]
    return kept


def _first_sample(drawn: Drawn, rng: np.random.Generator) -> Backward | None:
    return (
        None
        if drawn.name in ("hinge", "cross entropy", "log of a determinant")
        else _given(lambda v: _only_first_sample(v) if v.ndim else v)(drawn, rng)
    )


def _accumulates(drawn: Drawn, rng: np.random.Generator) -> Backward:
    total: list[torch.Tensor] = []

    def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        grads = drawn.backward(cotangents, inputs)
        total[:] = [old + new for old, new in zip(total, grads, strict=True)] if total else grads
        return [one.clone() for one in total]

    return backward


def _remembers(drawn: Drawn, rng: np.random.Generator) -> Backward:
    first: list[torch.Tensor] = []

    def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        first[:] = first or [v.clone() for v in cotangents]
        return drawn.backward(first, inputs)

    return backward


def _unwritten(drawn: Drawn, rng: np.random.Generator) -> Backward | None:
    """Leave an entry of the result in memory that was never written."""
    if drawn.form == "tensors":
        return None  # PyTorch's own memory, which nobody fills with nan
    place = int(rng.integers(len(drawn.floating)))

    def backward(cotangents: Tensors, inputs: Tensors) -> list[torch.Tensor]:
        grads = drawn.backward(cotangents, inputs)
        made = torch.from_numpy(np.empty(grads[place].shape, grads[place].numpy().dtype))
        flat = made.reshape(-1)
        flat[:-1] = grads[place].reshape(-1)[:-1]
        grads[place] = made
        return grads

    return backward


def _rounded(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda v: v.to(dtype).to(v.dtype)


FAULTS: dict[str, Fault] = {
    "all doubled": _factor(2.0),
    "all negated": _factor(-1.0),
    "all halved": _factor(0.5),
    "all by 1 %": _factor(1.01),
    "all by 1e-4": _factor(1 + 1e-4),
    "all by 1e-6": _factor(1 + 1e-6),
    "all zero": _factor(0.0),
    "divided by the samples": _changed(_of_samples),
    "transposed": _changed(_transposed),
    "flipped": _along(lambda grad, axis: grad.flip(axis)),
    "shifted by one": _along(lambda grad, axis: grad.roll(1, axis)),
    "mean removed": _along(lambda grad, axis: grad - grad.mean(axis, keepdim=True)),
    "summed over an axis": _along(lambda grad, axis: grad.sum(axis, keepdim=True).expand_as(grad).clone()),
    "last of an axis forgotten": _along(_last_forgotten),
    "one row by half": _along(_one_row),
    "decay added": _changed(
        lambda grad, rng, drawn: grad + 0.01 * float(grad.abs().max()) * torch.sign(grad - grad.mean() + 1e-9)
    ),
    "clipped": _changed(lambda grad, rng, drawn: grad.clamp(-float(grad.abs().max()) / 2, float(grad.abs().max()) / 2)),
    "absolute values": _changed(lambda grad, rng, drawn: grad.abs()),
    "gradients exchanged": _exchanged,
    "cotangent in float16": _given(_rounded(torch.float16)),
    "result in bfloat16": _changed(lambda grad, rng, drawn: grad.to(torch.bfloat16).to(grad.dtype)),
    "cotangent ignored": _given(torch.ones_like),
    "cotangent's size alone": _given(torch.abs),
    "first sample alone": _first_sample,
    "cotangent's strides ignored": _ignored_strides(of_inputs=False),
    "inputs' strides ignored": _ignored_strides(of_inputs=True),
    "adds up": _accumulates,
    "remembers the first cotangent": _remembers,
    "memory unwritten": _unwritten,
    "one entry by 1e-2": _entry(lambda value, typical: value * (1 + 1e-2)),
    "one entry by 1e-4": _entry(lambda value, typical: value * (1 + 1e-4)),
    "one entry by 1e-6": _entry(lambda value, typical: value * (1 + 1e-6)),
    "one entry by 1e-3 of a typical one": _entry(lambda value, typical: value + 1e-3 * typical),
    "one entry's sign": _entry(lambda value, typical: -value),
    "one entry zero": _entry(lambda value, typical: 0.0),
    "one entry nan": _entry(lambda value, typical: float("nan")),
    "one entry infinite": _entry(lambda value, typical: float("inf")),
    "two entries exchanged": _changed(_pair),
    "the largest by 1e-6": _largest(1 + 1e-6),
    "the largest times ten": _largest(10.0),
}
"""By name: of whole gradients, of how backward reads its arguments and what it remembers, and of single entries.
Besides, every function has its own mistakes."""

OWN = "its own mistake"

QUIET = (
    "cotangent's strides ignored",
    "inputs' strides ignored",
    "adds up",
    "remembers the first cotangent",
    "memory unwritten",
)
"""Faults with which the first call's gradient is right."""


def planted(drawn: Drawn, fault: str, rng: np.random.Generator) -> Backward | None:
    """Return a backward pass with a fault, None where it cannot be planted; `OWN` takes one of the function's own."""
    if fault == OWN:
        return drawn.of(drawn.mistakes[str(rng.choice([*drawn.mistakes]))])
    return FAULTS[fault](drawn, rng)
