"""PyTorch's own backward kernels, called by themselves: right as they are, wrong with the mistakes of such kernels."""

import numpy as np
import pytest
import torch
from foreign import Foreign, normals
from torch.nn.grad import conv1d_input, conv1d_weight, conv2d_input, conv2d_weight, conv3d_input, conv3d_weight

F, aten = torch.nn.functional, torch.ops.aten
torch.set_num_threads(1)  # more are slower for arrays this small

EPS = 1e-5
ALL, BOTH = [True] * 3, [True] * 2


def _tensors(*shapes, scale=1.0):
    return tuple(torch.from_numpy(scale * one) for one in normals(*shapes))


def _spread(*shape):
    """Return numbers of which no two are close, so that a maximum is no kink."""
    return (torch.from_numpy(np.random.default_rng(7).permutation(int(np.prod(shape))).reshape(shape) / 7.0),)


def _convolution(function, of_input, of_weight, x, w):
    options = {"stride": 1, "padding": 1}

    def right(v, x, w):
        return of_input(x.shape, w, v, **options), of_weight(x, w.shape, v, **options)

    return Foreign(
        lambda x, w: function(x, w, **options),
        right,
        _tensors(x, w),
        {
            "kernel not flipped": lambda v, x, w: (of_input(x.shape, w.flip(-1), v, **options), right(v, x, w)[1]),
            "filters and channels exchanged": lambda v, x, w: (
                of_input(x.shape, w.transpose(0, 1).contiguous(), v, **options),
                right(v, x, w)[1],
            ),
            "input shifted": lambda v, x, w: (right(v, x, w)[0], of_weight(x.roll(1, -1), w.shape, v, **options)),
        },
    )


def _elementwise(forward, backward, inputs, **mistakes):
    return Foreign(forward, backward, inputs, mistakes)


def _softmax(function, backward, **mistakes):
    def kernel(v, x):
        return backward(v, function(x, 1), 1, torch.float64)

    return Foreign(
        lambda x: function(x, 1),
        kernel,
        _tensors((3, 5, 2)),
        {
            "wrong axis": lambda v, x: backward(v, function(x, 1), 2, torch.float64),
            "input for output": lambda v, x: backward(v, x, 1, torch.float64),
        }
        | mistakes,
    )


def _layer_norm():
    shape = [6]

    def kernel(v, x, w, b, change=lambda mean, rstd: (mean, rstd)):
        mean, rstd = change(*aten.native_layer_norm(x, shape, w, b, EPS)[1:])
        return aten.native_layer_norm_backward(v, x, shape, mean, rstd, w, b, ALL)

    return Foreign(
        lambda x, w, b: aten.native_layer_norm(x, shape, w, b, EPS)[0],
        kernel,
        _tensors((4, 6), (6,), (6,)),
        {
            "another eps": lambda v, x, w, b: kernel(v, x, w, b, lambda mean, rstd: (mean, rstd * (1 + 1e-5))),
            "variance for its root": lambda v, x, w, b: kernel(v, x, w, b, lambda mean, rstd: (mean, rstd**2)),
            "statistics are constants": lambda v, x, w, b: (
                v * w * aten.native_layer_norm(x, shape, w, b, EPS)[2],
                *kernel(v, x, w, b)[1:],
            ),
        },
    )


def _group_norm():
    def run(*arrays, groups):
        arrays = [one.contiguous() for one in arrays]  # the kernel reads others wrongly; PyTorch calls it for none
        return arrays, *aten.native_group_norm(*arrays, 2, 4, 6, groups, EPS)

    def kernel(v, *arrays, groups=2):
        (x, w, _), _, mean, rstd = run(*arrays, groups=groups)
        return aten.native_group_norm_backward(v.contiguous(), x, mean, rstd, w, 2, 4, 6, groups, ALL)

    return Foreign(
        lambda *arrays: run(*arrays, groups=2)[1],
        kernel,
        _tensors((2, 4, 3, 2), (4,), (4,)),
        {
            "one group": lambda v, *arrays: kernel(v, *arrays, groups=1),
            "weight and bias exchanged": lambda v, *arrays: [kernel(v, *arrays)[place] for place in (0, 2, 1)],
        },
    )


def _batch_norm():
    def kernel(v, x, w, b, train=True):
        nothing, ones = torch.zeros(3, dtype=x.dtype), torch.ones(3, dtype=x.dtype)
        mean, rstd = aten.native_batch_norm(x, w, b, nothing, ones, True, 0.1, EPS)[1:]
        return aten.native_batch_norm_backward(v, x, w, mean, rstd**-2 - EPS, mean, rstd, train, EPS, ALL)

    def forward(x, w, b):
        return aten.native_batch_norm(x, w, b, None, None, True, 0.1, EPS)[0]

    return Foreign(
        forward,
        kernel,
        _tensors((4, 3, 5), (3,), (3,)),
        {
            "as if evaluating": lambda v, x, w, b: kernel(v, x, w, b, train=False),
            "weight forgotten": lambda v, x, w, b: (kernel(v, x, torch.ones_like(w), b)[0], *kernel(v, x, w, b)[1:]),
        },
    )


def _max_pool():
    options = ([2, 2], [2, 2], [1, 1], [1, 1], False)

    def kernel(v, x, change=lambda places: places):
        places = aten.max_pool2d_with_indices(x, *options)[1]
        return aten.max_pool2d_with_indices_backward(v, x, *options, change(places))

    return Foreign(
        lambda x: aten.max_pool2d_with_indices(x, *options)[0],
        kernel,
        _spread(2, 2, 4, 5),
        {
            "places of another sample": lambda v, x: kernel(v, x, lambda places: places.flip(0)),
            "first of a window": lambda v, x: kernel(v, x, lambda places: places - places % 2),
            "place 0 wins": lambda v, x: kernel(v, x, torch.zeros_like),
        },
    )


def _avg_pool():
    def kernel(v, x, padded=False):
        return aten.avg_pool2d_backward(v, x, [3, 3], [2, 2], [1, 1], False, padded, None)

    return Foreign(
        lambda x: aten.avg_pool2d(x, [3, 3], [2, 2], [1, 1], False, False, None),
        kernel,
        _tensors((1, 2, 5, 5)),
        {"padding counted": lambda v, x: kernel(v, x, padded=True), "not divided": lambda v, x: 9 * kernel(v, x)},
    )


def _embedding():
    tokens = torch.tensor([[3, 1, 3], [1, 0, 3]])

    def kernel(v, table, ids, padding=-1, by_count=False):
        return aten.embedding_dense_backward(v, ids, 5, padding, by_count)

    def last_wins(v, table, ids):
        grad = torch.zeros_like(table)
        grad[ids] = v
        return grad

    return Foreign(
        lambda table, ids: F.embedding(ids, table),
        lambda v, table, ids: (kernel(v, table, ids), None),
        (*_tensors((5, 3)), tokens),
        {
            "repeated tokens overwrite": lambda v, table, ids: (last_wins(v, table, ids), None),
            "token 0 is padding": lambda v, table, ids: (kernel(v, table, ids, padding=0), None),
            "divided by counts": lambda v, table, ids: (kernel(v, table, ids, by_count=True), None),
        },
    )


def _bilinear():
    def kernel(v, x, corners=False):
        return aten.upsample_bilinear2d_backward(v, [5, 7], x.shape, corners)

    return Foreign(
        lambda x: F.interpolate(x, (5, 7), mode="bilinear", align_corners=False),
        kernel,
        _tensors((1, 2, 3, 4)),
        {"corners aligned": lambda v, x: kernel(v, x, corners=True)},
    )


def _grid_sampler():
    def kernel(v, x, grid, padding=0):
        return aten.grid_sampler_2d_backward(v, x, grid, 0, padding, False, BOTH)

    return Foreign(
        lambda x, grid: F.grid_sample(x, grid, align_corners=False),
        kernel,
        (*_tensors((1, 2, 4, 4)), *_tensors((1, 3, 3, 2), scale=0.5)),
        {
            "axes of the grid exchanged": lambda v, x, grid: (kernel(v, x, grid)[0], kernel(v, x, grid)[1].flip(-1)),
            "border repeated": lambda v, x, grid: kernel(v, x, 2 * grid, padding=1),
        },
    )


def _attention():
    def run(*arrays, causal=True):
        # The kernel reads beyond arrays whose last axis is strided; PyTorch calls it for no others.
        arrays = [one.contiguous() for one in arrays]
        return arrays, *aten._scaled_dot_product_flash_attention_for_cpu(*arrays, 0.0, causal)

    def kernel(grad, *arrays, causal=True, scale=None):
        arrays, out, logs = run(*arrays, causal=causal)
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad.contiguous(), *arrays, out, logs, 0.0, causal, scale=scale
        )

    return Foreign(
        lambda *arrays: run(*arrays)[1],
        kernel,
        _tensors((1, 2, 4, 3), (1, 2, 4, 3), (1, 2, 4, 3)),
        {
            "not causal": lambda grad, *arrays: kernel(grad, *arrays, causal=False),
            "another scale": lambda grad, *arrays: kernel(grad, *arrays, scale=0.5),
            "heads exchanged": lambda grad, *arrays: [one.flip(1) for one in kernel(grad, *arrays)],
        },
    )


def _cdist():
    def kernel(v, x, y, p=2.0):
        distances = torch.cdist(x, y)
        first = aten._cdist_backward(v.contiguous(), x, y, p, distances)
        return first, aten._cdist_backward(v.mT.contiguous(), y, x, p, distances.mT.contiguous())

    return Foreign(
        torch.cdist,
        kernel,
        _tensors((4, 3), (5, 3)),
        {
            "another norm": lambda v, x, y: kernel(v, x, y, p=1.0),
            "sign of the second": lambda v, x, y: (kernel(v, x, y)[0], -kernel(v, x, y)[1]),
        },
    )


def _fold():
    options = ([2, 2], [1, 1], [1, 1], [2, 2])

    def kernel(v, x):
        return aten.col2im(v, [4, 5], *options)

    def taps_first(v, x):
        return aten.col2im(v.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2), [4, 5], *options)

    return Foreign(
        lambda x: aten.im2col(x, *options), kernel, _tensors((1, 2, 4, 5)), {"taps before channels": taps_first}
    )


def _nll():
    labels = torch.tensor([1, 0, 2, 1])

    def kernel(v, logs, weights, reduction=1):
        total = weights[labels].sum()
        return aten.nll_loss_backward(v, logs, labels, weights, reduction, -100, total), None

    weights = torch.tensor([1, 2, 3])  # of integers: nobody differentiates by them

    def forward(logs, weights):
        return F.nll_loss(logs, labels, weights.double())

    return Foreign(
        forward,
        lambda v, logs, weights: kernel(v, logs, weights.double()),
        (*_tensors((4, 3)), weights),
        {
            "sum for mean": lambda v, logs, weights: kernel(v, logs, weights.double(), reduction=2),
            "weights forgotten": lambda v, logs, weights: kernel(v, logs, torch.ones(3, dtype=torch.float64)),
        },
    )


KERNELS = {
    "conv1d": _convolution(F.conv1d, conv1d_input, conv1d_weight, (2, 3, 7), (3, 3, 3)),
    "conv2d": _convolution(F.conv2d, conv2d_input, conv2d_weight, (2, 3, 6, 6), (3, 3, 3, 3)),
    "conv3d": _convolution(F.conv3d, conv3d_input, conv3d_weight, (1, 2, 3, 3, 4), (2, 2, 3, 3, 3)),
    "gelu": _elementwise(
        F.gelu,
        aten.gelu_backward,
        _tensors((4, 5)),
        tanh=lambda v, x: aten.gelu_backward(v, x, approximate="tanh"),
        sigmoid=lambda v, x: v * torch.sigmoid(1.702 * x),
    ),
    "gelu by tanh": _elementwise(
        lambda x: F.gelu(x, approximate="tanh"),
        lambda v, x: aten.gelu_backward(v, x, approximate="tanh"),
        _tensors((4, 5)),
        exact=aten.gelu_backward,
    ),
    "silu": _elementwise(
        F.silu, aten.silu_backward, _tensors((4, 5)), of_output=lambda v, x: aten.silu_backward(v, F.silu(x))
    ),
    "softplus": _elementwise(
        lambda x: F.softplus(x, 2.0, 20.0),
        lambda v, x: aten.softplus_backward(v, x, 2.0, 20.0),
        _tensors((4, 5)),
        beta=lambda v, x: aten.softplus_backward(v, x, 1.0, 20.0),
    ),
    "elu": _elementwise(
        lambda x: F.elu(x, 0.7),
        lambda v, x: aten.elu_backward(v, 0.7, 1.0, 1.0, False, x),
        _tensors((4, 5)),
        input_as_result=lambda v, x: aten.elu_backward(v, 0.7, 1.0, 1.0, True, x),
    ),
    "glu": _elementwise(
        lambda x: F.glu(x, 1),
        lambda v, x: aten.glu_backward(v, x, 1),
        _tensors((3, 4, 2)),
        halves_exchanged=lambda v, x: aten.glu_backward(v, x, 1).roll(2, 1),
    ),
    "sigmoid": _elementwise(
        torch.sigmoid,
        lambda v, x: aten.sigmoid_backward(v, torch.sigmoid(x)),
        _tensors((4, 5)),
        of_input=aten.sigmoid_backward,
    ),
    "tanh": _elementwise(
        torch.tanh, lambda v, x: aten.tanh_backward(v, torch.tanh(x)), _tensors((4, 5)), of_input=aten.tanh_backward
    ),
    "huber": _elementwise(
        lambda x, y: F.huber_loss(x, y, delta=0.5),
        lambda v, x, y: [sign * aten.huber_loss_backward(v, x, y, 1, 0.5) for sign in (1, -1)],
        _tensors((4, 5), (4, 5)),
        both_plus=lambda v, x, y: [aten.huber_loss_backward(v, x, y, 1, 0.5)] * 2,
        of_smooth_l1=lambda v, x, y: [s * aten.smooth_l1_loss_backward(v, x, y, 1, 0.5) for s in (1, -1)],
    ),
    "softmax": _softmax(
        torch.softmax,
        aten._softmax_backward_data,
        **{"diagonal alone": lambda v, x: v * torch.softmax(x, 1) * (1 - torch.softmax(x, 1))},
    ),
    "log softmax": _softmax(
        torch.log_softmax, aten._log_softmax_backward_data, **{"mean forgotten": lambda v, x: v - torch.softmax(x, 1)}
    ),
    "layer norm": _layer_norm(),
    "group norm": _group_norm(),
    "batch norm": _batch_norm(),
    "max pool": _max_pool(),
    "average pool": _avg_pool(),
    "embedding": _embedding(),
    "bilinear": _bilinear(),
    "grid sampler": _grid_sampler(),
    "attention": _attention(),
    "distances": _cdist(),
    "patches": _fold(),
    "nll": _nll(),
    "reflection": _elementwise(
        lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
        lambda v, x: aten.reflection_pad2d_backward(v, x, [1, 2, 2, 1]),
        _tensors((1, 1, 4, 4)),
        cut_off=lambda v, x: v[..., 2:-1, 1:-2].clone(),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_pytorchs_kernels_pass_and_their_mistakes_fail(name):
    KERNELS[name].judge()
