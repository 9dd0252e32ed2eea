"""The pytest plugin: right gradients pass, wrong ones fail in about ten lines, and options, files and properties."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numba
import numpy as np
import processes
import pytest

ROOT = Path(__file__).parent.parent

PRODUCT = """
import numba
import numpy as np

rng = np.random.default_rng(0)
INPUTS = {"x": rng.normal(size=(6, 5)), "w": rng.normal(size=(5, 4))}


def forward(x, w):
    return x @ w


def right(dout, x, w):
    return dout @ w.T, x.T @ dout


def column(dout, x, w):
    dw = x.T @ dout
    dw[:, 2] *= 1.001
    return dout @ w.T, dw


def wrong(dout, x, w):
    return 2 * dout @ w.T, -x.T @ dout
"""

KINK = """
import numpy as np

POINT = np.array([1e-12, 1.0, 2.0])  # a step of 1e-3 crosses the kink, whose slopes are further apart than any bar


def loss(p):
    return np.abs(p).sum()
"""


@pytest.fixture(scope="module", autouse=True)
def _numba_is_loaded():
    """Have Numba load what its first compilation needs: pytester forgets modules that an inner run imports, and
    Numba cannot load these twice.
    """
    numba.njit(lambda x: np.sin(x) + x)(np.ones(2))


@pytest.fixture
def inner(pytester, monkeypatch):
    """Run pytest with the plugin, here or in a process of its own, on modules with these sources."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*options, process=False, **modules):
        for name, source in modules.items():
            path = pytester.path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        arguments = ("-p", "fastcheck_pytest", "-p", "no:cacheprovider", *map(str, options))
        if not process:
            return pytester.runpytest_inprocess(*arguments)
        for name, value in processes.environment().items():
            monkeypatch.setenv(name, value)
        return pytester.runpytest_subprocess(*arguments, timeout=processes.PATIENCE)

    return run


def shown(result):
    """Return the lines of the failures' messages."""
    return [line[1:].strip() for line in result.outlines if line.startswith("E ")]


METHODS = """
from product import *
import fastcheck
from fastcheck.layers import Dense

w = rng.normal(size=(3, 4))


def test_vjp(gradcheck):
    assert gradcheck.vjp(forward, right, INPUTS).verdict == "pass"


def test_wrong_vjp(gradcheck):
    gradcheck.vjp(forward, column, INPUTS)


def test_function(gradcheck):
    assert gradcheck.function(lambda p: np.sin(p).sum(), np.cos, w).verdict == "pass"


def test_wrong_function(gradcheck):
    gradcheck.function(lambda p: np.sin(p).sum(), lambda p: 1.0001 * np.cos(p), w)


def case(factor):
    x, kernel, v = (rng.normal(size=shape) for shape in ((2, 3, 5), (4, 3, 1), (2, 4, 5)))
    grads = {"weight": factor * np.einsum("nfl,ncl->fc", v, x)[..., None]}
    return fastcheck.ConvCase(x, kernel, grad_output=v, grads=grads)


def test_case(gradcheck):
    assert gradcheck.case(case(1)).verdict == "pass"


def test_wrong_case(gradcheck):
    gradcheck.case(case(1 + 1e-8))


def network(factor):
    x, y, bias = rng.normal(size=(5, 4)), rng.normal(size=(5, 3)), np.zeros(3)
    d = (x @ w.T - y) / 5
    grads = {"dense1.weight": factor * d.T @ x, "dense1.bias": d.sum(0)}
    return fastcheck.Network([Dense(3)], loss="squared_error"), {"dense1.weight": w, "dense1.bias": bias}, grads, x, y


def test_network(gradcheck):
    assert gradcheck.network(*network(1)).verdict == "pass"


def test_wrong_network(gradcheck):
    gradcheck.network(*network(1.001))
"""


@pytest.mark.jit
def test_each_method_passes_what_is_right_and_fails_what_is_wrong(inner):
    inner(product=PRODUCT, test_methods=METHODS).assert_outcomes(passed=4, failed=4)


FAILURES = """
from product import *


def test_column(gradcheck):
    gradcheck.vjp(forward, column, INPUTS)


def test_both(gradcheck):
    gradcheck.vjp(forward, wrong, INPUTS, seed=4)


def test_adds_up(gradcheck):
    sums = [0.0]

    def backward(dout, x, w):
        sums[0] = sums[0] + dout @ w.T
        return sums[0], x.T @ dout

    gradcheck.vjp(forward, backward, INPUTS)
"""

MESSAGES = {}
"""Patterns of the lines of each failure's message."""

MESSAGES["column"] = [
    r"fastcheck\.GradientMismatchError: FAIL: w is wrong in 5 of 20 entries \(x passes\)",
    r"index +analytic +numeric +off by",
    r"\[\d, 2\] +-?0\.\d+ +-?0\.\d+ +0\.\d+  \de\+\d\d bars",
    r"\[\d, 2\] .* bars",
    r"\[\d, 2\] .* bars",
    r"where w is wrong: only index 2 of axis 1",
    r"this is: where it fails, the gradient has a factor of 1\.001; explains all 5",
    r"entries that fail in w, within the error bars",
    r"try: look for a scale that is applied to these entries alone",
    r"replay: pytest test_failures\.py::test_column --fastcheck-seed 0",
]

MESSAGES["both"] = [
    r"fastcheck\.GradientMismatchError: FAIL: w is wrong in all 20 entries; x is wrong in all 30 entries",
    r"index +analytic +numeric +off by",
    r"w\[\d, \d\] .* bars, opposite sign",
    r"w\[\d, \d\] .* bars, opposite sign",
    r"x\[\d, \d\] .* bars",
    r"x\[\d, \d\] .* bars",
    r"this is \(w\): the gradient has the opposite sign; explains all 20 entries that",
    r"fail in w, within the error bars",
    r"try \(w\): look for a minus that is missing or one too many",
    r"replay: pytest test_failures\.py::test_both  # seed=4 is the test's own",
]

MESSAGES["adds_up"] = [
    r"fastcheck\.GradientMismatchError: FAIL: the second call of backward returns 2 times the first result in x, at .*",
    r"same point: each call adds to the last one \(w passes\)",
    r"try: set the gradient to zero before computing it, or write = in place of \+=",
    r"replay: pytest test_failures\.py::test_adds_up --fastcheck-seed 0",
]


@pytest.mark.jit
@pytest.mark.parametrize("name", MESSAGES)
def test_a_failure_says_in_ten_lines_what_is_wrong_by_how_much_and_where(inner, name):
    result = inner("-k", f"test_{name}", product=PRODUCT, test_failures=FAILURES)
    result.assert_outcomes(failed=1, deselected=2)
    lines, expected = shown(result), MESSAGES[name]
    assert len(lines) == len(expected) <= 10, lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.jit
def test_a_traceback_ends_at_the_line_of_the_test(inner):
    result = inner("-k", "column", product=PRODUCT, test_failures=FAILURES)
    places = [line for line in result.outlines if re.match(r"\S+\.py:\d+: ", line)]
    assert [re.sub(r"\d+", "N", line) for line in places] == ["test_failures.py:N: GradientMismatchError"]
    result = inner("-k", "column", "--full-trace", product=PRODUCT, test_failures=FAILURES)
    assert any(re.match(r"\S*fastcheck_pytest\.py:\d+: GradientMismatchError", line) for line in result.outlines)


ERRORS = """
from product import *


def loss(p):
    return p[5]


def test_option(gradcheck):
    gradcheck.vjp(forward, right, INPUTS, tol=1e-3)


def test_loss(gradcheck):
    gradcheck.function(loss, np.cos, np.ones(3))


def test_deep(gradcheck):
    gradcheck.function(lambda p: test_deep.loss(p), np.cos, np.ones(3))


test_deep.loss = lambda p: test_deep.loss(p)


def test_inconclusive(gradcheck):
    gradcheck.function(loss, np.cos, np.ones(3), inconclusive="skip")
"""


@pytest.mark.jit
def test_bad_input_is_one_line_without_a_look_inside(inner):
    result = inner(product=PRODUCT, test_errors=ERRORS)
    result.assert_outcomes(failed=4)
    lines = [line for line in shown(result) if "FastcheckError" in line]
    assert lines == [
        "fastcheck.FastcheckError: check_vjp has no argument 'tol': fastcheck has no tolerance: each dimension has an "
        "error bar",
        "fastcheck.FastcheckError: loss raises IndexError at the start point: index 5 is out of bounds for axis 0 with "
        "size 3",
        "fastcheck.FastcheckError: loss raises RecursionError at the start point: maximum recursion depth exceeded",
        "fastcheck.FastcheckError: inconclusive is 'skip': expected one of fail, pass",
    ]
    assert "IndexError: index 5 is out of bounds for axis 0 with size 3" in shown(result)  # where the loss raised it
    result.stdout.no_re_match_line(r".*/fastcheck/.*\.py:\d+")
    result = inner("--full-trace", "-k", "option", product=PRODUCT, test_errors=ERRORS)
    result.stdout.re_match_lines([r".*/fastcheck/common/keywords\.py:\d+: FastcheckError"])


INCONCLUSIVE = """
import pytest
from kink import *


def test_fails(gradcheck):
    gradcheck.function(loss, np.sign, POINT, step=1e-3)


def test_passes(gradcheck):
    assert gradcheck.function(loss, np.sign, POINT, step=1e-3, inconclusive="pass").verdict == "inconclusive"


def test_wrong(gradcheck):
    gradcheck.function(loss, lambda p: 1.01 * np.sign(p), POINT, step=1e-3, inconclusive="pass")
"""


@pytest.mark.jit
def test_what_is_inconclusive_fails_unless_the_test_accepts_it(inner):
    result = inner("-rA", kink=KINK, test_kink=INCONCLUSIVE)
    result.assert_outcomes(passed=1, failed=2)
    outcomes = {line for line in result.outlines if re.match(r"(PASSED|FAILED) ", line)}
    assert {re.sub(r" - .*", "", line) for line in outcomes} == {
        "FAILED test_kink.py::test_fails",
        "PASSED test_kink.py::test_passes",
        "FAILED test_kink.py::test_wrong",
    }
    assert any("INCONCLUSIVE: params" in line for line in shown(result))


# Options, files and properties


SEEDED = """
from product import *


def test_all(gradcheck):
    assert gradcheck.vjp(forward, right, INPUTS).passed


def test_own(gradcheck):
    report = gradcheck.vjp(forward, right, INPUTS, dims=7, seed=5)
    assert (report.seed, report.requested["dims"]) == (5, 7)


def test_several(gradcheck):
    for _ in range(3):
        gradcheck.vjp(forward, right, INPUTS)
    gradcheck.vjp(forward, column, INPUTS)
"""


def reports(folder):
    """Return the reports in a folder, by the test and the number of the check."""
    found = {}
    for path in folder.iterdir():
        test, number = re.fullmatch(r"test_\w+\.py_(\w+)-[0-9a-f]{8}(?:-(\d+))?\.json", path.name).groups()
        found[test, int(number or 1)] = json.loads(path.read_text())
    return found


@pytest.mark.jit
def test_options_are_those_of_checks_that_have_none_of_their_own(inner, pytester):
    options = ("--fastcheck-seed", 3, "--fastcheck-dims", 12, "--fastcheck-report", "out/reports")
    result = inner(*options, product=PRODUCT, test_seeded=SEEDED)
    result.assert_outcomes(passed=2, failed=1)
    folder = pytester.path / "out" / "reports"
    result.stdout.fnmatch_lines([f"fastcheck: --fastcheck-seed 3 --fastcheck-dims 12 --fastcheck-report {folder}"])
    found = reports(folder)
    assert {key: (one["seed"], one["requested"]["dims"], one["verdict"]) for key, one in found.items()} == {
        ("test_all", 1): (3, 12, "pass"),
        ("test_own", 1): (5, 7, "pass"),
        ("test_several", 1): (3, 12, "pass"),
        ("test_several", 2): (3, 12, "pass"),
        ("test_several", 3): (3, 12, "pass"),
        ("test_several", 4): (3, 12, "fail"),
    }
    assert "replay: pytest test_seeded.py::test_several --fastcheck-dims 12 --fastcheck-seed 3" in shown(result)


@pytest.mark.jit
def test_without_options_nothing_is_written_or_said(inner, pytester):
    result = inner(product=PRODUCT, test_seeded=SEEDED)
    assert not any(line.startswith("fastcheck:") for line in result.outlines)
    assert not list(pytester.path.rglob("*.json"))


@pytest.mark.jit
def test_a_written_report_is_shown_by_the_command_line(inner, pytester, run):
    inner("--fastcheck-report", "out", "-k", "several", product=PRODUCT, test_seeded=SEEDED)
    (path,) = (pytester.path / "out").glob("*-4.json")
    code, out, _ = run("show", path)
    assert code == 1
    assert "FAIL: w is wrong in 5 of 20 entries" in out


NAMES = """
import pytest
from product import *


@pytest.mark.parametrize("name", ["a/b", "a:b", "a b", "../../a", "\\u2028" * 200])
def test_it(gradcheck, name):
    gradcheck.vjp(forward, right, INPUTS)
"""


@pytest.mark.jit
def test_every_test_has_a_file_of_its_own_whatever_it_is_called(inner, pytester):
    inner("--fastcheck-report", "out", product=PRODUCT, test_names=NAMES).assert_outcomes(passed=5)
    names = [path.name for path in (pytester.path / "out").iterdir()]
    assert len(names) == 5
    assert all(re.fullmatch(r"[\w.-]{1,150}\.json", name, re.ASCII) for name in names)


@pytest.mark.jit
def test_properties_of_a_test_have_the_figures_of_its_checks(inner, pytester):
    result = inner("-W", "error", "--junitxml", "out.xml", product=PRODUCT, test_seeded=SEEDED)
    result.assert_outcomes(passed=2, failed=1)
    tests = {test.get("name"): test for test in ElementTree.parse(pytester.path / "out.xml").iter("testcase")}
    properties = {
        name: {one.get("name").removeprefix("fastcheck."): one.get("value") for one in test.iter("property")}
        for name, test in tests.items()
    }
    alone, several = properties["test_all"], properties["test_several"]
    assert 10 < float(alone.pop("fewest_digits")) <= 16
    assert alone == {"verdict": "pass", "seed": "0", "checked": "50", "of": "50", "wrong": "0"}
    assert properties["test_own"] | {"fewest_digits": ""} == {
        "verdict": "pass", "seed": "5", "checked": "7", "of": "50", "wrong": "0", "fewest_digits": ""
    }  # fmt: skip
    assert [several[f"{prefix}verdict"] for prefix in ("", "2.", "3.", "4.")] == ["pass", "pass", "pass", "fail"]
    assert (several["4.wrong"], several["4.fewest_digits"]) == ("5", "3.0")


@pytest.mark.jit
def test_a_failure_is_replayed_by_its_last_line_from_any_folder(inner, pytester, monkeypatch):
    pytester.makeini("[pytest]")
    first = inner("--fastcheck-seed", "random", **{"tests/product": PRODUCT, "tests/test_seeded": SEEDED})
    command = shown(first)[-1]
    test = "test_seeded.py::test_several --fastcheck-seed"
    seed = re.fullmatch(rf"replay: pytest tests/{test} (\d{{1,6}})", command)[1]
    again = inner(*shlex.split(command)[2:])
    assert shown(again) == shown(first)
    other = inner("-k", "several", "--fastcheck-seed", "1000000")  # random ones are smaller
    assert shown(other)[0] == shown(first)[0]
    assert shown(other)[2:5] != shown(first)[2:5]
    monkeypatch.chdir(pytester.path / "tests")
    below = inner("--fastcheck-seed", seed)
    assert shown(below) == [*shown(first)[:-1], f"replay: pytest {test} {seed}"]


@pytest.mark.jit
def test_workers_share_the_options_and_write_different_files(inner, pytester):
    options = ("--fastcheck-seed", "random", "--fastcheck-dims", 9, "--fastcheck-report", "out", "-n", 2)
    result = inner(*options, process=True, product=PRODUCT, test_seeded=SEEDED)
    result.assert_outcomes(passed=2, failed=1)
    found = reports(pytester.path / "out")
    assert len(found) == 6
    del found["test_own", 1]
    (shared,) = {(one["seed"], one["requested"]["dims"]) for one in found.values()}
    assert shared[1] == 9
    assert f"replay: pytest test_seeded.py::test_several --fastcheck-dims 9 --fastcheck-seed {shared[0]}" in shown(
        result
    )


REFUSED = {
    ("--fastcheck-dims", "0"): "*--fastcheck-dims: it is '0': expected 'all', 'auto' or a number of at least 1",
    ("--fastcheck-dims", "few"): "*--fastcheck-dims: it is 'few': expected 'all', 'auto' or a number of at least 1",
    ("--fastcheck-seed", "-1"): "*--fastcheck-seed: *",
    ("--fastcheck-seed", "1.5"): "*--fastcheck-seed: it is '1.5': expected 'random' or a number of at least 0",
    ("--fastcheck-report", "file.py"): "ERROR: --fastcheck-report */file.py cannot be made: File exists",
}


@pytest.mark.parametrize("options", REFUSED)
def test_options_are_refused_in_one_line_before_any_test_runs(inner, options):
    result = inner(*options, file="", test_seeded="def test_it(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([REFUSED[options]])


# The process


INTERRUPTED = """
import signal
from product import *

calls = []


def loss(p):
    calls.append(p)
    if len(calls) == 40:
        signal.raise_signal(signal.SIGINT)
    return np.sin(p).sum()


def test_interrupted(gradcheck):
    gradcheck.function(loss, np.cos, rng.normal(size=40))


def test_after():
    pass
"""


@pytest.mark.jit
def test_ctrl_c_ends_the_run_and_not_one_test(inner):
    result = inner(process=True, product=PRODUCT, test_interrupted=INTERRUPTED)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*", "*no tests ran in*"])


def test_importing_the_plugin_imports_nothing_but_the_standard_library():
    code = "import pytest, sys; before = set(sys.modules); import fastcheck_pytest; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert modules - sys.stdlib_module_names == {"fastcheck_pytest"}
    assert len(modules) < 5


UNUSED = """
import sys

HEAVY = {"fastcheck", "numba", "torch", "jax"}


def test_without():
    assert not HEAVY & set(sys.modules)


def test_with(gradcheck):
    assert not HEAVY & set(sys.modules)


def test_used(gradcheck):
    gradcheck.function(lambda p: p[0] ** 2, lambda p: 2 * p, [1.0])
    assert HEAVY & set(sys.modules) == {"fastcheck", "numba"}
"""


@pytest.mark.jit
def test_a_run_imports_fastcheck_where_it_is_used(inner):
    inner(process=True, test_unused=UNUSED).assert_outcomes(passed=3)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Entry points as pip would install them, on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / "fastcheck_installed-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fastcheck_installed\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["pytest11"].items()]
    (folder / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    monkeypatch.setenv("PYTHONPATH", processes.environment(folder.parent)["PYTHONPATH"])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("options", [(), ("-p", "fastcheck_pytest")])
@pytest.mark.parametrize("conftest", ["", "pytest_plugins = ['fastcheck_pytest']"])
def test_the_plugin_is_found_once_it_is_installed_and_may_be_named_besides(pytester, options, conftest):
    pytester.makeconftest(conftest)
    pytester.makepyfile("def test_it(gradcheck): assert callable(gradcheck.vjp)")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)


# Frameworks

TORCH = """
import torch


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * x

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.factor * grad_output, None


def test_right(gradcheck):
    layer = torch.nn.Linear(4, 2).double()
    report = gradcheck.torch(layer, torch.ones(3, 4, dtype=torch.float64), dims="all")
    assert list(report.tensors) == ["weight", "bias"]


def test_wrong(gradcheck):
    x = torch.linspace(1, 2, 6, dtype=torch.float64, requires_grad=True)
    gradcheck.torch(lambda x: Scaled.apply(x, 2.0), x)
"""


@pytest.mark.jit
def test_functions_and_modules_of_pytorch(inner):
    result = inner("--fastcheck-seed", 8, test_torch=TORCH)
    result.assert_outcomes(passed=1, failed=1)
    lines = shown(result)
    assert lines[0] == "fastcheck.GradientMismatchError: FAIL: input 0 is wrong in 5 of 6 entries"  # at 1, 2 x is 2
    assert lines[-1] == "replay: pytest test_torch.py::test_wrong --fastcheck-seed 8"


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_framework_that_is_absent_is_named(inner, monkeypatch, name):
    source = f"def test_it(gradcheck): gradcheck.{name}(abs, 1.0)"
    monkeypatch.setitem(sys.modules, f"fastcheck.{name}", None)
    (line,) = shown(inner(test_absent=source))
    assert line == f"fastcheck.FastcheckError: gradcheck.{name}: this version of fastcheck has no fastcheck.{name}"


def test_the_fixture_called_as_pytorchs_function_says_what_to_call(inner):
    (line,) = shown(inner(test_called="def test_it(gradcheck): gradcheck(abs, (1.0,), eps=1e-6)"))
    assert line.startswith("fastcheck.FastcheckError: gradcheck is fastcheck's fixture: call gradcheck.torch(")


DROP_IN = """\
import torch
from fastcheck.torch import gradcheck


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def test_wrong():
    assert gradcheck(Wrong.apply, (torch.ones(3, dtype=torch.float64, requires_grad=True),), eps=1e-6)


def test_no_gradient():
    assert gradcheck(Wrong.apply, torch.ones(3))
"""


@pytest.mark.jit
def test_gradcheck_in_place_of_pytorchs_fails_at_the_tests_own_line(inner):
    result = inner(test_drop_in=DROP_IN)
    result.assert_outcomes(failed=2)
    places = [line for line in result.outlines if re.match(r"\S+\.py:\d+: ", line)]
    assert [re.sub(r"\d+", "N", line) for line in places] == [
        "test_drop_in.py:N: GradcheckError",
        "test_drop_in.py:N: FastcheckError",
    ]
