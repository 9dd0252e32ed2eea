"""What importing fastcheck costs, and that imports run one way."""

import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _modules_after(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_fastcheck_imports_neither_numba_nor_a_framework():
    statement = "import fastcheck; fastcheck.compare([1.0], [1.0]); fastcheck.ConvCase"
    heavy = {"numba", "llvmlite", "torch", "jax", "scipy", "sklearn", "rich", "click", "matplotlib", "plotext"}
    assert not _modules_after(statement) & heavy


@pytest.mark.parametrize(("name", "title"), [("torch", "PyTorch"), ("jax", "JAX")])
def test_a_framework_that_is_not_installed_is_named(name, title):
    code = f"import sys; sys.modules[{name!r}] = None; import fastcheck; fastcheck.{name}.check"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"fastcheck.FastcheckError: {title} is not installed: pip install")
    assert f"[{name}]" in last


def test_check_and_sweep_stay_functions_whatever_is_imported_first():
    for first in ("import fastcheck.check", "import fastcheck.cli.main", "import fastcheck.sweeps.sweep"):
        code = f"{first}; import fastcheck; assert callable(fastcheck.check) and callable(fastcheck.sweep)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("documented", "room"), [("demo_network", "workloads"), ("layers", "networks"), ("zoo", "workloads")]
)
def test_documented_modules_are_those_of_their_rooms(documented, room):
    names, own = (vars(import_module(f"fastcheck.{path}")) for path in (documented, f"{room}.{documented}"))
    assert all(names.get(name) is value for name, value in own.items() if not name.startswith("_"))


def test_the_environment_is_left_alone():
    code = (
        "import os; before = dict(os.environ); import fastcheck.engine.coordinator; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _lint(folder):
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources, to plant violations in."""
    for name in ("fastcheck", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


VIOLATIONS = {
    "fastcheck/metrics/tally.py": ("what decides about results never imports Numba", "import numba\n"),
    "fastcheck/sweeps/quotients.py": ("imports run one way", "import fastcheck.networks.job\n"),
    "fastcheck/sweeps/curve.py": ("only evaluators and the roofline", "from fastcheck_kernels import conv\n"),
    "fastcheck/convolutions/geometry.py": ("imports run one way", "import fastcheck.cli.main\n"),
    "fastcheck/functions/case.py": ("functions know nothing of convolutions", "import fastcheck.convolutions.cost\n"),
    "fastcheck/convolutions/cost.py": ("no circles between modules", "import fastcheck.convolutions.pipeline\n"),
    "fastcheck/workloads/seeded.py": ("only adapters and frameworks import", "import torch\n"),
    "kernels/fastcheck_kernels/conv.py": ("kernels import NumPy and Numba alone", "import fastcheck\n"),
}
"""A file in which an import is planted that breaks a contract."""


def test_import_rules_hold(copy, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{copy}:{copy / 'kernels'}")
    done = _lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("place", VIOLATIONS)
def test_every_import_rule_can_fail(place, copy, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{copy}:{copy / 'kernels'}")
    rule, planted = VIOLATIONS[place]
    source = copy / place
    head, future, rest = source.read_text().partition("from __future__ import annotations\n")
    source.write_text(f"{head}{future}{planted}{rest}")
    done = _lint(copy)
    broken = [line for line in done.stdout.splitlines() if "BROKEN" in line]
    assert any(line.startswith(rule) for line in broken), done.stdout + done.stderr


def test_every_import_rule_has_a_violation():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        assert any(contract["name"].startswith(rule) for rule, _ in VIOLATIONS.values()), contract["name"]
