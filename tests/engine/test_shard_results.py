"""Parts of a tensor: they merge to the last bit in any order and grouping, and survive as bytes."""

import math
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer

import fastcheck
from fastcheck import FastcheckError
from fastcheck.check import check
from fastcheck.common.interrupts import Interrupts
from fastcheck.common.packing import pack, unpack
from fastcheck.common.progress import silent
from fastcheck.convolutions.pipeline import ConvPipeline
from fastcheck.engine import coordinator
from fastcheck.engine.pipeline import Session
from fastcheck.engine.settings import Settings
from fastcheck.engine.shard_results import ShardResult, decode, encode
from fastcheck.metrics import tally
from fastcheck.metrics.tally import exactly

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@given(st.lists(FINITE, max_size=40))
def test_few_numbers_have_exactly_the_same_sum(values):
    few = exactly(values)
    assert sum(map(Fraction, few)) == sum(map(Fraction, values))
    assert math.fsum(few) == math.fsum(values)


def test_sums_of_many_numbers_are_few_of_them():
    rng = np.random.default_rng(0)
    assert len(exactly(rng.random(100_000).tolist())) <= 3


@pytest.mark.parametrize("odd", [[math.nan, 1.0], [math.inf, 1.0], [1.7e308, 1.7e308, -1.0]])
def test_numbers_that_have_no_sum_stay(odd):
    np.testing.assert_equal(exactly(odd), tuple(odd))


def part_of(rng, size=30, scale=1.0):
    dims = np.sort(rng.choice(10_000, size, replace=False))
    analytic = rng.standard_normal(size) * scale
    numeric = analytic * (1 + 1e-9 * rng.standard_normal(size))
    found = tally.fold(dims, analytic, numeric, np.full(size, 1e-9 * scale), rng.random(size) < 0.1)
    return ShardResult(found, None)


@given(st.integers(0, 2**31), st.sampled_from([1e-200, 1e-100, 1.0, 1e100]))
def test_any_grouping_gives_the_same_tally(seed, scale):
    rng = np.random.default_rng(seed)
    parts = [part_of(rng, scale=scale if i % 2 else 1.0) for i in range(8)]
    whole = ShardResult.merged(parts).tally
    random.Random(seed).shuffle(parts)
    cut = int(rng.integers(1, 8))
    again = ShardResult.merged(
        [decode(encode(ShardResult.merged(group))) for group in (parts[:cut], parts[cut:])]
    ).tally
    assert again.norm_ratio == whole.norm_ratio
    assert again.typical == whole.typical
    assert replace(again, differences=(), sums=()) == replace(whole, differences=(), sums=())


def test_stored_parts_have_the_keys_that_earlier_ledgers_hold():
    part = ShardResult(tally.Tally(dims=3, inconclusive=2), None)
    assert unpack(encode(part), 10**6)["tally"] == {"dims": 3, "undecided": 2}
    assert decode(encode(part)) == part


@pytest.mark.parametrize("body", [b"", b"not zlib", encode(ShardResult(tally.Tally(dims=3), None))[:-2]])
def test_damaged_bytes_are_refused(body):
    with pytest.raises(FastcheckError, match="a finished part is damaged"):
        decode(body)


def _change(change):
    whole = unpack(encode(part_of(np.random.default_rng(0))), 10**6)
    whole["noted"] = [[1, 2], [0.5, 0.25], [0.0, 1], [1.0], [2.0], []]
    change(whole)
    return pack(whole, 1, 10**6)


CHANGES = {
    "a count in words": lambda whole: whole["tally"].update(dims="3"),
    "a count beyond 64 bits": lambda whole: whole["tally"].update(dims=2**63),
    "a fraction of a dimension": lambda whole: whole["tally"].update(dims=1.5),
    "a flag for a count": lambda whole: whole["tally"].update(dims=True),
    "a short histogram": lambda whole: whole["tally"].update(histogram=[1]),
    "an unknown name": lambda whole: whole["tally"].update(new=1),
    "a sum of words": lambda whole: whole["tally"].update(sums=[["x", 1]]),
    "half a sum": lambda whole: whole["tally"].update(sums=[[1.0]]),
    "a sum without exponent": lambda whole: whole["tally"].update(sums=[[1.0, None]]),
    "worst of another kind": lambda whole: whole["tally"].update(worst=[7]),
    "a finding in words": lambda whole: whole["tally"].update(least=[1, "x", 0.0, 0.0, 0.0, False]),
    "noted in words": lambda whole: whole["noted"][1].append("x"),
    "noted of another length": lambda whole: whole["noted"][0].append(3),
    "too many columns": lambda whole: whole["noted"].append([]),
    "nothing noted": lambda whole: whole.update(noted=7),
    "no tally": lambda whole: whole.pop("tally"),
}


def test_a_part_reads_back_with_what_an_audit_noted():
    part = decode(_change(lambda whole: None))
    assert part.noted == ((1, 2), (0.5, 0.25), (0.0, 1), (1.0,), (2.0,), ())
    assert encode(part) == encode(decode(encode(part)))


@pytest.mark.parametrize("name", CHANGES)
def test_values_of_another_kind_are_refused(name):
    with pytest.raises(FastcheckError, match="a finished part is damaged"):
        decode(_change(CHANGES[name]))


class Recorder:
    """A keeper in memory."""

    def __init__(self, known=None):
        self.bodies, self.asked = dict(known or {}), []

    def known(self, tensor, number):
        body = self.bodies.get((tensor, number))
        return None if body is None else decode(body)

    def keep(self, tensor, number, part, seconds):
        self.asked.append((tensor, number))
        self.bodies[tensor, number] = encode(part)
        return part


def kept(made, recorder, dims="all", pool=None):
    from fastcheck.batch.run.scheduler import InlineExecutor

    settings = Settings(
        dims=dims, step="auto", evaluator="auto", threads=1, seed=0, kinks="widen", keep=False, progress=silent
    )
    session = Session(settings, pool or InlineExecutor(), Interrupts(), keeper=recorder)
    return coordinator.run_in(ConvPipeline(made, settings), session)


def deterministic(report):
    """The report without what a run took, and without diagnoses, which a session of one's own has none of."""
    tensors = {name: replace(tensor, diagnosis=None) for name, tensor in report.tensors.items()}
    return {key: value for key, value in replace(report, tensors=tensors).to_dict().items() if key != "run"}


@pytest.mark.parametrize("loss", ["vjp", pytest.param("relu", marks=pytest.mark.jit)])
def test_shards_in_any_number_give_the_report_of_a_check(monkeypatch, loss):
    made = case(layer((2, 4, 12, 12), (8, 4, 3, 3), padding=1), loss=loss)
    plain = deterministic(check(made, dims="all"))
    for work in (1.0, 2e4, 1e12):
        monkeypatch.setattr(coordinator, "SHARD_WORK", work)
        recorder = Recorder()
        assert deterministic(kept(made, recorder)) == plain
        assert len(recorder.asked) == len(set(recorder.asked)) >= 3
        again = Recorder(recorder.bodies)
        assert deterministic(kept(made, again)) == plain
        assert again.asked == []
        half = Recorder(dict(list(recorder.bodies.items())[::2]))
        assert deterministic(kept(made, half)) == plain
        assert {*half.asked} == {*recorder.bodies} - {*list(recorder.bodies)[::2]}


def test_a_wrong_gradient_fails_through_shards_as_well(monkeypatch):
    monkeypatch.setattr(coordinator, "SHARD_WORK", 1.0)
    right = case(layer((2, 4, 12, 12), (8, 4, 3, 3), padding=1))
    wrong = right.grads["weight"].copy()
    wrong[3, 1, 2, 0] *= 1 + 1e-9
    right.grads["weight"] = wrong
    report = kept(right, Recorder())
    assert report.verdict == "fail"
    assert report.tensors["weight"].first_beyond == (3, 1, 2, 0)


@pytest.mark.jit
def test_a_part_is_small(monkeypatch):
    made = case(layer((2, 8, 64, 64), (32, 8, 3, 3), padding=1))
    whole, many = Recorder(), Recorder()
    kept(made, whole)
    assert max(map(len, whole.bodies.values())) < 1600  # half of it the 32 dimensions that the audit wants
    monkeypatch.setattr(coordinator, "SHARD_WORK", 2e5)
    kept(made, many)
    sizes = [len(body) for (tensor, _), body in many.bodies.items() if tensor == "input"]
    assert len(sizes) >= 16
    assert sum(sizes) / len(sizes) < 800


def test_public_check_has_no_keeper():
    assert fastcheck.check(case(layer((1, 2, 5, 5), (2, 2, 3, 3)))).passed
