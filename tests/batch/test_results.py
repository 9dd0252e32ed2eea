"""What a batch run found: the ledger as a suite's report, the part that is asked for, tables, files and a chat line."""

import csv
import io
import json
import math
import re
import shutil
import sys
import tracemalloc
import zlib
from dataclasses import replace

import ledgers
import processes
import pytest

from fastcheck import FastcheckError
from fastcheck.batch.ledger import ledger as ledger_module
from fastcheck.batch.ledger.ledger import Ledger
from fastcheck.batch.results import read_results
from fastcheck.render.batch import LONGEST, MOST_LISTED, chat_line
from fastcheck.render.suite import case_line
from fastcheck.render.suite_csv import COLUMNS
from fastcheck.render.text import as_text
from fastcheck.reports.reader import from_json
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport

SUITE = """
[[case]]
name = "a"
conv = {in = 1, out = 1, kernel = 1}
input = [1, 1, 2, 2]
"""


@pytest.fixture(scope="module")
def reports():
    return ledgers.reports()


@pytest.fixture
def night(reports, tmp_path):
    """A folder with a case of every kind, the names in no order."""
    names = {"z/1": "pass", "grid/stride=1,groups=4": "fail", "a": "error", "net": "network", "b[2]": "inconclusive"}
    cases = {name: reports[kind] for name, kind in names.items()}
    return ledgers.ledger(tmp_path / "night", {**cases, "late": None})


def _harmless(text):
    return all(line.isprintable() for line in text.split("\n"))


def test_a_ledger_becomes_the_report_of_a_suite_in_its_order(night, reports):
    found = read_results(night)
    assert (found.name, found.waiting) == ("nightly", ("late",))
    assert list(found.suite.cases) == ["z/1", "grid/stride=1,groups=4", "a", "net", "b[2]"]
    assert found.suite.interrupted
    assert (found.suite.verdict, found.suite.exit_code) == ("fail", 130)
    assert [type(case) for case in found.suite.cases.values()] == [Report, Report, Report, NetworkReport, Report]
    for name, kind in (("z/1", "pass"), ("grid/stride=1,groups=4", "fail"), ("net", "network")):
        assert found.suite.cases[name].to_json() == reports[kind].to_json()


def test_its_run_part_is_that_of_the_last_run_and_of_all_cases(night, reports):
    run = read_results(night).suite.run
    expected = {"threads", "seconds", "audit_seconds", "forward_seconds", "peak_bytes", "target", "versions"}
    assert set(run) == expected
    assert (run["threads"], run["target"], run["versions"]) == (3, "x86_64 tested", {"fastcheck": "9.9"})
    kinds = ("pass", "fail", "network", "inconclusive")
    assert run["seconds"] == pytest.approx(2.0 + sum(reports[kind].run["seconds"] for kind in kinds))
    assert run["forward_seconds"] == pytest.approx(sum(reports[kind].run["forward_seconds"] for kind in kinds), rel=1)
    assert run["peak_bytes"] == max(reports[kind].run["peak_bytes"] for kind in kinds)


def test_a_case_that_crashed_took_what_the_ledger_tells(night):
    assert read_results(night).suite.cases["a"].run["seconds"] == 2.0


def test_a_ledger_without_a_run_still_has_a_report(tmp_path):
    with Ledger.open(tmp_path / "empty", "nothing", "", "some target"):
        pass
    found = read_results(tmp_path / "empty")
    assert (found.suite.verdict, found.suite.run["target"], found.names) == ("inconclusive", "some target", ())
    assert from_json(found.suite.to_json()).to_json() == found.suite.to_json()


def test_json_of_a_suite_with_a_network_reads_back(night):
    suite = read_results(night).suite
    again = from_json(suite.to_json())
    assert isinstance(again.cases["net"], NetworkReport)
    assert again.to_json() == suite.to_json()
    assert as_text(again, io.StringIO()) == as_text(suite, io.StringIO())
    data = json.loads(suite.to_json())
    data["cases"][3]["verdict"] = "pass"
    with pytest.raises(FastcheckError, match="its verdict is not that of its cases, fail"):
        from_json(json.dumps(data))
    data["cases"][0] = json.loads(suite.to_json()) | {"name": "suite"}
    with pytest.raises(FastcheckError, match="the report is damaged"):
        from_json(json.dumps(data))


def test_a_network_is_shown_with_its_last_phase_and_why_any_failed(night, reports):
    text = as_text(read_results(night).suite, io.StringIO(), verbose=True)
    rows = [line.split() for line in text.splitlines() if line.startswith(" net ")]
    assert [row[1:3] for row in rows] == [[name, "pass"] for name in ("input", "weight", "bias")]
    (why,) = (line for line in text.splitlines() if line.startswith("net: "))
    assert why.startswith("net: fail: data loss: bias: 3 of 3 differ")
    assert "weight" not in why
    line = case_line("net", reports["network"])
    checked = 2 * sum(tensor.dims_checked for tensor in reports["pass"].tensors.values())
    assert line.startswith("fail         net ")
    assert f"{checked} dimensions in" in line


def test_a_report_that_no_reader_understands_is_told_with_its_case(reports, tmp_path):
    class Odd:
        def to_dict(self):
            return reports["pass"].to_dict() | {"seed": -1}

    ledgers.ledger(tmp_path / "odd", {"first\x1b": Odd()})
    with pytest.raises(FastcheckError, match=r"ledger.sqlite, case 'first\\x1b': .*seed is -1"):
        read_results(tmp_path / "odd")
    whole = SuiteReport.of({"a": reports["pass"]}, threads=1)
    ledgers.ledger(tmp_path / "suite", {"nested": whole})
    with pytest.raises(FastcheckError, match="the report of a suite, not of a case"):
        read_results(tmp_path / "suite")


def test_an_error_that_names_a_file_as_the_system_has_it(reports, run, tmp_path):
    broken = replace(reports["error"], error="no file \udcff.npz")
    ledgers.ledger(tmp_path / "n", {"a": broken})
    code, out, _ = run("show", tmp_path / "n")
    assert code == 3
    assert "a   ERROR: no file \\udcff.npz" in out


# Filters


def test_without_filters_everything_is_shown_and_the_last_line_tells_of_all(night, run):
    code, out, err = run("show", night, "--verbose")
    assert (code, err) == (130, "")
    lines = out.splitlines()
    assert "   FAIL: interrupted; 2 of 5 cases fail:" in lines[0]
    assert [line.split()[0] for line in lines if re.match(r" [^ ─].* (of \d+|error) ", line)] == [
        *["z/1"] * 3, *["grid/stride=1,groups=4"] * 3, "a", *["net"] * 3, *["b[2]"] * 3,
    ]  # fmt: skip
    assert "waiting (1): late" in lines
    assert re.fullmatch(
        r"nightly: 1 of 6 pass, 2 fail \(grid/stride=1,groups=4: bias; net: bias\), "
        r"1 error, 1 inconclusive, "
        r"1 waiting; \d+ dimensions in \S+ s \([\d,.]+( M)?/s\)",
        lines[-1],
    )


@pytest.mark.parametrize(
    ("options", "cases", "code"),
    [
        (("--verdict", "fail"), ["grid/stride=1,groups=4", "net"], 130),
        (("--verdict", "error,inconclusive"), ["a", "b[2]"], 130),
        (("--case", "grid/*"), ["grid/stride=1,groups=4"], 1),
        (("--case", "grid/stride=1,groups=4", "--case", "z/?"), ["z/1", "grid/stride=1,groups=4"], 1),
        (("--case", "b[2]"), ["b[2]"], 3),
        (("--case", "z/*"), ["z/1"], 0),
        (("--case", "[za]*", "--verdict", "pass"), ["z/1"], 3),
        (("--tensor", "bia?"), ["z/1", "grid/stride=1,groups=4", "net", "b[2]"], 130),
        (("--tensor", "bias", "--case", "z/1"), ["z/1"], 0),
        (("--case", "late"), [], 130),
    ],
)
def test_filters_choose_what_is_shown_and_written(options, cases, code, night, run, tmp_path):
    files = [tmp_path / name for name in ("f.json", "f.csv", "f.xml")]
    written = ("--json", files[0], "--csv", files[1], "--junit", files[2])
    found, out, err = run("show", night, "--verbose", *options, *written)
    assert (found, err) == (code, "")
    assert [case["name"] for case in json.loads(files[0].read_text())["cases"]] == cases
    rows = [row for row in ledgers.rows(files[1]) if row["verdict"] != "waiting"]
    assert list(dict.fromkeys(row["case"] for row in rows)) == cases
    assert re.findall(r'<testcase [^>]*name="([^"]*)"', files[2].read_text()) == cases + ["late"] * ("late" in options)
    shown = [line.split()[0] for line in out.splitlines() if re.match(r" [^─ ].* (of \d+|error  ) ", line)]
    assert list(dict.fromkeys(shown)) == cases
    if "--tensor" in options:
        assert {row["tensor"] for row in rows} == {"bias"}


def test_waiting_is_a_verdict_as_well(night, run):
    _, out, _ = run("show", night, "--verdict", "waiting")
    assert "waiting (1): late" in out
    assert "z/1" not in out
    assert "waiting (1)" not in run("show", night, "--verdict", "pass")[1]


def test_a_filter_that_nothing_is_like_is_said(reports, night, run, refused, tmp_path):
    ledgers.ledger(tmp_path / "good", {"a": reports["pass"]})
    code, out, _ = run("show", tmp_path / "good", "--verdict", "fail,error")
    assert (code, out.splitlines()[0]) == (0, "no case matches")
    assert out.splitlines()[-1].startswith("nightly: 1 of 1 pass; ")
    told = "a verdict is 'fial' (did you mean 'fail'?): expected one of pass, fail, inconclusive, error, waiting"
    assert told in refused("show", night, "--verdict", "fial")
    assert "no case is named 'grid/stride=1,groups=5' (did you mean 'grid/stride=1,groups=4'?)" in refused(
        "show", night, "--case", "grid/stride=1,groups=5"
    )
    assert "no tensor is named 'wieght' (did you mean 'weight'?)" in refused("show", night, "--tensor", "wieght")


def test_of_many_cases_those_that_passed_are_counted(reports, run, tmp_path):
    cases = {f"case{number}": reports["pass"] for number in range(MOST_LISTED)}
    few = ledgers.ledger(tmp_path / "few", cases)
    assert "case7 " in run("show", few)[1]
    many = ledgers.ledger(tmp_path / "many", {**cases, "wrong": reports["fail"]})
    code, out, _ = run("show", many)
    assert code == 1
    assert "case7 " not in out
    assert f"{MOST_LISTED} cases that passed are not listed: --all lists them" in out
    assert f"FAIL: 1 of {MOST_LISTED + 1} cases fails: wrong; {MOST_LISTED} pass" in " ".join(out.split())
    assert "\nwrong   FAIL: bias is wrong in all 3 entries" in out
    assert "case7 " in run("show", many, "--all")[1]


# Files


def test_csv_has_a_row_for_every_case_phase_and_tensor(night, reports, run, tmp_path):
    path = tmp_path / "night.csv"
    run("show", night, "--csv", path)
    rows = ledgers.rows(path)
    assert tuple(rows[0]) == COLUMNS
    assert [row["case"] for row in rows] == [
        *["z/1"] * 3, *["grid/stride=1,groups=4"] * 3, "a", *["net"] * 6, *["b[2]"] * 3, "late",
    ]  # fmt: skip
    assert [row["phase"] for row in rows if row["case"] == "net"] == ["data loss"] * 3 + ["with regularisation"] * 3
    bias = reports["fail"].tensors["bias"]
    (row,) = (row for row in rows if row["case"].startswith("grid") and row["tensor"] == "bias")
    for key in ("norm_ratio", "max_ratio", "max_ratio_resolved", "step"):
        assert float(row[key]) == getattr(bias, key)
    for key in ("dims_checked", "dims_total", "unresolved", "kinks", "beyond_error_bar", "sign_mismatches"):
        assert int(row[key]) == getattr(bias, key)
    assert (row["verdict"], row["reason"], row["evaluator"]) == ("fail", bias.reason, bias.evaluator)
    assert float(row["digits_min"]) == bias.digits["min"]
    assert float(row["seconds"]) == reports["fail"].run["seconds"]
    crashed = next(row for row in rows if row["case"] == "a")
    assert (crashed["verdict"], crashed["reason"], crashed["tensor"]) == ("error", "ValueError: of some kind", "")
    assert (rows[-1]["case"], rows[-1]["verdict"], rows[-1]["seconds"]) == ("late", "waiting", "")


def test_a_wrong_forward_has_a_row_with_the_bug(reports, run, tmp_path):
    night = ledgers.ledger(tmp_path / "n", {"conv1": reports["forward"]})
    code, out, _ = run("show", night, "--csv", tmp_path / "n.csv")
    assert code == 1
    (row,) = ledgers.rows(tmp_path / "n.csv")
    bug = "the output is twice what it should be: a factor of 1/2 is missing, or it is added or counted twice"
    assert (row["case"], row["tensor"], row["verdict"], row["bug"]) == ("conv1", "", "fail", bug)
    assert f"1 fail (conv1: {bug});" in out.splitlines()[-1]


def test_all_of_it_works_with_the_report_of_a_suite(night, run, tmp_path):
    path, again = tmp_path / "r.json", tmp_path / "again.json"
    run("show", night, "--json", path)
    code, out, _ = run("show", path, "--csv", tmp_path / "a.csv", "--junit", tmp_path / "a.xml", "--json", again)
    assert code == 130
    assert again.read_text() == path.read_text()
    assert "interrupted: only the cases and dimensions reached are counted" in out
    assert out.splitlines()[-1].startswith("r: 1 of 5 pass, 2 fail (")
    assert "interrupted" in out.splitlines()[-1]
    assert run("show", path, "--case", "z/1")[0] == 130  # nobody knows which cases are missing
    assert run("show", path, "--json", "-", "--verdict", "fail")[1].count('"hygiene"') == 1
    assert (tmp_path / "a.xml").read_text().count("<testcase") == 5


@pytest.mark.parametrize("kind", ["pass", "network", "error"])
def test_all_of_it_works_with_the_report_of_a_case(kind, reports, run, tmp_path):
    path, again = tmp_path / "one.json", tmp_path / "again.json"
    path.write_text(reports[kind].to_json())
    code, out, _ = run("show", path, "--csv", tmp_path / "a.csv", "--junit", tmp_path / "a.xml", "--json", again)
    assert code == reports[kind].exit_code
    assert out == as_text(reports[kind], io.StringIO(), str(path))
    assert again.read_text() == path.read_text()
    assert {row["case"] for row in ledgers.rows(tmp_path / "a.csv")} == {"one"}
    assert (tmp_path / "a.xml").read_text().count("<testcase") == 1
    if kind != "error":
        code, out, _ = run("show", path, "--tensor", "bias", "-v")
        assert code == reports[kind].exit_code
        assert [line.split()[1] for line in out.splitlines() if line.startswith(" one ")] == ["bias"]


def test_files_do_not_overwrite_what_is_read_or_each_other(night, refused, run, tmp_path):
    for option in ("--json", "--csv", "--junit"):
        for name in ledgers.OWN:
            assert "belongs to the ledger in" in refused("show", night, option, night / name)
        assert "is a folder" in refused("show", night, option, night)
    assert "named twice" in refused("show", night, "--csv", tmp_path / "f", "--junit", tmp_path / "f")
    assert "named twice" in refused("show", night, "--json", tmp_path / "f", "--junit", tmp_path / "f")
    assert "--csv is '-'" in refused("show", night, "--csv", "-")
    assert "--junit is '-'" in refused("show", night, "--junit", "-")
    assert run("show", night)[0] == 130


def test_links_and_other_folders_hide_no_ledger(night, reports, refused, run, tmp_path):
    other = ledgers.ledger(tmp_path / "other", {"a": reports["pass"]})
    suite, before = tmp_path / "s.toml", (night / "lock.sqlite").read_bytes()
    suite.write_text(SUITE)
    (tmp_path / "soft").symlink_to(night / "lock.sqlite")
    (tmp_path / "hard").hardlink_to(night / "lock.sqlite")
    (tmp_path / "folder").symlink_to(night)
    for path in (
        tmp_path / "soft",
        tmp_path / "hard",
        tmp_path / "folder" / "LEDGER.sqlite-shm",
        night / "lock.sqlite",
    ):
        for arguments in (("show", night), ("diff", night, other), ("diff", other, night)):
            assert "belongs to the ledger in" in refused(*arguments, "--json", path)
        for option in ("--json", "--junit"):
            assert "belongs to the ledger in" in refused("run", suite, "--out", night, option, path)
    (night / "numeric").mkdir()
    assert "belongs to the ledger in" in refused("show", night, "--csv", night / "numeric" / "f.csv")
    assert (night / "lock.sqlite").read_bytes() == before
    for name in ("report.json", "ledger.json", "xledger.sqlite", "ledger.sqlite.json"):
        assert run("diff", night, other, "--allow-missing", "--json", night / name)[0] == 0


def test_what_is_no_ledger_is_refused(refused, tmp_path):
    assert "holds no ledger: expected a folder written by `fastcheck run`" in refused("show", tmp_path)
    assert "No such file" in refused("show", tmp_path / "absent")
    hostile = tmp_path / "\x1b[31m"
    hostile.mkdir()
    assert _harmless(refused("show", hostile))


# Crafted ledgers and reports


def _damage_is_told(code, err):
    told = err.startswith("fastcheck: ") and " damaged" in err and err.count("\n") == 1 and len(err) < 500
    return told if code == 2 else code in (0, 1, 3, 130) and not err


@pytest.mark.parametrize("value", ledgers.VALUES)
def test_any_value_in_any_column_is_shown_or_told(value, night, run, tmp_path):
    book, refused = night / "ledger.sqlite", set()
    whole = book.read_bytes()
    files = ("--json", tmp_path / "f.json", "--csv", tmp_path / "f.csv", "--junit", tmp_path / "f.xml")
    for table, column in ledgers.columns(night):
        book.write_bytes(whole)
        if ledgers.damage(night, table, column, value):
            code, _, err = run("show", night, *files)
            assert _damage_is_told(code, err), (table, column, code, err)
            refused |= {f"{table}.{column}"} if code == 2 else set()
    assert {"cases.name", "cases.verdict", "runs.facts", "reports.checksum"} <= refused
    assert ("cases.seconds" in refused) == (value != "NULL")
    assert "workers.name" not in refused


@pytest.mark.parametrize(
    "value", [None, "x", -1, True, 10**400, math.nan, [], {"a": {"b": [1]}}, "\ud800"], ids=lambda one: repr(one)[:20]
)
def test_any_run_part_is_shown_or_told(value, night, run, tmp_path):
    known = {"threads", "seconds", "audit_seconds", "forward_seconds", "peak_bytes", "target", "versions"}
    report, refused = tmp_path / "r.json", set()
    suite = read_results(night).suite.to_dict()
    for part in (*known, "new"):
        facts, told = json.dumps({"threads": 1, part: value}), json.loads(json.dumps(suite))
        ledgers.damage(night, "runs", "facts", f"'{facts}'")
        for case in told["cases"]:
            case["run"][part] = value
        report.write_text(json.dumps(told))
        for path in (night, report):
            code, _, err = run("show", path, "--json", tmp_path / "f.json")
            assert _damage_is_told(code, err), (part, path, code, err)
            refused |= {(part, path)} if code == 2 else set()
    texts = {("target", night), ("target", report)} if value == "x" else set()
    assert refused >= {(part, path) for part in known for path in (night, report)} - texts or value is None
    assert not {("new", night), ("new", report)} & refused


def test_a_report_in_a_ledger_is_read_as_any_other(night, refused):
    wrong = b'"seconds":"x","old":'
    ledgers.sign(night, lambda body: zlib.compress(zlib.decompress(body).replace(b'"seconds":', wrong)))
    assert "run.seconds is 'x': expected a number of seconds" in refused("show", night)


@pytest.mark.parametrize("seconds", [5e-324, 1e18])
def test_any_number_of_seconds_has_a_pace(seconds, night, run, tmp_path):
    shutil.copytree(night, tmp_path / "other")
    told = f'"seconds":{seconds},"old":'.encode()
    ledgers.sign(night, lambda body: zlib.compress(zlib.decompress(body).replace(b'"seconds":', told)))
    for arguments in (("diff", night, tmp_path / "other"), ("diff", tmp_path / "other", night), ("show", night)):
        code, _, err = run(*arguments)
        assert (code in (0, 130), err) == (True, "")


def test_of_two_cases_with_one_name_none_is_hidden(night, refused):
    ledgers.damage(night, "cases", "name", "'same'")
    assert "two cases have the same name" in refused("show", night)


def test_what_inflates_without_end_is_not_inflated(night, refused, monkeypatch):
    bomb = zlib.compress(b'{"verdict": "pass", "x": "' + bytes(30_000_000))
    ledgers.sign(night, lambda body: bomb)
    monkeypatch.setattr(ledger_module, "MOST_BYTES", 10_000_000)
    tracemalloc.start()
    try:
        message = refused("show", night)
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
    assert "is damaged" in message
    assert "longer than 10,000,000 bytes" in message


def test_the_checksum_is_looked_at_before_anything_is_inflated(night, refused, monkeypatch):
    ledgers.damage(night, "reports", "checksum", "7")
    monkeypatch.setattr(ledger_module, "unpack", None)
    assert "does not match its checksum" in refused("show", night)


def test_nesting_is_told(night, refused, tmp_path):
    deep = "[" * 500 + "]" * 500
    new = f'"run":{{"new":{deep},'.encode()
    ledgers.sign(night, lambda body: zlib.compress(zlib.decompress(body).replace(b'"run":{', new)))
    assert "nested more than" in refused("show", night)
    report = tmp_path / "r.json"
    report.write_text(f'{{"schema": 1, "verdict": "pass", "cases": [], "run": {{"new": {deep}}}}}')
    assert "nested more than" in refused("show", report)


# The line for a chat message


@pytest.mark.parametrize("count", [1, 3, 4, 1000])
@pytest.mark.parametrize("length", [1, 60, 300])
def test_a_chat_line_is_one_short_line(count, length, reports):
    name = "n" * length + "\n\x1b"
    failed = ledgers.renamed(reports["fail"], name)
    cases = {f"{name}{number}": failed for number in range(count)} | {"x": reports["error"], "y": reports["pass"]}
    line = chat_line(name, SuiteReport.of(cases, threads=1), 12_345)
    assert len(line) <= LONGEST
    assert line.isprintable()
    assert f"1 of {count + 2 + 12_345:,} pass, {count:,} fail (n" in line
    assert "), 1 error, 12,345 waiting; " in line
    assert ("more)" in line) == (count > (3 if length == 1 else 1))  # three short names fit


def test_a_chat_line_tells_of_the_worst_and_how_fast(reports):
    def line(*kinds, seconds=None, **changes):
        suite = SuiteReport.of({kind: reports[kind] for kind in kinds}, threads=1)
        return chat_line("s", replace(suite, run=suite.run | {"seconds": seconds}, **changes), 0)

    dims = sum(tensor.dims_checked for tensor in reports["pass"].tensors.values())
    assert line("pass", seconds=71.4) == f"s: 1 of 1 pass; {dims} dimensions in 71 s ({dims / 71.4:.2g}/s)"
    assert line("pass", seconds=1e-5) == f"s: 1 of 1 pass; {dims} dimensions in 1e-05 s (13.0 M/s)"
    assert line("pass") == f"s: 1 of 1 pass; {dims} dimensions"
    assert line("pass", seconds=float("nan")) == f"s: 1 of 1 pass; {dims} dimensions"
    assert line("pass", interrupted=True).startswith("s: 1 of 1 pass, interrupted; ")
    assert line("pass", "error").startswith("s: 1 of 2 pass, 1 error (error: ValueError: of some kind); ")
    assert line("error", "inconclusive").startswith("s: 0 of 2 pass, 1 error (error: ValueError: of some kind), 1 inc")
    assert line("fail", "error").startswith(
        "s: 0 of 2 pass, 1 fail (fail: bias, the gradient has the opposite sign), 1 error; "
    )
    assert line() == "s: 0 of 0 pass; 0 dimensions"


# Names that users choose


@pytest.fixture
def hostile(reports, tmp_path):
    """A folder in which every name and reason is hostile."""
    kinds = ("fail", "pass", "error", "inconclusive")
    cases = {name: ledgers.renamed(reports[kinds[place % 4]], name) for place, name in enumerate(ledgers.HOSTILE)}
    phases = (ledgers.renamed(reports["fail"], "\x1b[5m"), ledgers.renamed(reports["pass"], "\x1b[6m"))
    cases["net\x1b"] = ledgers.network(*phases)
    return ledgers.ledger(tmp_path / "hostile", {**cases, "late\x1b[0m": None}, name="night\x1b]0;title\x07\nly")


def test_nothing_reaches_a_terminal_that_moves_its_cursor(hostile, run):
    for options in ((), ("--all",), ("--verdict", "fail,waiting"), ("--tensor", "*bias")):
        _, out, err = run("show", hostile, *options)
        assert err == ""
        assert _harmless(out)
    assert "\\x1b[31mred" in out
    assert "[bold]markup" in out
    assert "<b>&amp;]]></b>" in out


@pytest.mark.parametrize("columns", [40, 200])
def test_nor_where_a_terminal_is_coloured(columns, hostile, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = as_text(read_results(hostile).suite, Terminal(), "title\x1b[1A")
    assert "\x1b[" in text
    assert _harmless(re.sub("\x1b\\[[0-9;]*m", "", text))
    assert "\x1b[5m" not in text


def test_reports_of_single_cases_are_as_harmless(reports, run, tmp_path):
    for kind in ("fail", "error", "forward"):
        (tmp_path / "r.json").write_text(ledgers.renamed(reports[kind], "\x1b[31m").to_json())
        assert _harmless(run("show", tmp_path / "r.json")[1])
    phase = ledgers.renamed(reports["fail"], "\x1b[31m")
    network = ledgers.network(phase, phase)
    network = replace(network, hygiene=(network.hygiene[0]._replace(topic="\x1b", text="\x1b\n"),))
    (tmp_path / "r.json").write_text(network.to_json())
    assert _harmless(run("show", tmp_path / "r.json")[1])


def test_names_that_become_one_stay_two(reports):
    bias = reports["fail"].tensors["bias"]
    tensors = {"\x1b": bias, "\\x1b": replace(bias, verdict="pass")}
    text = as_text(replace(reports["fail"], tensors=tensors), io.StringIO(), verbose=True)
    assert [line.split()[:2] for line in text.splitlines() if line.startswith(" \\x1b")][:2] == [
        ["\\x1b", "fail"],
        ["\\x1b'", "pass"],
    ]


def test_a_spreadsheet_computes_nothing(hostile, run, tmp_path):
    run("show", hostile, "--csv", tmp_path / "h.csv")
    text = (tmp_path / "h.csv").read_text(encoding="utf-8")
    assert _harmless(text)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(dict.fromkeys(row["case"] for row in rows)) == len(ledgers.HOSTILE) + 2
    words = [row[key] for row in rows for key in ("case", "phase", "tensor", "verdict", "bug", "reason", "evaluator")]
    assert not [word for word in words if word.lstrip()[:1] in tuple("=+-@\uff1d") and word]
    assert "'=cmd()" in words
    assert "'-2.bias" in words
    assert "'=cmd() crashed" in words


def test_json_holds_the_names_as_they_are(hostile, run):
    _, out, _ = run("show", hostile, "--json", "-")
    assert _harmless(out)
    assert [case["name"] for case in json.loads(out)["cases"]] == [*ledgers.HOSTILE, "net\x1b"]


def test_messages_are_harmless(night, refused, run, tmp_path):
    for option in ("--case", "--tensor", "--verdict", "--\x9b\x07"):
        assert _harmless(refused("show", night, option, "\x1b[31m\x07"))
    assert "\\x07" in refused("show", tmp_path / "\x1b[31m\x07")


@pytest.mark.parametrize("options", ["", "--json -"])
def test_a_reader_that_stops_reading_changes_nothing(options, reports, tmp_path):
    night = ledgers.ledger(tmp_path / "n", {f"case{number}": reports["fail"] for number in range(30)})
    command = f"{sys.executable} -m fastcheck show {night} {options} | true; exit ${{PIPESTATUS[0]}}"
    done = processes.run(["bash", "-c", command])
    assert (done.returncode, done.stderr) == (1, "")


def test_a_ledger_that_a_run_is_writing_can_be_read(reports, run, tmp_path):
    ledgers.ledger(tmp_path / "n", {"a": reports["pass"], "b": None}, ended=False)
    with Ledger.open(tmp_path / "n", "nightly", "text", "x86_64 tested") as book:
        book.finish("key b", reports["fail"].to_dict(), 1.0)
        code, out, _ = run("show", tmp_path / "n")
    assert code == 1
    assert "nightly: 1 of 2 pass, 1 fail (b: bias, the gradient has the opposite sign); " in out
