"""The field guide, docs/bugs.md: it has every mistake that reports can name, as the tables have it."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "bugs.md").read_text()

SCRIPT = importlib.util.spec_from_file_location("bugs", DOCS / "bugs.py")
bugs = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(bugs)

LOOKS = re.compile(r"^- \*Looks like\*: (.*)\.\n", re.MULTILINE)


def _part(mark):
    return PAGE.partition(f"<!-- {mark}: written by docs/bugs.py -->\n")[2].partition("<!-- end -->")[0].strip()


@pytest.mark.parametrize(
    ("mark", "made"),
    [
        ("outputs of convolutions", lambda: bugs._outputs(bugs.examples()["forward"])),
        ("any gradient", lambda: bugs._fitted(bugs.examples()["fitted"])),
        ("networks", bugs._networks),
    ],
)
def test_the_page_has_all_mistakes_as_the_tables_have_them(mark, made):
    assert _part(mark) == "\n".join(made()).strip(), "run python docs/bugs.py"


def test_the_page_has_all_mistakes_of_convolutions(monkeypatch):
    monkeypatch.setattr(bugs, "looks_of", lambda name: "")
    made = "\n".join(bugs._convolutions(bugs.examples()["convolution"])).strip()
    assert LOOKS.sub("", _part("gradients of convolutions")) == made, "run python docs/bugs.py"


@pytest.mark.parametrize("name", ["kernel flipped", "stride missing", "groups mixed", "windows overwritten"])
def test_a_bug_looks_as_the_page_says(name):
    (bug,) = (one.bug for one in bugs.catalogue.CATALOGUE if one.name == name)
    entry = _part("gradients of convolutions").partition(f"#### {bug[0].upper()}{bug[1:]}\n")[2].partition("####")[0]
    assert LOOKS.findall(entry) == [bugs.looks_of(name)]


def test_the_confusion_tables_have_every_plant():
    tables = PAGE.partition("<!-- confusion: written by bench/diagnosis.py -->\n")[2]
    sums = re.findall(r"^([\d,]+) of ([\d,]+) named\.$", tables, re.MULTILINE)
    assert len(sums) == 4
    assert all(named == planted for named, planted in sums)
    for name, plants in bugs.planted_backward.PLANTS.items():
        for plant in plants:
            assert f"| {name} ({plant.__name__}) |" in tables
