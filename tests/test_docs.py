"""The documentation's examples print what it says that they print: to the digit, or numbers of the machine aside."""

import contextlib
import io
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from fastcheck.batch.suite.file import read_suite
from fastcheck.cli.main import main

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
BATCH_EXAMPLE = re.compile(r"```(python|sh|toml)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def _words(text):
    """Numbers depend on the processor's vectors."""
    return re.sub(r"\d[\d,.]*(e-?\d+)?", "N", text)


def _told(text):
    """Rates depend on the machine, and with them units, the widths of columns and where lines break."""
    return re.sub(r"[\s─]+", " ", re.sub(r"N [MG]/s", "N/s", _words(text))).strip()


def _same(printed, shown):
    """Tell whether what is shown was printed, lines of dots standing for anything."""
    pieces = re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)
    return re.fullmatch(".*".join(re.escape(_told(piece)) for piece in pieces), _told(printed), re.DOTALL) is not None


def _run(line):
    with contextlib.suppress(SystemExit):
        main(shlex.split(line)[1:])


@pytest.mark.jit
@pytest.mark.parametrize(("name", "exact"), [("how-close-is-close-enough.md", _words), ("tutorial.md", str)])
def test_examples(name, exact):
    names, compared = {}, 0
    for example in EXAMPLE.finditer((DOCS / name).read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example[1], names)
        if example[2] is not None:
            assert exact(printed.getvalue()) == exact(example[2])
            compared += 1
    assert compared >= 5


@pytest.mark.jit
def test_batch_examples(tmp_path, monkeypatch):
    """Files with a name are written, Python is run, and commands whose output is shown are."""
    monkeypatch.chdir(tmp_path)
    names, compared = {}, 0
    for language, body, shown in BATCH_EXAMPLE.findall((DOCS / "batch.md").read_text()):
        printed = io.StringIO()
        if language == "toml":
            path = tmp_path / body.partition("\n")[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
        with contextlib.redirect_stdout(printed):
            if language == "python":
                exec(body, names)
            elif language == "sh" and shown:
                _run(body)
        if shown:
            assert _same(printed.getvalue(), shown), printed.getvalue()
            compared += 1
    assert compared >= 7


def test_the_night_is_the_one_that_is_shown():
    page, printed = (DOCS / "batch.md").read_text(), io.StringIO()
    shown = re.search(r"\$ fastcheck run docs/nightly.toml --dry-run\n(.*?)```", page, re.DOTALL)[1]
    with contextlib.redirect_stdout(printed):
        _run(f"fastcheck run '{DOCS / 'nightly.toml'}' --dry-run")
    assert _same(printed.getvalue(), shown)
    total = re.search(r"400 cases, [\d,]+ dimensions", printed.getvalue())[0]
    assert page.count(total) >= 2


def test_the_night_has_two_hundred_geometries_each_in_two_dtypes():
    entries = read_suite(DOCS / "nightly.toml").entries
    assert Counter(entry.dtype for entry in entries) == {"float64": 200, "float32": 200}
    assert {entry.backward for entry in entries} == {"torch"}
    assert len({entry.geometry for entry in entries}) == 200
    assert {entry.geometry.rank for entry in entries} == {1, 2, 3}
    assert {entry.geometry.input_shape[0] for entry in entries} == {1, 2, 3, 4}
