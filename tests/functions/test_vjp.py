"""check_vjp: right backward passes pass, and each has wrong siblings that fail."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcheck
from fastcheck import FastcheckError, check_gradient, check_vjp
from fastcheck.reports.reader import from_json

F = torch.nn.functional
torch.set_num_threads(1)  # more are slower for arrays this small


def _rng(seed=7):
    return np.random.default_rng(seed)


def _names(report):
    assert from_json(report.to_json()).to_dict() == report.to_dict()
    return [finding.name for finding in report.health]


class Torch:
    """A function of tensors, as forward and backward of NumPy's arrays; autograd is the backward pass."""

    def __init__(self, function):
        self._function = function

    def _run(self, arguments):
        made = [torch.as_tensor(one) if isinstance(one, np.ndarray) else one for one in arguments]
        made = [one.requires_grad_() if torch.is_tensor(one) and one.is_floating_point() else one for one in made]
        return made, self._function(*made)

    def forward(self, *arguments):
        out = self._run(arguments)[1]
        return tuple(one.detach().numpy() for one in out) if isinstance(out, tuple) else out.detach().numpy()

    def backward(self, v, *arguments):
        made, out = self._run(arguments)
        outs, cotangents = (out, v) if isinstance(out, tuple) else ((out,), (v,))
        wanted = [one for one in made if torch.is_tensor(one) and one.requires_grad]
        grads = iter(torch.autograd.grad(outs, wanted, [torch.as_tensor(np.array(one)) for one in cotangents]))
        return tuple(next(grads).numpy() if torch.is_tensor(one) and one.requires_grad else None for one in made)


def _attention(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v


def _cross_entropy(z, labels):
    return F.cross_entropy(z, labels)


def _lstm_cell(x, h, c, w, u, b):
    i, f, g, o = (x @ w + h @ u + b).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _normals(*shapes, seed=7):
    rng = _rng(seed)
    return tuple(rng.normal(size=shape) for shape in shapes)


LABELS, TOKENS = np.array([1, 0, 4, 2]), np.array([[3, 1], [1, 0]])

FUNCTIONS = {
    "linear": (lambda x, w, b: x @ w + b, _normals((3, 5), (5, 4), (4,))),
    "conv": (lambda x, w, b: F.conv2d(x, w, b, padding=1, stride=2), _normals((2, 3, 5, 5), (4, 3, 3, 3), (4,))),
    "layer norm": (lambda x, g, b: F.layer_norm(x, (6,), g, b), _normals((3, 6), (6,), (6,))),
    "softmax cross entropy": (_cross_entropy, (*_normals((4, 5)), LABELS)),
    "attention": (_attention, _normals((2, 4, 3), (2, 5, 3), (2, 5, 2))),
    "embedding": (F.embedding, (TOKENS, *_normals((5, 3)))),
    "two outputs": (_lstm_cell, _normals((2, 3), (2, 4), (2, 4), (3, 16), (4, 16), (16,))),
    "a number": (lambda x, t: torch.exp(x * t), (np.array(0.3), np.array(-1.2))),
    "relu": (torch.relu, _normals((4, 5))),
    "max pool": (lambda x: F.max_pool2d(x, 2), _normals((2, 2, 4, 4))),
    "gelu": (F.gelu, _normals((3, 4))),
    "batch statistics": (lambda x: F.batch_norm(x, None, None, training=True), _normals((6, 3))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autograd_passes_and_one_wrong_entry_of_each_tensor_is_found(name):
    function, inputs = FUNCTIONS[name]
    made = Torch(function)
    report = check_vjp(made.forward, made.backward, inputs)
    assert report.passed, report.summary()
    assert report.health == ()
    differentiated = [f"input {i}" for i, one in enumerate(inputs) if one.dtype.kind == "f"]
    assert list(report.tensors) == differentiated
    assert all(tensor.dims_checked == tensor.dims_total for tensor in report.tensors.values())

    def backward(v, *arguments):
        """Spoil one entry of every gradient."""
        grads = [one if one is None else one.copy() for one in made.backward(v, *arguments)]
        for grad in grads:
            if grad is not None:
                grad.flat[np.abs(grad).argmax()] *= 1 + 1e-7
        return grads

    wrong = check_vjp(made.forward, backward, inputs)
    assert {name: tensor.beyond_error_bar for name, tensor in wrong.tensors.items()} == dict.fromkeys(differentiated, 1)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=0, max_size=3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["sum over the wrong axis", "sign", "a missing term"]),
    st.integers(0, 1000),
)
def test_any_shape(batch, rows, columns, mistake, seed):
    """y = tanh(x w) + c, with batch axes that the gradients of w and c sum over."""
    x, w, c = _normals((*batch, rows), (rows, columns), (columns,), seed=seed)

    def forward(x, w, c):
        return np.tanh(x @ w) + c

    def backward(v, x, w, c, wrong=False):
        u = v * (1 - np.tanh(x @ w) ** 2 * (not wrong or mistake != "a missing term"))
        flat = x.reshape(-1, rows), u.reshape(-1, columns)
        dx = u @ w.T * (-1 if wrong and mistake == "sign" else 1)
        dc = v.reshape(-1, columns).sum(0)
        return dx, flat[0].T @ flat[1], np.full(columns, dc.sum()) if wrong and "axis" in mistake else dc

    assert check_vjp(forward, backward, (x, w, c)).passed
    # One column has one sum, whatever the axis.
    alike = "axis" in mistake and columns == 1
    report = check_vjp(forward, lambda *a: backward(*a, wrong=True), (x, w, c))
    assert report.verdict == ("pass" if alike else "fail")


# The course's pairs


def affine_forward(x, w, b):
    out = x.reshape(x.shape[0], -1).dot(w) + b
    cache = (x, w, b)
    return out, cache


def affine_backward(dout, cache):
    x, w, b = cache  # noqa: RUF059
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    db = np.sum(dout, axis=0)
    return dx, dw, db


def batchnorm_forward(x, gamma, beta):
    mu = np.mean(x, axis=0)
    xmu = x - mu
    var = np.mean(xmu**2, axis=0)
    ivar = 1.0 / np.sqrt(var + 1e-5)
    xhat = xmu * ivar
    out = gamma * xhat + beta
    cache = (xhat, gamma, xmu, ivar)
    return out, cache


def batchnorm_backward(dout, cache):
    xhat, gamma, xmu, ivar = cache
    N, D = dout.shape  # noqa: RUF059
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dvar = -0.5 * ivar**3 * divar
    dxmu = dxhat * ivar + 2.0 / N * xmu * dvar
    dmu = -np.sum(dxmu, axis=0)
    dx = dxmu + dmu / N
    return dx, dgamma, dbeta


SIBLINGS = {
    "affine": (
        affine_forward,
        affine_backward,
        {"x": (3, 2, 4), "w": (8, 8), "b": (8,)},
        {
            "transposed": ("dout.dot(w.T)", "dout.dot(w)", ["x"]),
            "sum over the wrong axis": ("np.sum(dout, axis=0)", "np.full(8, np.sum(dout, axis=1).mean())", ["b"]),
            "sign": ("dw = x.", "dw = -x.", ["w"]),
        },
    ),
    "batchnorm": (
        batchnorm_forward,
        batchnorm_backward,
        {"x": (6, 4), "gamma": (4,), "beta": (4,)},
        {
            "missing term": ("dx = dxmu + dmu / N", "dx = dxmu", ["x"]),
            "missing variance": (" + 2.0 / N * xmu * dvar", "", ["x"]),
            "sum over the wrong axis": ("dgamma = np.sum(dout * xhat, axis=0)", "dgamma = xhat.sum(0)", ["gamma"]),
            "sign": ("dvar = -0.5", "dvar = 0.5", ["x"]),
        },
    ),
}


@pytest.mark.parametrize(("pair", "mistake"), [(pair, mistake) for pair in SIBLINGS for mistake in SIBLINGS[pair][3]])
def test_the_courses_pairs_as_they_stand(pair, mistake):
    forward, backward, shapes, mistakes = SIBLINGS[pair]
    inputs = dict(zip(shapes, _normals(*shapes.values()), strict=True))
    for form in (inputs, tuple(inputs.values())):
        report = check_vjp(forward, backward, form, has_cache=True)
        assert report.passed, report.summary()
        assert report.health == ()
    before, after, wrong = mistakes[mistake]
    source = inspect.getsource(backward)
    assert before in source
    names = {"np": np}
    exec(source.replace(before, after), names)
    report = check_vjp(forward, names[backward.__name__], inputs, has_cache=True)
    failing = [name for name, tensor in report.tensors.items() if tensor.verdict == "fail"]
    assert failing == wrong


def test_a_dict_is_passed_as_keywords_and_its_gradient_is_a_dict():
    def forward(*, x, scale):
        return {"y": scale * np.sin(x), "total": np.sum(x**2)}

    def backward(v, *, x, scale):
        dx = v["y"] * scale * np.cos(x) + v["total"] * 2 * x
        return {"scale": (v["y"] * np.sin(x)).sum(), "x": dx}

    inputs = {"x": _normals((4,))[0], "scale": np.array(1.7)}
    report = check_vjp(forward, backward, inputs)
    assert report.passed, report.summary()
    assert list(report.tensors) == ["x", "scale"]
    wrong = check_vjp(forward, lambda v, **i: backward(v, **i) | {"x": v["y"] * i["scale"] * np.cos(i["x"])}, inputs)
    assert {name: tensor.verdict for name, tensor in wrong.tensors.items()} == {"x": "fail", "scale": "pass"}


def test_a_single_array_in_and_out():
    x = _normals((3, 4))[0]
    for result in (lambda v, x: v * np.cos(x), lambda v, x: (v * np.cos(x),), lambda v, x: [v * np.cos(x)]):
        assert check_vjp(np.sin, result, x).passed
    for inputs in ((x,), [x], {"x": x}):
        assert check_vjp(lambda x: np.sin(x), lambda v, x: v * np.cos(x), inputs).passed
    assert not check_vjp(np.sin, lambda v, x: v * np.sin(x), x).passed


def test_other_arguments_are_passed_on():
    seen = []

    def forward(x, rows, factor, mode, mask):
        seen.append((type(rows), rows.dtype, factor, mode, mask.dtype))
        return factor * x[rows] * mask

    def backward(v, x, rows, factor, mode, mask):
        grad = np.zeros_like(x)
        np.add.at(grad, rows, factor * v * mask)
        return grad

    inputs = (_normals((5,))[0], np.array([0, 3, 3]), 2.5, "sum", np.array([False, True, True]))
    for returned in (backward, lambda *a: (backward(*a), None, None, None, None)):
        report = check_vjp(forward, returned, inputs)
        assert report.passed, report.summary()
        assert list(report.tensors) == ["input 0"]
    assert set(seen) == {(np.ndarray, np.dtype(int), 2.5, "sum", np.dtype(bool))}

    def overwriting(v, x, rows, factor, mode, mask):
        grad = np.zeros_like(x)
        grad[rows] = factor * v * mask  # of a row that is used twice, the last one stays
        return grad

    assert not check_vjp(forward, overwriting, inputs).passed


def test_integer_outputs_have_no_cotangent():
    seen = []

    def forward(x):
        return np.max(x, -1), np.argmax(x, -1)

    def backward(v, x):
        seen.append(v[1])
        grad = np.zeros_like(x)
        grad[np.arange(len(x)), x.argmax(-1)] = v[0]
        return grad

    x = _normals((4, 6))[0]
    assert check_vjp(forward, backward, x).passed
    assert set(seen) == {None}
    assert not check_vjp(forward, lambda v, x: backward(v, x) + 1e-9 * v[0][:, None], x).passed


def test_every_call_gets_new_memory():
    kept = []

    def forward(x, w):
        kept.append((x, w, x.copy(), w.copy()))
        return x * w

    def backward(v, x, w):
        kept.append((v, x, v.copy(), x.copy()))
        return v * w, v * x

    inputs = _normals((3,), (3,))
    before = [one.copy() for one in inputs]
    assert check_vjp(forward, backward, inputs, dims=2).passed
    assert len({id(one) for pair in kept for one in pair[:2]}) == 2 * len(kept)
    assert all(np.array_equal(call[place], call[place + 2]) for call in kept for place in (0, 1))
    assert all(map(np.array_equal, inputs, before))


# Noise


def test_outputs_that_do_not_move_add_no_noise():
    """A count of 1e9 beside sines: their weighted sum is rounded to 1e-7."""
    x = _normals((6,))[0]

    def forward(x):
        return np.sin(x), np.array(1e9)

    def backward(v, x):
        return v[0] * np.cos(x)

    report = check_vjp(forward, backward, x, keep=True)
    assert report.passed
    assert report.tensors["input 0"].error_bar.max() < 1e-11
    summed = check_gradient(lambda x: float(forward(x)[0].sum() + 1e9), np.cos, x, keep=True)
    assert summed.tensors["params"].error_bar.min() > 1e-7

    def wrong(v, x):
        return backward(v, x) * np.where(np.arange(6) == 3, 1 + 1e-9, 1)

    assert check_vjp(forward, wrong, x).tensors["input 0"].first_beyond == (3,)


def test_a_forward_that_rounds_its_inputs_is_not_taken_for_flat():
    x, w = _normals((4, 3), (3, 5))

    def forward(x, w):
        return (x.astype(np.float32) @ w.astype(np.float32)).astype(np.float64)

    def backward(v, x, w):
        return v @ w.T, x.T @ v

    report = check_vjp(forward, backward, (x, w), keep=True)
    assert report.passed, report.summary()
    assert report.tensors["input 0"].error_bar.min() > 1e-9
    for factor in (0.0, -1.0, 1.01):
        report = check_vjp(forward, lambda *a, factor=factor: [factor * g for g in backward(*a)], (x, w))
        assert report.verdict == "fail"


def test_saturated_outputs_never_move_and_are_not_taken_for_constants():
    x, scale = _normals((4,))[0], np.array([40.0, 20.0, 1.0, 0.1])

    def forward(x):
        return np.tanh(scale * x + scale)

    def backward(v, x):
        return v * scale / np.cosh(scale * x + scale) ** 2

    report = check_vjp(forward, backward, x)
    assert report.passed, report.summary()
    assert (np.abs(forward(x)) == 1).any()
    wrong = check_vjp(forward, lambda v, x: backward(v, x) + np.array([1e-9, 0, 0, 0]) * v, x)
    assert wrong.tensors["input 0"].first_beyond == (0,)


def test_an_input_that_no_output_reads_has_zeros():
    x, w = _normals((3,), (2,))
    assert check_vjp(lambda x, w: np.sin(x), lambda v, x, w: (v * np.cos(x), np.zeros(2)), (x, w)).passed
    wrong = check_vjp(lambda x, w: np.sin(x), lambda v, x, w: (v * np.cos(x), np.full(2, 1e-12)), (x, w))
    assert wrong.tensors["input 1"].verdict == "fail"


def test_declared_accuracy_enters_the_bars():
    x = _normals((4,))[0]

    def forward(x):
        return np.round(np.sin(x), 6)

    def backward(v, x):
        return v * np.cos(x) * (1 + 1e-5)

    assert check_vjp(forward, backward, x, noise=1e-6).verdict != "fail"
    report = check_vjp(forward, backward, x, relative_noise=1e-4)
    assert report.verdict != "fail"
    assert _names(report)[0] == "accuracy of forward"
    assert check_vjp(forward, lambda v, x: 2 * backward(v, x), x, noise=1e-6).verdict == "fail"


def test_outputs_that_differ_in_their_last_bits_are_measured():
    rng, x = _rng(), _normals((3, 40))[0]

    def forward(x):
        total = np.zeros(3)
        for column in rng.permutation(40):
            total = total + np.sin(x[:, column])
        return total

    report = check_vjp(forward, lambda v, x: v[:, None] * np.cos(x), x)
    assert report.passed, report.summary()
    assert _names(report) == ["forward wavers"]
    assert check_vjp(forward, lambda v, x: 1.001 * v[:, None] * np.cos(x), x).verdict == "fail"


def test_dropout_left_on_is_refused():
    rng, x = _rng(), _normals((30,))[0]
    with pytest.raises(FastcheckError, match=r"forward returns other outputs when it is called again .* dropout mask"):
        check_vjp(lambda x: x * rng.integers(0, 2, 30), lambda v, x: v, x)
    mask = rng.integers(0, 2, 30)
    assert check_vjp(lambda x: x * mask, lambda v, x: v * mask, x).passed


# Types


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_float32_and_half_through_a_reference(kind):
    """Forward and backward take and return one type; what is differenced is float64."""
    x, w = (array.astype(kind) for array in _normals((5, 4), (4, 3)))
    seen = set()

    def forward(x, w):
        seen.add(x.dtype)
        return np.tanh(x @ w)

    def backward(v, x, w):
        seen.add(v.dtype)
        u = v * (1 - np.tanh(x @ w) ** 2)
        return u @ w.T, x.T @ u

    def reference(x, w):
        assert x.dtype == np.float64
        return np.tanh(x @ w)

    report = check_vjp(forward, backward, (x, w), reference=reference)
    assert report.verdict != "fail", report.summary()
    assert report.passed or kind == np.float16
    assert seen == {np.dtype(kind)}
    assert report.forward.passed
    assert report.requested["reference"] is True
    assert _names(report) == ["reference"]
    for wrong in (lambda v, x, w: [-g for g in backward(v, x, w)], lambda v, x, w: (v @ w.T, backward(v, x, w)[1])):
        assert check_vjp(forward, wrong, (x, w), reference=reference).verdict == "fail"


def test_forward_may_be_its_own_reference():
    x = _normals((6,))[0].astype(np.float32)
    report = check_vjp(np.sin, lambda v, x: v * np.cos(x), x, reference=np.sin, keep=True)
    assert report.passed
    assert 0 < report.forward.norm_ratio < 1e-7
    assert report.tensors["input 0"].error_bar.max() < 1e-5


def test_another_function_as_reference_stops_the_check():
    x = _normals((6,))[0].astype(np.float32)
    report = check_vjp(np.sin, lambda v, x: v * np.cos(x), x, reference=np.cos)
    assert report.verdict == "fail"
    assert report.tensors == {}
    assert report.forward.diagnosis["bug"] == "forward and reference differ in output"
    text = str(report)
    assert "forward is not what reference computes" in text
    assert "largest at index" in text
    assert check_vjp(np.sin, lambda v, x: v * np.cos(x), x, reference=lambda x: np.sin(x * (1 + 1e-7))).forward.passed


SATURATED = {
    "softmax": (
        lambda z, w: torch.softmax(z, -1) @ w,
        (np.array([[9.0, -3.0, 1.0], [4.0, 16.5, 1.0]]), _normals((3, 2))[0]),
    ),
    "tanh": (lambda z, w: torch.tanh(torch.tanh(z) @ w), (_normals((2, 3))[0], 5 * np.ones((3, 2)))),
}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("has_reference", [True, False])
def test_float32_behind_saturated_units(name, has_reference):
    """What is left of 1 - y^2 is a few roundings, and the same ones at all points near."""
    function, inputs = SATURATED[name]
    inputs = [torch.tensor(one, dtype=torch.float32) for one in inputs]
    options = {"reference": function} if has_reference else {}
    if not has_reference:
        inputs = [one.double() for one in inputs]

    def backward(v, *arrays):
        arrays = [one.detach().float().requires_grad_() for one in arrays]
        return torch.autograd.grad(function(*arrays), arrays, v.float())

    assert check_vjp(function, backward, inputs, **options).verdict != "fail"
    for wrong in (lambda grads: [grads[0], 1.01 * grads[1]], lambda grads: [-grads[0] * 1e4, grads[1]]):
        report = check_vjp(function, lambda v, *arrays, wrong=wrong: wrong(backward(v, *arrays)), inputs, **options)
        assert report.verdict == "fail"


def test_a_float32_function_without_reference_is_judged_by_its_noise():
    x = _normals((4, 3))[0]

    def forward(x):
        return np.sin(x.astype(np.float32))

    def backward(v, x):
        assert v.dtype == np.float32
        return v * np.cos(x.astype(np.float32))

    report = check_vjp(forward, backward, x)
    assert report.passed, report.summary()
    assert check_vjp(forward, lambda v, x: 1.02 * backward(v, x), x).verdict == "fail"


def test_tensors_are_passed_as_tensors_in_float64():
    seen = []

    def forward(x, w):
        seen.append((x.dtype, x.requires_grad))
        y = torch.tanh(x @ w)
        return y, (x, w, y)

    def backward(dout, cache):
        x, w, y = cache
        return torch.autograd.grad(y, (x, w), dout)

    x, w = (torch.as_tensor(array).float().requires_grad_() for array in _normals((3, 4), (4, 2)))
    report = check_vjp(forward, backward, (x, w), has_cache=True)
    assert report.passed, report.summary()
    assert set(seen) == {(torch.float64, True)}
    wrong = check_vjp(forward, lambda v, c: [1.001 * g for g in backward(v, c)], (x, w), has_cache=True)
    assert wrong.verdict == "fail"


def test_bfloat16_tensors_with_a_reference():
    x, w = (torch.as_tensor(array).bfloat16() for array in _normals((6, 5), (5, 3)))

    def backward(v, x, w):
        assert v.dtype == x.dtype == torch.bfloat16
        return v @ w.T, x.T @ v

    report = check_vjp(lambda x, w: x @ w, backward, (x, w), reference=lambda x, w: x @ w)
    assert report.verdict != "fail", report.summary()
    wrong = check_vjp(lambda x, w: x @ w, lambda v, x, w: (-v @ w.T, x.T @ v), (x, w), reference=lambda x, w: x @ w)
    assert wrong.tensors["input 0"].verdict == "fail"


# The rest


def test_the_cotangent_is_seeded_or_the_users():
    seen = []

    def backward(v, x):
        seen.append(v.copy())
        return v * np.cos(x)

    x = _normals((3, 2))[0]
    for seed in (0, 0, 1):
        check_vjp(np.sin, backward, x, seed=seed, dims=1)
        first, seen = seen[0], []
        assert (np.abs(first) >= 0.5).all()
        assert (np.abs(first) <= 1.5).all()
        if seed == 0:
            same = first
    assert not np.array_equal(first, same)
    given_one = np.arange(6.0).reshape(3, 2)
    assert check_vjp(np.sin, backward, x, grad_output=given_one).passed
    assert np.array_equal(seen[0], given_one)


def test_dims_name_inputs_and_reports_repeat():
    x, w = _normals((20, 3), (3, 4))

    def forward(x, w):
        return x @ w

    def backward(v, x, w):
        return v @ w.T, x.T @ v

    report = check_vjp(forward, backward, (x, w), dims={"input 0": 5, "input 1": "all"}, keep=True)
    assert {name: tensor.dims_checked for name, tensor in report.tensors.items()} == {"input 0": 5, "input 1": 12}
    threaded = check_vjp(forward, backward, (x, w), dims={"input 0": 5, "input 1": "all"}, keep=True, threads=3)
    for name, tensor in report.tensors.items():
        assert np.array_equal(tensor.numeric, threaded.tensors[name].numeric)
        assert np.array_equal(tensor.error_bar, threaded.tensors[name].error_bar)


def test_words_are_those_of_forward_and_backward():
    x = _normals((3,))[0]
    reports = [
        check_vjp(lambda x: np.sin(x), lambda v, x: 0 * v, x),
        check_vjp(lambda x: np.ones(3), lambda v, x: 2 * v, x),
        check_vjp(lambda x: np.sin(x), lambda v, x: v * np.cos(x) * (1 + 1e-7), x),
        check_vjp(lambda x: 0 * x + np.sin(x[:1]), lambda v, x: v * np.cos(x[:1]), x),
        check_vjp(np.sin, lambda v, x: v * np.cos(x) * (1 + 1e-7 * np.arange(3)), x, noise=1e-12),
        check_vjp(lambda x: np.round(np.sin(x), 3), lambda v, x: v * np.cos(x), x),
    ]
    for report in reports:
        assert not report.passed
        assert "loss" not in str(report)
        assert "params" not in str(report)
    assert _names(reports[1]) == ["forward never moves"]


def test_a_forward_that_raises_beside_the_point():
    def forward(x):
        if (x < 0).any():
            raise ValueError("negative")
        return np.sqrt(x)

    x = np.array([1e-6, 0.5, 2.0])
    assert check_vjp(forward, lambda v, x: v / (2 * np.sqrt(x)), x).passed
    with pytest.raises(FastcheckError, match=r"forward is not finite around input 0 .* forward raises ValueError"):
        check_vjp(forward, lambda v, x: v, np.array([0.0, 1.0]))


def test_it_is_public():
    assert fastcheck.check_vjp is check_vjp
