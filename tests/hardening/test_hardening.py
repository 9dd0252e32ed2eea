"""Files made wrong by the hundred end in order, and what would not is found."""

import random
import sys
import warnings
from pathlib import Path

import fuzz
import pytest

from fastcheck import FastcheckError
from fastcheck.cli import main as cli
from fastcheck.convolutions import npz_case

pytestmark = pytest.mark.jit

FILES = {
    "npz": 150,
    "compare": 200,
    "network": 50,
    "probes": 50,
    "suite": 150,
    "ledger": 60,
    "report": 200,
    "command": 100,
}
"""So many of each kind take about a second; CONTRIBUTING.md says how to run more."""


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_whatever_is_read_ends_in_order(kind):
    statuses, found = fuzz.search(kind, range(FILES[kind]))
    assert found == {}
    assert statuses[0], "no file of this kind is good any more: its base is not"
    assert statuses[2], "no file of this kind is refused"


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_file_depends_on_its_number_alone(kind, tmp_path):
    def made(number, name):
        folder = tmp_path / name
        folder.mkdir()
        trial = fuzz.KINDS[kind]()(random.Random(number), folder)
        return trial, {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = made(1, "first")
    assert made(1, "again") == first
    assert made(2, "other") != first


def _crash(path, **options):
    raise KeyError("planted")


def _warn(path, **options):
    warnings.warn("planted", RuntimeWarning, stacklevel=2)
    raise FastcheckError("planted")


def _print(path, **options):
    print("planted")
    raise FastcheckError("planted")


def _leave(path, **options):
    Path(".planted.part").touch()
    raise FastcheckError("planted")


def _end(path, **options):
    sys.exit(5)


PLANTED = {
    _crash: "KeyError at ",
    _warn: "warning at ",
    _print: "a refusal writes to standard output",
    _leave: "a temporary file is left behind",
    _end: "status 5",
}


@pytest.mark.parametrize(("reader", "expected"), PLANTED.items())
def test_a_planted_fault_is_found(reader, expected, monkeypatch):
    monkeypatch.setattr(npz_case, "load_case_by_options", reader)
    _, found = fuzz.search("npz", range(5))
    assert any(place.startswith(expected) for place in found)


def test_a_wrong_gradient_that_passes_is_found(monkeypatch):
    compare = cli.compare
    monkeypatch.setattr(cli, "compare", lambda analytic, numeric, **how: compare(numeric, numeric, **how))
    assert "a wrong gradient passes" in fuzz.search("compare", range(60))[1]


def test_a_search_keeps_what_it_found_and_says_where(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(npz_case, "load_case_by_options", _crash)
    assert fuzz.main(["--kind", "npz", "--files", "3", "--keep", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "npz: KeyError at " in told
    (kept,) = tmp_path.iterdir()
    assert str(kept) in told
    assert {path.name for path in kept.iterdir()} == {"case.npz", "arguments.txt"}
