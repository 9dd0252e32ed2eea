"""The command line in this process, how far searches go, and how many processes run the tests.

Signals mean what they usually do, however the shell left them.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import processes
import pytest
import searches
from hypothesis import HealthCheck, is_hypothesis_test, settings
from numba import config

from fastcheck.cli import main as cli
from fastcheck.common import machine

HERE = Path(__file__).parent

# A process for each processor runs tests: in each, PyTorch would wait for threads on all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["pytester", "fastcheck_pytest"]
"""The second is registered already where fastcheck is installed."""

processes.hear_signals()

settings.register_profile(
    "fastcheck",
    max_examples=searches.examples(500),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fastcheck")


def pytest_xdist_auto_num_workers():
    """Return how many processes run the tests: one for each processor that this one may use."""
    return machine.default_threads()


def pytest_sessionstart(session):
    """Where no kernel is compiled yet, compile half of them in each of two processes: each worker would compile all."""
    cache = Path(config.CACHE_DIR or HERE.parent / "kernels")
    starts_workers = session.config.getoption("numprocesses") and "PYTEST_XDIST_WORKER" not in os.environ
    if not starts_workers or config.DISABLE_JIT or any(cache.rglob("*.nbi")):
        return
    with ExitStack() as stack:
        for half in ("convolutions", "networks"):
            command, environment = [sys.executable, HERE / "helpers" / "compiled.py", half], processes.environment()
            child = stack.enter_context(processes.child(command, env=environment, stdout=subprocess.DEVNULL))
            stack.callback(child.wait)


def pytest_collection_modifyitems(items):
    """Mark what goes further in a whole search."""
    for item in items:
        if is_hypothesis_test(item.obj):
            item.add_marker("search")


@pytest.fixture(autouse=True)
def _no_declared_width(monkeypatch):
    """Text in pipes has its own width: processes of xdist declare that of their terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(capsys):
    """Run the command line in this process and return (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


@pytest.fixture
def refused(run):
    """Run it on bad input: exit 2, one line on standard error, nothing on standard output. Return that line."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("fastcheck: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return call
