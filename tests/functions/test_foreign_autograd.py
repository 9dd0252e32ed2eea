"""HIPS autograd: its vector-Jacobian products are right, and those of another function are wrong."""

import numpy as np
import pytest
from foreign import normals, of_two

import fastcheck

autograd = pytest.importorskip("autograd")
import autograd.numpy as anp  # noqa: E402
import autograd.scipy as asp  # noqa: E402
from autograd.tracer import getval  # noqa: E402


def _vjp(function):
    def backward(v, *arrays):
        return tuple(autograd.make_vjp(function, place)(*arrays)[0](v) for place in range(len(arrays)))

    return backward


def _softmax(x, axis=-1):
    e = anp.exp(x - anp.max(x, axis=axis, keepdims=True))
    return e / anp.sum(e, axis=axis, keepdims=True)


def _normalised(x, g, mean=anp.mean, std=anp.std):
    return (x - mean(x, axis=0)) / std(x, axis=0) * g


def _recurrent(x, w, u, keep=lambda h: h):
    h = anp.zeros(u.shape[0])
    for row in x:
        h = anp.tanh(anp.dot(row, w) + anp.dot(keep(h), u))
    return h


def _attention(q, k, v, softmax=_softmax):
    return anp.dot(softmax(anp.dot(q, k.T) / 2), v)


def _definite(a):
    return anp.dot(a, a.T) + 3 * anp.eye(3)


FUNCTIONS = {
    "linear and tanh": (
        lambda x, w: anp.tanh(anp.dot(x, w)),
        lambda x, w: anp.tanh(anp.dot(getval(x), w)) + 0 * anp.sum(x),
        normals((3, 4), (4, 2)),
    ),
    "softmax": (_softmax, lambda x: _softmax(x, 0), normals((3, 4))),
    "maxima": (lambda x: anp.max(x, axis=1), lambda x: anp.mean(x, axis=1), normals((3, 4))),
    "sorted": (anp.sort, lambda x: anp.sort(x)[::-1], normals((6,))),
    "cumulative sums": (
        lambda x: anp.cumsum(x, axis=0),
        lambda x: anp.cumsum(x[::-1], axis=0)[::-1],
        normals((3, 4)),
    ),
    "einsum": (
        lambda x, y: anp.einsum("ij,kj->ik", x, y),
        lambda x, y: anp.einsum("ij,kj->ki", x, y).T * 1.000001,
        normals((3, 4), (2, 4)),
    ),
    "deviations": (
        lambda x: anp.std(x, axis=0),
        lambda x: anp.std(x, axis=0, ddof=1),
        normals((5, 3)),
    ),
    "normalisation": (
        _normalised,
        lambda x, g: _normalised(x, g, mean=lambda x, axis: getval(anp.mean(x, axis=axis))),
        normals((5, 3), (3,)),
    ),
    "solve": (
        lambda a, b: anp.linalg.solve(a + 3 * anp.eye(3), b),
        lambda a, b: anp.linalg.solve(a.T + 3 * anp.eye(3), b),
        normals((3, 3), (3, 2)),
    ),
    "determinant": (anp.linalg.det, lambda a: anp.linalg.slogdet(a)[1], normals((3, 3))),
    "cholesky": (
        lambda a: anp.linalg.cholesky(_definite(a)),
        lambda a: anp.linalg.cholesky(_definite(a.T)),
        normals((3, 3)),
    ),
    "eigenvalues": (
        lambda a: anp.linalg.eigh(_definite(a))[0],
        lambda a: anp.linalg.eigh(_definite(a))[0][::-1],
        normals((3, 3)),
    ),
    "singular values": (
        lambda a: anp.linalg.svd(a, compute_uv=False),
        lambda a: anp.linalg.svd(a, compute_uv=False) ** 2,
        normals((4, 3)),
    ),
    "convolution": (
        lambda x, w: asp.signal.convolve(x, w, mode="valid"),
        lambda x, w: asp.signal.convolve(x, w[::-1], mode="valid"),
        normals((7,), (3,)),
    ),
    "log of a sum": (
        lambda x: asp.special.logsumexp(x, axis=1),
        lambda x: anp.max(x, axis=1),
        normals((3, 4)),
    ),
    "recurrent": (
        _recurrent,
        lambda x, w, u: _recurrent(x, w, u, keep=getval),
        normals((4, 2), (2, 3), (3, 3)),
    ),
    "attention": (
        _attention,
        lambda q, k, v: _attention(q, k, v, softmax=lambda x: _softmax(x, 0)),
        normals((3, 4), (5, 4), (5, 2)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autograds_products_pass_and_those_of_another_function_fail(name):
    function, other, inputs = FUNCTIONS[name]
    of_two(_vjp, lambda one: one, function, other, inputs).judge()


def test_gradients_of_scalars():
    def loss(x):
        return anp.sum(anp.sin(x) ** 2) + anp.linalg.norm(x)

    (x,) = normals((4, 3))
    grad = autograd.grad(loss)
    assert fastcheck.check_gradient(loss, grad, x)
    assert fastcheck.check_gradient(loss, lambda at: grad(at) - at / np.linalg.norm(at), x).verdict == "fail"
