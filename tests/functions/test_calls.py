"""How functions are called: one by one, in compiled code, in stacks of points; the same results, and fewer calls."""

import numba
import numpy as np
import pytest

import fastcheck
from fastcheck import FastcheckError
from fastcheck.functions import calls
from fastcheck.reports.reader import from_json

SIZE = 1530
RNG = np.random.default_rng(0)
W, B, X = RNG.normal(size=(50, 30)) / 5, RNG.normal(size=30), RNG.normal(size=(20, 50))
PARAMS = (W, B)


def forward(w, b):
    """Take the axis of points, or none."""
    return np.tanh(X @ w + b[..., None, :])


def loss(params):
    return (forward(*params) ** 2).sum((-1, -2))


def backward(v, w, b):
    d = v * (1 - forward(w, b) ** 2)
    return X.T @ d, d.sum(0)


def gradient(params):
    return backward(2 * forward(*params), *params)


def wrong(gradients):
    """Return gradients with one entry 1 % off."""
    gradients[0][7, 3] *= 1.01
    return gradients


class Counted:
    """Counts calls and points."""

    def __init__(self, function, points=lambda *_: 1):
        self.function, self.points, self.sizes = function, points, []

    def __call__(self, *arguments):
        self.sizes.append(self.points(*arguments))
        return self.function(*arguments)


def same_differences(one, other):
    """Whether two reports agree in every entry's difference and bar, to the last bits of a value."""
    for name, tensor in one.tensors.items():
        kept, others = tensor.kept, other.tensors[name].kept
        assert np.array_equal(kept.dims, others.dims)
        assert (np.abs(kept.numeric - others.numeric) <= kept.error_bar + others.error_bar).all()
        assert np.allclose(kept.error_bar, others.error_bar, rtol=0.2)


CHECKS = {
    "loss": lambda f, b, **options: fastcheck.check_gradient(f, lambda p: b(gradient(p)), PARAMS, **options),
    "forward": lambda f, b, **options: fastcheck.check_vjp(f, lambda *a: b(backward(*a)), PARAMS, **options),
}
FUNCTIONS = {"loss": loss, "forward": forward}


@pytest.mark.jit
class TestVectorized:
    """``vectorized=True``."""

    @pytest.mark.parametrize("kind", CHECKS)
    def test_blocks_of_entries_take_one_call(self, kind):
        function, check = FUNCTIONS[kind], CHECKS[kind]
        single = Counted(function)
        stacked = Counted(function, lambda first, *_: len(first[0] if kind == "loss" else first))
        before = check(single, lambda g: g, dims="all", keep=True)
        after = check(stacked, lambda g: g, dims="all", keep=True, vectorized=True)
        assert before.passed
        assert after.passed
        same_differences(before, after)
        assert len(stacked.sizes) < len(single.sizes) - 2 * SIZE + 40
        assert sum(stacked.sizes) <= len(single.sizes) + 40
        assert max(stacked.sizes) > 100

    @pytest.mark.parametrize("kind", CHECKS)
    def test_a_wrong_entry_is_found(self, kind):
        report = CHECKS[kind](FUNCTIONS[kind], wrong, dims="all", vectorized=True)
        tensor = next(iter(report.tensors.values()))
        assert [entry.index for entry in tensor.worst if entry.verdict == "fail"] == [(7, 3)]

    def test_stacks_stay_within_their_size(self, monkeypatch):
        monkeypatch.setattr(calls, "STACK_BYTES", 10 * 8 * (SIZE + 1))
        function = Counted(loss, lambda params: len(params[0]))
        assert CHECKS["loss"](function, lambda g: g, dims="all", vectorized=True).passed
        assert max(function.sizes) == 10

    def test_a_point_outside_the_domain_is_nan_alone(self):
        """The entries of a stack in which one point raises have their values nevertheless."""
        edge = np.ones(1000)
        edge[321] = 1e-9

        def loss(p):
            if (p <= 0).any():
                raise ValueError("outside")
            return (p * np.log(p)).sum(-1)

        report = fastcheck.check_gradient(loss, lambda p: np.log(p) + 1, edge, dims="all", vectorized=True)
        assert report.passed

    def test_a_dict_of_inputs_some_of_which_are_passed_on(self):
        labels = np.arange(20) % 30

        def forward(x, w, labels):
            assert x.ndim == w.ndim == 3
            assert labels.shape == (20,)
            return {"scores": x @ w, "chosen": (x @ w)[:, np.arange(20), labels]}

        def backward(v, x, w, labels):
            d = v["scores"].copy()
            d[np.arange(20), labels] += v["chosen"]
            return {"x": d @ w.T, "w": x.T @ d, "labels": None}

        inputs = {"x": X, "w": W, "labels": labels}
        assert fastcheck.check_vjp(forward, backward, inputs, vectorized=True)
        report = fastcheck.check_vjp(
            forward, lambda *a, **k: {**backward(*a, **k), "w": 1.001 * backward(*a, **k)["w"]}, inputs, vectorized=True
        )
        assert report.tensors["w"].verdict == "fail"

    def test_an_input_without_a_gradient_has_the_axis_too(self):
        def backward_of_weights(v, x, w):
            return None, x.T @ v

        def forward(x, w):
            assert len(x) == len(w)
            return x @ w

        assert fastcheck.check_vjp(forward, backward_of_weights, (X, W), vectorized=True, dims="all")

    def test_with_a_reference_only_that_has_the_axis(self):
        def single(w, b):
            assert w.dtype == np.float32
            assert w.ndim == 2
            return np.tanh(X.astype(np.float32) @ w + b), (w, b)

        def of_cache(v, cache):
            w, b = cache
            return tuple(one.astype(np.float32) for one in backward(v, w, b))

        floats = tuple(one.astype(np.float32) for one in PARAMS)
        reference = Counted(forward, lambda w, b: len(w))
        options = {"has_cache": True, "reference": reference, "vectorized": True}
        assert fastcheck.check_vjp(single, of_cache, floats, **options)
        assert max(reference.sizes) > 100
        assert not fastcheck.check_vjp(single, lambda v, c: wrong(of_cache(v, c)), floats, dims="all", **options)

    def test_the_report_names_it(self):
        report = CHECKS["loss"](loss, lambda g: g, dims=3, directions=0, vectorized=True)
        assert report.requested["vectorized"] is True
        assert from_json(report.to_json()).requested == report.requested
        assert "vectorized" not in CHECKS["loss"](loss, lambda g: g, dims=3, directions=0).requested


class TestVectorizedRefused:
    """Functions that are not vectorised, and values that ``vectorized`` may not have."""

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (lambda p: float(loss(p).sum()), r"loss returns \d+\.\d+ at the start point: expected shape \(1,\)"),
            (lambda p: np.full(len(p[0]), loss(p).sum()), "loss returns other values for 3 points at once than for"),
            (lambda p: loss(p)[::-1], "loss returns other values for 3 points at once than for each alone"),
            (lambda p: loss(p)[:1], r"loss returns an array of shape \(1,\) for 3 points at once: expected shape \(3,"),
            (lambda p: loss(p)[:, None], r"loss returns an array of shape \(1, 1\) at the start point"),
            (lambda p: None, "loss returns None at the start point"),
            (lambda p: loss(p) if len(p[0]) == 1 else 1 / 0, "loss raises ZeroDivisionError for 3 points at once"),
        ],
    )
    def test_losses(self, bad, message):
        with pytest.raises(FastcheckError, match=message):
            CHECKS["loss"](bad, lambda g: g, vectorized=True)

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (
                lambda w, b: forward(w, b)[0],
                r"^forward returns shape \(20, 30\) for one point: expected a leading axis",
            ),
            (lambda w, b: forward(w, b)[::-1], "forward returns other values for 3 points at once"),
            (lambda w, b: forward(w, b) - forward(w, b).mean(0), "forward returns other values for 3 points at once"),
            (lambda w, b: forward(w, b)[:1], r"output of forward has shape \(1, 20, 30\) for 3 points at once"),
        ],
    )
    def test_forwards(self, bad, message):
        with pytest.raises(FastcheckError, match=message):
            CHECKS["forward"](bad, lambda g: g, vectorized=True)

    def test_a_cache(self):
        with pytest.raises(FastcheckError, match="has_cache and vectorized are both True: backward, which is not"):
            CHECKS["forward"](forward, lambda g: g, vectorized=True, has_cache=True)

    def test_a_loss_that_changes_stacks(self):
        def changing(params):
            value = loss(params)
            if len(params[0]) > POINTS:
                params[1][:] = 0
            return value

        with pytest.raises(FastcheckError, match=r"loss changes params\[1\], which it is given"):
            CHECKS["loss"](changing, lambda g: g, dims="all", vectorized=True)

    def test_other_values(self):
        with pytest.raises(FastcheckError, match="vectorized is 'yes': expected True or False"):
            CHECKS["loss"](loss, lambda g: g, vectorized="yes")


POINTS = calls.POINTS


@pytest.mark.jit
class TestCompiled:
    """Losses that Numba compiles."""

    @staticmethod
    def _of_tuple():
        @numba.njit
        def compiled(params):
            w, b = params
            return (np.tanh(X @ w + b) ** 2).sum()

        return compiled

    def test_a_loop_calls_the_loss(self):
        compiled = self._of_tuple()
        entered = []

        def plain(params):
            entered.append(1)
            return compiled(params)

        before = fastcheck.check_gradient(plain, gradient, PARAMS, dims="all", keep=True)
        assert len(entered) > 2 * SIZE
        after = fastcheck.check_gradient(compiled, gradient, PARAMS, dims="all", keep=True)
        assert after.passed
        same_differences(before, after)

    def test_no_python_in_between(self, monkeypatch):
        """Of the calls that entries with a common step need, none is made by Python."""
        made = []
        monkeypatch.setattr(calls, "one_by_one", lambda *_: made.append(1))
        assert fastcheck.check_gradient(self._of_tuple(), gradient, PARAMS, dims="all").passed
        assert not made

    def test_a_wrong_entry_is_found(self):
        report = fastcheck.check_gradient(self._of_tuple(), lambda p: wrong(gradient(p)), PARAMS, dims="all")
        failing = [entry.index for entry in report.tensors["params[0]"].worst if entry.verdict == "fail"]
        assert failing == [(7, 3)]

    def test_threads_make_no_difference(self):
        compiled = self._of_tuple()
        one, two = (fastcheck.check_gradient(compiled, gradient, PARAMS, threads=n, keep=True) for n in (1, 2))
        for name in one.tensors:
            assert np.array_equal(one.tensors[name].kept.numeric, two.tensors[name].kept.numeric)

    @pytest.mark.parametrize("right", [True, False])
    def test_one_array(self, right):
        compiled = numba.njit(nogil=True)(lambda p: np.cosh(p).sum())
        factor = 1.0 if right else 1 - 1e-6
        report = fastcheck.check_gradient(compiled, lambda p: factor * np.sinh(p), np.ravel(W), dims="all")
        assert report.passed is right

    @pytest.mark.parametrize("right", [True, False])
    def test_what_cannot_be_compiled_is_called_one_by_one(self, right):
        """An array of one number is no number in compiled code."""
        compiled = numba.njit(lambda p: np.array([np.cosh(p).sum()]))
        factor = 1.0 if right else 1 - 1e-6
        report = fastcheck.check_gradient(compiled, lambda p: factor * np.sinh(p), np.ravel(W), dims="all")
        assert report.passed is right

    def test_other_losses_do_not_import_numba(self):
        assert calls.compiled_loop(loss) is None
        assert calls.compiled_loop(numba.jit(forceobj=True)(lambda p: p.sum())) is None
        assert calls.compiled_loop(numba.vectorize(lambda p: p)) is None
