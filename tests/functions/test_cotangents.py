"""What is found out about backward passes themselves, each beside a sibling that has not that fault.

The kernels here read memory as compiled ones do: by a pointer and strides of their own, not by those of the array.
"""

import numpy as np
import pytest
import torch

from fastcheck import FastcheckError, check_vjp
from fastcheck.reports.reader import from_json

X, W = np.random.default_rng(3).normal(size=(4, 5)), np.random.default_rng(4).normal(size=5)

BACKWARD_CALLS, FORWARD_CALLS = 11, 21
"""Calls besides those that measure noise and those that difference. Forward: one before each call of
backward and one between, three at first, one after the gradient, five at the end."""


def _names(report):
    assert from_json(report.to_json()).to_dict() == report.to_dict()
    return [finding.name for finding in report.health]


def _forward(x, w):
    return np.sin(x) * w


def _right(v, x, w):
    return v * w * np.cos(x), (v * np.sin(x)).sum(0)


def _check(backward, forward=_forward, **options):
    return check_vjp(forward, backward, (X, W), **options)


def _fails(report, name):
    """Assert that one finding fails the check, and that every tensor says so."""
    assert report.verdict == "fail", report.summary()
    (found,) = [finding for finding in report.health if finding.verdict]
    assert found.name == name
    assert found.advice
    assert all(found.words in report.tensors[tensor].reason for tensor in found.tensors)
    assert found.words.split(":")[0] in " ".join(str(report).split())
    return found


def _notes(report, name):
    """Assert that a check passes, with one note."""
    assert report.passed, report.summary()
    assert _names(report) == [name]
    (found,) = report.health
    assert found.advice
    return found


def test_a_right_backward_has_no_finding():
    assert _names(_check(_right)) == []


@pytest.mark.parametrize("has_cache", [False, True])
def test_calls_are_counted(has_cache):
    calls = {"forward": 0, "backward": 0}

    def forward(x, w):
        calls["forward"] += 1
        return (_forward(x, w), (x, w)) if has_cache else _forward(x, w)

    def backward(v, *rest):
        calls["backward"] += 1
        return _right(v, *(rest[0] if has_cache else rest))

    report = _check(backward, forward, has_cache=has_cache, step=1e-3, dims=2, directions=0)
    assert report.passed
    assert calls["backward"] == BACKWARD_CALLS + 7
    noise, dims = 2 * 4 * 2 * 9, sum(tensor.dims_checked for tensor in report.tensors.values())
    explained = calls["forward"] - FORWARD_CALLS - 7 - noise - 7 * dims
    assert explained in (0, 7, 14)  # the dimensions that the report explains in words


# Each of these fails a check.


@pytest.mark.parametrize(
    ("first", "second"),
    [(1e-3, 0.0), (0.0, 1e-300), (np.nan, 0.0)],
)
def test_a_zero_cotangent(first, second):
    def backward(v, x, w):
        dx, dw = _right(v, x, w)
        return (dx, dw) if v.any() else (dx + first, dw + second)

    found = _fails(_check(backward), "a zero cotangent")
    assert found.tensors == (("input 0",) if first else ("input 1",))


def _clipped(v, x, w):
    return _right(np.clip(v, -1, 1), x, w)


def _normalised(v, x, w):
    return _right(v / np.abs(v).max() if v.any() else v, x, w)


def _by_sign(v, x, w):
    """A relu's mask taken from the cotangent."""
    return _right(v * (v > 0), x, w)


@pytest.mark.parametrize("backward", [_clipped, _normalised, _by_sign])
def test_not_linear(backward):
    found = _fails(_check(backward), "not linear in the cotangent")
    assert "does not return" in found.words


def test_an_order_chosen_by_the_cotangents_size_is_not_called_nonlinear():
    """PyTorch's matrix exponential scales by the norm of a matrix that holds the cotangent."""

    def backward(v, x):
        x = x.detach().float().requires_grad_()
        return torch.autograd.grad(torch.matrix_exp(x), x, v.float())[0]

    for seed in range(8):
        x = torch.tensor(np.random.default_rng(seed).normal(size=(5, 5)) / 2).float().double()
        assert check_vjp(torch.matrix_exp, backward, x)
        clipped = check_vjp(torch.matrix_exp, lambda v, x: backward(v, x) * (1 + 1e-3 * (v.abs().max() > 2)), x)
        _fails(clipped, "not linear in the cotangent")


def test_underflow_and_nan_are_not_called_nonlinear():
    def backward(v, x, w):
        dx, dw = _right(v, x, w)
        dx[0, 0] = np.nan
        return dx, dw * 1e308 * 1e2

    report = _check(backward)
    assert report.verdict == "fail"
    assert _names(report) == []
    tiny = check_vjp(lambda x: 1e-300 * np.sin(x), lambda v, x: 1e-300 * v * np.cos(x), X)
    assert "not linear in the cotangent" not in _names(tiny)


def _memory(array):
    """The memory behind an array, as a pointer sees it: contiguous from its first entry on."""
    base = np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,))
    return base.reshape(array.shape)


def _by_the_inputs_strides(v, x, w):
    if not x.flags.c_contiguous:  # it would leave the cotangent's memory
        return _right(v, x, w)
    return _right(np.lib.stride_tricks.as_strided(v, x.shape, x.strides), x, w)


def _rows_alone(v, x, w):
    """Rows by their stride, and columns as if they were contiguous."""
    return _right(np.lib.stride_tricks.as_strided(v, v.shape, (v.strides[0], v.itemsize)), x, w)


def _in_columns(v, x, w):
    """Takes whatever is not in C order for Fortran's order."""
    if v.flags.c_contiguous:
        return _right(v, x, w)
    return _right(_memory(v.T).T if not v.flags.f_contiguous else v[::-1], x, w)


@pytest.mark.parametrize(
    ("backward", "layouts"),
    [
        (_by_the_inputs_strides, ["expanded", "strided", "transposed"]),
        (_rows_alone, ["strided", "transposed"]),
        (lambda v, x, w: _right(_memory(v) if v.strides[0] else v, x, w), ["strided", "transposed"]),
        (lambda v, x, w: _right(v if v.strides[0] else _memory(v), x, w), ["expanded"]),
    ],
)
def test_layouts_of_the_cotangent(backward, layouts):
    """gradcheck feeds one contiguous cotangent, and passes all of these."""
    report = _check(backward)
    assert report.verdict == "fail", report.summary()
    assert [name.removesuffix(" cotangent") for name in _names(report)] == layouts
    assert all(finding.verdict == "fail" and finding.advice for finding in report.health)


def test_an_offset_cotangent():
    def backward(v, x, w):
        offset = v.base is not None and v.flags.c_contiguous and v.base.size == v.size + 1
        return _right(v.base[:-1].reshape(v.shape) if offset else v.copy() if v.flags.writeable else v, x, w)

    def combined(v, x, w):  # the same fault, also where the offset is not the only thing
        start = v.ctypes.data % 16 if v.base is not None else 0
        return _right(v + (start == 8), x, w)

    assert _names(_check(backward)) == []  # nothing else is wrong, so that it is never looked for alone
    report = _check(combined)
    assert report.verdict == "fail" or _names(report) == []  # memory may be aligned by chance


def test_layouts_of_the_inputs():
    def backward(v, x, w):
        return _right(v, np.ascontiguousarray(x) if x.flags.c_contiguous else _memory(x), w)

    found = _fails(_check(backward), "non-contiguous inputs")
    assert "backward returns something else" in found.words

    def forward(x, w):
        return _forward(_memory(x), w)

    found = _fails(_check(_right, forward), "non-contiguous inputs")
    assert "forward returns something else" in found.words


def test_a_backward_that_adds_up():
    kept = np.zeros_like(X)

    def backward(v, x, w):
        dx, dw = _right(v, x, w)
        kept[...] += dx
        return kept.copy(), dw

    found = _fails(_check(backward), "backward adds up")
    assert found.tensors == ("input 0",)
    assert "the second call of backward returns 2 times the first result" in found.words


def test_memory_that_was_never_written():
    def backward(v, x, w):
        dx, dw = _right(v, x, w)
        out = np.empty_like(dx)
        out[:-1] = dx[:-1]
        return out, dw

    found = _fails(_check(backward), "unwritten memory")
    assert found.tensors == ("input 0",)

    def adding(v, x, w):
        total = np.empty(5)
        for row in v * np.sin(x):
            total += row
        return _right(v, x, w)[0], total

    assert _fails(_check(adding), "unwritten memory").tensors == ("input 1",)

    def whole(v, x, w):
        out = np.empty_like(x)
        out[...] = _right(v, x, w)[0]
        return out, _right(v, x, w)[1]

    assert _names(_check(whole)) == []


class _Layer:
    """A layer whose backward reads what the last call of forward left in its attributes."""

    def forward(self, x, w):
        self.x, self.w = x, w
        return _forward(x, w), (x.copy(), w.copy())

    def backward(self, v, cache):
        return _right(v, self.x, self.w)


def test_a_stale_cache():
    layer = _Layer()
    _fails(_check(layer.backward, layer.forward, has_cache=True), "stale cache")
    assert _names(_check(lambda v, cache: _right(v, *cache), layer.forward, has_cache=True)) == []
    buffer = np.empty_like(X)

    def reusing(x, w):
        np.sin(x, out=buffer)
        return buffer * w, (buffer, x, w)

    def backward(v, cache):
        sines, x, w = cache
        return v * w * np.cos(x), (v * sines).sum(0)

    found = _fails(_check(backward, reusing, has_cache=True), "stale cache")
    assert found.tensors == ("input 1",)


# These are notes.


def test_hidden_state_is_a_note_for_a_layer_that_keeps_its_inputs():
    layer = _Layer()
    report = _check(lambda v, x, w: layer.backward(v, None), lambda x, w: layer.forward(x, w)[0])
    _notes(report, "hidden state")
    wrong = _check(lambda v, x, w: [2 * g for g in layer.backward(v, None)], lambda x, w: layer.forward(x, w)[0])
    assert wrong.verdict == "fail"


def test_changes_in_place_are_notes():
    def overwriting(v, x, w):
        dw = (v * np.sin(x)).sum(0)
        v *= w * np.cos(x)
        return v.copy(), dw

    report = _check(overwriting)
    # Where the cotangent's entries are one number in memory, or may not be written, that does matter.
    assert _names(report)[0] == "backward changes its arguments"
    assert "backward changes grad_output in place" in report.health[0].words
    assert "read-only cotangent raises" in _names(report)

    def of_inputs(v, x, w):
        x[...] = np.cos(x)
        return v * w * x, (v * np.sin(np.arccos(x)) * np.sign(np.sin(X))).sum(0)

    found = check_vjp(np.sin, lambda v, x: v * np.cos(x, out=x), X).health[0]
    assert (found.name, found.verdict) == ("backward changes its arguments", None)
    assert "input 0" in found.words

    def forward(x):
        x[x < 0] = 0
        return x * 2, x > 0

    found = _notes(check_vjp(forward, lambda v, c: 2 * v * c, X, has_cache=True), "forward changes its arguments")
    assert "input 0" in found.words


def test_shared_memory_is_a_note():
    found = _notes(check_vjp(lambda x: 1.0 * x, lambda v, x: v, X), "shared memory")
    assert "the gradient of input 0 with the cotangent" in found.words
    report = check_vjp(lambda a, b: a + b.T, lambda v, a, b: (v + 0.0, v.T), (X, X.T.copy()))
    assert "the gradient of input 1 with the cotangent" in _notes(report, "shared memory").words

    def both(v, a, b):
        one = v.copy()
        return one, one

    report = check_vjp(lambda a, b: a + b, both, (X, X.copy()))
    assert "the gradient of input 1 with that of input 0" in _notes(report, "shared memory").words
    assert _names(check_vjp(lambda a, b: a + b, lambda v, a, b: (v.copy(), v.copy()), (X, X.copy()))) == []


def test_reused_memory_is_a_note():
    buffer = np.empty_like(X)

    def backward(v, x):
        return np.multiply(v, np.cos(x), out=buffer)

    calls = []

    def growing(v, x):
        calls.append(0)
        buffer[...] = v * np.cos(x) * (1 + 1e-9 * len(calls))
        return buffer

    assert _names(check_vjp(np.sin, backward, X)) == []  # the same values again: nobody can tell
    assert "reused memory" in _names(check_vjp(np.sin, growing, X))


@pytest.mark.parametrize("moving", [True, False])
def test_an_input_without_gradient_is_told(moving):
    def forward(x, w):
        return np.sin(x) * (w if moving else 1.0)

    def backward(v, x, w):
        return v * np.cos(x) * (w if moving else 1.0), None

    report = check_vjp(forward, backward, (X, W))
    assert list(report.tensors) == ["input 0"]
    assert report.passed
    (found,) = report.health
    assert found.name == "no gradient"
    assert "backward returns None for input 1" in found.words
    assert ("though the outputs depend on input 1" in found.words) is moving


def test_a_backward_that_refuses_a_layout_says_so():
    def backward(v, x, w):
        if not v.flags.c_contiguous:
            raise ValueError("dout must be contiguous")
        return _right(v, x, w)

    report = _check(backward)
    assert report.passed
    assert _names(report) == ["expanded cotangent raises", "strided cotangent raises", "transposed cotangent raises"]
    assert "ValueError for a strided cotangent: dout must be contiguous" in str(report.health)


@pytest.mark.parametrize("calls", range(2, 17))
def test_a_backward_that_raises_in_a_later_call_is_no_crash(calls):
    left = [calls]

    def backward(v, x, w):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of memory")
        return _right(v, x, w)

    report = _check(backward)
    assert report.verdict == "inconclusive"
    assert "later call raises" in _names(report)
    assert "out of memory" in str(report.health)


@pytest.mark.parametrize("calls", range(1, 6))
def test_a_forward_that_raises_when_it_is_called_again_is_refused(calls):
    left = [calls]

    def forward(x, w):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of memory")
        return _forward(x, w)

    with pytest.raises(FastcheckError, match=r"raises RuntimeError (when it is called again|at the start point): out"):
        check_vjp(forward, _right, [X, W])


# Other libraries, and rounding


def test_tensors_in_other_layouts():
    x = torch.as_tensor(X)

    def backward(v, x):
        return torch.as_strided(v, x.shape, x.stride()) * torch.cos(x)

    report = check_vjp(torch.sin, backward, x)
    assert report.verdict == "fail"
    layouts = ["expanded cotangent", "strided cotangent", "transposed cotangent"]
    assert _names(report) == [*layouts, "non-contiguous input raises"]
    assert _names(check_vjp(torch.sin, lambda v, x: v * torch.cos(x), x)) == []
    viewing = check_vjp(torch.sin, lambda v, x: v.view(-1).view(4, 5) * torch.cos(x), x)
    assert _names(viewing) == [f"{layout} raises" for layout in layouts]

    def unwritten(v, x):
        out = torch.empty_like(x)
        out[1:] = (v * torch.cos(x))[1:]
        return out

    assert _fails(check_vjp(torch.sin, unwritten, x), "unwritten memory")


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_last_bits_are_no_findings(kind):
    """Sums in another order for every cotangent and layout, and a gradient that wavers."""
    rng, x = np.random.default_rng(5), np.random.default_rng(6).normal(size=(50, 3))

    def backward(v, x):
        order = rng.permutation(50)
        total = np.zeros(3, kind)
        for row in (v[:, None] * np.cos(x)).astype(kind)[order]:
            total = total + row
        return total

    def forward(w):
        return np.sin(x) @ w

    def of(v, w):
        total = np.zeros(3, kind)
        for i in rng.permutation(50):
            total = total + (v[i] * np.sin(x[i])).astype(kind)
        return total

    report = check_vjp(forward, of, np.ones(3))
    assert report.passed, report.summary()
    assert _names(report) == ["backward wavers"]


def test_several_outputs_in_other_layouts():
    def forward(x, w):
        return np.sin(x) * w, (x * x).sum(1)

    def backward(v, x, w):
        dx, dw = _right(v[0], x, w)
        return dx + 2 * x * v[1][:, None], dw

    def strided(v, x, w):
        return backward((v[0], np.lib.stride_tricks.as_strided(v[1], v[1].shape, (8,))), x, w)

    assert _names(check_vjp(forward, backward, (X, W))) == []
    report = check_vjp(forward, strided, (X, W))
    assert report.verdict == "fail"
    assert set(_names(report)) == {"expanded cotangent", "strided cotangent"}
