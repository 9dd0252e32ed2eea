"""Metrics: by definition, at extremes, and merged in any order."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastcheck
from fastcheck.metrics import tally
from fastcheck.metrics.tally import Tally, fold, merge


def _data(count=5000, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(count)
    return a, a * (1 + 1e-9 * rng.standard_normal(count)) + 1e-14, np.full(count, 1e-10)


@pytest.mark.parametrize("shape", [(7,), (64, 3, 3, 3), (40, 30, 3, 3), (100_000,)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_compare_gives_numpys_one_liner_to_the_last_bit(shape, dtype):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape).astype(dtype)
    n = (a + 1e-6 * rng.standard_normal(shape)).astype(dtype)
    x, y = a.astype(np.float64), n.astype(np.float64)
    tensor = fastcheck.compare(a, n).tensors["gradient"]
    assert tensor.norm_ratio == np.linalg.norm(x - y) / np.linalg.norm(x + y)
    assert tensor.max_ratio == np.max(np.abs(x - y) / np.maximum(np.abs(x), np.abs(y)))
    assert tensor.sign_mismatches == np.count_nonzero(x * y < 0)


@given(*[st.floats() | st.sampled_from([0.0, -0.0, 1e300, 1.7e308, -1.7e308, 5e-324])] * 2)
def test_the_ratio_of_one_pair_is_that_of_arrays_to_the_last_bit(analytic, numeric):
    alone = tally.relative_difference_of(analytic, numeric)
    assert alone == tally.relative_difference(np.array([analytic]), np.array([numeric])).item()


def test_by_definition():
    a = np.array([1.0, -2.0, 1e-20, 0.0, 3.0])
    n = np.array([1.001, 2.0, -1e-20, 0.0, 3.0])
    bar = np.array([1e-6, 1e-6, 1e-6, 1e-6, 1e-6])
    found = fold(np.arange(5), a, n, bar)
    assert found.dims == 5
    assert found.unresolved == 2  # 1e-20 and 0 do not exceed the bar
    assert found.hidden == 1  # and 0 has nothing to hide
    assert found.sign_mismatches == 1  # that of 1e-20 is noise
    assert found.beyond == 2
    assert found.first_beyond == 0
    assert found.max_ratio == found.max_ratio_resolved == 2.0
    assert [finding.dim for finding in found.worst[:2]] == [1, 0]
    assert sum(found.histogram) == 3
    assert found.histogram[-1] == 1  # entire agreement
    assert found.histogram[4 * 3] == 1  # 3.0 digits: 1e-3 / 1.001
    assert found.min_digits == 0.0
    assert found.median_digits == 3.0


def test_zeros_are_no_disagreement():
    found = fold(np.arange(3), np.zeros(3), np.zeros(3), np.zeros(3))
    assert (found.norm_ratio, found.max_ratio, found.beyond, found.unresolved) == (0.0, 0.0, 0, 3)
    assert found.median_digits is None
    assert found.min_digits is None
    opposite = fold(np.arange(2), np.ones(2), -np.ones(2), None)
    assert opposite.norm_ratio == math.inf


def test_outside_a_bar_of_zero_is_worst():
    found = fold(np.arange(2), np.array([1e-300, 2.0]), np.array([0.0, 1.0]), np.array([0.0, 1e-3]))
    assert found.worst[0].dim == 0
    assert found.beyond == 2


@given(cuts=st.lists(st.integers(0, 5000), max_size=8), order=st.randoms())
def test_merging_does_not_depend_on_order(cuts, order):
    a, n, bar = _data()
    bar[::7] = 1.0  # hides some
    edges = sorted({0, *cuts, 5000})
    parts = [fold(np.arange(lo, hi), a[lo:hi], n[lo:hi], bar[lo:hi]) for lo, hi in itertools.pairwise(edges)]
    straight = merge(parts)
    order.shuffle(parts)
    shuffled = merge([merge(parts[:2]), *parts[2:]])
    assert shuffled.norm_ratio == straight.norm_ratio
    assert shuffled.worst == straight.worst
    assert shuffled.histogram == straight.histogram
    assert shuffled.first_beyond == straight.first_beyond
    whole = fold(np.arange(5000), a, n, bar)
    assert straight.norm_ratio == pytest.approx(whole.norm_ratio, rel=1e-14)
    for name in ("dims", "unresolved", "hidden", "sign_mismatches", "beyond", "max_ratio", "max_ratio_resolved"):
        assert getattr(straight, name) == getattr(whole, name)
    assert straight.worst == whole.worst
    assert whole.hidden > 0


def test_nothing_merges_to_nothing():
    assert merge([]) == Tally()


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-160, 1.0, 1e160, 1e300, 1.7e308])
def test_norm_ratio_survives_extreme_scales(scale):
    a = np.array([1.0, 0.5, -0.25]) * scale
    n = np.array([1.0, 0.5, 0.25]) * scale
    expected = 0.5 / math.sqrt(4 + 1)
    assert fold(np.arange(3), a, n, None).norm_ratio == pytest.approx(expected, rel=1e-3)
    mixed = merge([fold(np.arange(3), a, n, None), fold(np.arange(3, 6), 0 * a, 0 * n, None)])
    assert mixed.norm_ratio == pytest.approx(expected, rel=1e-3)


def test_blocks_of_different_scales():
    small, large = np.array([1e-200]), np.array([1e200])
    found = merge([fold(np.array([0]), small, -small, None), fold(np.array([1]), large, large, None)])
    assert found.norm_ratio == pytest.approx(0.0, abs=1e-300)
    found = merge([fold(np.array([0]), large, -large, None), fold(np.array([1]), small, small, None)])
    assert found.norm_ratio == math.inf


def test_non_finite_analytic_values_are_outside_and_counted():
    a = np.array([np.nan, 1.0, np.inf])
    found = fold(np.arange(3), a, np.ones(3), np.full(3, 1e-9))
    assert (found.non_finite, found.beyond) == (2, 2)
    assert found.max_ratio == math.inf
    assert {finding.dim for finding in found.worst[:2]} == {0, 2}
    assert math.isnan(found.norm_ratio)


def test_digits():
    ratios = np.array([0.0, 1e-20, 1e-3, 1.0, 2.0])
    np.testing.assert_allclose(tally.digits(ratios), [16, 16, 3, 0, 0])
