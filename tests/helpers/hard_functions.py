"""Random functions that are hard to difference, each with its right gradient, and ways to make that gradient wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from random_functions import UNITS, RandomFunction
from scipy.linalg import expm, expm_frechet

ALONE = "params"


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to arrays, or to those of dicts that have the same names."""
    if isinstance(trees[0], dict):
        return {name: function(*(tree[name] for tree in trees)) for name in trees[0]}
    return function(*trees)


def named(tree: Any) -> dict[str, np.ndarray]:
    """Return arrays by the names that a report gives them."""
    return tree if isinstance(tree, dict) else {ALONE: np.asarray(tree)}


@dataclass(frozen=True)
class Hard:
    """A loss, its right gradient and a point.

    Attributes
    ----------
    loss, grad : callable
        Of ``params``; they take complex arrays too, unless ``exact`` does or ``truth`` is given.
    params : float array, or dict of str to float arrays
    described : str
    options : mapping
        Keyword arguments for `fastcheck.check_gradient`.
    as_array : bool
        Whether the gradient is handed over as an array rather than as the function.
    exact : callable, optional
        The loss for complex arrays.
    truth : callable, optional
        Returns the gradient by another formula, where no complex step gives it.
    accuracy : float
        What rounding does to ``grad``, relative to an entry and, unless ``entrywise``, to its tensor's largest.
    sizes : float array or dict, optional
        What entries are measured by before the largest is sought, where theirs differ.
    slack : float array or dict, optional
        How far subgradients are apart, where the point lies on a kink.
    mistakes : mapping of str to callables
        Wrong gradients of this very function.
    undecidable : str
        Why differences in double precision cannot judge it, if so: then it may come out inconclusive.
    """

    loss: Callable[[Any], Any]
    grad: Callable[[Any], Any]
    params: Any
    described: str
    options: Mapping[str, Any] = field(default_factory=dict)
    as_array: bool = False
    exact: Callable[[Any], Any] | None = None
    truth: Callable[[], Any] | None = None
    accuracy: float = 1e-12
    entrywise: bool = False
    sizes: Any = None
    slack: Any = None
    mistakes: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    undecidable: str = ""

    @property
    def given(self) -> Any:
        """The gradient as it is handed over."""
        return self.handed(self.grad)

    def handed(self, grad: Callable[[Any], Any]) -> Any:
        """Return a gradient in the form of the right one."""
        return grad(each(_float64, self.params)) if self.as_array else grad

    def tolerance(self) -> Any:
        """Return how far an entry may be off and still be right."""
        right = self.grad(each(_float64, self.params))
        found = each(self._allowed, right, each(np.ones_like, right) if self.sizes is None else self.sizes)
        return found if self.slack is None else each(np.add, found, self.slack)

    def _allowed(self, grad: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        slopes = np.abs(np.asarray(grad, np.float64))
        shared = 0.0 if self.entrywise else (slopes * sizes).max(initial=0.0) / sizes
        allowed: np.ndarray = self.accuracy * (slopes + shared)
        return allowed

    def by_complex_step(self) -> Any:
        """Return the gradient by another way than ``grad``."""
        if self.truth is not None:
            return self.truth()
        loss, params = self.exact or self.loss, each(_float64, self.params)
        return {
            name: np.array([self._slope(loss, params, name, i) for i in range(array.size)]).reshape(array.shape)
            for name, array in named(params).items()
        }

    @staticmethod
    def _slope(loss: Callable[[Any], Any], params: Any, name: str, place: int) -> float:
        moved = each(lambda array: array.astype(complex), params)
        array = moved[name] if isinstance(moved, dict) else moved
        entry = array.reshape(-1)[place].real
        step = 1e-20 * (abs(entry) or float(np.abs(array).max()) or 1e-140)
        array.reshape(-1)[place] += 1j * step
        return float(np.imag(loss(moved)) / step)


def _float64(array: Any) -> np.ndarray:
    return np.array(array, np.float64)


# Errors


@dataclass(frozen=True)
class Planted:
    """A wrong gradient, and for each tensor which entries are wrong."""

    grad: Any
    places: dict[str, np.ndarray]


def _one_off(factor: float) -> Callable[..., Any]:
    def change(flat: np.ndarray, eligible: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator) -> Any:
        wrong = flat * factor
        places = np.flatnonzero(eligible(wrong))
        if not places.size:
            return None
        place = rng.choice(places)
        return {int(place): wrong[place]}

    return change


def _all_off(flat: np.ndarray, eligible: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator) -> Any:
    wrong = 1.01 * flat
    return dict(enumerate(wrong)) if eligible(wrong).any() else None


def _largest(flat: np.ndarray, eligible: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator) -> Any:
    place = int(np.abs(flat).argmax())
    wrong = 10 * flat
    return {place: wrong[place]} if eligible(wrong)[place] else None


def _value(flat: np.ndarray, eligible: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator) -> Any:
    typical = np.median(np.abs(flat[flat != 0])) if flat.any() else 1.0
    places = np.flatnonzero((flat == 0) & eligible(np.full(flat.shape, typical)))
    if not places.size:
        return None
    return {int(rng.choice(places)): typical}


ERRORS: dict[str, Callable[..., Any]] = {
    "one entry by 1e-6": _one_off(1 + 1e-6),
    "one entry by 1 %": _one_off(1.01),
    "one entry's sign": _one_off(-1.0),
    "one entry zero": _one_off(0.0),
    "all by 1 %": _all_off,
    "the largest times ten": _largest,
    "a value for a zero": _value,
}
"""Each takes all entries of a gradient, a function that tells of other values which would be wrong, and a generator;
and returns values by place, or None where it would make nothing wrong."""

FAR = 2.0
"""How many tolerances an error is, at least: a smaller one might as well be rounding."""


def planted(function: Hard, error: str, rng: np.random.Generator) -> Planted | None:
    """Return the gradient with an error, None where that would change nothing that rounding does not."""
    right = named(function.grad(each(_float64, function.params)))
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in right.values()])
    allowed = np.concatenate([np.ravel(array) for array in named(function.tolerance()).values()])
    changes = ERRORS[error](flat, lambda wrong: np.abs(wrong - flat) > FAR * allowed, rng)
    if changes is None:
        return None
    factors, added = np.ones(len(flat)), np.zeros(len(flat))
    for place, value in changes.items():
        if flat[place]:
            factors[place] = value / flat[place]
        else:
            added[place] = value
    shaped = [_like(values, right, function.params) for values in (factors, added)]

    def grad(params: Any) -> Any:
        return each(_changed, function.grad(params), *shaped)

    places = named(_like((factors != 1) | (added != 0), right, function.params))
    return Planted(function.handed(grad), places)


def mistaken(function: Hard, name: str) -> Planted:
    """Return one of a function's own mistakes."""
    params = each(_float64, function.params)
    wrong, right = (named(grad(params)) for grad in (function.mistakes[name], function.grad))
    return Planted(function.handed(function.mistakes[name]), {key: wrong[key] != right[key] for key in right})


def _like(flat: np.ndarray, arrays: dict[str, np.ndarray], params: Any) -> Any:
    ends = np.cumsum([array.size for array in arrays.values()])[:-1]
    parts = {
        name: part.reshape(array.shape)
        for (name, array), part in zip(arrays.items(), np.split(flat, ends), strict=True)
    }
    return parts if isinstance(params, dict) else parts[ALONE]


def _changed(grad: np.ndarray, factor: np.ndarray, added: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        changed: np.ndarray = (np.asarray(grad, np.float64) * factor + added).astype(np.asarray(grad).dtype)
    return changed


# Models: a loss and its gradient, of parameters and data in any arithmetic


@dataclass(frozen=True)
class Model:
    """``loss(params, data)`` and ``grad(params, data)``, in the arithmetic of what they are given."""

    loss: Callable[[Any, Any], Any]
    grad: Callable[[Any, Any], Any]
    params: Any
    data: dict[str, np.ndarray]
    name: str

    def hard(self, **more: Any) -> Hard:
        data = self.data
        return Hard(
            lambda p: self.loss(p, data), lambda p: self.grad(p, data), self.params, **{"described": self.name} | more
        )


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _classifier(rng: np.random.Generator) -> Model:
    def loss(p: Any, d: Any) -> Any:
        z = d["x"] @ p
        z = z - z.real.max(1, keepdims=True)
        return (np.log(np.exp(z).sum(1)) - (z * d["y"]).sum(1)).sum() / len(z)

    def grad(p: Any, d: Any) -> Any:
        return d["x"].T @ (_softmax(d["x"] @ p) - d["y"]) / len(d["x"])

    labels = np.eye(3)[rng.integers(0, 3, 6)]
    return Model(loss, grad, rng.normal(size=(4, 3)), {"x": rng.normal(size=(6, 4)), "y": labels}, "softmax classifier")


def _attention(rng: np.random.Generator) -> Model:
    def loss(p: Any, d: Any) -> Any:
        return (d["c"] * (_softmax(p["q"] @ p["k"].T / 1.5) @ p["v"])).sum()

    def grad(p: Any, d: Any) -> Any:
        a = _softmax(p["q"] @ p["k"].T / 1.5)
        back = d["c"] @ p["v"].T
        s = a * (back - (a * back).sum(1, keepdims=True)) / 1.5
        return {"q": s @ p["k"], "k": s.T @ p["q"], "v": a.T @ d["c"]}

    arrays = rng.normal(size=(4, 3, 2))
    return Model(loss, grad, dict(zip("qkv", arrays[:3], strict=True)), {"c": arrays[3]}, "attention")


def _lstm(rng: np.random.Generator) -> Model:
    def steps(p: Any, d: Any) -> Iterator[Any]:
        h = c = p["b"][:2] * 0
        for x in d["x"]:
            z = p["wx"] * x + p["wh"] @ h + p["b"]
            i, f, o, g = _sigmoid(z[:2]), _sigmoid(z[2:4]), _sigmoid(z[4:6]), np.tanh(z[6:])
            before, c = (h, c), f * c + i * g
            h = o * np.tanh(c)
            yield x, before, (i, f, o, g), c, h

    def loss(p: Any, d: Any) -> Any:
        return sum((v * h).sum() for v, (*_, h) in zip(d["v"], steps(p, d), strict=True))

    def grad(p: Any, d: Any) -> Any:
        found = {name: array * 0 for name, array in p.items()}
        dh = dc = p["b"][:2] * 0
        for v, (x, (h, c), (i, f, o, g), after, _) in reversed([*zip(d["v"], steps(p, d), strict=True)]):
            dh = dh + v
            t = np.tanh(after)
            dc = dc + dh * o * (1 - t * t)
            parts = dc * g * i * (1 - i), dc * c * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - g * g)
            dz = np.concatenate(parts)
            found = {
                "wx": found["wx"] + dz * x,
                "wh": found["wh"] + dz[:, None] * h[None, :],
                "b": found["b"] + dz,
            }
            dh, dc = p["wh"].T @ dz, dc * f
        return found

    params = {"wx": rng.normal(size=8), "wh": rng.normal(size=(8, 2)), "b": rng.normal(size=8)}
    return Model(loss, grad, params, {"x": rng.normal(size=3), "v": rng.normal(size=(3, 2))}, "LSTM")


def _layer_norm(rng: np.random.Generator) -> Model:
    def normal(p: Any) -> Any:
        centred = p["x"] - p["x"].sum(1, keepdims=True) / 4
        deviation = np.sqrt((centred * centred).sum(1, keepdims=True) / 4 + 0.01)
        return centred / deviation, deviation

    def loss(p: Any, d: Any) -> Any:
        return (d["c"] * np.tanh(normal(p)[0] * p["gamma"] + p["beta"])).sum()

    def grad(p: Any, d: Any) -> Any:
        n, deviation = normal(p)
        t = np.tanh(n * p["gamma"] + p["beta"])
        back = d["c"] * (1 - t * t)
        dn = back * p["gamma"]
        x = (dn - dn.sum(1, keepdims=True) / 4 - n * ((dn * n).sum(1, keepdims=True) / 4)) / deviation
        return {"x": x, "gamma": (back * n).sum(0), "beta": back.sum(0)}

    params = {"x": rng.normal(size=(3, 4)), "gamma": rng.normal(size=4), "beta": rng.normal(size=4)}
    return Model(loss, grad, params, {"c": rng.normal(size=(3, 4))}, "layer norm")


ACTIVATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: z * (z.real > 0), lambda z: 1.0 * (z.real > 0)),
    "leaky relu": (lambda z: z * ((z.real > 0) + 0.25 * (z.real <= 0)), lambda z: (z.real > 0) + 0.25 * (z.real <= 0)),
    "abs": (lambda z: z * np.sign(z.real), lambda z: np.sign(z.real)),
}


def _perceptron(rng: np.random.Generator, activation: str = "tanh") -> Model:
    unit, slope = ACTIVATIONS[activation]

    def loss(p: Any, d: Any) -> Any:
        rest = unit(d["x"] @ p["w"] + p["b"]) @ p["out"] - d["y"]
        return (rest * rest).sum() / 2

    def grad(p: Any, d: Any) -> Any:
        z = d["x"] @ p["w"] + p["b"]
        h = unit(z)
        rest = h @ p["out"] - d["y"]
        back = rest[:, None] * p["out"][None, :] * slope(z).astype(z.dtype)
        return {"w": d["x"].T @ back, "b": back.sum(0), "out": h.T @ rest}

    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4), "out": rng.normal(size=4)}
    return Model(loss, grad, params, {"x": rng.normal(size=(5, 3)), "y": rng.normal(size=5)}, f"{activation} network")


MODELS = (_classifier, _attention, _lstm, _layer_norm, _perceptron)


def _a_model(rng: np.random.Generator) -> Model:
    return MODELS[int(rng.integers(len(MODELS)))](rng)


def _scaled(function: Hard, loss: float, argument: float) -> Hard:
    """Return loss * f(p / argument) at argument * p."""
    return replace(
        function,
        loss=lambda p: loss * function.loss(each(lambda a: a / argument, p)),
        grad=lambda p: each(lambda g: loss / argument * g, function.grad(each(lambda a: a / argument, p))),
        params=each(lambda a: argument * a, function.params),
        described=f"{loss:.1e} * {function.described} at {argument:.1e}",
    )


def _decades(rng: np.random.Generator, low: float, high: float, size: Any = None) -> Any:
    return 10.0 ** rng.uniform(low, high, size)


def _sometimes(rng: np.random.Generator, part: float = 0.5) -> bool:
    return bool(rng.random() < part)


# Families


def smooth(rng: np.random.Generator) -> Hard:
    """Compositions, classifiers, attention, recurrent nets and normalisations, at scales of many decades."""
    if _sometimes(rng, 0.3):
        # Complex numbers have no logaddexp.
        units = {name: unit for name, unit in UNITS.items() if name != "softplus"}
        function = RandomFunction(int(rng.integers(2**31)), units)
        return Hard(function.loss, function.grad, function.x, function.described, as_array=_sometimes(rng))
    function = _a_model(rng).hard(as_array=_sometimes(rng))
    return _scaled(function, _decades(rng, -8, 8), _decades(rng, -8, 8)) if _sometimes(rng) else function


def kinks(rng: np.random.Generator) -> Hard:
    """Functions with kinks: somewhere, close by, or at the point itself, where the gradient is one of several."""
    choices = (_kinked_network, _pooling, _kinks_nearby, _kink_at_the_point, _tie)
    return replace(choices[int(rng.integers(len(choices)))](rng), as_array=_sometimes(rng))


def _kinked_network(rng: np.random.Generator) -> Hard:
    function = _perceptron(rng, str(rng.choice(["relu", "leaky relu", "abs"]))).hard()
    return _scaled(function, _decades(rng, -4, 4), _decades(rng, -4, 4)) if _sometimes(rng, 0.3) else function


def _pooling(rng: np.random.Generator) -> Hard:
    c = rng.normal(size=3)

    def winners(p: Any) -> Any:
        return p.real.argmax(1)[:, None]

    def loss(p: Any) -> Any:
        return (c * np.tanh(np.take_along_axis(p, winners(p), 1)[:, 0])).sum()

    def grad(p: Any) -> Any:
        found = np.zeros(p.shape)
        place = winners(p)
        np.put_along_axis(found, place, (c / np.cosh(np.take_along_axis(p, place, 1)[:, 0]) ** 2)[:, None], 1)
        return found

    return Hard(loss, grad, rng.normal(size=(3, 4)), "maxima of rows")


def _bends(rng: np.random.Generator, at: np.ndarray, sides: np.ndarray) -> tuple[Any, ...]:
    """Return the loss sum(c |p - k| + sin(p)), its gradient with the slopes of given sides at k, and c and p."""
    c = rng.choice([-1, 1], at.size) * rng.uniform(0.5, 2, at.size)

    def loss(p: Any) -> Any:
        d = p - at
        return (c * d * np.sign(d.real) + np.sin(p)).sum()

    def grad(p: Any) -> Any:
        return c * np.where(p == at, sides, np.sign(p - at)) + np.cos(p)

    return loss, grad, c


def _kinks_nearby(rng: np.random.Generator) -> Hard:
    p = rng.normal(size=int(rng.integers(2, 10)))
    apart, place = _decades(rng, -1, 0, p.size), int(rng.integers(p.size))
    apart[place] = _decades(rng, -14, -1)
    at = p * (1 + rng.choice([-1, 1], p.size) * apart)
    loss, grad, c = _bends(rng, at, np.zeros(p.size))
    close = abs(p[place]) * apart[place] < 1e-11

    def other_side(q: Any) -> Any:
        found = grad(q)
        found[place] -= 2 * c[place] * np.sign(q - at)[place]
        return found

    described = f"kinks nearby, one at {apart[place]:.0e} of the entry"
    return Hard(
        loss,
        grad,
        p,
        described,
        mistakes={"the slope beyond a kink": other_side},
        undecidable="round-off hides what is this side of the kink" if close else "",
    )


def _kink_at_the_point(rng: np.random.Generator) -> Hard:
    p = rng.normal(size=int(rng.integers(2, 10)))
    place, at = int(rng.integers(p.size)), rng.normal(size=p.size)
    at[place] = p[place] = rng.choice([0.0, p[place]])
    loss, grad, c = _bends(rng, at, np.full(p.size, rng.choice([0.0, 1.0, rng.uniform(-1, 1)])))
    slack = np.where(p == at, 2 * np.abs(c), 0.0)
    return Hard(loss, grad, p, "a kink at the point", slack=slack)


def _tie(rng: np.random.Generator) -> Hard:
    p = rng.normal(size=int(rng.integers(3, 10)))
    tied = rng.choice(p.size, int(rng.integers(2, min(4, p.size))), replace=False)
    p[tied] = np.abs(p).max() + rng.uniform(0.1, 1)
    scale = _decades(rng, -3, 3)

    def loss(q: Any) -> Any:
        return scale * q.max() + np.sin(q).sum()

    def grad(q: Any) -> Any:
        won = q == q.max()
        return scale * won / won.sum() + np.cos(q)

    def one_each(q: Any) -> Any:
        return scale * (q == q.max()) + np.cos(q)

    slack = np.where(p == p.max(), scale, 0.0)
    return Hard(
        loss, grad, p, f"a maximum of {tied.size} equals", slack=slack, mistakes={"1 to every winner": one_each}
    )


def matrices(rng: np.random.Generator) -> Hard:
    """Functions of matrices of condition numbers from 1 to 1e12, with gradients as one writes them in float64."""
    choices = (_logdet, _inverse, _solve, _gaussian_process, _eigenvalue, _exponential)
    return choices[int(rng.integers(len(choices)))](rng)


def _conditioned(rng: np.random.Generator, n: int, condition: float) -> np.ndarray:
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    values = condition ** -np.concatenate([[0, 1], rng.random(n - 2)])
    found: np.ndarray = left * values @ right
    return found


def _log_abs_det(a: Any) -> Any:
    """Return log |det a| for complex matrices: the sign's own angle, as its derivative is."""
    sign, value = np.linalg.slogdet(a)
    return value + np.log(sign * np.sign(sign.real))


def _of_condition(condition: float) -> dict[str, Any]:
    return {"accuracy": max(1e-12, 3e-15 * condition)}


def _logdet(rng: np.random.Generator) -> Hard:
    n, condition = int(rng.integers(2, 6)), _decades(rng, 0, 12)
    return Hard(
        lambda a: np.linalg.slogdet(a)[1],
        lambda a: np.linalg.inv(a).T,
        _conditioned(rng, n, condition),
        f"logdet, condition {condition:.0e}",
        exact=_log_abs_det,
        as_array=condition < 1e3 and _sometimes(rng),
        **_of_condition(condition),
    )


def _inverse(rng: np.random.Generator) -> Hard:
    n, condition = int(rng.integers(2, 5)), _decades(rng, 0, 12)
    c = rng.normal(size=(n, n))

    def grad(a: Any) -> Any:
        inverse = np.linalg.inv(a)
        return -inverse.T @ c @ inverse.T

    return Hard(
        lambda a: (c * np.linalg.inv(a)).sum(),
        grad,
        _conditioned(rng, n, condition),
        f"inverse, condition {condition:.0e}",
        as_array=condition < 1e3 and _sometimes(rng),
        **_of_condition(condition),
    )


def _solve(rng: np.random.Generator) -> Hard:
    n, condition = int(rng.integers(2, 5)), _decades(rng, 0, 12)
    c = rng.normal(size=n)

    def grad(p: Any) -> Any:
        multiplier = np.linalg.solve(p["a"].T, c)
        return {"a": -np.outer(multiplier, np.linalg.solve(p["a"], p["b"])), "b": multiplier}

    return Hard(
        lambda p: c @ np.linalg.solve(p["a"], p["b"]),
        grad,
        {"a": _conditioned(rng, n, condition), "b": rng.normal(size=n)},
        f"solve, condition {condition:.0e}",
        as_array=condition < 1e3 and _sometimes(rng),
        **_of_condition(condition),
    )


def _gaussian_process(rng: np.random.Generator) -> Hard:
    """Amplitude, length and noise of very different sizes in one array."""
    n = int(rng.integers(5, 9))
    noise = _decades(rng, -5.5, 0)
    x = np.sort(rng.uniform(0, 4, n))
    squares = np.subtract.outer(x, x) ** 2

    def covariance(p: Any) -> tuple[Any, Any]:
        smooth = np.exp(-squares / (2 * p[1] ** 2))
        return p[0] ** 2 * smooth + p[2] ** 2 * np.eye(n), smooth

    def loss(p: Any) -> Any:
        factor = np.linalg.cholesky(covariance(p)[0])
        white = np.linalg.solve(factor, y)
        return white @ white / 2 + np.log(np.diag(factor)).sum()

    def exact(p: Any) -> Any:
        k = covariance(p)[0]
        return y @ np.linalg.solve(k, y) / 2 + _log_abs_det(k) / 2

    def grad(p: Any) -> Any:
        k, smooth = covariance(p)
        inverse = np.linalg.inv(k)
        a = inverse @ y
        changes = 2 * p[0] * smooth, p[0] ** 2 * smooth * squares / p[1] ** 3, 2 * p[2] * np.eye(n)
        return np.array([(inverse * change).sum() / 2 - a @ change @ a / 2 for change in changes])

    params = np.array([rng.uniform(0.5, 2), rng.uniform(0.5, 2), noise])
    k = covariance(params)[0]
    y = np.linalg.cholesky(k) @ rng.normal(size=n)
    condition = np.linalg.cond(k)
    return Hard(
        loss,
        grad,
        params,
        f"Gaussian process, condition {condition:.0e}",
        exact=exact,
        as_array=condition < 1e3 and _sometimes(rng),
        **_of_condition(condition),
    )


def _eigenvalue(rng: np.random.Generator) -> Hard:
    n, gap = int(rng.integers(2, 5)), _decades(rng, -3, 0)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = np.concatenate([[1.0, 1.0 - gap], rng.uniform(-1, 1 - gap, n - 2)])

    def exact(a: Any) -> Any:
        found = np.linalg.eigvals((a + a.T) / 2)
        return found[found.real.argmax()]

    def grad(a: Any) -> Any:
        vector = np.linalg.eigh((a + a.T) / 2)[1][:, -1]
        return np.outer(vector, vector)

    skew = rng.normal(size=(n, n))
    a = basis * values @ basis.T + skew - skew.T
    return Hard(
        lambda a: np.linalg.eigvalsh((a + a.T) / 2)[-1],
        grad,
        a,
        f"largest eigenvalue, gap {gap:.0e}",
        exact=exact,
        **_of_condition(10 / gap),
    )


def _exponential(rng: np.random.Generator) -> Hard:
    n, size = int(rng.integers(2, 4)), _decades(rng, -2, 0.5)
    c = rng.normal(size=(n, n))
    return Hard(
        lambda a: (c * expm(a)).sum(),
        lambda a: expm_frechet(a.T, c, compute_expm=False),
        size * rng.normal(size=(n, n)),
        f"matrix exponential, size {size:.0e}",
        accuracy=1e-9,
    )


def scales(rng: np.random.Generator) -> Hard:
    """Parameters whose sizes, or whose effects, differ by up to 24 decades."""
    choices = (_alike, _reciprocal, _unlike, _tiny_weights, _two_scales)
    return choices[int(rng.integers(len(choices)))](rng)


def _stretched(function: Hard, factors: Any) -> Hard:
    """Return f(p / s) at s * p: every entry matters as it did."""
    return replace(
        function,
        loss=lambda p: function.loss(each(np.divide, p, factors)),
        grad=lambda p: each(np.divide, function.grad(each(np.divide, p, factors)), factors),
        params=each(np.multiply, function.params, factors),
        sizes=factors,
    )


def _alike(rng: np.random.Generator) -> Hard:
    """Within each tensor, or from tensor to tensor; some entries are zero."""
    function, reach = _a_model(rng).hard(as_array=_sometimes(rng)), rng.uniform(1, 12)
    whole = _sometimes(rng)
    zeros = _sometimes(rng, 0.3)

    def factors(array: np.ndarray) -> np.ndarray:
        return (
            np.full(array.shape, _decades(rng, -reach, reach)) if whole else _decades(rng, -reach, reach, array.shape)
        )

    # An entry of zero has no size of its own: only where all of its tensor have the same.
    thinned = each(lambda a: a * (rng.random(a.shape) > 0.2) if zeros and whole else a, function.params)
    stretched = _stretched(replace(function, params=thinned), each(factors, function.params))
    where = "across tensors" if whole else "within tensors"
    return replace(stretched, described=f"{function.described}, {2 * reach:.0f} decades {where}")


def _reciprocal(rng: np.random.Generator) -> Hard:
    r = _decades(rng, 0, 12)
    factors = r ** rng.choice([-1.0, 1.0], int(rng.integers(2, 9)))
    z = rng.uniform(0.5, 2, factors.size)
    c = rng.normal(size=factors.size)
    function = Hard(lambda p: (c * np.sin(p)).sum() + p.prod(), lambda p: c * np.cos(p) + p.prod() / p, z, "")
    stretched = _stretched(function, factors)
    return replace(stretched, described=f"entries of {r:.0e} and its reciprocal", as_array=_sometimes(rng))


def _unlike(rng: np.random.Generator) -> Hard:
    n, reach = int(rng.integers(2, 12)), rng.uniform(1, 12)
    s = _decades(rng, -reach, reach, n)
    p = rng.choice([-1, 1], n) * rng.uniform(0.5, 2, n)
    return Hard(
        lambda q: ((s * q) ** 2).sum() / 2,
        lambda q: s**2 * q,
        p,
        f"squares that matter by {2 * reach:.0f} decades",
        as_array=_sometimes(rng),
        entrywise=True,
    )


def _tiny_weights(rng: np.random.Generator) -> Hard:
    function = _a_model(rng).hard(as_array=_sometimes(rng))
    params = each(np.copy, function.params)
    for array in named(params).values():
        array[rng.random(array.shape) < 0.2] *= _decades(rng, -14, -6)
    return replace(function, params=params, described=f"{function.described}, some weights tiny")


def _two_scales(rng: np.random.Generator) -> Hard:
    speed = _decades(rng, 2, 11)
    p = rng.uniform(0.5, 2, int(rng.integers(1, 5)))
    return Hard(
        lambda q: (q**2 + np.sin(speed * q) / speed).sum(),
        lambda q: 2 * q + np.cos(speed * q),
        p,
        f"p^2 + sin({speed:.0e} p) / {speed:.0e}",
        as_array=_sometimes(rng),
        accuracy=max(1e-12, 1e-15 * speed),
        mistakes={"the second term forgotten": lambda q: 2 * q},
        undecidable="steps that suit p^2 see nothing of the sine" if speed > 3e6 else "",
    )


def extremes(rng: np.random.Generator) -> Hard:
    """Large constants, flat losses, and losses at the ends of the range of numbers."""
    choices = (_large_constant, _flat, _steps, _tiny_loss, _tiny_squares, _huge_loss)
    return choices[int(rng.integers(len(choices)))](rng)


def _large_constant(rng: np.random.Generator) -> Hard:
    function = _a_model(rng).hard(as_array=_sometimes(rng))
    times = _decades(rng, 3, 12)
    constant = times * (abs(float(function.loss(function.params))) or 1.0)
    return replace(
        function,
        loss=lambda p: function.loss(p) + constant,
        exact=function.loss,
        described=f"{function.described} and {times:.0e} times as much",
        undecidable="the constant's round-off hides the rest" if times > 1e9 else "",
    )


def _flat(rng: np.random.Generator) -> Hard:
    x = rng.normal(size=int(rng.integers(1, 8)))
    c = _decades(rng, -3, 3, x.size)
    p = x.copy()
    p[rng.random(x.size) < 0.3] += _decades(rng, -8, 0)
    slopes = 4 * c * (p - x) ** 3
    return Hard(
        lambda q: 1 + (c * (q - x) ** 4).sum(),
        lambda q: 4 * c * (q - x) ** 3,
        p,
        "1 + sum(c (p - x)^4)",
        undecidable="the gradient is lost in the rounding of 1" if 0 < np.abs(slopes * p).max() < 1e-9 else "",
    )


def _steps(rng: np.random.Generator) -> Hard:
    n = int(rng.integers(1, 8))
    p = rng.integers(-3, 4, n) + rng.uniform(0.01, 0.99, n)
    if _sometimes(rng, 0.3):
        return Hard(lambda q: np.floor(q.real).sum() + 0 * q.sum(), np.zeros_like, p, "sum(floor(p))", as_array=True)
    c = rng.normal(size=n)
    return Hard(lambda q: (np.floor(q.real) + c * np.sin(q)).sum(), lambda q: c * np.cos(q), p, "floors and a sine")


def _tiny_loss(rng: np.random.Generator) -> Hard:
    function = _a_model(rng).hard(as_array=_sometimes(rng))
    return _scaled(function, _decades(rng, -280, -150), 1.0)


def _tiny_squares(rng: np.random.Generator) -> Hard:
    size = _decades(rng, -163, -150)
    p = size * rng.choice([-1, 1], 5) * rng.uniform(0.5, 2, 5)
    return Hard(
        lambda q: (q**2).sum(),
        lambda q: 2 * q,
        p,
        f"squares of {size:.0e}",
        as_array=_sometimes(rng),
        truth=lambda: p + p,
        undecidable="the loss underflows" if size < 1e-157 else "",
    )


def _huge_loss(rng: np.random.Generator) -> Hard:
    return _scaled(_a_model(rng).hard(as_array=_sometimes(rng)), _decades(rng, 150, 295), 1.0)


def noise(rng: np.random.Generator) -> Hard:
    """Losses of a declared accuracy, and ones whose last bits differ from call to call."""
    choices = (_solver, _integrator, _any_order)
    return choices[int(rng.integers(len(choices)))](rng)


_COARSE = "the declared accuracy leaves a few per cent of the derivative"


def _root(a: Any, tolerance: float) -> Any:
    """Return x = cos(a x) by iteration, until x moves by no more than a tolerance."""
    x = 0.5 + 0 * a
    for _ in range(400):
        after = np.cos(a * x)
        if abs((after - x).real) <= tolerance:
            return after
        x = after
    return x


def _solver(rng: np.random.Generator) -> Hard:
    tolerance = _decades(rng, -12, -4)
    p = rng.uniform(0.2, 0.9, int(rng.integers(1, 4)))
    c = rng.uniform(0.5, 2, p.size)
    precise = _sometimes(rng)

    def value(q: Any, to: float) -> Any:
        return sum(weight * _root(entry, to) for weight, entry in zip(c, q, strict=True))

    def grad(q: Any) -> Any:
        x = np.array([_root(entry, 1e-15 if precise else tolerance) for entry in q])
        return -c * x * np.sin(q * x) / (1 + q * np.sin(q * x))

    # The iteration shrinks errors by less than 0.75 a step.
    bound = 3 * tolerance * float(c.sum())
    start = float(value(p, 1e-15))
    return Hard(
        lambda q: value(q, tolerance),
        grad,
        p,
        f"a root by iteration to {tolerance:.0e}",
        options=_accuracy(rng, bound, start),
        exact=_root_of_complex(c),
        accuracy=1e-12 if precise else 30 * tolerance,
        undecidable=_COARSE if bound > 4e-6 * abs(start) else "",
    )


def _root_of_complex(c: np.ndarray) -> Callable[[Any], Any]:
    """Return the sum of roots by as many iterations as their derivatives need."""

    def exact(q: Any) -> Any:
        x = 0.5 + 0 * q
        for _ in range(400):
            x = np.cos(q * x)
        return (c * x).sum()

    return exact


def _accuracy(rng: np.random.Generator, bound: float, value: float) -> dict[str, float]:
    """Return how a loss's accuracy is declared: as it is, or relative to the loss."""
    return {"noise": bound} if _sometimes(rng) else {"relative_noise": bound / abs(value)}


def _simpson(f: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Integrate by Simpson's rule, with intervals halved until they agree to a tolerance."""

    def part(a: float, b: float, fa: float, fm: float, fb: float, whole: float, allowed: float) -> float:
        m = (a + b) / 2
        left, right = f((a + m) / 2), f((m + b) / 2)
        halves = (m - a) / 6 * (fa + 4 * left + fm), (b - m) / 6 * (fm + 4 * right + fb)
        if abs(sum(halves) - whole) <= 15 * allowed or b - a < 1e-3:
            return sum(halves)
        return part(a, m, fa, left, fm, halves[0], allowed / 2) + part(m, b, fm, right, fb, halves[1], allowed / 2)

    fa, fm, fb = f(low), f((low + high) / 2), f(high)
    return part(low, high, fa, fm, fb, (high - low) / 6 * (fa + 4 * fm + fb), tolerance)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def _integrator(rng: np.random.Generator) -> Hard:
    """The integral of exp(-a t) sin(b t) + t c from 0 to 2."""
    tolerance = _decades(rng, -8, -4)
    t, w = NODES + 1, WEIGHTS

    def loss(p: Any) -> float:
        a, b, c = map(float, p)
        return _simpson(lambda s: math.exp(-a * s) * math.sin(b * s) + c * s, 0.0, 2.0, tolerance)

    def grad(p: Any) -> Any:
        decay = w * np.exp(-p[0] * t)
        return np.array([-(decay * t * np.sin(p[1] * t)).sum(), (decay * t * np.cos(p[1] * t)).sum(), (w * t).sum()])

    p = rng.uniform([0.1, 1, 0.5], [1, 6, 2])
    return Hard(
        loss,
        grad,
        p,
        f"adaptive integral to {tolerance:.0e}",
        options=_accuracy(rng, tolerance, loss(p)),
        exact=lambda q: (w * (np.exp(-q[0] * t) * np.sin(q[1] * t) + q[2] * t)).sum(),
        undecidable=_COARSE if tolerance > 4e-6 else "",
    )


def _any_order(rng: np.random.Generator) -> Hard:
    """A sum whose terms are added in another order at every call."""
    x = rng.normal(size=(100, int(rng.integers(1, 6))))
    order = np.random.default_rng(rng.integers(2**31))

    def loss(p: Any) -> Any:
        total = 0.0
        for term in np.tanh(x @ p)[order.permutation(len(x))]:
            total += term
        return total

    p = rng.normal(size=x.shape[1])
    return Hard(
        loss,
        lambda q: (1 - np.tanh(x @ q) ** 2) @ x,
        p,
        "a sum in random order",
        exact=lambda q: np.tanh(x @ q).sum(),
    )


class Bfloat16(np.ndarray):
    """float32 arrays whose every result is rounded to bfloat16; sums and products of matrices are at their end."""

    __array_priority__ = 1.0
    """So that what is joined of them is one."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(value) if isinstance(value, Bfloat16) else value for value in inputs]
        found = np.asarray(getattr(ufunc, method)(*plain, **options))
        return to_bfloat16(found) if found.dtype.kind == "f" else found


def to_bfloat16(array: Any) -> Bfloat16:
    """Round to the nearest, ties to even, numbers of 8 significant bits."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).view(Bfloat16)


ARITHMETICS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "float32": (lambda array: np.asarray(array, np.float32), 2.0**-24),
    "float16": (lambda array: np.asarray(array, np.float16), 2.0**-11),
    "bfloat16": (to_bfloat16, 2.0**-8),
}
"""What rounds an array, and the unit round-off."""


def precision(rng: np.random.Generator) -> Hard:
    """Gradients computed in float32, float16 and bfloat16, and losses in float32."""
    model = _a_model(rng)
    name = str(rng.choice([*ARITHMETICS]))
    rounded, unit = ARITHMETICS[name]
    data = each(lambda a: np.asarray(rounded(a), np.float64), model.data)  # the same for both, as one would test it
    whole = each(lambda a: np.asarray(rounded(a), np.float64), model.params)
    as_array, of_loss = _sometimes(rng), name == "float32" and _sometimes(rng)
    # A gradient function that rounds its argument; where arrays are given, they belong to the point as it is.
    params = model.params if not as_array and not of_loss and _sometimes(rng, 0.3) else whole
    stored = each(lambda a: a.astype(name), whole) if name != "bfloat16" and _sometimes(rng, 0.3) else params

    def low(p: Any) -> Any:
        return each(rounded, p)

    def grad(p: Any) -> Any:
        return each(np.asarray, model.grad(low(p), low(data)))

    def loss(p: Any) -> Any:
        return float(model.loss(low(p), low(data)) if of_loss else model.loss(p, data))

    told = {"precision": name} if name == "bfloat16" or (name == "float16" and as_array) else {}
    return Hard(
        loss,
        grad,
        stored,
        f"{model.name}, gradient {'' if as_array else 'function '}in {name}{', loss too' * of_loss}",
        options=told,
        as_array=as_array,
        exact=lambda p: model.loss(p, data),
        accuracy=25 * unit,
    )


def domains(rng: np.random.Generator) -> Hard:
    """Losses that raise, or are not a number, outside a domain whose edge is near."""
    choices = (_logarithms, _arcs, _barrier, _definite)
    return choices[int(rng.integers(len(choices)))](rng)


def _logarithms(rng: np.random.Generator) -> Hard:
    raises = _sometimes(rng)
    p = _decades(rng, -10, 2, int(rng.integers(2, 8)))
    return Hard(
        (lambda q: sum(map(math.log, q))) if raises else (lambda q: np.log(q).sum()),
        lambda q: 1 / q,
        p,
        f"logarithms{' that raise' * raises}",
        exact=lambda q: np.log(q).sum(),
        as_array=_sometimes(rng),
        entrywise=True,
    )


def _arcs(rng: np.random.Generator) -> Hard:
    """sqrt(1 - p^2), near its ends."""
    raises, n = _sometimes(rng), int(rng.integers(2, 6))
    p = rng.choice([-1, 1], n) * (1 - _decades(rng, -6, -0.3, n))
    return Hard(
        (lambda q: sum(math.sqrt(1 - x * x) for x in q)) if raises else (lambda q: np.sqrt(1 - q * q).sum()),
        lambda q: -q / np.sqrt(1 - q * q),
        p,
        f"arcs{' that raise' * raises}",
        exact=lambda q: np.sqrt(1 - q * q).sum(),
        as_array=_sometimes(rng),
    )


def _barrier(rng: np.random.Generator) -> Hard:
    """-sum(log(b - A p)) with one constraint nearly met."""
    a, p = rng.normal(size=(6, 4)), rng.normal(size=4)
    slack = rng.uniform(0.5, 2, 6)
    slack[int(rng.integers(6))] = _decades(rng, -7, -1)
    b = a @ p + slack

    def raising(q: Any) -> Any:
        left = b - a @ q
        if (left <= 0).any():
            raise ValueError("a constraint is broken")
        return -np.log(left).sum()

    def quiet(q: Any) -> Any:
        return -np.log(b - a @ q).sum()

    raises = _sometimes(rng)
    return Hard(
        raising if raises else quiet,
        lambda q: (1 / (b - a @ q)) @ a,
        p,
        f"a barrier at {slack.min():.0e}{' that raises' * raises}",
        exact=quiet,
        as_array=_sometimes(rng),
        accuracy=max(1e-12, 1e-14 / slack.min()),
    )


def _definite(rng: np.random.Generator) -> Hard:
    """log det by Cholesky of a diagonal plus a matrix, which is definite, but barely."""
    n = int(rng.integers(2, 6))
    factor = rng.normal(size=(n, n))
    p = rng.uniform(0.5, 2, n)
    fixed = factor @ factor.T
    edge = _decades(rng, -6, 0)
    fixed = fixed - np.eye(n) * (np.linalg.eigvalsh(fixed + np.diag(p))[0] - edge)

    def loss(q: Any) -> Any:
        return 2 * np.log(np.diag(np.linalg.cholesky(fixed + np.diag(q)))).sum()

    return Hard(
        loss,
        lambda q: np.diag(np.linalg.inv(fixed + np.diag(q))).copy(),
        p,
        f"Cholesky, {edge:.0e} from indefinite",
        exact=lambda q: _log_abs_det(fixed + np.diag(q)),
        as_array=_sometimes(rng),
        accuracy=max(1e-12, 1e-13 / edge),
    )


FAMILIES: dict[str, Callable[[np.random.Generator], Hard]] = {
    family.__name__: family for family in (smooth, kinks, matrices, scales, extremes, noise, precision, domains)
}
"""Each takes a generator and returns one of its functions."""


def draw(family: str, seed: int) -> Hard:
    """Return a function of a family: the same for the same seed."""
    return FAMILIES[family](np.random.default_rng([seed, *family.encode()]))
