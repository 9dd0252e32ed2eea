"""Random functions of a vector with gradients by the chain rule, and a few known ones."""

import numpy as np

UNITS = {
    "sin": (np.sin, np.cos),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "square": (np.square, lambda z: 2 * z),
    "cube": (lambda z: z**3, lambda z: 3 * z**2),
    "root": (lambda z: np.sqrt(1 + z * z), lambda z: z / np.sqrt(1 + z * z)),
    "log": (lambda z: np.log1p(z * z), lambda z: 2 * z / (1 + z * z)),
    "bell": (lambda z: 1 / (1 + z * z), lambda z: -2 * z / (1 + z * z) ** 2),
    "exp": (lambda z: np.exp(z / 4), lambda z: np.exp(z / 4) / 4),
    "softplus": (lambda z: np.logaddexp(0, z), lambda z: 1 / (1 + np.exp(-z))),
    "line": (lambda z: z, np.ones_like),
}
KINKED = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "abs": (np.abs, np.sign),
}


class RandomFunction:
    """scale * (c . u2(W2 u1(W1 x / size)) + offset), with u1 and u2 among the units."""

    def __init__(self, seed, units):
        rng = np.random.default_rng(seed)
        n, m, k = rng.integers(1, 8, 3)
        self.size = 10.0 ** rng.choice([0, 0, -8, 8, -3, 3])
        self.scale, self.offset = 10.0 ** rng.choice([0, 0, -8, 8]), rng.choice([0, 0, 1, 100])
        self.W1, self.W2, self.c = rng.normal(size=(m, n)), rng.normal(size=(k, m)) / np.sqrt(m), rng.normal(size=k)
        names = rng.choice(sorted(units), 2)
        self.units = [units[name] for name in names]
        x = [rng.normal(size=n), np.ones(n), rng.integers(-2, 3, n), rng.normal(size=n) * rng.integers(0, 2, n)]
        self.x = x[rng.integers(4)] * self.size
        self.described = f"seed {seed}: {' of '.join(names[::-1])}"

    def loss(self, x):
        (u1, _), (u2, _) = self.units
        return self.scale * (self.c @ u2(self.W2 @ u1(self.W1 @ (x / self.size))) + self.offset)

    def grad(self, x):
        (u1, d1), (_, d2) = self.units
        z1 = self.W1 @ (x / self.size)
        z2 = self.W2 @ u1(z1)
        back = ((self.c * d2(z2)) @ self.W2) * d1(z1)
        return self.scale * (back @ self.W1) / self.size


class Perceptron:
    """The cross-entropy of a two-layer network, in the dtype of its parameters' arithmetic."""

    def __init__(self, unit, seed=0):
        rng = np.random.default_rng(seed)
        self.unit, self.slope = {**UNITS, **KINKED}[unit]
        self.x, self.y = rng.normal(size=(20, 6)), rng.integers(0, 4, 20)
        self.params = {
            "hidden": {"w": rng.normal(size=(6, 8)) / 2, "b": np.zeros(8)},
            "out": {"w": rng.normal(size=(8, 4)) / 2, "b": rng.normal(size=4)},
        }
        self.params = {f"{layer}.{name}": a for layer, part in self.params.items() for name, a in part.items()}
        self.params["temperature"] = np.array(0.7)

    def loss(self, p):
        logits = self.unit(self.x @ p["hidden.w"] + p["hidden.b"]) @ p["out.w"] + p["out.b"]
        return np.mean(_surprise(logits * p["temperature"], self.y))

    def grad(self, p, dtype=np.float64):
        p = {name: array.astype(dtype) for name, array in p.items()}
        x = self.x.astype(dtype)
        z = x @ p["hidden.w"] + p["hidden.b"]
        h = self.unit(z)
        logits = h @ p["out.w"] + p["out.b"]
        scaled = logits * p["temperature"]
        q = np.exp(scaled - scaled.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        q[np.arange(20), self.y] -= 1
        q /= dtype(20)
        d = q * p["temperature"]
        back = (d @ p["out.w"].T) * self.slope(z).astype(dtype)
        return {
            "hidden.w": x.T @ back,
            "hidden.b": back.sum(0),
            "out.w": h.T @ d,
            "out.b": d.sum(0),
            "temperature": (q * logits).sum(),
        }


def _surprise(logits, y):
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]


def softmax_loss(seed=0, samples=30, features=8, classes=5):
    """Return (loss, grad, weights) of a linear classifier."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(samples, features)), rng.integers(0, classes, samples)

    def loss(w):
        return np.mean(_surprise(x @ w, y))

    def grad(w):
        z = x @ w
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(samples), y] -= 1
        return x.T @ p / samples

    return loss, grad, rng.normal(size=(features, classes))


class Counted:
    """A function that notes a copy of every argument it is called with."""

    def __init__(self, function):
        self._function = function
        self.arguments = []

    def __call__(self, params):
        self.arguments.append({k: v.copy() for k, v in params.items()} if isinstance(params, dict) else params.copy())
        return self._function(params)

    def __len__(self):
        return len(self.arguments)
