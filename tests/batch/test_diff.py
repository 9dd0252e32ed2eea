"""What changed between two runs of a suite: verdicts, values beyond their bars, ratios and how fast."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import ledgers
import pytest

from fastcheck import FastcheckError
from fastcheck.batch.diff import ABSENT, FLOOR, difference
from fastcheck.batch.results import SuiteResults, read_results
from fastcheck.reports.suite_report import SuiteReport


@pytest.fixture(scope="module")
def reports():
    return ledgers.reports()


def _night(cases):
    """Results with these cases, None where one is waiting."""
    finished = {name: case for name, case in cases.items() if case is not None}
    waiting = tuple(name for name, case in cases.items() if case is None)
    return SuiteResults("night", SuiteReport.of(finished, 1, interrupted=bool(waiting)), waiting)


def _changed(report, tensor, **changes):
    """A report with another value somewhere in a tensor."""
    return replace(report, tensors=report.tensors | {tensor: replace(report.tensors[tensor], **changes)})


def _worst(report, tensor, place=0, **changes):
    worst = list(report.tensors[tensor].worst)
    worst[place] = replace(worst[place], **changes)
    return _changed(report, tensor, worst=tuple(worst))


def test_nothing_changed(reports):
    cases = {kind: reports[kind] for kind in ("pass", "fail", "error", "inconclusive", "network")} | {"late": None}
    found = difference(_night(cases), _night(cases))
    assert (found.changes, found.drifts, found.only_before, found.only_after) == ((), (), (), ())
    assert (found.worse, found.exit_code) == (False, 0)
    assert found.compared == 5
    assert list(found.paces) == ["pass", "fail", "inconclusive", "network"]  # what crashed has no dimensions
    assert found.pace.factor == 1


WORSE = {
    ("pass", "fail"): True,
    ("pass", "inconclusive"): True,
    ("pass", "error"): True,
    ("pass", None): True,
    ("inconclusive", "fail"): True,
    ("error", "fail"): True,
    ("inconclusive", "error"): False,
    ("error", "inconclusive"): False,
    ("error", "pass"): False,
    ("fail", "pass"): False,
    ("fail", "error"): False,
    ("fail", None): False,
    (None, "fail"): False,
    (None, "pass"): False,
}


@pytest.mark.parametrize(("before", "after"), WORSE)
def test_which_verdicts_are_worse(before, after, reports):
    found = difference(_night({"a": reports.get(before)}), _night({"a": reports.get(after)}))
    (change,) = found.changes
    assert (change.case, change.tensor) == ("a", "")
    assert (change.before, change.after) == (before or "waiting", after or "waiting")
    assert change.worse is found.worse is WORSE[before, after]
    assert found.exit_code == WORSE[before, after]
    if after == "fail":
        assert "bias: 3 of 3 differ" in change.why


def test_a_tensor_that_fails_beside_another_is_worse(reports):
    both = _changed(reports["fail"], "weight", verdict="fail", reason="for a reason")
    (change,) = difference(_night({"a": reports["fail"]}), _night({"a": both})).changes
    assert (change.case, change.tensor, change.before, change.after) == ("a", "weight", "pass", "fail")
    assert (change.why, change.worse) == ("for a reason", True)
    (back,) = difference(_night({"a": both}), _night({"a": reports["fail"]})).changes
    assert not back.worse
    phases = ledgers.network(reports["fail"], both)
    (change,) = difference(_night({"a": reports["network"]}), _night({"a": phases})).changes[:1]
    assert (change.phase, change.worse) == ("with regularisation", True)


def test_a_tensor_that_is_checked_no_longer_is_worse(reports):
    less = replace(reports["pass"], tensors={"weight": reports["pass"].tensors["weight"]})
    found = difference(_night({"a": reports["pass"]}), _night({"a": less}))
    assert [(change.tensor, change.after) for change in found.changes] == [("input", ABSENT), ("bias", ABSENT)]
    assert found.worse
    assert not difference(_night({"a": less}), _night({"a": reports["pass"]})).worse


def test_what_got_worse_comes_first(reports):
    good, wrong = reports["pass"], reports["fail"]
    before = {"better": wrong, "odd": good, "worst": good}
    after = {"better": good, "odd": reports["error"], "worst": wrong}
    found = difference(_night(before), _night(after))
    assert [change.case for change in found.changes] == ["worst", "odd", "better"]


def test_lost_cases_count_and_new_ones_do_not(reports):
    before = {"gone": reports["pass"], "a": reports["pass"]}
    after = {"a": reports["pass"], "new": reports["fail"], "late": None}
    found = difference(_night(before), _night(after))
    assert (found.only_before, found.only_after) == (("gone",), ("new", "late"))
    assert (found.exit_code, found.worse, found.changes, list(found.paces)) == (1, False, (), ["a"])
    assert difference(_night({"a": reports["pass"]}), _night(after)).exit_code == 0
    with pytest.raises(FastcheckError, match="have no case in common"):
        difference(_night({"a": reports["pass"]}), _night({"b": reports["pass"]}))


@pytest.mark.parametrize("what", ["analytic", "numeric"])
def test_a_value_has_moved_beyond_both_bars_and_not_within(what, reports):
    entry = reports["pass"].tensors["weight"].worst[0]
    for part, moved in ((0.99, False), (1.01, True)):
        value = getattr(entry, what) + part * 4 * entry.error_bar
        other = _worst(reports["pass"], "weight", **{what: value}, error_bar=3 * entry.error_bar)
        found = difference(_night({"a": reports["pass"]}), _night({"a": other}))
        assert bool(found.drifts) == moved
        assert found.exit_code == 0
    (move,) = found.drifts
    assert (move.case, move.phase, move.tensor, move.what, move.index) == ("a", "", "weight", what, entry.index)
    assert (move.before, move.after) == (getattr(entry, what), value)
    assert move.allowed == entry.error_bar + 3 * entry.error_bar


def test_of_several_values_the_one_that_moved_furthest_is_told(reports):
    first, second = reports["pass"].tensors["weight"].worst[:2]
    other = _worst(reports["pass"], "weight", 0, numeric=first.numeric + 9 * first.error_bar)
    other = _worst(other, "weight", 1, numeric=second.numeric + 90 * second.error_bar)
    (move,) = difference(_night({"a": reports["pass"]}), _night({"a": other})).drifts
    assert move.index == second.index


def test_values_are_compared_with_themselves_in_any_order(reports):
    worst = reports["pass"].tensors["weight"].worst
    turned = _changed(reports["pass"], "weight", worst=worst[::-1])
    assert not difference(_night({"a": reports["pass"]}), _night({"a": turned})).drifts
    elsewhere = _worst(reports["pass"], "weight", index=(9, 9, 9, 9), numeric=1e9)
    assert not difference(_night({"a": reports["pass"]}), _night({"a": elsewhere})).drifts
    unknown = _worst(reports["pass"], "weight", error_bar=None, numeric=1e9)
    assert not difference(_night({"a": reports["pass"]}), _night({"a": unknown})).drifts


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (1.0, math.nan, True),
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (math.inf, -math.inf, True),
        (math.inf, 1.0, True),
    ],
)
def test_values_that_are_not_finite(before, after, moved, reports):
    one, other = (_worst(reports["fail"], "bias", analytic=value) for value in (before, after))
    found = difference(_night({"a": one}), _night({"a": other}))
    assert bool(found.drifts) == moved
    json.loads(found.to_json())


@pytest.mark.parametrize("what", ["norm_ratio", "max_ratio_resolved"])
@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (1e-9, 9e-9, False),
        (1e-9, 1.1e-8, True),
        (1.1e-8, 1e-9, True),
        (0.0, 0.9 * FLOOR, False),
        (0.0, 1.1 * FLOOR, True),
        (1e-16, 0.9 * FLOOR, False),
        (0.0, 0.0, False),
        (1.0, math.inf, True),
        (math.inf, math.inf, False),
        (math.nan, math.nan, False),
        (math.nan, 0.0, True),
    ],
)
def test_a_ratio_has_moved_by_a_factor_of_ten(what, before, after, moved, reports):
    one, other = (_changed(reports["pass"], "bias", **{what: value}) for value in (before, after))
    moves = difference(_night({"a": one}), _night({"a": other})).drifts
    assert [(move.tensor, move.what) for move in moves] == [("bias", what)] * moved


def test_a_tensor_with_another_verdict_has_changed_and_not_moved(reports):
    found = difference(_night({"a": reports["pass"]}), _night({"a": reports["fail"]}))
    assert [change.case for change in found.changes] == ["a"]
    assert not [move for move in found.drifts if move.tensor == "bias"]


def _timed(report, seconds):
    return replace(report, run=report.run | {"seconds": seconds})


def test_how_fast_both_were(reports):
    slow, slower, slowest = (_timed(reports["pass"], seconds) for seconds in (1.0, 4.0, 9.0))
    before, after = {"a": slow, "b": slow, "gone": slowest}, {"a": slower, "b": slow}
    found = difference(_night(before), _night(after))
    dims = sum(tensor.dims_checked for tensor in reports["pass"].tensors.values())
    assert found.paces["a"] == (dims, dims, 1.0, 4.0)
    assert (found.paces["a"].before, found.paces["a"].factor) == (dims, 0.25)
    assert found.pace == (2 * dims, 2 * dims, 2.0, 5.0)
    suites = (SuiteReport({"a": _timed(reports["pass"], seconds)}, False, {}) for seconds in (None, math.nan))
    unknown = difference(*(SuiteResults("n", suite) for suite in suites))
    assert (unknown.pace.before, unknown.pace.after, unknown.pace.factor) == (None, None, None)


def test_a_case_that_crashed_has_no_pace(reports, run, tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, kind in zip(paths, ("pass", "error"), strict=True):
        path.write_text(_night({"a": _timed(reports[kind], 9.0)}).suite.to_json())
    for pair in (paths, paths[::-1]):
        code, out, err = run("diff", *pair)
        assert (code, err) == (int(pair == paths), "")
        assert out.splitlines()[-1].startswith("1 cases compared: ")
        assert "/s" not in out


# The command


@pytest.fixture
def nights_of_a_week(reports, tmp_path):
    good, wrong = _timed(reports["pass"], 1.0), reports["fail"]
    entry = good.tensors["weight"].worst[0]
    moved = _worst(_timed(good, 4.0), "weight", numeric=entry.numeric + 1e-3)
    moved = _changed(moved, "bias", norm_ratio=1e-5)
    monday = {"lost": good, "a": good, "b": good, "c": wrong, "d": good, "old": wrong}
    tuesday = {"a": moved, "b": wrong, "c": good, "added": wrong, "d": None, "old": wrong}
    return ledgers.ledger(tmp_path / "monday", monday), ledgers.ledger(tmp_path / "tuesday", tuesday)


def test_diff_tells_all_of_it(nights_of_a_week, reports, run, tmp_path):
    monday, tuesday = nights_of_a_week
    entry = reports["pass"].tensors["weight"].worst[0]
    code, out, err = run("diff", monday, tuesday, "--json", tmp_path / "d.json")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    told = " ".join(out.split())
    assert told.startswith(f"{monday} -> {tuesday} gone, only in {monday} (1): lost new, only in {tuesday} (1): added")
    assert "worse: b: pass -> fail: bias: 3 of 3 differ" in told
    assert "lie within" not in told
    assert "worse: d: pass -> waiting" in lines
    assert "fixed: c: fail -> pass" in lines
    assert told.index("worse: b") < told.index("worse: d") < told.index("fixed: c")
    values = f"{entry.numeric:.12g} {entry.numeric + 1e-3:.12g} {2 * entry.error_bar:.1e}"
    assert f" a weight numeric {list(entry.index)} {values} " in told
    assert re.search(r" a bias norm_ratio \d\.\de-1\d 1\.0e-05 10 times ", told)
    assert "a: 130/s -> 32/s, 4.0 times slower" in lines
    assert "old" not in told
    assert lines[-1].startswith("4 cases compared: 1 gone, 1 new, 2 got worse, 1 fixed, 2 moved, 1 still fails; ")
    data = json.loads((tmp_path / "d.json").read_text())
    assert (data["worse"], data["only_before"], data["only_after"]) == (True, ["lost"], ["added"])
    assert [(one["case"], one["worse"]) for one in data["changes"]] == [("b", True), ("d", True), ("c", False)]
    assert [one["case"] for one in data["changes"] if one["fixed"]] == ["c"]
    assert (data["still_failing"], data["in_common"]) == (["old"], "")
    assert [(one["tensor"], one["what"]) for one in data["moves"]] == [("weight", "numeric"), ("bias", "norm_ratio")]
    assert data["paces"]["a"]["per_second_after"] == data["paces"]["a"]["dims_after"] / 4
    assert run("diff", monday, tuesday, "--json", "-")[1] == (tmp_path / "d.json").read_text()


def test_a_lost_case_fails_unless_it_may_be_missing(reports, run, tmp_path):
    good = reports["pass"]
    monday = ledgers.ledger(tmp_path / "monday", {"a": good, "b": good})
    tuesday = ledgers.ledger(tmp_path / "tuesday", {"a": good})
    code, out, _ = run("diff", monday, tuesday)
    assert code == 1
    assert f"gone, only in {monday} (1): b\n" in out
    assert out.splitlines()[-1].startswith("1 cases compared: 1 gone")
    assert run("diff", monday, tuesday, "--allow-missing")[:2] == (0, out)
    code, out, _ = run("diff", tuesday, monday)
    assert (code, out.splitlines()[-1].partition(";")[0]) == (0, "1 cases compared: 1 new")
    worse = ledgers.ledger(tmp_path / "worse", {"a": reports["fail"]})
    assert run("diff", monday, worse, "--allow-missing")[0] == 1


def test_where_nothing_changed_nothing_is_listed(reports, run, tmp_path):
    good, wrong = (_timed(reports[kind], 0.1) for kind in ("pass", "fail"))
    night = ledgers.ledger(tmp_path / "n", {"a": good, "b": wrong, "c": wrong})
    code, out, _ = run("diff", night, night)
    assert (code, out.splitlines()[-1]) == (0, "3 cases compared: nothing changed, 2 still fail")
    assert " ".join(out.split()).startswith(f"{night} -> {night} 3 cases compared")


@pytest.mark.parametrize(("seconds", "told"), [((0.9, 9.0), False), ((9.0, 0.9), False), ((1.0, 9.0), True)])
def test_speeds_below_a_second_are_not_told(reports, run, tmp_path, seconds, told):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, taken in zip(paths, seconds, strict=True):
        path.write_text(_night({"a": _timed(reports["pass"], taken)}).suite.to_json())
    _, out, _ = run("diff", *paths)
    assert ("times slower" in out) == ("/s -> " in out.splitlines()[-1]) == told


def test_reasons_are_those_of_what_does_not_pass(reports):
    (change,) = difference(_night({"a": reports["pass"]}), _night({"a": reports["network"]})).changes
    assert change.why == "bias: 3 of 3 differ by more than the arithmetic can explain, 3 of opposite sign, first at [0]"
    (change,) = difference(_night({"a": reports["pass"]}), _night({"a": reports["inconclusive"]})).changes
    assert change.why == ""
    (change,) = difference(_night({"a": reports["pass"]}), _night({"a": reports["forward"]})).changes
    assert change.why.startswith("forward: ")


def test_diff_of_reports_is_that_of_their_folders(nights_of_a_week, run, tmp_path):
    paths = [tmp_path / f"{folder.name}.json" for folder in nights_of_a_week]
    for folder, path in zip(nights_of_a_week, paths, strict=True):
        path.write_text(read_results(folder).suite.to_json())
    _, whole, _ = run("diff", *nights_of_a_week, "--json", "-")
    code, out, _ = run("diff", paths[0], nights_of_a_week[1], "--json", "-")
    assert (code, out) == (1, whole)
    assert run("diff", *paths)[0] == 1
    assert run("diff", paths[0], paths[0])[0] == 0


def test_bad_input(nights_of_a_week, reports, refused, run, tmp_path):
    monday, tuesday = nights_of_a_week
    assert "holds no ledger" in refused("diff", monday, tmp_path)
    assert "No such file" in refused("diff", tmp_path / "absent", monday)
    one = tmp_path / "one.json"
    for kind in ("pass", "network"):
        one.write_text(reports[kind].to_json())
        assert "is the report of one case: expected a suite's" in refused("diff", monday, one)
    other = ledgers.ledger(tmp_path / "other", {"z": reports["pass"]}, name="weekly\x1b")
    assert "'nightly' and 'weekly\\x1b' have no case in common" in refused("diff", monday, other)
    assert "belongs to the ledger in" in refused("diff", monday, tuesday, "--json", tuesday / "ledger.sqlite")
    assert "Missing argument" in refused("diff", monday)


def test_long_lists_are_cut_and_json_has_all(reports, run, tmp_path):
    before, after = ({f"case{place}": reports[kind] for place in range(50)} for kind in ("pass", "fail"))
    paths = (
        ledgers.ledger(tmp_path / "a", before | {"x": None}),
        ledgers.ledger(tmp_path / "b", after | {"x": None}),
    )
    _, out, _ = run("diff", *paths)
    assert out.count("worse: case") == 40
    assert "and 10 more: --json lists all" in out
    assert len(json.loads(run("diff", *paths, "--json", "-")[1])["changes"]) == 50


def test_nothing_reaches_a_terminal_that_moves_its_cursor(reports, run, tmp_path):
    kinds = ("fail", "error")
    before = {name: ledgers.renamed(reports["pass"], name) for name in ledgers.HOSTILE}
    after = {name: ledgers.renamed(reports[kinds[place % 2]], name) for place, name in enumerate(ledgers.HOSTILE)}
    name = "\x1b[31mred\x1b[0m"
    after[name] = _changed(before[name], f"{name}.bias", norm_ratio=1.0)
    paths = (
        ledgers.ledger(tmp_path / "\x1b[31ma", before | {"gone\x1b": reports["pass"]}),
        ledgers.ledger(tmp_path / "b", after | {"new\x1b": None}),
    )
    _, out, err = run("diff", *paths)
    assert err == ""
    assert all(line.isprintable() for line in out.split("\n"))
    assert "\\x1b[31mred" in out
    assert "gone\\x1b" in out
    _, out, _ = run("diff", *paths, "--json", "-")
    assert all(line.isprintable() for line in out.split("\n"))
    told = json.loads(out)
    assert {change["case"] for change in told["changes"]} == set(ledgers.HOSTILE) - {name}
    assert told["moves"][0]["case"] == name


def test_a_reader_that_stops_reading_changes_nothing(nights_of_a_week):
    monday, tuesday = nights_of_a_week
    command = f"{sys.executable} -m fastcheck diff {monday} {tuesday} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
