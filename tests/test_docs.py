"""The documentation is true: examples print what it shows, links lead somewhere, constants are the code's.

Of numbers that depend on the machine only the places are compared.
"""

import ast
import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import fastcheck
from fastcheck.batch.suite.file import read_suite
from fastcheck.cli.main import main
from fastcheck.common.extras import installing

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.glob("*.md"))
FOLDERS = (ROOT, ROOT / "fastcheck", ROOT / "kernels" / "fastcheck_kernels")
"""Where the paths that a page names may begin."""

EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
BATCH_EXAMPLE = re.compile(r"```(python|sh|toml)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def _words(text):
    """Numbers depend on the processor's vectors."""
    return re.sub(r"\d[\d,.]*(e-?\d+)?", "N", text)


def _told(text):
    """Rates depend on the machine, and with them units, the widths of columns and where lines break."""
    return re.sub(r"[\s─]+", " ", re.sub(r"N [MG]/s", "N/s", _words(text))).strip()


def _same(printed, shown, words=_told):
    """Whether what is shown was printed, lines of three dots and ellipses standing for anything."""
    pieces = re.split(r"^\.\.\.\n|…", shown, flags=re.MULTILINE)
    return re.fullmatch(".*".join(re.escape(words(piece)) for piece in pieces), words(printed), re.DOTALL) is not None


def _spaced(text):
    """Widths of columns, and where lines break, depend on the numbers."""
    return re.sub(r"[\s─]+", " ", text).strip()


def _without_rows(text):
    """Which of many wrong entries are the worst depends on error bars, and these on the processor."""
    return _spaced(re.sub(r"^  \[\d+\] .*\n", "", text, flags=re.MULTILINE))


def _assert_rows_are_true(shown, wrong, right):
    """Compare the rows that are shown with two gradients, up to the cotangent, and off by with the difference."""
    rows = re.findall(r"^  \[(\d+)\] +(\S+) +(\S+) +(\S+)", shown, re.MULTILINE)
    assert len(rows) >= 2
    for index, *values in rows:
        analytic, numeric, off_by = map(float, values)
        assert analytic / numeric - 1 == pytest.approx(wrong[int(index)].item() / right[int(index)].item() - 1, rel=0.1)
        assert abs(analytic - numeric) == pytest.approx(off_by, rel=0.1)


def _run(line):
    with contextlib.suppress(SystemExit):
        main(shlex.split(line)[1:])


def _printed(code, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


@pytest.mark.jit
@pytest.mark.parametrize(
    ("name", "exact", "least"),
    [("how-close-is-close-enough.md", _words, 5), ("tutorial.md", str, 5), ("error-bars.md", str, 1)],
)
def test_examples(name, exact, least):
    names, compared = {}, 0
    for code, shown in EXAMPLE.findall((DOCS / name).read_text()):
        printed = _printed(code, names)
        if shown:
            assert exact(printed) == exact(shown)
            compared += 1
    assert compared >= least


@pytest.mark.jit
def test_the_readme_runs_as_pasted_and_shows_what_is_printed(tmp_path, monkeypatch):
    """Its examples, one after another, in the folder of a reader who pastes them."""
    monkeypatch.chdir(tmp_path)
    page, names = (ROOT / "README.md").read_text(), {}
    examples = EXAMPLE.findall(page)
    for code, shown in examples:
        printed = _printed(code, names)
        assert _same(printed, shown, _without_rows), printed
        if "gradcheck: True" in shown:
            x, gelu = names["x"], functools.partial(torch.nn.functional.gelu, approximate="tanh")
            _assert_rows_are_true(shown, _gradient(names["GELU"].apply, x), _gradient(gelu, x))
    assert [bool(shown) for _, shown in examples] == [True, False, True, False, False, False, True]
    assert page.index("gradcheck: True") < page.index("## See it work")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        _run("fastcheck conv layer.npz")
    shown = re.search(r"```text\n(layer.npz .*?)```", page, re.DOTALL)[1]
    assert _same(output.getvalue(), shown, _spaced), output.getvalue()
    wrong = names["grads"] | {"dense1.bias": names["grads"]["dense1.bias"] * 1.01}
    with pytest.raises(fastcheck.GradientMismatchError, match=r"^dense1.bias "):
        fastcheck.check_network(
            *(names[name] for name in ("network", "params")), wrong, names["x"], names["y"]
        ).raise_if_failed()


def _gradient(function, x):
    return torch.autograd.grad(function(x).sum(), x)[0]


@pytest.mark.jit
def test_the_guide_shows_where_the_digits_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = _section(DOCS / "guide.md", "Where the digits are")
    code, command, shown = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    exec(code, {})
    with contextlib.redirect_stdout(io.StringIO()) as output:
        _run(command)
    assert _same(output.getvalue(), shown, str), output.getvalue()


@pytest.mark.jit
def test_the_guides_affine_layer_fails_as_shown_and_passes_when_mended():
    """Lines of dots stand for others."""
    (code, shown), *_ = EXAMPLE.findall(_section(DOCS / "guide.md", "A forward and a backward"))
    printed = _printed(code, {})
    assert _fits(shown, printed), printed
    assert _printed(code.replace("mean(axis=0)", "sum(axis=0)"), {}).startswith("PASS: x, w and b are right")


@pytest.mark.jit
def test_the_guides_complex_gradient_lacks_a_conjugate():
    """It goes on from the example before it."""
    (before, _), (code, shown), _ = EXAMPLE.findall(_section(DOCS / "guide.md", "A forward and a backward"))
    names = {}
    _printed(before, names)
    printed = _printed(code, names)
    assert _fits(shown, printed), printed
    assert _printed(code.replace("2 * z, {", "2 * z.conj(), {"), names).startswith("PASS: z.real and z.imag are right")


@pytest.mark.jit
def test_the_guides_softmax_of_jax_fails_as_shown_and_passes_when_mended():
    pytest.importorskip("jax")
    ((code, shown),) = EXAMPLE.findall(_section(DOCS / "guide.md", "JAX"))
    printed = _printed(code, {})
    assert _fits(shown, printed), printed
    mended = code.replace("y * v,)  # the mistake: ", "").replace("keepdims=True))\n", "keepdims=True)),)\n", 1)
    assert _printed(mended, {}).startswith("PASS: input 0['b'], input 0['w'] and input 1 are right in all 17 entries")


@pytest.mark.jit
def test_the_guides_convolution_is_moved_by_colours():
    """It goes on from the first example before it."""
    (before, _), _, (code, shown) = EXAMPLE.findall(_section(DOCS / "guide.md", "A forward and a backward"))
    names = {}
    _printed(before, names)
    printed = _printed(code, names)
    assert _fits(shown, printed), printed
    mended = code.replace("dw[31, 7, 2] *= 1 + 1e-6", "pass")
    assert _printed(mended, names).startswith("PASS: x and w are right in all 4,992 entries")


def _fits(shown, printed):
    """Return whether a text is what is shown, where lines of dots stand for any others."""
    return re.fullmatch(re.escape(shown).replace(re.escape("...\n"), r"(?:.*\n)*?"), printed)


@pytest.mark.jit
def test_the_guides_test_fails_as_shown_and_passes_when_mended(pytester):
    (code, shown), *_ = EXAMPLE.findall(_section(DOCS / "guide.md", "In pytest"))
    options = ("-p", "fastcheck_pytest", "-p", "no:cacheprovider")
    for source, outcome in ((code, "failed"), (code.replace("dw[:, -1] /= 2", "pass"), "passed")):
        pytester.makepyfile(test_layers=source)
        result = pytester.runpytest_subprocess(*options)
        result.assert_outcomes(**{outcome: 1})
        assert _same(str(result.stdout), f"...\n{shown}...\n", _without_entries) == (outcome == "failed")


def _without_entries(text):
    """Which of several wrong entries are the worst depends on error bars, and these on the processor."""
    return _spaced(re.sub(r"^E +\[\d, 3\] .* bars\n", "", text, flags=re.MULTILINE))


@pytest.mark.jit
def test_batch_examples(tmp_path, monkeypatch):
    """Files with a name are written, Python is run, and commands whose output is shown are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    names, compared = {}, 0
    for language, body, shown in BATCH_EXAMPLE.findall((DOCS / "batch.md").read_text()):
        printed = io.StringIO()
        if re.match(r"# \S+\.(toml|py)\n", body):
            name = body.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(body)
            continue
        with contextlib.redirect_stdout(printed):
            if language == "python":
                exec(body, names)
            elif language == "sh" and shown:
                _run(body)
        if shown:
            assert _same(printed.getvalue(), shown), printed.getvalue()
            compared += 1
    assert compared >= 9


def _adjoint_backward(x, w, grad_output):
    """Gradients of the guide's transposed convolution, written as the reader would."""
    grad_x = torch.nn.functional.conv2d(grad_output, w, stride=2, padding=1)
    patches = torch.nn.functional.unfold(grad_output, 3, padding=1, stride=2).reshape(2, 4, 3, 3, -1)
    return grad_x, torch.einsum("nfklp,ncp->cfkl", patches, x.flatten(2))


@pytest.mark.jit
@pytest.mark.parametrize(
    ("spoilt", "verdicts"),
    [
        ({}, {}),
        ({"grad_w": -1}, {"weight": "fail"}),
        ({"grad_x": 1.01}, {"input": "fail"}),
        ({"y": 1.01}, {"forward": "fail"}),
    ],
)
def test_the_guides_transposed_convolution(spoilt, verdicts):
    """Its backward pass stands for the reader's own; whatever is wrong in it fails in its place."""
    text = (DOCS / "guide.md").read_text().split("### Transposed convolutions, and padding that is not zero")[1]
    made, checked = EXAMPLE.search(text)[1].split("\n\n")
    names = {"torch": torch, "fastcheck": fastcheck, "my_transposed_backward": _adjoint_backward}
    exec(made, names)
    names |= {name: factor * names[name] for name, factor in spoilt.items()}
    if not spoilt:
        exec(checked, names)
        return
    with pytest.raises(fastcheck.GradientMismatchError) as raised:
        exec(checked, names)
    report = raised.value.report
    found = {name: tensor.verdict for name, tensor in report.tensors.items()} | {"forward": report.forward.verdict}
    assert {name: verdict for name, verdict in found.items() if verdict != "pass"} == verdicts


@pytest.mark.jit
def test_the_guides_directions_name_the_wrong_entry():
    text = (DOCS / "guide.md").read_text().split("### What a sample leaves out")[1]
    code, shown = EXAMPLE.search(text).groups()
    assert _printed(code, {"np": np, "fastcheck": fastcheck}) == shown


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


# Names, links and figures


def _without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(page):
    """Return what links to a page's headings end in, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", _without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken_links(page):
    """Give the links of a page, to other pages and to headings, that lead nowhere."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in _anchors(target))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert list(_broken_links(page)) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, with marks\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#a-heading-with-marks) [c](#here) [d](https://example.org/x)\n"
        "[e](absent.md) [f](other.md#absent) [g](#absent) [h](other.md#no-heading)\n```\n[i](absent.md)\n```\n"
    )
    assert list(_broken_links(page)) == ["absent.md", "other.md#absent", "#absent", "other.md#no-heading"]


def _paths(text):
    """Return what a page names in code and what looks like a file of this project."""
    named = re.findall(r"`([\w./]+\.(?:py|toml|md))`", _without_code(text))
    return [path for path in named if not path.startswith(("nets/", "cases/"))]


EXAMPLES = ("SUITE.toml", "night.toml", "net.toml", "NET.toml")
"""Files that readers write."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text()
    missing = [path for path in _paths(text) if not any((folder / path).exists() for folder in FOLDERS)]
    assert set(missing) <= set(EXAMPLES)


def test_extras_are_installed_as_the_readme_does():
    assert installing("demo") == 'pip install ".[demo]" in a clone of fastcheck'
    assert 'pip install ".[demo]"' in (ROOT / "README.md").read_text()
    sources = [path for folder in FOLDERS[1:] for path in folder.rglob("*.py")]
    assert [path.name for path in (*PAGES, *sources) if "install fastcheck" in path.read_text().replace('"', "")] == []


def test_tests_that_are_named_exist():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) >= 8
    assert [name for name in named if f"def {name}(" not in tests] == []


def _number(text):
    """Return the value of a number written as on the page: 6.0, 1/4, 2**-17."""
    return eval(compile(ast.parse(text, mode="eval"), "page", "eval"), {"__builtins__": {}})


def _constant(path, name):
    """Return the value of a constant by the file that it stands in."""
    module = f"fastcheck.{path.replace('/', '.')}" if "/" in path else f"fastcheck_kernels.{path}"
    return getattr(importlib.import_module(module.removesuffix(".py")), name)


def test_constants_of_error_bars_are_the_codes():
    rows = re.findall(r"^\| `([\w/]+\.py)` `([A-Z_]+)` \| ([\d./*e-]+) \|", (DOCS / "error-bars.md").read_text(), re.M)
    assert len(rows) >= 40
    assert [row for row in rows if _constant(*row[:2]) != _number(row[2])] == []


# Where things are


def _section(page, heading):
    return re.search(rf"^## {re.escape(heading)}\n(.*?)^## ", page.read_text(), re.DOTALL | re.MULTILINE)[1]


def test_every_room_has_its_row_with_a_file_to_start_at():
    section = _section(DOCS / "architecture.md", "The rooms")
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| `([\w/]+\.py)` \|$", section, re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "fastcheck").glob("*/__init__.py")}
    assert rows.keys() == folders
    assert len(rows) == 16
    for room, start in rows.items():
        assert start.startswith(f"{room}/")
        assert (ROOT / "fastcheck" / start).exists()


def test_a_convolutions_check_passes_through_the_files_that_are_named(tmp_path):
    """Kernels run as Python, so that they are seen."""
    x, w = np.random.default_rng(0).normal(size=(1, 2, 6)), np.ones((3, 2, 3))
    output = sum(np.einsum("fc,nco->nfo", w[..., t], x[..., t : t + 4]) for t in range(3))
    grad = np.stack([x[..., t : t + 4].sum((0, 2)) for t in range(3)], axis=-1)
    arrays = {"grad_output": np.ones((1, 3, 4)), "grad_weight": np.tile(grad, (3, 1, 1))}
    arrays["grad_input"] = sum(np.pad(np.full((1, 2, 4), 3.0), ((0, 0), (0, 0), (t, 2 - t))) for t in range(3))
    np.savez(tmp_path / "layer.npz", input=x, weight=w, output=output, **arrays)
    command = [sys.executable, ROOT / "tests" / "traced.py", "conv", tmp_path / "layer.npz"]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    passed = {ROOT / path for path in done.stdout.split()}
    text = _section(DOCS / "architecture.md", "The path of a convolution's check, file by file")
    steps = "\n".join(re.findall(r"^(?:\d+\. |   ).*$", text, re.MULTILINE))
    named = {next(folder / path for folder in FOLDERS if (folder / path).exists()) for path in _paths(steps)}
    assert named == passed


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources and of the page, to change."""
    for name in ("fastcheck", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (tmp_path / "docs").mkdir()
    for name in ("pyproject.toml", "docs/architecture.md", "docs/rooms.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _rooms(root, *arguments):
    command = [sys.executable, root / "docs" / "rooms.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_rooms_are_drawn_as_they_are():
    done = _rooms(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def _plant(path, line):
    head, future, rest = path.read_text().partition("from __future__ import annotations\n")
    path.write_text(f"{head}{future}{line}\n{rest}")


def test_a_new_import_makes_the_picture_stale_until_it_is_drawn_again(copy):
    _plant(copy / "fastcheck" / "sweeps" / "curve.py", "import fastcheck.metrics.tally")
    done = _rooms(copy, "--check")
    assert done.returncode == 1
    assert "run python docs/rooms.py" in done.stderr
    assert _rooms(copy).returncode == 0
    assert _rooms(copy, "--check").returncode == 0


@pytest.mark.parametrize(
    ("path", "line", "message"),
    [
        ("metrics/tally.py", "import fastcheck.cli.main", "metrics lies below cli"),
        ("attic/__init__.py", "import fastcheck.common", "fastcheck.attic lies in no layer"),
    ],
)
def test_imports_that_run_upward_and_rooms_without_a_floor_are_refused(copy, path, line, message):
    planted = copy / "fastcheck" / path
    planted.parent.mkdir(exist_ok=True)
    planted.touch()
    _plant(planted, line)
    done = _rooms(copy, "--check")
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.jit
def test_the_guides_module_of_pytorch_passes_as_shown():
    ((code, shown),) = EXAMPLE.findall(_section(DOCS / "guide.md", "PyTorch"))
    printed = _printed(code, {})
    assert _fits(shown, printed), printed
