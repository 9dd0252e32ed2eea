"""JUnit XML of a batch run: valid, with the ledger's totals, and nothing that did not pass counted as passed."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import ledgers
import pytest
import xmlschema

from fastcheck.batch.ledger.ledger import Ledger
from fastcheck.batch.results import read_results
from fastcheck.render.junit import junit
from fastcheck.reports.suite_report import SuiteReport

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))


@pytest.fixture(scope="module")
def reports():
    return ledgers.reports()


def _tree(text):
    SCHEMA.validate(text)
    return ElementTree.fromstring(text)


def _of_folder(folder):
    found = read_results(folder)
    return junit(found.name, found.suite, found.waiting)


def _counted(tree):
    """The totals as written, and the tests counted one by one."""
    (suite,) = tree
    tests = suite.findall("testcase")
    found = {tag: sum(test.find(tag) is not None for test in tests) for tag in ("failure", "error", "skipped")}
    for element in (tree, suite):
        told = tuple(int(element.get(key)) for key in ("tests", "failures", "errors"))
        assert told == (len(tests), found["failure"], found["error"])
    assert int(suite.get("skipped")) == found["skipped"]
    return found | {"passed": sum(len(test) == 0 for test in tests), "all": len(tests)}


KINDS = ("pass", "pass", "fail", "error", "error", "inconclusive", "forward", "network", None, None, None)


def test_totals_are_those_of_the_ledger(reports, tmp_path):
    cases = {f"case{place}": reports.get(kind) for place, kind in enumerate(KINDS)}
    folder = ledgers.ledger(tmp_path / "n", cases)
    tree = _tree(_of_folder(folder))
    with Ledger.read(folder) as ledger:
        counts = ledger.counts()
        seconds = sum(result.seconds for result in ledger.results() if result.verdict == "error")
    found = _counted(tree)
    assert found["all"] == len(cases) == sum(counts.values())
    assert (found["passed"], found["failure"], found["skipped"]) == (counts["pass"], counts["fail"], counts["waiting"])
    assert found["error"] == counts["error"] + counts["inconclusive"] == 3
    run = read_results(folder).suite.run
    assert float(tree.get("time")) == pytest.approx(run["seconds"], abs=1e-3)
    assert run["seconds"] > seconds == 4.0
    times = [float(test.get("time")) for test in tree.iter("testcase")]
    assert sum(times) == pytest.approx(run["seconds"], abs=1e-3 * len(times))


def test_each_verdict_says_what_it_is(reports, tmp_path):
    cases = {kind: reports[kind] for kind in ("pass", "fail", "error", "inconclusive", "forward", "network")}
    tree = _tree(_of_folder(ledgers.ledger(tmp_path / "n", {**cases, "late": None})))
    tests = {test.get("name"): test for test in tree.iter("testcase")}
    assert list(tests) == [*cases, "late"]
    assert {test.get("classname") for test in tests.values()} == {"nightly"}
    assert len(tests["pass"]) == 0
    failure = tests["fail"].find("failure")
    assert failure.get("type") == "fail"
    assert failure.get("message") == "bias 3 of 3 wrong; input, weight pass"
    assert failure.text == str(reports["fail"])
    worst = reports["fail"].tensors["bias"].worst
    row = next(line for line in failure.text.splitlines() if line.startswith(f"  {list(worst[0].index)} "))
    assert [float(value) for value in row.split()[1:3]] == pytest.approx([worst[0].analytic, worst[0].numeric], 1e-5)
    error = tests["error"].find("error")
    assert (error.get("type"), error.get("message")) == ("error", "ValueError: of some kind")
    assert tests["inconclusive"].find("error").get("type") == "inconclusive"
    assert "the output is twice what it should be" in tests["forward"].find("failure").get("message")
    assert tests["network"].find("failure").text.startswith("FAIL: bias (data loss) is wrong in all 3 entries")
    assert tests["late"].find("skipped").get("message") == "not run"


def test_an_interrupted_case_did_not_pass(reports):
    suite = SuiteReport.of({kind: replace(reports[kind], interrupted=True) for kind in ("pass", "fail")}, threads=1)
    found = _counted(_tree(junit("s", suite, ())))
    assert (found["passed"], found["skipped"], found["failure"]) == (0, 1, 1)


def test_names_are_shown_whatever_is_in_them(reports, tmp_path):
    kinds = ("fail", "pass", "error", "inconclusive")
    cases = {name: ledgers.renamed(reports[kinds[place % 4]], name) for place, name in enumerate(ledgers.HOSTILE)}
    phases = ledgers.network(*(ledgers.renamed(reports["fail"], "\x1b[5m") for _ in range(2)))
    folder = ledgers.ledger(tmp_path / "n", {**cases, "net\x1b": phases, "late\x00": None}, name="night\x1b\n<&>")
    text = _of_folder(folder)
    assert all(line.isprintable() for line in text.split("\n"))
    tree = _tree(text)
    names = [test.get("name") for test in tree.iter("testcase")]
    assert len(set(names)) == len(cases) + 2
    shown = ("quote\"'", "new\\nline", "\\x1b[31mred\\x1b[0m", "<b>&amp;]]></b>", "nul\\x00", "\\ufffe", "é✓")
    for name in (*shown, "net\\x1b", "late\\x00"):
        assert name in names
    assert tree.get("name") == "night\\x1b\\n<&>"
    assert any("=cmd() crashed" in told.text for told in tree.iter("error"))


def test_lone_surrogates_are_shown_as_well(reports):
    case = ledgers.renamed(reports["fail"], "\ud800")
    tree = _tree(junit("\udfff", SuiteReport.of({"\ud800": case}, threads=1), ["\udc00"]))
    assert [test.get("name") for test in tree.iter("testcase")] == ["\\ud800", "\\udc00"]
    assert "FAIL: \\ud800.bias is wrong" in next(tree.iter("failure")).text


@pytest.mark.parametrize("seconds", [None, float("nan"), float("inf"), -1.0, 1e9, 0.00049])
def test_times_are_numbers_that_others_can_read(seconds, reports):
    case = replace(reports["pass"], run=reports["pass"].run | {"seconds": seconds})
    suite = SuiteReport({"a": case}, False, {})
    tree = _tree(junit("s", suite, ()))
    assert float(tree.get("time")) == (1e9 if seconds == 1e9 else 0)


def test_a_suite_without_cases(reports):
    assert _counted(_tree(junit("s", SuiteReport.of({}, threads=1), ())))["all"] == 0


def _no_name(tree):
    del next(tree.iter("testcase")).attrib["name"]


def _two_results(tree):
    test = next(tree.iter("testcase"))
    ElementTree.SubElement(test, "failure")
    ElementTree.SubElement(test, "skipped")


def _exponent(tree):
    next(tree.iter("testcase")).set("time", "1e-05")


def _another_element(tree):
    ElementTree.SubElement(next(tree.iter("testcase")), "inconclusive")


def _skipped_of_the_whole(tree):
    tree.set("skipped", "0")


def _a_count_that_is_none(tree):
    next(tree.iter("testsuite")).set("errors", "-1")


@pytest.mark.parametrize(
    "damage", [_no_name, _two_results, _exponent, _another_element, _skipped_of_the_whole, _a_count_that_is_none]
)
def test_the_schema_refuses_what_is_wrong(damage, reports):
    tree = ElementTree.fromstring(junit("s", SuiteReport.of({"a": reports["pass"]}, threads=1), ()))
    assert SCHEMA.is_valid(tree)
    damage(tree)
    assert not SCHEMA.is_valid(tree)


def test_show_writes_it(reports, run, tmp_path):
    folder = ledgers.ledger(tmp_path / "n", {"a": reports["pass"], "b": reports["fail"]})
    assert run("show", folder, "--junit", tmp_path / "n.xml")[0] == 1
    assert (tmp_path / "n.xml").read_text() == _of_folder(folder)
    assert _counted(_tree((tmp_path / "n.xml").read_text()))["failure"] == 1
