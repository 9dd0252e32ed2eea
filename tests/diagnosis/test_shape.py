"""A failure's shape in words: planted ones are found, of all entries and of samples, and words mean what fails."""

import math
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.index_words import Axis, named
from fastcheck.diagnosis.shape import described

WEIGHT = ("filter", "channel", "tap row", "tap column")
INPUT = ("sample", "channel", "row", "column")


def _evidence(failing, *, sample=None, change=None, seed=0):
    """Evidence that fails at these entries, by an error that has no pattern unless a change is given."""
    random = np.random.default_rng(seed)
    numeric = random.normal(size=failing.shape)
    wrong = numeric + random.normal(size=failing.shape) if change is None else change(numeric)
    analytic, flat = np.where(failing, wrong, numeric), numeric.reshape(-1)
    dims = np.arange(flat.size)
    if sample is not None:
        dims = np.sort(random.choice(flat.size, sample, replace=False))
    return Evidence("weight", analytic, dims, flat[dims], 1e-9 * (1 + np.abs(flat[dims])))


def _where(failing, axes=WEIGHT, **how):
    """The part of the words that says where."""
    return described(_evidence(failing, **how), axes).partition("; ")[0]


def _weight(fails, shape=(64, 8, 3, 3)):
    return fails(*np.indices(shape))


PLANTED = {
    "only filter 3": lambda f, c, i, j: f == 3,
    "all but filter 0": lambda f, c, i, j: f > 0,
    "only the first 8 of 64 filters": lambda f, c, i, j: f < 8,
    "only the last 3 of 8 channels": lambda f, c, i, j: c >= 5,
    "only channels 2 to 5": lambda f, c, i, j: (c >= 2) & (c <= 5),
    "only every second filter": lambda f, c, i, j: f % 2 == 0,
    "only every third filter, from filter 1 on": lambda f, c, i, j: f % 3 == 1,
    "only filters 3, 11, 40 and 41": lambda f, c, i, j: np.isin(f, [3, 11, 40, 41]),
    "only taps in the first row": lambda f, c, i, j: i == 0,
    "only taps in the last row and taps in the last column": lambda f, c, i, j: (i == 2) | (j == 2),
    "only tap (0, 2)": lambda f, c, i, j: (i == 0) & (j == 2),
    "all but tap (1, 1)": lambda f, c, i, j: (i != 1) | (j != 1),
    "all but entries whose tap row equals their tap column": lambda f, c, i, j: i != j,
    "only entries whose tap row is less than their tap column": lambda f, c, i, j: i < j,
}
"""What is found in all 4,608 entries, and in 300 of them."""

SMALL = {
    "only tap (0, 2) of filter 3": lambda f, c, i, j: (i == 0) & (j == 2) & (f == 3),
    "only taps in the first row of filter 3": lambda f, c, i, j: (i == 0) & (f == 3),
    "only filter 3 and tap (1, 1)": lambda f, c, i, j: (f == 3) | ((i == 1) & (j == 1)),
    "only channel 0 of the last 2 of 64 filters": lambda f, c, i, j: (f >= 62) & (c == 0),
    "only tap (0, 2) of filter 3 and tap (1, 1) of filter 5": lambda f, c, i, j: (
        ((i == 0) & (j == 2) & (f == 3)) | ((i == 1) & (j == 1) & (f == 5))
    ),
}
"""What is too small for such a sample."""


@pytest.mark.parametrize("words", PLANTED | SMALL)
def test_what_fails_is_described(words):
    assert _where(_weight((PLANTED | SMALL)[words])) == words


@pytest.mark.parametrize("words", PLANTED)
def test_a_sample_shows_as_much(words):
    for seed in range(20):
        found = _where(_weight(PLANTED[words]), sample=600, seed=seed)
        assert found == f"{words} (600 of 4,608 entries checked)"


@pytest.mark.parametrize(
    ("words", "fails"),
    [
        ("only the last row and the last column", lambda n, c, i, j: (i == 7) | (j == 7)),
        ("only every second column of every second row", lambda n, c, i, j: (i % 2 == 0) & (j % 2 == 0)),
        ("only every second column, from column 1 on", lambda n, c, i, j: j % 2 == 1),
        ("only the first and the last row", lambda n, c, i, j: (i == 0) | (i == 7)),
        ("only the first 2 and the last 2 of 8 columns", lambda n, c, i, j: (j < 2) | (j > 5)),
        ("all but sample 0", lambda n, c, i, j: n > 0),
        ("only the last row of sample 2", lambda n, c, i, j: (n == 2) & (i == 7)),
        ("only row 3", lambda n, c, i, j: i == 3),
    ],
)
def test_borders_and_strides_of_an_input_are_described(words, fails):
    assert _where(fails(*np.indices((4, 3, 8, 8))), INPUT) == words


def test_axes_that_have_numbers_are_described():
    row, column = np.indices((6, 9))
    assert _where(row == 2, ("axis 0", "axis 1")) == "only index 2 of axis 0"
    assert _where(column < 4, ("axis 0", "axis 1")) == "only the first 4 of 9 indices of axis 1"
    assert _where((row == 2) & (column == 5), ("axis 0", "axis 1")) == "only entry (2, 5)"
    deep = ((row == 2) & (column == 5))[:, None]
    assert _where(deep, ("axis 0", "axis 1", "axis 2")) == "only entry (2, 0, 5)"


def test_taps_of_a_flat_kernel_are_described():
    failing = np.zeros((6, 4, 1, 5), dtype=bool)
    failing[..., 3] = True
    assert _where(failing) == "only tap (0, 3)"
    failing[..., 4] = True
    assert _where(failing) == "only taps in the last 2 of 5 columns"


def test_small_tensors_are_described():
    assert _where(np.arange(4) == 3, ("filter",)) == "only filter 3"
    assert _where(np.ones(1, dtype=bool), ("filter",)) == "the only entry"
    assert _where(np.ones((), dtype=bool), ()) == "the only entry"
    assert _where(np.ones(2, dtype=bool), ("filter",)) == "both entries"
    assert _where(np.ones((1, 1, 5), dtype=bool), ("filter", "channel", "tap")) == "all 5 entries"
    assert _where(np.zeros(5, dtype=bool), ("filter",)) == "no entry fails"


def test_exceptions_are_counted():
    failing = _weight(lambda f, c, i, j: i == 0)
    failing[5, 5, 2, 2] = True
    assert _where(failing) == "only taps in the first row, but for 1 entry"
    failing[5, 5, 0, :2] = False
    assert _where(failing) == "only taps in the first row, but for 3 entries"
    failing[np.random.default_rng(0).random(failing.shape) < 0.3] = False
    assert "but for" not in _where(failing)


def test_a_rule_for_where_entries_fail_is_told_with_how_many_do():
    random = np.random.default_rng(0).random((64, 8, 3, 3))
    failing = _weight(lambda f, c, i, j: f == 3) & (random < 0.4)
    assert _where(failing) == f"only in filter 3, where {np.count_nonzero(failing)} of 72 entries fail"


def test_few_entries_of_a_sample_are_listed_and_not_generalised():
    for seed in range(50):
        evidence = _evidence(_weight(lambda f, c, i, j: (f == 3) & (c == 1)), sample=300, seed=seed)
        count = np.count_nonzero(evidence.failing)
        words = described(evidence, WEIGHT)
        assert words.endswith("entry fails" if not count else "(300 of 4,608 entries checked)")
        if 0 < count < 3:
            assert words.startswith(f"{count} of 300 entries: [3, 1, ")


@pytest.mark.parametrize("share", [0.003, 0.03, 0.3, 0.7, 0.97])
@pytest.mark.parametrize("sample", [None, 300])
def test_chance_is_not_described(share, sample):
    for seed in range(50):
        failing = np.random.default_rng(seed).random((64, 8, 3, 3)) < share
        words = _where(failing, sample=sample, seed=seed + 1)
        assert not words.startswith(("only", "all but"))


def test_what_chance_leaves_is_counted():
    random = np.random.default_rng(0).random((64, 8, 3, 3))
    failing = random < 0.003
    assert _where(failing) == f"scattered: {np.count_nonzero(failing)} of 4,608 entries"
    assert _where(random < 0.997) == f"nearly all: {np.count_nonzero(random < 0.997):,} of 4,608 entries"
    one = np.zeros((64, 8, 3, 3), dtype=bool)
    one[3, 1, 1, 0] = one[9, 2, 0, 0] = True
    assert _where(one) == "2 of 4,608 entries: [3, 1, 1, 0] and [9, 2, 0, 0]"
    everything = np.ones((64, 8, 3, 3), dtype=bool)
    assert _where(everything) == "all 4,608 entries"
    assert _where(everything, sample=300) == "all 300 entries checked, of 4,608"


# Signs and factors

ALL = np.ones((8, 4, 3, 3), dtype=bool)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("all zero", lambda n: 0 * n),
        ("all nan or infinite", lambda n: n * np.nan),
        ("all nan or infinite", lambda n: np.full_like(n, np.inf)),
        ("all of the opposite sign; one factor: -1", lambda n: -n),
        ("all too small in size; one factor: 0.125", lambda n: n / 8),
        ("all too large in size, all of the opposite sign; one factor: -3", lambda n: -3 * n),
        ("all too large in size", lambda n: n * (2 + np.abs(np.sin(1e3 * n)))),
        ("about half of the opposite sign", lambda n: np.random.default_rng(7).normal(size=n.shape)),
    ],
)
def test_what_values_have_in_common_is_told(words, change):
    assert described(_evidence(ALL, change=change), WEIGHT) == f"all 288 entries; {words}"
    assert described(_evidence(ALL, sample=60, change=change), WEIGHT) == f"all 60 entries checked, of 288; {words}"


def test_a_derivative_that_is_zero_is_told():
    evidence = Evidence("w", np.ones(6), np.arange(6), np.zeros(6), np.full(6, 1e-9))
    assert described(evidence, ("filter",)) == "all 6 entries; the derivative is zero in all of them"


def test_factors_that_cluster_are_told():
    rows = np.where(np.arange(3) == 1, 2, 1)[:, None]
    doubled = np.broadcast_to(rows == 2, (8, 4, 3, 3))
    words = described(_evidence(doubled, change=lambda n: n * rows), WEIGHT)
    assert words == "only taps in row 1; all too large in size; one factor: 2"
    corners = rows * np.where(np.arange(3) == 1, 2, 1)
    crossed = np.broadcast_to(corners > 1, (8, 4, 3, 3))
    words = described(_evidence(crossed, change=lambda n: n * corners), WEIGHT)
    assert words == "only taps in row 1 and taps in column 1; all too large in size; two factors: 2 and 4"


def test_a_factor_close_to_one_is_told_from_one():
    words = described(_evidence(ALL, change=lambda n: n * (1 + 2.5e-7)), WEIGHT)
    assert words == "all 288 entries; all too large in size; one factor: 1.00000025"


@pytest.mark.parametrize("seed", range(20))
def test_factors_that_spread_are_not_told(seed):
    random = np.random.default_rng(seed)
    for factor in (1 + 1e-3 * random.normal(size=ALL.shape), random.normal(size=ALL.shape)):
        assert "factor" not in described(_evidence(ALL, seed=seed, change=lambda n, by=factor: n * by), WEIGHT)


def test_a_few_entries_of_a_sample_show_no_sign():
    words = described(_evidence(_weight(lambda f, c, i, j: f == 3), sample=300, change=lambda n: -n), WEIGHT)
    assert "sign" not in words


# Words mean what they say


def _meant(words, axis):
    """The indices that words mean, read by rules of their own."""
    noun, size = axis.noun, axis.size
    everything = set(range(size))
    if match := re.fullmatch(rf"all {axis.nouns} but (.*)", words):
        return everything - _meant(match[1], axis)
    if match := re.fullmatch(rf"the (first|last) (\d+) of {size} {axis.nouns}", words):
        return set(range(int(match[2]))) if match[1] == "first" else set(range(size - int(match[2]), size))
    if match := re.fullmatch(rf"every (second|third|fourth|\d+th) {noun}(?:, from {noun} (\d+) on)?", words):
        ordinal = {"second": 2, "third": 3, "fourth": 4}.get(match[1]) or int(match[1][:-2])
        return set(range(int(match[2] or 0), size, ordinal))
    if match := re.fullmatch(rf"{axis.nouns} (\d+) to (\d+)", words):
        return set(range(int(match[1]), int(match[2]) + 1))
    if words in (f"the first {noun}", f"the last {noun}"):
        return {0 if "first" in words else size - 1}
    if match := re.fullmatch(rf"the first (?:(\d+) )?and the last (?:\d+ of {size} )?{axis.nouns}?", words):
        k = int(match[1] or 1)
        return set(range(k)) | set(range(size - k, size))
    assert re.fullmatch(rf"{axis.nouns}? [\d, and]+", words), words
    return set(map(int, re.findall(r"\d+", words)))


@given(st.integers(2, 40).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), min_size=1))))
def test_words_for_indices_mean_these(drawn):
    size, indices = drawn
    axis = Axis("row", size, np.arange(size))
    words = named(axis, np.array(sorted(indices))).words
    if not words.endswith("...)"):
        assume(len(indices) < size)
        assert _meant(words, axis) == indices


@given(st.data())
def test_words_for_some_of_the_indices_seen_mean_no_other_that_was_seen(data):
    size = data.draw(st.integers(4, 40))
    seen = data.draw(st.sets(st.integers(0, size - 1), min_size=2))
    indices = data.draw(st.sets(st.sampled_from(sorted(seen)), min_size=1, max_size=len(seen) - 1))
    axis = Axis("row", size, np.array(sorted(seen)))
    words = named(axis, np.array(sorted(indices))).words
    if not words.endswith("...)"):
        assert _meant(words, axis) & seen == indices


@given(st.data())
def test_the_description_of_a_box_means_the_box(data):
    shape = data.draw(st.tuples(*[st.integers(2, 6)] * 3))
    rule = st.sampled_from(["all", "one", "first", "even"])
    chosen = [set(range(size)) for size in shape]
    for axis, size in enumerate(shape):
        k = data.draw(st.integers(0, size - 1))
        chosen[axis] = {
            "all": set(range(size)),
            "one": {k},
            "first": set(range(max(k, 1))),
            "even": set(range(0, size, 2)),
        }[data.draw(rule)]
    failing = np.zeros(shape, dtype=bool)
    failing[np.ix_(*map(sorted, chosen))] = True
    assume(0 < np.count_nonzero(failing) < failing.size)
    names = ("sample", "row", "column")
    words = _where(failing, names)
    assume("entries:" not in words)
    assume("whose" not in words)
    opening, meant = re.fullmatch("(only|all but) (.*)", words).groups()
    assert np.array_equal(_mask(meant, names, shape), failing if opening == "only" else ~failing)


def _mask(words, names, shape):
    """The entries that words mean: a box, or else the union of what stands before and after an "and"."""
    try:
        return _box(words, names, shape)
    except AssertionError:
        for joint in re.finditer(" and ", words):
            try:
                before, after = words[: joint.start()], words[joint.end() :]
                return _mask(before, names, shape) | _mask(after, names, shape)
            except AssertionError:
                continue
        raise


def _box(words, names, shape):
    mask = np.ones(shape, dtype=bool)
    for phrase in re.split(" of (?=every|the|all|sample|row|column)", words):
        axis, *others = (place for place, name in enumerate(names) if name in phrase)
        assert not others, phrase
        indices = _meant(phrase, Axis(names[axis], shape[axis], np.arange(shape[axis])))
        along = np.isin(np.arange(shape[axis]), list(indices))
        mask &= along.reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return mask


def test_large_tensors_are_described():
    failing = np.zeros((256, 128, 3, 3), dtype=bool)
    failing[:, :, 2] = failing[:, :, :, 2] = True
    assert math.prod(failing.shape) > 2 * 2**17
    words = described(_evidence(failing, change=lambda n: 0 * n), WEIGHT)
    assert words == "only taps in the last row and taps in the last column; all zero"
