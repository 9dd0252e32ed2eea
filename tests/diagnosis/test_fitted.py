"""Patterns fitted to arrays: each planted one is named, on many shapes and from samples; noise never is."""

import math

import numpy as np
import pytest

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.fitted import fitted
from fastcheck.diagnosis.patterns.table import PATTERNS

SEEDS = range(24)
COUNTS = {"N": 8, "output pixels": 49, "N times output pixels": 392, "C": 3}
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}


def _numeric(random, ranks=(1, 2, 3, 4), least=2):
    """A derivative of a random shape, of 24 entries or more, with values of one or of many sizes."""
    while True:
        shape = tuple(random.integers(least, 8, size=random.choice(ranks)).tolist())
        if math.prod(shape) >= 24:
            break
    values = random.normal(size=shape)
    return values * np.exp(random.normal(size=shape)) if random.random() < 0.5 else values


def _evidence(analytic, numeric, *, dtype="float64", sample=None, value=None, name="weight", seed=0):
    """Evidence with the bars of a type; the derivative is off by up to a quarter of its bar."""
    random = np.random.default_rng(seed)
    flat = numeric.reshape(-1)
    dims = np.arange(flat.size)
    if sample is not None and sample < flat.size:
        dims = np.sort(random.choice(flat.size, sample, replace=False))
    bar = 1e-9 * (np.abs(flat) + np.abs(flat).mean()) if dtype == "float64" else 2.0**-22 * np.abs(flat) + 1e-7
    moved = flat + bar / 4 * random.uniform(-1, 1, size=flat.size)
    stored = analytic.astype(dtype).astype(np.float64)
    return Evidence(name, stored, dims, moved[dims], bar[dims], value)


def _bugs(*evidence, **known):
    return [one.bug for one in fitted({one.name: one for one in evidence}, **known)]


def _scaled(factor):
    return lambda n, random: n * factor


def _value_clip(n, random):
    limit = float(np.quantile(np.abs(n), 0.6))
    return np.clip(n, -limit, limit)


def _norm_clip(n, random):
    return n * (0.5 * 10.0 ** np.floor(np.log10(np.linalg.norm(n))) / np.linalg.norm(n))


def _fortran(n, random):
    return n.transpose().reshape(n.shape)


PLANTED = {
    "is twice what it should be": _scaled(2.0),
    "is half of what it should be": _scaled(0.5),
    "the gradient has the opposite sign": _scaled(-1.0),
    "is divided by N (8)": _scaled(1 / 8),
    "is multiplied by N (8)": _scaled(8.0),
    "is divided by N times output pixels (392)": _scaled(1 / 392),
    "is multiplied by output pixels (49)": _scaled(49.0),
    "is divided by C (3) and has the opposite sign": _scaled(-1 / 3),
    "is multiplied by ln 10": _scaled(math.log(10)),
    "is divided by ln 2": _scaled(1 / math.log(2)),
    "is divided by the square root of 2 pi": _scaled(1 / math.sqrt(2 * math.pi)),
    "is multiplied by 0.9: a constant such as a temperature, or the 1 - p of a dropout of 0.1": _scaled(0.9),
    "is divided by 0.7: a constant such as a temperature, or the 1 - p of a dropout of 0.3": _scaled(1 / 0.7),
    "has a factor of 0.3711 everywhere": _scaled(0.3711),
    "has a factor of -1.0001 everywhere": _scaled(-1.0001),
    "it was never written": lambda n, random: np.zeros_like(n),
    "is clipped at": _value_clip,
    "clipped by norm: the norm of it is": _norm_clip,
    "has its negative values set to zero": lambda n, random: np.maximum(n, 0),
    "has 0.125 added to every entry": lambda n, random: n + 0.125,
    "all values are absolute": lambda n, random: np.abs(n),
    "every value of the gradient is squared": lambda n, random: n**2,
    "holds only the signs of its values": lambda n, random: np.sign(n),
    "the signs of its values, times 0.01": lambda n, random: 0.01 * np.sign(n),
}


def _share_named(words, planted, seeds=SEEDS):
    named = [any(words in bug for bug in _bugs(*planted(seed), counts=COUNTS)) for seed in seeds]
    return sum(named) / len(named)


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("words", PLANTED)
def test_a_planted_pattern_is_named(words, dtype):
    def planted(seed):
        random = np.random.default_rng(seed)
        numeric = _numeric(random)
        analytic = PLANTED[words](numeric, random)
        return [_evidence(analytic, numeric, dtype=dtype, seed=seed, sample=[None, 24][seed % 2])]

    assert _share_named(words, planted) >= 0.95


@pytest.mark.parametrize("words", PLANTED)
def test_only_what_is_planted_is_named(words):
    numeric = _numeric(np.random.default_rng(1), ranks=(3,))
    evidence = _evidence(PLANTED[words](numeric, np.random.default_rng(2)), numeric)
    first, *more = fitted({"weight": evidence}, counts=COUNTS)
    assert words in first.bug
    assert more == []
    assert first.explained == 1
    assert first.residual < 1e-6
    assert first.tensors == ("weight",)
    assert f"explains all {np.count_nonzero(evidence.failing):,} entries that fail in weight" in first.evidence


PENALTIES = {
    "0.02 times the parameter is missing": (1.0, -0.02),
    "0.02 times the parameter is too much": (1.0, 0.02),
    "is divided by N (8), with 0.5 times the parameter added": (1 / 8, 0.5),
    "is multiplied by 1.7, with 0.02 times the parameter taken away": (1.7, -0.02),
    "or it is added or counted twice, with 0.3 times the parameter": (2, 0.3),
}


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("words", PENALTIES)
def test_a_penalty_is_named_alone_and_with_a_factor(words, dtype):
    factor, c = PENALTIES[words]

    def planted(seed):
        random = np.random.default_rng(seed)
        numeric = _numeric(random)
        value = 1 + random.normal(size=numeric.shape)
        return [_evidence(factor * numeric + c * value, numeric, dtype=dtype, value=value, seed=seed)]

    assert _share_named(words, planted) >= 0.95
    wrong = "times the parameter"
    assert not any(wrong in bug for seed in SEEDS for bug in _bugs(_noisy(seed, dtype)))


def _noisy(seed, dtype, sample=None):
    """A correct gradient with relative noise of 1e-3."""
    random = np.random.default_rng(seed)
    numeric = _numeric(random)
    analytic = numeric * (1 + 1e-3 * random.normal(size=numeric.shape))
    return _evidence(analytic, numeric, dtype=dtype, sample=sample, value=random.normal(size=numeric.shape))


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("sample", [None, 24])
def test_noise_has_no_name(dtype, sample):
    others = {"other": np.random.default_rng(99).normal(size=(4, 6))}
    assert [_bugs(_noisy(seed, dtype, sample), others=others, counts=COUNTS) for seed in range(60)] == [[]] * 60


@pytest.mark.parametrize("how", ["added", "random", "one", "two"])
def test_what_is_no_pattern_has_no_name(how):
    for seed in range(60):
        random = np.random.default_rng(seed)
        numeric = _numeric(random)
        analytic, wrong = numeric.copy().reshape(-1), random.normal(size=numeric.size)
        if how == "added":
            analytic += 1e-3 * wrong
        else:
            some = {"random": slice(None), "one": slice(1), "two": slice(2)}[how]
            analytic[some] = wrong[some]
        evidence = _evidence(analytic.reshape(numeric.shape), numeric, value=random.normal(size=numeric.shape))
        assert _bugs(evidence, counts=COUNTS) == []


REARRANGED = {
    "has its axes in another order": (lambda n, random: n.swapaxes(0, 1), "square"),
    "is its own memory in another order of axes": (_fortran, (2, 3, 4)),
    "is flipped along axis 1": (lambda n, random: np.flip(n, 1), (2, 3, 4)),
    "is flipped along axes 2 and 3": (lambda n, random: np.flip(n, (2, 3)), (4,)),
    "is turned by 90 degrees to the left": (lambda n, random: np.rot90(n, 1, (-2, -1)), "square"),
    "is turned by 90 degrees to the right": (lambda n, random: np.rot90(n, -1, (-2, -1)), "square"),
    "is rolled by 1 along axis 1": (lambda n, random: np.roll(n, 1, 1), (2, 3, 4)),
    "is rolled by -1 along axis 0": (lambda n, random: np.roll(n, -1, 0), (1, 2, 3)),
    "is shifted by 1 along axis 0": (lambda n, random: np.concatenate([0 * n[:1], n[:-1]]), (1, 2, 3)),
    "is shifted by -1 along axis 0": (lambda n, random: np.concatenate([n[1:], 0 * n[:1]]), (2, 3, 4)),
}


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("words", REARRANGED)
def test_a_rearrangement_is_named_from_all_entries_and_from_a_sample(words, dtype):
    change, ranks = REARRANGED[words]

    def planted(seed):
        random = np.random.default_rng(seed)
        numeric = random.normal(size=(5 + seed % 3,) * 2) if ranks == "square" else _numeric(random, ranks, least=3)
        return [_evidence(change(numeric, random), numeric, dtype=dtype, seed=seed, sample=[None, 20][seed % 2])]

    assert _share_named(words, planted) >= 0.95


def test_the_code_in_the_words_of_a_rearrangement_makes_the_array():
    numeric = np.random.default_rng(0).normal(size=(3, 4, 5))
    for order in [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        turned = numeric.transpose(order)
        back = tuple(int(axis) for axis in np.argsort(order))
        for analytic in (turned.reshape(3, 4, 5), numeric.reshape(turned.shape).transpose(back)):
            bugs = _bugs(_evidence(analytic, numeric))
            codes = [bug.partition(": right")[2] for bug in bugs]
            assert codes
            for code in codes:
                assert np.array_equal(eval(f"right{code}", {"right": numeric}), analytic)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_rounded_gradient_is_named(name):
    torch = pytest.importorskip("torch")

    def planted(seed):
        numeric = _numeric(np.random.default_rng(seed))
        rounded = torch.from_numpy(numeric).to(getattr(torch, name)).to(torch.float64).numpy()
        bar = 1e-12 * np.abs(numeric.reshape(-1))
        return [Evidence("weight", rounded, np.arange(numeric.size), numeric.reshape(-1), bar)]

    assert _share_named(f"is rounded to {name}", planted) >= 0.95
    assert all(len(_bugs(*planted(seed))) == 1 for seed in SEEDS)


def test_one_cause_of_two_tensors_is_one_diagnosis():
    random = np.random.default_rng(0)
    numeric = {"weight": random.normal(size=(4, 3, 3)), "bias": random.normal(size=4)}
    failed = {name: _evidence(n / 8, n, name=name) for name, n in numeric.items()}
    (only,) = fitted(failed, counts=COUNTS)
    assert only.bug == "the gradient is divided by N (8)"
    assert only.tensors == ("weight", "bias")
    assert only.evidence == "explains all 40 entries that fail in weight and bias, within the error bars"


def test_causes_of_their_own_are_told_by_tensor_the_one_that_explains_most_first():
    random = np.random.default_rng(0)
    bias, weight = random.normal(size=8), random.normal(size=(8, 3))
    failed = {"bias": _evidence(bias * 2, bias, name="bias"), "weight": _evidence(-weight, weight)}
    found = [(one.bug, one.tensors) for one in fitted(failed)]
    assert found[0] == ("the gradient has the opposite sign", ("weight",))
    assert found[1][1] == ("bias",)
    assert len(found) == 2


def test_two_names_of_one_array_are_both_told():
    numeric = np.random.default_rng(0).normal(size=(6, 4))
    bugs = _bugs(_evidence(numeric / 2, numeric), counts={"N": 2})
    assert bugs == ["the gradient is half of what it should be", "the gradient is divided by N (2)"]


def test_what_misses_entries_that_another_explains_is_not_told():
    numeric = np.random.default_rng(0).normal(size=(200, 6))
    rolled = np.roll(numeric, 1, axis=0)
    bugs = _bugs(_evidence(rolled, numeric))
    assert bugs == ["the gradient is rolled by 1 along axis 0"]
    rolled[0] = 0
    assert _bugs(_evidence(rolled, numeric)) == ["the gradient is shifted by 1 along axis 0, with zeros behind it"]


def test_counts_that_are_equal_are_alternatives():
    numeric = np.random.default_rng(0).normal(size=(6, 4))
    bugs = _bugs(_evidence(numeric / 7, numeric), counts={"N": 7, "rows": 7.0, "taps": 1, "none": 0, "C": 3})
    assert bugs == ["the gradient is divided by N or rows (7)"]


def test_a_norm_over_all_tensors_is_found():
    random = np.random.default_rng(0)
    numeric = {"weight": random.normal(size=(4, 3, 3)), "bias": random.normal(size=4)}
    norm = math.sqrt(sum(np.sum(n**2) for n in numeric.values()))
    (only,) = fitted({name: _evidence(n / norm, n, name=name) for name, n in numeric.items()})
    assert only.bug == "the gradient is clipped by norm: the norm of all that fail is 1"
    assert only.tensors == ("weight", "bias")


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_two_tensors_are_exchanged(seed):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(2, 4, 7))
    sample = [None, 12][seed % 2]
    one = _evidence(second, first, name="w1", sample=sample, seed=seed)
    other = _evidence(first, second, name="w2", sample=sample, seed=seed + 1)
    (only,) = fitted({"w1": one, "w2": other})
    assert only.bug == "the gradients of w1 and w2 are exchanged"
    assert only.tensors == ("w1", "w2")
    apart = _evidence(second + random.normal(size=second.shape), first, name="w1")
    assert _bugs(apart, _evidence(first, second, name="w2")) == ["the gradient of w1 is stored as that of w2"]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_of_another_tensor_is_found(seed):
    first, second, third = np.random.default_rng(seed).normal(size=(3, 4, 6))
    evidence = _evidence(second, first, sample=[None, 12][seed % 2], seed=seed)
    assert _bugs(evidence, others={"w2": second, "w3": third}) == ["this is the gradient of w2"]
    assert _bugs(evidence, others={"w2": first, "w3": third, "w4": second[:2]}) == []


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize(
    ("words", "change"),
    [("is divided by N (8)", lambda n: n / 8), ("is flipped along axis 0", np.flipud), ("is clipped at", None)],
)
def test_gradients_of_any_size_are_diagnosed(size, words, change):
    numeric = np.random.default_rng(0).normal(size=(6, 4))
    analytic = _value_clip(numeric, None) if change is None else change(numeric)
    (bug,) = _bugs(_evidence(analytic * size, numeric * size), counts=COUNTS)
    assert words in bug


def test_half_precision_tells_factors():
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        numeric = random.normal(size=(6, 20))
        bar = 2.0**-8 * np.abs(numeric)
        moved = numeric / 8 * (1 + 2.0**-9 * random.uniform(-1, 1, size=numeric.shape))
        one = Evidence("weight", moved, np.arange(120), numeric.reshape(-1), bar.reshape(-1))
        assert _bugs(one, counts=COUNTS) == ["the gradient is divided by N (8)"]


PARTS = {
    "where it fails, the gradient is zero: never written": 0,
    "where it fails, the gradient is twice": 2,
    "where it fails, the gradient has the opposite sign": -1,
    "where it fails, the gradient is divided by N (8)": 1 / 8,
    "where it fails, the gradient has a factor of 3.7": 3.7,
}


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("words", PARTS)
def test_what_entries_that_fail_have_in_common_is_named_as_theirs(words, dtype):
    def planted(seed):
        random = np.random.default_rng(seed)
        numeric = _numeric(random, ranks=(2, 3))
        analytic = numeric.copy()
        analytic[1:] *= PARTS[words]
        return [_evidence(analytic, numeric, dtype=dtype, seed=seed, sample=[None, 24][seed % 2])]

    assert _share_named(words, planted) >= 0.95
    assert all(len(_bugs(*planted(seed), counts=COUNTS)) == 1 for seed in SEEDS)


def test_entries_that_pass_are_not_broken():
    numeric = np.random.default_rng(0).normal(size=(8, 6))
    analytic = numeric.copy()
    analytic[:7] *= 2
    (bug,) = _bugs(_evidence(analytic, numeric))
    assert bug.startswith("where it fails")
    analytic[7] *= 2
    (bug,) = _bugs(_evidence(analytic, numeric))
    assert bug.startswith("the gradient is twice")


@pytest.mark.parametrize(("factor", "few", "many"), [(0, "is zero", "negative values"), (-1, "opposite", "absolute")])
def test_a_few_negative_values_may_fail_by_chance(factor, few, many):
    numeric = 1 + np.abs(np.random.default_rng(0).normal(size=30))
    for count, words in ((2, few), (4, few), (5, many), (12, many)):
        one = numeric.copy()
        one[:count] *= -1
        (bug,) = _bugs(_evidence(np.where(one < 0, factor * one, one), one))
        assert words in bug


def test_a_single_entry_is_no_evidence_of_a_factor_that_is_fitted():
    assert _bugs(_evidence(np.array([0.37]), np.array([1.0]))) == []
    assert _bugs(_evidence(np.array([-1.0]), np.array([1.0]))) == ["the gradient has the opposite sign"]


def test_wide_bars_are_no_evidence():
    numeric = np.random.default_rng(0).normal(size=40)
    wide = Evidence("weight", 2 * numeric, np.arange(40), numeric, np.abs(numeric) * 0.95)
    assert wide.failing.all()
    assert _bugs(wide) == []


def test_values_that_are_no_numbers_have_no_pattern():
    numeric = np.random.default_rng(0).normal(size=(4, 6))
    for value in (np.nan, np.inf, -np.inf):
        assert _bugs(_evidence(np.full((4, 6), value), numeric)) == []


def test_every_pattern_has_a_name_of_its_own_and_what_makes_it_weaker_comes_before_it():
    names = [pattern.name for pattern in PATTERNS]
    assert len(set(names)) == len(names)
    for place, pattern in enumerate(PATTERNS):
        assert set(pattern.unless) <= set(names[:place])
