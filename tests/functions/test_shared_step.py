"""One step for the entries of a large function: two calls each, and never a verdict against a gradient."""

import numpy as np
import pytest

import fastcheck

pytestmark = pytest.mark.jit

SIZE = 1200


def _problem(bend, slope):
    rng = np.random.default_rng(3)
    a, x = rng.normal(size=(60, SIZE)) / 20, rng.normal(size=SIZE)
    return lambda p: float(bend(a @ p).sum()), lambda p: a.T @ slope(a @ p), x


SMOOTH = _problem(lambda z: np.log(np.cosh(z)), np.tanh)
RELU = _problem(lambda z: np.maximum(z, 0) ** 2 / 2 + np.abs(z), lambda z: np.maximum(z, 0) + np.sign(z))


def _check(problem, change=lambda g: g, **options):
    loss, grad, x = problem
    calls = []

    def counted(p):
        calls.append(1)
        return loss(p)

    report = fastcheck.check_gradient(counted, lambda p: change(grad(p)), x, **({"dims": "all"} | options))
    return report, len(calls)


@pytest.mark.parametrize("problem", [SMOOTH, RELU], ids=["smooth", "relu"])
def test_two_calls_an_entry_are_enough(problem):
    report, calls = _check(problem)
    assert report.passed
    assert 2 * SIZE < calls < 2.4 * SIZE
    assert report.tensors["params"].norm_ratio < 1e-8


def test_a_small_function_is_searched_entry_by_entry():
    loss, grad, x = SMOOTH
    zeros = np.zeros(SIZE)
    calls = []

    def few(p):
        calls.append(1)
        zeros[:100] = p
        return loss(zeros)

    def slopes(p):
        zeros[:100] = p
        return grad(zeros)[:100]

    assert fastcheck.check_gradient(few, slopes, x[:100]).passed
    assert len(calls) > 6 * 100


@pytest.mark.parametrize("problem", [SMOOTH, RELU], ids=["smooth", "relu"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_one_wrong_entry_is_found(problem, size):
    def change(g):
        g[777] += size * np.sqrt(np.mean(g**2))
        return g

    report, _ = _check(problem, change)
    failing = [entry.index for entry in report.tensors["params"].worst if entry.verdict == "fail"]
    assert (report.verdict, failing) == ("fail", [(777,)])


def test_bars_hold_what_they_promise():
    """The right derivative lies within the bar of every entry."""
    for problem in (SMOOTH, RELU):
        report, _ = _check(problem, keep=True)
        kept = report.tensors["params"].kept
        right = problem[1](problem[2])
        assert (np.abs(kept.numeric - right[kept.dims]) <= kept.error_bar).all()


def test_zeros_need_no_search():
    loss, grad, x = SMOOTH
    used = np.arange(SIZE) % 2 == 0
    report, calls = _check((lambda p: loss(p * used), lambda p: grad(p * used) * used, x))
    assert report.passed
    assert calls < 2.4 * SIZE


def test_entries_of_another_scale_are_searched_by_themselves():
    loss, grad, x = SMOOTH
    scale = np.where(np.arange(SIZE) % 100 == 7, 1e6, 1.0)
    point = x / scale
    report, calls = _check((lambda p: loss(p * scale), lambda p: grad(p * scale) * scale, point))
    assert report.passed
    assert calls < 4 * SIZE


def test_a_given_step_or_stencil_is_kept():
    _, shared = _check(SMOOTH)
    _, stencil = _check(SMOOTH, stencil=5)
    _, step = _check(SMOOTH, step=1e-5)
    assert min(stencil, step) > 2 * shared
