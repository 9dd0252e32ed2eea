"""The documentation's examples print what it says that they print, numbers aside."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def _words(text):
    """Numbers depend on the processor's vectors."""
    return re.sub(r"\d[\d,.]*(e-?\d+)?", "N", text)


@pytest.mark.jit
@pytest.mark.parametrize("name", ["how-close-is-close-enough.md", "tutorial.md"])
def test_examples(name):
    names, compared = {}, 0
    for example in EXAMPLE.finditer((DOCS / name).read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example[1], names)
        if example[2] is not None:
            assert _words(printed.getvalue()) == _words(example[2])
            compared += 1
    assert compared >= 5
