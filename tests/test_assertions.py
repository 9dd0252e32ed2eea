"""No assertion of tests and benchmarks has a test that is true whatever was found."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py"))

_ALWAYS_TRUE = (ast.Constant, ast.JoinedStr, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Lambda, ast.GeneratorExp)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)  # which ask how many there are, not what they are
_CONDITIONAL = (ast.IfExp,)  # which asserts d in ``a == b if c else d``


def _idle(test):
    """Tell whether a test is a constant or a display, alone or joined to others, or compares a thing with itself."""
    if isinstance(test, (*_ALWAYS_TRUE, *_COMPREHENSIONS, *_CONDITIONAL)):
        return True
    if isinstance(test, ast.BoolOp):
        return any(map(_idle, test.values))
    return isinstance(test, ast.Compare) and ast.dump(test.left) in map(ast.dump, test.comparators)


def _found(source):
    """Lines with an assertion that cannot fail, and with a comparison whose result is dropped."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and _idle(node.test):
            yield node.lineno
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_assertion_can_fail(path):
    assert list(_found(path.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "assert a == b if c else d",
        "assert (a == b) if c else d",
        "assert a == b or True",
        'assert a == b and "words"',
        'assert "words"',
        'assert f"{a} words"',
        'assert (a == b, "words")',
        "assert [a == b]",
        "assert lambda: a == b",
        "assert (a == b for a in c)",
        "assert [a == b for a in c]",
        "assert a.b[0] == a.b[0]",
        "a == b",
        "a == b or c",
        "not a",
    ],
)
def test_what_cannot_fail_is_found(line):
    assert list(_found(f"x = 1\n{line}\n")) == [2]


@pytest.mark.parametrize(
    "line",
    [
        "assert a == (b if c else d)",
        "assert (a, b) == (c, d)",
        'assert a == b, "words"',
        "assert all(a == b for a in c)",
        "assert not a",
        "assert a",
        "assert a or b == 1",
        "assert [a for a in b] == []",
        "assert not [a for a in b]",
        "f(a == b)",
    ],
)
def test_what_can_fail_is_left_alone(line):
    assert list(_found(f"x = 1\n{line}\n")) == []
