"""Gradient rules of JAX, optax and jaxopt, which nobody here wrote: right as they are, wrong with a wrong entry."""

import functools

import numpy as np
import pytest

import fastcheck

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402


def _normal(*shape, seed=7):
    return np.random.default_rng(seed).normal(size=shape)


def _definite(size):
    a = _normal(size, size)
    return a @ a.T + size * np.eye(size)


def _spoiled(function):
    """Return a function with the same gradient, but for one entry of each leaf that is off by a millionth."""

    @jax.custom_vjp
    def spoiled(*args):
        return function(*args)

    def backward(kept, cotangent):
        _, vjp = jax.vjp(function, *kept)
        return jax.tree.map(_with_one_wrong, vjp(cotangent))

    spoiled.defvjp(lambda *args: (function(*args), args), backward)
    return spoiled


def _with_one_wrong(gradient):
    flat = gradient.reshape(-1)
    return flat.at[jnp.abs(flat).argmax()].multiply(1 + 1e-6).reshape(gradient.shape)


def _judge(function, args):
    report = fastcheck.jax.check(function, *args)
    assert report.passed, report.summary()
    assert {finding.name for finding in report.health} <= {"double precision", "narrower types"}
    wrong = fastcheck.jax.check(_spoiled(function), *args)
    counts = {name: tensor.beyond_error_bar for name, tensor in wrong.tensors.items()}
    assert counts == dict.fromkeys(report.tensors, 1)


FUNCTIONS = {
    "relu": (jax.nn.relu, [_normal(4, 5)]),
    "relu6": (lambda x: jax.nn.relu6(4 * x), [_normal(4, 5)]),
    "silu": (jax.nn.silu, [_normal(4, 5)]),
    "gelu": (functools.partial(jax.nn.gelu, approximate=False), [_normal(4, 5)]),
    "softplus": (jax.nn.softplus, [_normal(4, 5)]),
    "softmax": (jax.nn.softmax, [_normal(4, 5)]),
    "logsumexp": (jax.nn.logsumexp, [_normal(4, 5)]),
    "log softmax": (functools.partial(jax.nn.log_softmax, axis=0), [_normal(4, 5)]),
    "inverse": (jnp.linalg.inv, [_definite(4)]),
    "solve": (jnp.linalg.solve, [_definite(4), _normal(4, 2)]),
    "slogdet": (lambda a: jnp.linalg.slogdet(a)[1], [_definite(4)]),
    "singular values": (functools.partial(jnp.linalg.svd, compute_uv=False), [_normal(4, 3)]),
    "qr": (jnp.linalg.qr, [_normal(4, 3)]),
    "norm": (jnp.linalg.norm, [_normal(4, 3)]),
    "a loop": (lambda y: jax.lax.fori_loop(0, 3, lambda _, y: y + jnp.sin(y), y), [_normal(3)]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jax(name):
    _judge(*FUNCTIONS[name])


def _optax(name):
    optax = pytest.importorskip("optax")
    labels = np.array([0, 2, 1, 2])
    return {
        "poly loss": (lambda z: optax.losses.poly_loss_cross_entropy(z, np.eye(3)[labels]), [_normal(4, 3)]),
        "sparsemax": (lambda z: optax.losses.multiclass_sparsemax_loss(z, labels), [_normal(4, 3)]),
        "sigmoid loss": (lambda z: optax.losses.sigmoid_binary_cross_entropy(z, labels % 2), [_normal(4)]),
        "simplex": (optax.projections.projection_simplex, [_normal(6)]),
        "ctc": (
            lambda z: optax.losses.ctc_loss(z, np.zeros((2, 5)), np.array([[1, 2], [2, 2]]), np.zeros((2, 2))),
            [_normal(2, 5, 3)],
        ),
    }[name]


@pytest.mark.parametrize("name", ["poly loss", "sparsemax", "sigmoid loss", "simplex", "ctc"])
def test_optax(name):
    _judge(*_optax(name))


def _ridge(x):
    """Return jaxopt's implicitly differentiated solution of a least-squares problem."""
    jaxopt = pytest.importorskip("jaxopt")

    def optimality(w, alpha, y):
        return x.T @ (x @ w - y) + alpha * w

    @jaxopt.implicit_diff.custom_root(optimality)
    def solved(start, alpha, y):
        del start
        return jnp.linalg.solve(x.T @ x + alpha * jnp.eye(3), x.T @ y)

    return functools.partial(solved, None)


@pytest.mark.filterwarnings("ignore")
def test_jaxopt():
    _judge(_ridge(_normal(6, 3)), [0.7, _normal(6, seed=8)])
    _judge(pytest.importorskip("jaxopt").projection.projection_l2_ball, [_normal(6), 0.5])


def test_attention_whose_softmax_is_in_float32():
    arrays = [_normal(1, 4, 2, 3, seed=seed) for seed in (1, 2, 3)]
    report = fastcheck.jax.check(jax.nn.dot_product_attention, *arrays)
    assert report.passed
    assert [finding.name for finding in report.health] == ["accuracy of forward", "double precision", "narrower types"]

    def wrong(q, k, v):
        return jax.nn.dot_product_attention(q, jax.lax.stop_gradient(k), v)

    assert fastcheck.jax.check(wrong, *arrays).verdict == "fail"
