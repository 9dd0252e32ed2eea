"""MyGrad: what its tensors propagate back is right, and what those of another function propagate is wrong."""

import pytest
from foreign import normals, of_two

mygrad = pytest.importorskip("mygrad")
from mygrad.nnet import activations, layers, losses  # noqa: E402


def _forward(function):
    return lambda *arrays: function(*map(mygrad.tensor, arrays)).data


def _vjp(function):
    def backward(v, *arrays):
        tensors = [mygrad.tensor(one) for one in arrays]
        function(*tensors).backward(v)
        return [one.grad for one in tensors]

    return backward


LABELS = [2, 0, 1, 2]

FUNCTIONS = {
    "matrices": (
        mygrad.matmul,
        lambda x, w: mygrad.matmul(x[::-1], w),
        normals((3, 4), (4, 2)),
    ),
    "einsum": (
        lambda x, y: mygrad.einsum("ij,kj->ik", x, y),
        lambda x, y: mygrad.einsum("ij,kj->ik", x, y[:, ::-1]),
        normals((3, 4), (2, 4)),
    ),
    "broadcasting": (
        lambda x, b: x * b + b,
        lambda x, b: x * b,
        normals((3, 4), (4,)),
    ),
    "convolution": (
        lambda x, w: layers.conv_nd(x, w, stride=2, padding=1),
        lambda x, w: layers.conv_nd(x, w[..., ::-1], stride=2, padding=1),
        normals((2, 2, 5, 5), (3, 2, 3, 3)),
    ),
    "max pool": (
        lambda x: layers.max_pool(x, (2, 2), 2),
        lambda x: mygrad.mean(x.reshape(1, 2, 2, 2, 2, 2), axis=(3, 5)),
        normals((1, 2, 4, 4)),
    ),
    "batch norm": (
        lambda x, g, b: layers.batchnorm(x, gamma=g, beta=b, eps=1e-5),
        lambda x, g, b: layers.batchnorm(x, gamma=g, beta=b, eps=1e-4),
        normals((5, 3), (3,), (3,)),
    ),
    "softmax": (activations.softmax, lambda x: activations.softmax(x, axis=0), normals((3, 4))),
    "elu": (lambda x: activations.elu(x, 0.9), lambda x: activations.elu(x, 1.0), normals((3, 4))),
    "selu": (activations.selu, lambda x: activations.elu(x, 1.6732), normals((3, 4))),
    "cross entropy": (
        lambda x: losses.softmax_crossentropy(x, LABELS),
        lambda x: losses.softmax_crossentropy(x, LABELS[::-1]),
        normals((4, 3)),
    ),
    "focal loss": (
        lambda x: losses.softmax_focal_loss(x, LABELS, alpha=0.5, gamma=2),
        lambda x: losses.softmax_focal_loss(x, LABELS, alpha=0.5, gamma=1.9),
        normals((4, 3)),
    ),
    "deviations": (
        lambda x: mygrad.std(x, axis=0),
        lambda x: mygrad.std(x, axis=0, ddof=1),
        normals((5, 3)),
    ),
    "cumulative products": (
        lambda x: mygrad.cumprod(x, axis=1),
        lambda x: mygrad.cumprod(x[:, ::-1], axis=1),
        normals((3, 4)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_mygrads_gradients_pass_and_those_of_another_function_fail(name):
    function, other, inputs = FUNCTIONS[name]
    of_two(_vjp, _forward, function, other, inputs).judge()
