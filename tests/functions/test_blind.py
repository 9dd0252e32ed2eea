"""A passing report has a line where the arrays hide mistakes, and none in an ordinary case."""

import json

import numpy as np
import pytest

import fastcheck
from fastcheck.reports.reader import from_json

RNG = np.random.default_rng(5)
X, W, B = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 5)), np.zeros(5)


def affine(x, w, b):
    return x @ w + b


def affine_backward(v, x, w, b):
    return v @ w.T, x.T @ v, v.sum(0)


def remarks(*inputs, **options):
    """What the blind spots of a check are said to be."""
    report = fastcheck.check_vjp(affine, affine_backward, inputs, **options)
    assert report.passed
    assert from_json(report.to_json()).health == report.health
    found = [one for one in report.health if one.name == "blind spots"]
    for one in found:
        assert f"blind spots: {one.words}" in " ".join(str(report).split())
        assert "blind spots" in json.dumps(report.to_dict())
    return "".join(one.words for one in found)


def test_an_ordinary_case_has_no_line():
    assert remarks(X, W, B) == ""
    assert remarks(X, W, np.ones(5), grad_output=RNG.normal(size=(4, 5))) == ""
    report = fastcheck.check_gradient(lambda p: float(np.sum(p**3)), lambda p: 3 * p**2, np.ones(4))
    assert report.health == ()


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        ((X[:1], W, B), {}, "input 0 is a single sample"),
        ((X, np.full((3, 5), 0.5), B), {}, "all entries of input 1 are 0.5"),
        ((X, W, B), {"grad_output": np.ones((4, 5))}, "the cotangent is constant"),
        ((X, np.ones((3, 5)), B), {"grad_output": np.ones((4, 5))}, "input 1 are 1, the cotangent is constant"),
    ],
)
def test_what_hides_mistakes_is_said(inputs, options, words):
    assert words in remarks(*inputs, **options)


def test_what_is_hidden_is_hidden():
    """The wrong sibling of each line: a mistake that passes there, and fails in an ordinary case."""

    def transposed(v, x, w, b):
        return v @ w.T, x.T @ v[:, ::-1], v.sum(0)

    ones = np.ones((4, 5))
    assert fastcheck.check_vjp(affine, transposed, (X, W, B), grad_output=ones).passed
    assert not fastcheck.check_vjp(affine, transposed, (X, W, B)).passed

    def averaged(v, x, w, b):
        return v @ w.T, x.T @ v, v.mean(0)

    assert fastcheck.check_vjp(affine, averaged, (X[:1], W, B)).passed
    assert not fastcheck.check_vjp(affine, averaged, (X, W, B)).passed


def test_a_failing_check_has_no_line():
    report = fastcheck.check_vjp(affine, lambda v, x, w, b: (v @ w.T, 2 * x.T @ v, v.sum(0)), (X[:1], W, B))
    assert not report.passed
    assert all(one.name != "blind spots" for one in report.health)


def test_a_loss_of_equal_parameters_is_said_to_be_that():
    w = np.full((3, 2), 0.5)
    report = fastcheck.check_gradient(lambda p: float(np.sum(np.sin(p))), np.cos, w)
    assert report.passed
    assert "all entries of params are 0.5" in report.health[0].words
