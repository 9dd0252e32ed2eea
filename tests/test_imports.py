"""What importing fastcheck costs, and that imports run one way."""

import shutil
import subprocess
import sys
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


def test_check_and_sweep_stay_functions_whatever_is_imported_first():
    for first in ("import fastcheck.check", "import fastcheck.cli.main", "import fastcheck.sweep"):
        code = f"{first}; import fastcheck; assert callable(fastcheck.check) and callable(fastcheck.sweep)"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


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
    "fastcheck/tally.py": "import numba\n",
    "fastcheck/quotients.py": "import fastcheck.sweeps.differencer\n",
    "fastcheck/sampling.py": "from fastcheck_kernels import conv\n",
    "fastcheck/geometry.py": "import fastcheck.engine.coordinator\n",
    "fastcheck/cases/conv.py": "import fastcheck.cli.main\n",
    "fastcheck/seeded.py": "import torch\n",
    "fastcheck/npz.py": "import fastcheck.workloads.zoo\n",
    "kernels/fastcheck_kernels/conv.py": "import fastcheck\n",
}


@pytest.mark.parametrize("place", [None, *VIOLATIONS])
def test_import_rules_hold_and_can_fail(place, copy, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{copy}:{copy / 'kernels'}")
    if place is not None:
        source = copy / place
        text = source.read_text()
        source.write_text(text.replace("import numpy as np\n", "import numpy as np\n" + VIOLATIONS[place], 1))
        assert source.read_text() != text
    done = _lint(copy)
    assert (done.returncode == 0) == (place is None), done.stdout + done.stderr
