"""Where the digits are: the worst entry of every bin, whatever the sizes, and the axes and rules in words."""

import itertools
import math
from types import SimpleNamespace

import network_examples
import numpy as np
import pytest
import torch_network
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer

import fastcheck
from fastcheck.metrics.tally import fold
from fastcheck.reports.axes import Plane, planes_of
from fastcheck.reports.digit_map import UNRESOLVED, WRONG, DigitMap, binned, digit_maps, levels_of
from fastcheck.reports.tensor_report import Kept

CONV = {"groups": 1, "stride": (1, 1)}

# Levels

VALUES = st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-12, 1e308, np.nan, np.inf, -np.inf])
ENTRIES = st.lists(st.tuples(VALUES, VALUES, st.floats(0, 1e305) | st.sampled_from([0.0, 1e-9, np.inf])), min_size=1)


def _kept(entries, bars=True):
    analytic, numeric, error_bar = (np.array(column, dtype=float) for column in zip(*entries, strict=True))
    return Kept(np.arange(len(entries)), analytic, numeric, error_bar if bars else None)


def _level(a, n, bar):
    """The level of one entry by its definition."""
    if not (math.isfinite(a) and math.isfinite(n) and abs(a - n) <= bar):
        return WRONG
    larger = max(abs(a), abs(n))
    if larger <= bar:
        return UNRESOLVED
    return 16.0 if a == n else min(max(-math.log10(abs(a / larger - n / larger)), 0.0), 16.0)


@given(ENTRIES)
def test_levels_are_those_of_the_definition(entries):
    found = levels_of(_kept(entries))
    assert found == pytest.approx([_level(*entry) for entry in entries], abs=1e-6)
    assert set(np.flatnonzero(found == WRONG)) == {i for i, entry in enumerate(entries) if _level(*entry) == WRONG}


@given(ENTRIES)
def test_as_many_are_wrong_as_the_tally_counts(entries):
    kept = _kept(entries)
    tally, levels = fold(kept.dims, kept.analytic, kept.numeric, kept.error_bar), levels_of(kept)
    assert np.count_nonzero(levels == WRONG) == tally.beyond
    if not tally.beyond:
        assert np.count_nonzero(levels == UNRESOLVED) == tally.unresolved
        resolved = levels[levels < UNRESOLVED]
        assert tally.min_digits == (resolved.min() if len(resolved) else None)


def test_without_bars_nothing_is_wrong_and_zeros_have_no_digits():
    entries = [(0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.001, 0.0), (1.0, -1.0, 0.0), (np.nan, 1.0, 0.0)]
    assert levels_of(_kept(entries, bars=False)).tolist() == pytest.approx([UNRESOLVED, 16, 3, 0, 0], abs=1e-3)


# Bins

SHAPES = st.lists(st.integers(1, 7), max_size=5).map(tuple)
LEVELS = st.sampled_from([WRONG, 0.0, 3.5, 9.25, 16.0, UNRESOLVED])


@st.composite
def _sampled(draw):
    """Draw a shape, some of its flat indices with a level each, and numbers of bins."""
    shape = draw(SHAPES)
    levels = draw(st.dictionaries(st.integers(0, math.prod(shape) - 1), LEVELS, max_size=40))
    return shape, dict(sorted(levels.items())), draw(st.integers(1, 9)), draw(st.integers(1, 9))


def _looped(shape, levels, plane, height, width):
    """Bin with plain loops: the lowest level of every bin that has one."""
    lowest = {}
    for dim, index in enumerate(itertools.product(*map(range, shape))):
        if dim in levels:
            along = [index[axis] for axis in plane.axes]
            row, column = [0, 0, *along][-2:]
            place = row // height, column // width
            lowest[place] = min(levels[dim], lowest.get(place, math.inf))
    return lowest


@given(_sampled(), st.sampled_from([None, CONV]))
def test_bins_are_those_of_plain_loops(sampled, operands):
    shape, levels, most_rows, most_columns = sampled
    dims, values = np.array([*levels], dtype=np.int64), np.array([*levels.values()])
    for plane in planes_of("weight", shape, operands):
        found = binned(dims, values, shape, plane, most_rows, most_columns)
        expected = _looped(shape, levels, plane, found.height, found.width)
        assert {
            place: found.levels[place] for place in zip(*np.nonzero(~np.isnan(found.levels)), strict=True)
        } == expected
        rows, columns = found.levels.shape
        assert rows <= most_rows
        assert columns <= most_columns
        assert (rows - 1) * found.height < plane.rows <= rows * found.height
        assert (columns - 1) * found.width < plane.columns <= columns * found.width
        assert found.height == 1 or math.ceil(plane.rows / (found.height - 1)) > most_rows
        assert found.width == 1 or math.ceil(plane.columns / (found.width - 1)) > most_columns


@given(st.data(), st.lists(st.integers(1, 5000), min_size=1, max_size=5).map(tuple), st.integers(1, 300))
def test_a_planted_wrong_entry_is_seen_whatever_the_sizes(data, shape, most):
    """The others, in the same bins, agree in all digits."""
    rng = np.random.default_rng(0)
    place = data.draw(st.integers(0, math.prod(shape) - 1))
    dims = np.unique(np.append(rng.integers(0, math.prod(shape), 500), place))
    numeric = rng.normal(size=len(dims))
    analytic = np.where(dims == place, numeric * (1 + 1e-9), numeric)
    kept = Kept(dims, analytic, numeric, 1e-10 * abs(numeric))
    tensor = SimpleNamespace(shape=shape, verdict="fail", passed=False, norm_ratio=1.0, kept=kept)
    (found,) = digit_maps({"weight": tensor}, None)
    for plane in found.planes:
        bins = found.binned(plane, most, most)
        index = np.unravel_index(place, shape)
        row, column = [0, 0, *(index[axis] for axis in plane.axes)][-2:]
        assert bins.levels[row // bins.height, column // bins.width] == WRONG
        assert np.count_nonzero(bins.levels == WRONG) == 1
    assert found.words.startswith(f"1 of {len(dims):,} wrong")


# Axes

LAYERS = {"layers": ["conv1 (conv)", "norm (layer_norm)", "odd (name) (batch_norm)", "fc (dense)"]}


@pytest.mark.parametrize(
    ("name", "shape", "operands", "titles"),
    [
        ("weight", (8, 3, 5), CONV, ["filter x channel", "tap"]),
        ("weight", (8, 3, 5, 5), CONV, ["filter x channel", "tap row x tap column"]),
        ("weight", (8, 3, 2, 5, 5), CONV, ["filter x channel", "tap depth", "tap row x tap column"]),
        ("weight", (8, 3, 1, 1), CONV, ["filter x channel"]),
        ("bias", (8,), CONV, ["filter"]),
        ("input", (2, 3, 9), CONV, ["sample x channel", "position"]),
        ("input", (2, 3, 9, 9), CONV, ["sample x channel", "row x column"]),
        ("input", (1, 1, 9, 9), CONV, ["row x column"]),
        ("input", (2, 3, 4, 9, 9), CONV, ["sample x channel", "depth", "row x column"]),
        ("conv1.weight", (8, 3, 5, 5), LAYERS, ["filter x channel", "tap row x tap column"]),
        ("conv1.bias", (8,), LAYERS, ["filter"]),
        ("fc.weight", (10, 40), LAYERS, ["output x input"]),
        ("fc.weight", (10, 4, 3, 3), LAYERS, ["output x input", "row x column"]),
        ("fc.bias", (10,), LAYERS, ["output"]),
        ("norm.weight", (4, 6, 6), LAYERS, ["channel", "row x column"]),
        ("norm.bias", (4, 6), LAYERS, ["channel x position"]),
        ("odd (name).bias", (4,), LAYERS, ["channel"]),
        ("absent.weight", (4, 3), LAYERS, ["axis 0 x axis 1"]),
        ("weight", (4, 3, 2, 2), None, ["axis 0 x axis 1", "axis 2 x axis 3"]),
        ("weight", (4, 3, 2, 2, 2, 2), CONV, ["axis 0 x axis 1", "axis 2", "axis 3", "axis 4 x axis 5"]),
        (
            "weight",
            (4, 3, 2, 2),
            {"weight": [4, 3, 2, 2], "groups": [2], "layers": [3]},
            ["axis 0 x axis 1", "axis 2 x axis 3"],
        ),
        ("b", (), None, [""]),
        ("b", (1, 1), None, [""]),
    ],
)
def test_planes(name, shape, operands, titles):
    planes = planes_of(name, shape, operands)
    assert [plane.title for plane in planes] == titles
    assert all(plane.extents == tuple(shape[axis] for axis in plane.axes) for plane in planes)


def test_the_axes_of_every_layer_of_a_real_network_have_names():
    for name in ("cnn", "layer_norm_maps", "conv_3d", "batch_norm_features"):
        report = _network(name)
        maps = digit_maps(report.tensors, report.operands)
        assert len(maps) == len(report.tensors)
        titles = {plane.title for one in maps for plane in one.planes}
        assert not any("axis" in title for title in titles), titles


# Words


def _words(shape, wrong, checked=None, operands=CONV):
    """Return the words on a weight in which these indices are wrong."""
    whole = np.zeros(shape, dtype=bool)
    whole[wrong] = True
    dims = np.arange(whole.size) if checked is None else checked
    levels = np.where(whole.ravel()[dims], WRONG, 9.0)
    return DigitMap("weight", shape, planes_of("weight", shape, operands), dims, levels).words


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (np.s_[3], ", all in filter 3"),
        (np.s_[:, :, 0], ", all in tap row 0"),
        (np.s_[:, ::2], ", all in channels 0, 2, ... 6"),
        (np.s_[:2], ", all in filters 0 and 1"),
        (np.s_[1:7], ", all in filters 1 to 6"),
        (np.s_[:, [0, 5]], ", all in channels 0 and 5"),
        (np.s_[[0, 1, 6], :, 1, 2], ", all in filters 0, 1 and 6, tap row 1, tap column 2"),
        (np.s_[[0, 1, 4, 6]], ""),
        (np.s_[:], ""),
    ],
)
def test_where_wrong_entries_are_is_said_where_they_follow_a_rule(wrong, where):
    shape = (8, 8, 3, 3)
    count = np.zeros(shape)[wrong].size
    assert _words(shape, wrong) == f"{count:,} of 576 wrong{where}"


def test_rules_are_of_what_was_checked_and_axes_without_names_have_numbers():
    assert _words((8, 8, 3, 3), np.s_[2], np.arange(144, 216)) == "72 of 72 wrong"
    assert _words((8, 8, 3, 3), np.s_[2], np.arange(140, 216)) == "72 of 76 wrong, all in filter 2"
    assert _words((4, 4), np.s_[2], operands=None) == "4 of 16 wrong, all in axis 0 at 2"


def test_words_where_nothing_is_wrong():
    def words(*levels):
        return DigitMap("b", (4,), planes_of("b", (4,), None), np.arange(len(levels)), np.array(levels)).words

    assert words(12.34, 9.04, UNRESOLVED) == "at least 9.0 digits"
    assert words(UNRESOLVED, UNRESOLVED) == "no digits"
    assert words() == "no digits"


# Real reports


def _network(name, keep=True, **factors):
    described, params, x, y, masks = network_examples.CASES[name](0)
    _, grads = torch_network.gradients(described, params, x, y, masks)
    grads = {tensor: factors.get(tensor, 1.0) * grad for tensor, grad in grads.items()}
    return fastcheck.check_network(described, params, grads, x, y, masks=masks, dims="all", threads=2, keep=keep)


def test_maps_of_a_convolution_agree_with_its_report_the_worst_tensor_first():
    described = layer((2, 3, 9, 9), (4, 3, 3, 3), stride=2, padding=1)
    grads = {name: grad.copy() for name, grad in case(described).grads.items()}
    grads["weight"][3, :, 0] *= -1
    grads["input"][..., 5] += 1e-6
    report = fastcheck.check(case(described, grads=grads), keep=True)
    maps = {one.name: one for one in digit_maps(report.tensors, report.operands)}
    assert list(maps) == ["weight", "input", "bias"]
    for name, one in maps.items():
        tensor = report.tensors[name]
        assert np.count_nonzero(one.levels == WRONG) == tensor.beyond_error_bar
        assert np.count_nonzero(one.levels == UNRESOLVED) == tensor.unresolved
    assert maps["weight"].words == "9 of 108 wrong, all in filter 3, tap row 0"
    assert maps["input"].words.endswith(" wrong, all in column 5")
    least = report.tensors["bias"].digits["min"]
    assert maps["bias"].words == f"at least {least:.1f} digits"


def test_maps_of_a_network_agree_with_its_report():
    report = _network("cnn", **{"conv1.weight": 1.001})
    for one in digit_maps(report.tensors, report.operands):
        assert np.count_nonzero(one.levels == WRONG) == report.tensors[one.name].beyond_error_bar
    assert digit_maps(_network("cnn", keep=False).tensors, None) == []


def test_a_plane_of_one_axis_runs_across():
    assert (Plane((0,), ("filter",), (5,)).rows, Plane((0,), ("filter",), (5,)).columns) == (1, 5)
