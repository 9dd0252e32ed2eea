"""Coloured differences: as right as entry by entry, with fewer calls, and a wrong structure is found."""

import json

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck import check_vjp
from fastcheck.functions.coloured import ALL, AUDITED, OUTER, ROUNDS
from fastcheck.reports.reader import from_json

pytestmark = pytest.mark.jit


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads of PyTorch wait for each other where a machine is busy, for functions of microseconds."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


class Torch:
    """A function of tensors as forward and backward of arrays; counts the calls of forward that a check times."""

    def __init__(self, function):
        self._function, self.calls = function, 0

    def forward(self, *inputs):
        self.calls += 1
        out = self._function(*map(_tensor, inputs))
        return tuple(one.numpy() for one in out) if isinstance(out, tuple) else out.numpy()

    def backward(self, v, *inputs):
        inputs = [_tensor(one) for one in inputs]
        wanted = [one.requires_grad_() for one in inputs if torch.is_tensor(one) and one.is_floating_point()]
        out = self._function(*inputs)
        outs, v = (out, v) if isinstance(out, tuple) else ((out,), (v,))
        grads = torch.autograd.grad(outs, wanted, [torch.as_tensor(np.array(one)) for one in v])
        return tuple(grad.numpy() for grad in grads)

    def spoiled(self, name, index, by=1e-6):
        """Return a backward that is wrong in one entry of one gradient."""

        def backward(v, *inputs):
            grads = [grad.copy() for grad in self.backward(v, *inputs)]
            grads[name][index] *= 1 + by
            return tuple(grads)

        return backward


def _tensor(one):
    return torch.as_tensor(one) if isinstance(one, np.ndarray) else one


def _normals(*shapes, seed=7):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape) for shape in shapes)


def _conv(**options):
    return Torch(lambda x, w, b: F.conv2d(x, w, b, **options))


LAYER = _conv(stride=2, padding=1), _normals((2, 2, 6, 5), (4, 2, 3, 3), (4,))
WORDS = "conv(stride=2, padding=1)"

STRUCTURES = {
    "conv": (*LAYER, WORDS),
    "grouped": (_conv(groups=2, dilation=2), _normals((1, 4, 6, 5), (6, 2, 3, 2), (6,)), "conv(dilation=2, groups=2)"),
    "elementwise": (Torch(lambda x, g, b: torch.tanh(x * g) + b), _normals((5, 4), (4,), ()), "elementwise"),
    "per sample": (Torch(lambda x: torch.softmax(x, -1)), _normals((6, 5)), "per_sample"),
    "two outputs": (Torch(lambda x: (torch.softmax(x, -1), torch.logsumexp(x, -1))), _normals((6, 5)), "per_sample"),
    "by name": (Torch(lambda x, w: torch.tanh(x @ w)), _normals((6, 5), (5, 4)), {"input 0": "per_sample"}),
    "sparse": (
        Torch(lambda x: x[1:] * x[:-1]),
        _normals((9,)),
        scipy.sparse.diags_array([1.0, 1.0], offsets=[0, 1], shape=(8, 9)),
    ),
    "relu": (
        Torch(lambda x: torch.relu(x) ** 2 + torch.relu(x)),
        (np.r_[_normals((12,))[0], 0.0, 0.0],),
        "elementwise",
    ),
    "detect": (*LAYER, "detect"),
    "integers": (Torch(lambda x, i: x[i]), (*_normals((5, 3)), np.array([2, 0, 4])), "detect"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_right_gradients_pass_and_one_wrong_entry_is_named(name):
    made, inputs, structure = STRUCTURES[name]
    report = check_vjp(made.forward, made.backward, inputs, structure=structure, keep=True)
    assert report.passed, report.summary()
    assert [one for one in report.health if one.name != "blind spots"] == []
    assert all(tensor.dims_checked == tensor.dims_total for tensor in report.tensors.values())
    assert all(one["colours"] for one in report.structure.values())
    coloured = {name for name, tensor in report.tensors.items() if tensor.evaluator == "coloured"}
    assert coloured == set(report.structure)
    for position, tensor in enumerate(report.tensors):
        analytic = report.tensors[tensor].analytic
        index = np.unravel_index(np.abs(analytic).argmax(), inputs[position].shape)
        wrong = check_vjp(made.forward, made.spoiled(position, index), inputs, structure=structure)
        found = {key: one.beyond_error_bar for key, one in wrong.tensors.items()}
        assert found == {key: int(key == tensor) for key in found}
        assert wrong.tensors[tensor].first_beyond == tuple(index)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(0, 1000),
)
def test_colours_are_entry_by_entry(batch, groups, filters, taps, stride, padding, dilation, seed):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    made = _conv(**options)
    inputs = _normals((batch, 2 * groups, 5, 2), (filters * groups, 2, taps, 1), (filters * groups,), seed=seed)
    words = f"conv({', '.join(f'{name}={value}' for name, value in options.items())})"
    coloured = check_vjp(made.forward, made.backward, inputs, structure=words, keep=True, seed=seed)
    alone = check_vjp(made.forward, made.backward, inputs, keep=True, seed=seed)
    assert coloured.passed
    assert alone.passed
    for name, tensor in coloured.tensors.items():
        other = alone.tensors[name]
        bars = tensor.error_bar + other.error_bar
        assert (np.abs(tensor.numeric - other.numeric) <= bars).all()
        assert np.median(tensor.error_bar) <= 16 * np.median(other.error_bar)


@pytest.mark.parametrize("filters", [2, 8])
def test_calls_do_not_grow_with_the_filters(filters):
    made, (channels, taps) = _conv(padding=1), (3, 3)
    inputs = _normals((2, channels, 6, 6), (filters, channels, taps, taps), (filters,))
    report = check_vjp(made.forward, made.backward, inputs, structure="conv(padding=1)")
    calls = {name: one["calls"] for name, one in report.structure.items()}
    assert calls == {
        "input 0": 2 * len(OUTER) * channels * taps * taps + AUDITED,
        "input 1": 2 * len(OUTER) * channels * taps * taps + AUDITED,
        "input 2": 2 * len(OUTER) + filters,
    }
    assert sum(one["alone"] for one in report.structure.values()) == 0


def test_a_curved_function_takes_a_third_step():
    made = Torch(torch.tanh)
    report = check_vjp(made.forward, made.backward, _normals((40,)), structure="elementwise")
    assert report.structure["input 0"]["calls"] == 2 * len(ALL) + AUDITED
    assert "1 colour, elementwise" in str(report)
    assert f"{2 * len(ALL) + AUDITED} calls for these colours, {AUDITED} of them with one entry" in " ".join(
        str(report).split()
    )


def test_entries_whose_scale_is_not_the_typical_one_get_steps_of_their_own():
    """Most entries are saturated and take any step; the bars of the others would hide an error of 1 in 100,000."""
    made = Torch(lambda x: torch.logsumexp(30 * x, -1))
    inputs = _normals((6, 5), seed=3)
    report = check_vjp(made.forward, made.backward, inputs, structure="per_sample", keep=True)
    assert report.passed
    dim = np.abs(report.tensors["input 0"].analytic).argmax()
    index = np.unravel_index(dim, (6, 5))
    assert report.tensors["input 0"].error_bar[dim] < 1e-6 * abs(report.tensors["input 0"].analytic[dim])
    wrong = check_vjp(made.forward, made.spoiled(0, index, 1e-5), inputs, structure="per_sample")
    assert wrong.tensors["input 0"].first_beyond == tuple(index)
    assert report.structure["input 0"]["calls"] <= 30 + 5 * 2 * len(ALL) * (1 + ROUNDS)


def test_the_calls_counted_are_those_made():
    """A check of more filters, with as many colours, makes no more calls."""
    made, counts = {}, {}
    for filters in (40, 80):  # enough for the audit's sample
        made[filters] = Torch(lambda w, x: F.conv2d(x, w))
        w, x = _normals((filters, 1, 2, 2), (1, 1, 4, 4))
        structure = {"input 0": "conv"}
        forward = made[filters].forward
        backward = lambda v, w, x, filters=filters: (made[filters].backward(v, w, x)[0], None)  # noqa: E731
        report = check_vjp(forward, backward, (w, x), structure=structure, step=0.125)
        assert report.passed
        counts[filters] = made[filters].calls
        assert report.structure["input 0"]["calls"] == 2 * len(OUTER) * 4 + AUDITED
    assert abs(counts[40] - counts[80]) <= 100  # noise and pilots take as many as they need


def test_a_sample_is_coloured_alone():
    made, inputs = LAYER
    report = check_vjp(
        made.forward, made.backward, inputs, structure=WORDS, dims={"input 0": 10, "input 1": 5}, directions=0
    )
    assert report.passed
    assert report.tensors["input 0"].dims_checked == 10
    assert report.structure["input 0"]["colours"] <= 10
    assert report.structure["input 1"]["colours"] <= 5


def test_auto_takes_all_of_a_large_layer_with_few_colours():
    n = 3000
    made = Torch(torch.tanh)
    report = check_vjp(made.forward, made.backward, _normals((n,)), structure="elementwise")
    assert report.tensors["input 0"].dims_checked == n
    assert report.directions is None
    assert check_vjp(made.forward, made.backward, _normals((n,))).tensors["input 0"].dims_checked < n


def test_a_wholly_wrong_gradient_is_not_differenced_entry_by_entry():
    made = Torch(torch.tanh)
    report = check_vjp(made.forward, lambda *a: (-made.backward(*a)[0],), _normals((3000,)), structure="elementwise")
    assert report.verdict == "fail"
    assert report.tensors["input 0"].beyond_error_bar == 3000
    assert report.structure["input 0"]["alone"] < 100


def test_reference_and_float32():
    def forward(x):
        return np.tanh(x).astype(np.float32)

    def backward(v, x):
        return v * (1 - np.tanh(x) ** 2)

    x = _normals((40,))[0].astype(np.float32)
    options = {"structure": "elementwise", "reference": np.tanh}
    assert check_vjp(forward, backward, x, **options).passed
    wrong = check_vjp(forward, lambda v, x: backward(v, x) * np.float32(1 + 1e-3 * (np.arange(40) == 17)), x, **options)
    assert wrong.tensors["input 0"].first_beyond == (17,)


def test_dicts_fixed_steps_stencils_threads_and_caches():
    def forward(x, w):
        return {"y": np.sin(x) * w, "n": np.arange(3)}, (x, w)

    def backward(v, cache):
        x, w = cache
        return {"x": v["y"] * np.cos(x) * w, "w": v["y"] * np.sin(x)}

    x, w = _normals((30,), (30,))
    inputs = {"x": x, "w": w}
    reports = [
        check_vjp(forward, backward, inputs, has_cache=True, structure="elementwise", **options)
        for options in ({}, {"threads": 2}, {"step": 1e-4}, {"stencil": 3}, {"stencil": 5})
    ]
    assert all(reports)
    one, two = (json.loads(report.to_json()) for report in reports[:2])
    assert {**one, "run": None} == {**two, "run": None}
    assert reports[2].tensors["x"].step == 1e-4
    assert from_json(reports[0].to_json()).structure == reports[0].structure


# A structure that is wrong


def _batch_norm(x):
    return (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + 1e-5)


WRONG = {
    "elementwise, a softmax": (Torch(lambda x: torch.softmax(x, -1)), _normals((4, 5)), "elementwise"),
    "per sample, batch statistics": (Torch(_batch_norm), _normals((6, 3)), "per_sample"),
    "per sample, a leak": (Torch(lambda x: x + 1e-6 * x.sum()), _normals((6, 3)), "per_sample"),
    "stride": (
        _conv(stride=(2, 1), padding=(1, 0)),
        _normals((1, 2, 8, 1), (3, 2, 3, 1), (3,)),
        "conv(dilation=(2, 1))",
    ),
    "dilation": (_conv(padding=2, dilation=2), _normals((1, 2, 5, 4), (3, 2, 3, 3), (3,)), "conv(padding=1)"),
    "groups": (
        Torch(lambda x, w, b: F.conv2d(x, torch.cat([w, w], 1), b)),
        _normals((1, 4, 4, 4), (4, 2, 3, 2), (4,)),
        "conv(groups=2)",
    ),
    "sparse": (Torch(lambda x: x[1:] * x[:-1]), _normals((9,)), scipy.sparse.eye_array(8, 9)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_structure_is_found(name):
    made, inputs, structure = WRONG[name]
    report = check_vjp(made.forward, made.backward, inputs, structure=structure)
    assert report.verdict == "inconclusive"
    (finding,) = report.health
    assert finding.name == "structure"
    assert "depends on input" in finding.words
    assert "leave structure out" in finding.advice
    plain = check_vjp(made.forward, made.backward, inputs)
    assert plain.passed
    assert plain.structure is None


def test_a_wrong_gradient_fails_though_the_structure_is_wrong_too():
    made = Torch(lambda x: torch.softmax(x, -1))
    backward = lambda *a: (2 * made.backward(*a)[0],)  # noqa: E731
    report = check_vjp(made.forward, backward, _normals((4, 5)), structure="elementwise")
    assert report.verdict == "fail"
    assert [finding.name for finding in report.health] == ["structure"]


@pytest.mark.parametrize("place", [(170, 30), (31, 170)])
def test_one_dependence_left_out_is_found(place):
    """The audit's sample misses it; the colour it moves in does not, though backward leaves it out too."""
    output, entry = place
    n = 200

    def forward(x):
        y = np.sin(x)
        y[output] += x[entry] / 3
        return y

    def backward(v, x):
        return v * np.cos(x)

    report = check_vjp(forward, backward, np.random.default_rng(0).normal(size=n), structure="elementwise")
    assert report.verdict != "pass"
    (finding,) = report.health
    assert f"output[{output}] depends on input 0[{entry}]" in finding.words


def test_an_output_that_no_entry_should_move_is_found():
    pattern = np.eye(200, 200)
    pattern[170, 170] = 0

    def forward(x):
        return np.sin(x)

    def backward(v, x):
        return v * np.cos(x) * (np.arange(200) != 170)

    x = np.random.default_rng(0).normal(size=200)
    report = check_vjp(forward, backward, x, structure=pattern)
    assert report.verdict != "pass"
    assert "output[170] depends on input 0[170]" in report.health[0].words


def test_rounding_that_reaches_all_outputs_is_no_dependence():
    """An FFT moves every output in its last bits."""
    kernel = np.exp(-np.arange(64) / 2.0) * (np.arange(64) < 3)

    def forward(x):
        return np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(kernel), 64)

    def backward(v, x):
        return np.fft.irfft(np.fft.rfft(v) * np.conj(np.fft.rfft(kernel)), 64)

    x = np.random.default_rng(0).normal(size=64)
    pattern = np.stack([np.roll(kernel, k) for k in range(64)], axis=1) != 0
    report = check_vjp(forward, backward, x, structure=pattern)
    assert report.passed
    assert report.health == ()
    assert report.structure["input 0"]["colours"] < 10
