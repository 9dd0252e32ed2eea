"""docs/coming-from.md: what each checker reports is what it reports, and the examples run."""

import importlib
import re
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "coming-from.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SCRIPT = importlib.util.spec_from_file_location("coming_from", DOCS / "coming_from.py")
coming_from = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(coming_from)

pytestmark = pytest.mark.jit


def _answers(row):
    return [cell.strip() for cell in row.strip("|").split("|")[1:]]


def _same(shown, made):
    """Whether two answers are the same; numbers within a factor of three."""
    words, numbers = (
        [re.split(r"\d+(?:e[+-]\d+)?", one) for one in (shown, made)],
        [list(map(float, re.findall(r"\d+(?:e[+-]\d+)?", one))) for one in (shown, made)],
    )
    return words[0] == words[1] and all(a / 3 <= b <= 3 * a for a, b in zip(*numbers, strict=True))


@pytest.mark.parametrize("name", coming_from.CHECKERS)
def test_the_table_shows_what_each_checker_reports(name):
    with warnings.catch_warnings(action="ignore"):
        row = coming_from.row(name)
    if row is None:
        pytest.skip(f"{name} is not installed")
    (shown,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    for before, after in zip(_answers(shown), _answers(row), strict=True):
        assert _same(before, after), (before, after)


def test_fastcheck_alone_finds_all_faults_and_only_those():
    shown = {line.split("`")[1]: _answers(line) for line in PAGE.splitlines() if line.startswith("| `")}
    assert set(shown) == set(coming_from.CHECKERS)
    judged = {name: [answer.startswith("fails") for answer in answers] for name, answers in shown.items()}
    assert [name for name, failed in judged.items() if failed == [False, True, True, True, True, True]] == ["fastcheck"]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, tmp_path):
    code = EXAMPLES[number]
    for module in re.findall(r"^import (\w+)", code, re.MULTILINE):
        pytest.importorskip(module)
    path = tmp_path / "example.py"  # Warp reads the source of its kernels
    path.write_text(code)
    with warnings.catch_warnings(action="ignore"):
        exec(compile(code, str(path), "exec"), {"__name__": "example"})
