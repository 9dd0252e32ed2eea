"""Functions of arrays in plain NumPy, each with its right backward pass and one that makes a mistake people make."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Planted(NamedTuple):
    """A function with a right and a wrong backward pass, at inputs of a random shape.

    Attributes
    ----------
    forward, right, wrong : callable
        Both backward passes take the cotangent and the inputs.
    inputs : list of array
    """

    forward: Callable[..., Any]
    right: Callable[..., Any]
    wrong: Callable[..., Any]
    inputs: list[np.ndarray]


def _shape(random, ranks=(1, 2, 3), low=3, high=7, least=24):
    while True:
        shape = tuple(random.integers(low, high, size=random.choice(ranks)).tolist())
        if math.prod(shape) >= least:
            return shape


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _unary(forward, right, wrong, draw=lambda random, shape: random.normal(size=shape)):
    def make(random):
        return Planted(forward, lambda v, x: [right(v, x)], lambda v, x: [wrong(v, x)], [draw(random, _shape(random))])

    return make


def _relu(x):
    return np.maximum(x, 0)


def _leaky(slope):
    return lambda x: np.where(x > 0, x, slope * x)


def _two(forward, right, wrong):
    """A function of two arrays of one shape, whose gradients are those of both."""

    def make(random):
        shape = _shape(random)
        return Planted(forward, right, wrong, [random.normal(size=shape), random.normal(size=shape)])

    return make


def _normalised(axes, wrong, eps=1e-5, centred=True, shape=None):
    """A normalisation over axes, of which the wrong backward pass leaves out terms."""

    def make(random):
        x = random.normal(size=shape(random) if shape else _shape(random, (len(axes) + 1,))) * 2 + 0.5
        over = tuple(axis % x.ndim for axis in axes)

        def parts(x):
            centre = x - x.mean(over, keepdims=True) if centred else x
            sigma = np.sqrt((centre**2).mean(over, keepdims=True) + eps)
            return centre / sigma, sigma

        def backward(mean, variance):
            def of(v, x):
                hat, sigma = parts(x)
                grad = v
                if centred and mean:
                    grad = grad - v.mean(over, keepdims=True)
                if variance:
                    grad = grad - hat * (v * hat).mean(over, keepdims=True)
                return [grad / sigma]

            return of

        return Planted(lambda x: parts(x)[0], backward(True, True), backward(*wrong), [x])

    return make


def _group_norm(wrong):
    def make(random):
        n, groups, each, length = random.integers(2, 4), 2, random.integers(2, 4), random.integers(3, 5)
        inner = _normalised((2, 3), wrong, shape=lambda random: (n, groups, each, length))(random)
        (x,) = inner.inputs

        def flat(backward):
            return lambda v, x: [
                backward(v.reshape(inner.inputs[0].shape), x.reshape(inner.inputs[0].shape))[0].reshape(x.shape)
            ]

        def forward(x):
            return inner.forward(x.reshape(inner.inputs[0].shape)).reshape(x.shape)

        return Planted(forward, flat(inner.right), flat(inner.wrong), [x.reshape(n, groups * each, length)])

    return make


def _batch_norm_affine(random):
    x = random.normal(size=(random.integers(4, 7), random.integers(3, 6), random.integers(2, 4), 3))
    gamma, beta = random.normal(size=(2, x.shape[1]))
    over = (0, 2, 3)

    def parts(x):
        sigma = np.sqrt(x.var(over, keepdims=True) + 1e-5)
        return (x - x.mean(over, keepdims=True)) / sigma, sigma

    def column(one):
        return one[None, :, None, None]

    def backward(mean):
        def of(v, x, gamma, beta):
            hat, sigma = parts(x)
            g = v * column(gamma)
            grad = g - hat * (g * hat).mean(over, keepdims=True)
            grad = grad - g.mean(over, keepdims=True) if mean else grad
            return [grad / sigma, (v * hat).sum(over), v.sum(over)]

        return of

    def forward(x, gamma, beta):
        return parts(x)[0] * column(gamma) + column(beta)

    return Planted(forward, backward(True), backward(False), [x, gamma, beta])


def _softmax_backward(v, x):
    p = _softmax(x)
    return p * (v - (p * v).sum(-1, keepdims=True))


def _log_softmax_backward(v, x):
    return v - _softmax(x) * v.sum(-1, keepdims=True)


def _cross_entropy(wrong):
    def make(random):
        n, c = random.integers(5, 9), random.integers(4, 8)
        labels = random.integers(0, c, size=n)
        hot = np.eye(c)[labels]

        def forward(x, labels):
            return -np.log(_softmax(x))[np.arange(len(x)), labels]

        return Planted(
            forward,
            lambda v, x, labels: [(_softmax(x) - hot) * v[:, None], None],
            lambda v, x, labels: [wrong(_softmax(x), hot) * v[:, None], None],
            [random.normal(size=(n, c)), labels],
        )

    return make


def _embedding(wrong):
    def make(random):
        rows, width, count = random.integers(4, 8), random.integers(3, 6), random.integers(14, 20)
        index = random.integers(0, rows, size=count)

        def right(v, table, index):
            grad = np.zeros_like(table)
            np.add.at(grad, index, v)
            return [grad, None]

        return Planted(
            lambda table, index: table[index],
            right,
            lambda v, table, index: [wrong(v, table, index), None],
            [random.normal(size=(rows, width)), index],
        )

    return make


def _assigned(v, table, index):
    grad = np.zeros_like(table)
    grad[index] = v
    return grad


def _assigned_first(v, table, index):
    grad = np.zeros_like(table)
    grad[index[::-1]] = v[::-1]
    return grad


def _averaged(v, table, index):
    grad, counts = np.zeros_like(table), np.bincount(index, minlength=len(table))
    np.add.at(grad, index, v)
    return grad / np.maximum(counts, 1)[:, None]


def _embedding_then_tanh(random):
    """A lookup behind which a matrix and a tanh follow: no output stands for one row's entry alone."""
    rows, width, count = random.integers(4, 8), random.integers(3, 6), random.integers(14, 20)
    index, matrix = random.integers(0, rows, size=count), random.normal(size=(width, 4))

    def backward(add):
        def of(v, table, index):
            inner = (v * (1 - np.tanh(table[index] @ matrix) ** 2)) @ matrix.T
            grad = np.zeros_like(table)
            if add:
                np.add.at(grad, index, inner)
            else:
                grad[index] = inner
            return [grad, None]

        return of

    table = random.normal(size=(rows, width))
    return Planted(lambda table, index: np.tanh(table[index] @ matrix), backward(True), backward(False), [table, index])


def _linear(wrong):
    """x W + b with a tanh behind, and a change of the cotangent or of what is summed."""

    def make(random):
        n, d, h = random.integers(5, 9), random.integers(3, 6), random.integers(3, 6)
        inputs = [random.normal(size=(n, d)), random.normal(size=(d, h)), random.normal(size=h)]

        def of(v, x, w, b):
            g = v * (1 - np.tanh(x @ w + b) ** 2)
            return [g @ w.T, x.T @ g, g.sum(0)]

        return Planted(lambda x, w, b: np.tanh(x @ w + b), of, lambda v, *inputs: wrong(of, v, *inputs), inputs)

    return make


def _of_rows(rows):
    def wrong(of, v, x, w, b):
        _, dw, db = of(v[rows], x[rows], w, b)
        return [of(v, x, w, b)[0], dw, db]

    return wrong


def _twice(row):
    def wrong(of, v, x, w, b):
        dx, dw, db = of(v, x, w, b)
        _, more_w, more_b = of(v[row : row + 1], x[row : row + 1], w, b)
        return [dx, dw + more_w, db + more_b]

    return wrong


def _without_last_slope(of, v, x, w, b):
    return [v @ w.T, x.T @ v, v.sum(0)]


def _two_outputs(random):
    n, d = random.integers(4, 7), random.integers(3, 6)
    x, w = random.normal(size=(n, d)), random.normal(size=(d, 3))

    def forward(x, w):
        return np.tanh(x @ w), np.sin(x @ w)

    def of(v, x, w):
        z = x @ w
        g = v[0] * (1 - np.tanh(z) ** 2) + v[1] * np.cos(z)
        return [g @ w.T, x.T @ g]

    return Planted(forward, of, lambda v, x, w: of((v[0], 0 * v[1]), x, w), [x, w])


def _pool(wrong):
    """A max-pool of windows of three at a stride of two, which overlap."""

    def make(random):
        n, length = random.integers(4, 7), 2 * random.integers(5, 8) + 1

        def windows(x):
            return np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, ::2]

        def backward(add):
            def of(v, x):
                grad = np.zeros_like(x)
                winners = windows(x).argmax(-1) + 2 * np.arange(v.shape[1])
                for i in range(len(x)):
                    for j in range(v.shape[1]):
                        grad[i, winners[i, j]] = v[i, j] + (grad[i, winners[i, j]] if add else 0)
                return [grad]

            return of

        return Planted(lambda x: windows(x).max(-1), backward(True), backward(False), [random.normal(size=(n, length))])

    return make


def _maximum(wrong):
    """The maximum over the last axis, whose gradient goes to the wrong entries."""

    def make(random):
        x = random.normal(size=(random.integers(8, 12), random.integers(3, 6)))

        def right(v, x):
            return [(x == x.max(-1, keepdims=True)) * v[:, None]]

        return Planted(lambda x: x.max(-1), right, lambda v, x: [wrong(v[:, None] + 0 * x, x)], [x])

    return make


def _attention(wrong, causal=False, scaled=True):
    def make(random):
        heads, tokens, d = random.integers(1, 3), random.integers(4, 6), random.integers(3, 6)
        inputs = [random.normal(size=(heads, tokens, d)) for _ in range(3)]
        scale = 1 / math.sqrt(d)
        mask = np.tril(np.ones((tokens, tokens), bool)) if causal else np.ones((tokens, tokens), bool)

        def weights(q, k, mask=mask, scale=scale):
            return _softmax(np.where(mask, q @ k.swapaxes(1, 2) * scale, -np.inf))

        def of(v, q, k, values, p=None, scale=scale, total=True):
            p = weights(q, k) if p is None else p
            grad = v @ values.swapaxes(1, 2)
            scores = p * (grad - (p * grad).sum(-1, keepdims=True) * total) * scale
            return [scores @ k, scores.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ v]

        def broken(v, q, k, values):
            return wrong(of, weights, mask, v, q, k, values)

        return Planted(lambda q, k, values: weights(q, k) @ values, of, broken, inputs)

    return make


def _without_mask(of, weights, mask, v, q, k, values):
    return of(v, q, k, values, p=weights(q, k, mask=mask | True))


def _other_triangle(of, weights, mask, v, q, k, values):
    return of(v, q, k, values, p=weights(q, k, mask=mask.T))


def _heads(random):
    """Tokens whose features are split into heads, put before the tokens."""
    tokens, heads, d = random.integers(3, 6), random.integers(2, 4), random.integers(2, 5)
    x = random.normal(size=(2, tokens, heads * d))
    shape = (2, tokens, heads, d)

    def forward(x):
        return np.tanh(x).reshape(shape).transpose(0, 2, 1, 3)

    def right(v, x):
        return [v.transpose(0, 2, 1, 3).reshape(x.shape) * (1 - np.tanh(x) ** 2)]

    def wrong(v, x):
        slope = (1 - np.tanh(x) ** 2).reshape(shape).transpose(0, 2, 1, 3)
        return [(v * slope).reshape(x.shape)]

    return Planted(forward, right, wrong, [x])


def _bias(wrong):
    """A bias that is added to square maps."""

    def make(random):
        size = random.integers(5, 8)
        x, b = random.normal(size=(size, size)), random.normal(size=size)

        def right(v, x, b):
            return [v, v.sum(0)]

        return Planted(lambda x, b: x + b, right, lambda v, x, b: [v, wrong(v)], [x, b])

    return make


def _flushed(random):
    x = random.normal(size=40) * 10.0 ** random.uniform(-5, 0, size=40)

    def wrong(v, x):
        grad = 2 * x * v
        return [np.where(np.abs(grad) < 2e-3, 0, grad)]

    return Planted(lambda x: x * x, lambda v, x: [2 * x * v], wrong, [x])


def _ignoring(random):
    """A function that ignores some rows, as integers say, and a backward pass that does not."""
    x, keep = random.normal(size=(12, 5)), (np.arange(12) % 3 > 0).astype(int)

    def right(v, x, keep):
        return [v * np.exp(np.sin(x)) * np.cos(x) * keep[:, None], None]

    def wrong(v, x, keep):
        return [v * np.exp(np.sin(x)) * np.cos(x) * (keep[:, None] + np.cos(3 * x) * (1 - keep[:, None])), None]

    return Planted(lambda x, keep: np.exp(np.sin(x)) * keep[:, None], right, wrong, [x, keep])


PLANTED = {
    "the gradient is grad_output, handed on unchanged": _unary(_relu, lambda v, x: v * (x > 0), lambda v, x: v),
    "the gradient is grad_output where input 1 is positive": _two(
        lambda x, y: _relu(x) + 0.3 * y,
        lambda v, x, y: [v * (x > 0), 0.3 * v],
        lambda v, x, y: [v * (y > 0), 0.3 * v],
    ),
    "the gradient is grad_output where grad_output is positive": _unary(
        _relu, lambda v, x: v * (x > 0), lambda v, x: v * (v > 0)
    ),
    "the gradient is right where input 1 is positive, and set to zero elsewhere": _two(
        lambda x, y: np.sin(x) * y,
        lambda v, x, y: [v * np.cos(x) * y, v * np.sin(x)],
        lambda v, x, y: [v * np.cos(x) * y * (y > 0), v * np.sin(x)],
    ),
    "is 0.01 times grad_output, and should be 0.2 times": _unary(
        _leaky(0.2), lambda v, x: v * np.where(x > 0, 1, 0.2), lambda v, x: v * np.where(x > 0, 1, 0.01)
    ),
    "the gradient is grad_output times 1 - t^2, where t is input 0": _unary(
        np.tanh, lambda v, x: v * (1 - np.tanh(x) ** 2), lambda v, x: v * (1 - x**2)
    ),
    "the gradient is grad_output times t (1 - t), where t is input 0": _unary(
        _sigmoid, lambda v, x: v * _sigmoid(x) * (1 - _sigmoid(x)), lambda v, x: v * x * (1 - x)
    ),
    "the gradient is grad_output times 1 - output": _unary(
        np.tanh, lambda v, x: v * (1 - np.tanh(x) ** 2), lambda v, x: v * (1 - np.tanh(x))
    ),
    "the gradient does not contain grad_output": _unary(
        np.tanh, lambda v, x: v * (1 - np.tanh(x) ** 2), lambda v, x: 1 - np.tanh(x) ** 2
    ),
    "grad_output is multiplied in twice": _unary(np.sin, lambda v, x: v * np.cos(x), lambda v, x: v * v * np.cos(x)),
    "the slope is applied twice": _unary(np.sinh, lambda v, x: v * np.cosh(x), lambda v, x: v * np.cosh(x) ** 2),
    "the gradient's own mean over axis 0 is not taken away": _normalised((0,), (False, True)),
    "the term of the variance over axis 1 is missing": _normalised((-1,), (True, False)),
    "mean and variance over axis 1 are taken for constants": _normalised((-1,), (False, False)),
    "mean and variance over axes 1 and 2 are taken for constants": _normalised((-1, -2), (False, False)),
    "the norm over axis 1 is taken for a constant": _normalised((-1,), (True, False), centred=False),
    "the norm over axis 1 is taken for a constant (no epsilon)": _normalised((-1,), (True, False), 0.0, centred=False),
    "the term of the variance over each of 2 groups along axis 1": _group_norm((True, False)),
    "the gradient's own mean over axes 0, 2 and 3 is not taken away": _batch_norm_affine,
    "the sum over axis {last} is missing in the backward pass of a softmax": _unary(
        _softmax, _softmax_backward, lambda v, x: _softmax(x) * v
    ),
    "the gradient is that of a log-softmax over axis {last}": _unary(
        _softmax, _softmax_backward, _log_softmax_backward
    ),
    "the gradient is that of a softmax over axis {last}": _unary(
        lambda x: np.log(_softmax(x)), _log_softmax_backward, _softmax_backward
    ),
    "of which only the diagonal counts": _unary(
        _softmax, _softmax_backward, lambda v, x: _softmax(x) * (1 - _softmax(x)) * v
    ),
    "the label's part is missing": _cross_entropy(lambda p, hot: p),
    "where input 1 names a row several times, only the last occurrence counts": _embedding(_assigned),
    "where input 1 names a row several times, only the first occurrence counts": _embedding(_assigned_first),
    "where input 1 names a row several times, only their mean counts": _embedding(_averaged),
    "where input 1 names a row several times, only the last occurrence counts (behind it a tanh)": _embedding_then_tanh,
    "where several outputs depend on one entry, only the last one counts": _pool("last"),
    "only index 0 of axis 0 of output counts": _linear(_of_rows(slice(0, 1))),
    "index 0 of axis 0 of output does not count": _linear(_of_rows(slice(1, None))),
    "index 2 of axis 0 of output counts twice": _linear(_twice(2)),
    "every second index of axis 0 of output counts": _linear(_of_rows(slice(None, None, 2))),
    "it is that of a cotangent of ones": _linear(lambda of, v, *inputs: of(np.ones_like(v), *inputs)),
    "contains the square of grad_output": _linear(lambda of, v, *inputs: of(v * v, *inputs)),
    "contains the absolute values of grad_output": _linear(lambda of, v, *inputs: of(np.abs(v), *inputs)),
    "is that of a grad_output which is flipped along axis 0": _linear(lambda of, v, *inputs: of(v[::-1], *inputs)),
    "has the first index along axis 0 of grad_output in the place of all": _linear(
        lambda of, v, *inputs: of(v[:1] + 0 * v, *inputs)
    ),
    "lacks the slope of the last step: 1 - y^2": _linear(_without_last_slope),
    "grad_output 1 does not count": _two_outputs,
    "the gradient is grad_output, handed on unchanged (of a maximum)": _maximum(lambda v, x: v),
    "uses weights that are computed without the mask": _attention(_without_mask, causal=True),
    "uses weights that are computed with the mask's other triangle": _attention(_other_triangle, causal=True),
    "lacks the sum in the softmax's backward pass": _attention(
        lambda of, weights, mask, v, *inputs: of(v, *inputs, total=False)
    ),
    "the square root of the size of axis 2 of": _attention(
        lambda of, weights, mask, v, *inputs: of(v, *inputs, p=weights(*inputs[:2]), scale=1.0)
    ),
    "mixed with the axis beside it": _heads,
    "is that of a grad_output which has its axes in another order": _bias(lambda v: v.sum(1)),
    "values of at most": _flushed,
    "the gradient lacks the factor input 0": _two(
        lambda a, b: a * np.sin(b),
        lambda v, a, b: [v * np.sin(b), v * a * np.cos(b)],
        lambda v, a, b: [v * np.sin(b), v * np.cos(b)],
    ),
    "the gradient is multiplied by input 1 once too often": _two(
        lambda x, y: np.exp(np.sin(x)) * y,
        lambda v, x, y: [v * np.exp(np.sin(x)) * np.cos(x) * y, v * np.exp(np.sin(x))],
        lambda v, x, y: [v * np.exp(np.sin(x)) * np.cos(x) * y * y, v * np.exp(np.sin(x))],
    ),
    "the gradient does not contain grad_output: it is that of the number itself": _unary(
        lambda x: np.mean(np.tanh(x)),
        lambda v, x: v * (1 - np.tanh(x) ** 2) / x.size,
        lambda v, x: (1 - np.tanh(x) ** 2) / x.size,
    ),
    "where it fails, the gradient is not zero, though forward does not depend on these entries": _ignoring,
}
"""The words that name each mistake, and the mistake. What is in brackets at the end is not in the words."""


def words_of(key, planted):
    """Return the words that name a mistake in its function."""
    return key.partition(" (")[0].format(last=planted.inputs[0].ndim - 1)


def in_type(backward, dtype):
    """Return a backward pass that rounds gradients to a type."""

    def of(*arrays):
        return [None if one is None else one.astype(dtype) for one in backward(*arrays)]

    return of


def named(fastcheck, key, seed, dtype):
    """Return the bugs that the report names instead of a mistake, of tensors for which it does not name that."""
    planted = PLANTED[key](np.random.default_rng(seed))
    report = fastcheck.check_vjp(planted.forward, in_type(planted.wrong, dtype), planted.inputs)
    found = [one.diagnosis for one in report.tensors.values() if one.diagnosis is not None]
    words = words_of(key, planted)
    others = [one["bug"] for one in found if words not in f"{one['bug']}; {one['evidence']}"]
    return others if found else ["(no diagnosis)"]
