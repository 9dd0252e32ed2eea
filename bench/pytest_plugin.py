"""What the pytest plugin costs: its import, and its fixture beside the same checks without it.

python bench/pytest_plugin.py [--tests N]
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import redirect_stdout
from pathlib import Path

import children
import pytest

IMPORTS = 15
"""Processes in which the import is timed."""

PER_TEST, IMPORT = 0.030, 0.020
"""Seconds that the fixture may add to a test, and that the import may take."""

TESTS = """
import numpy as np
import pytest

import fastcheck

rng = np.random.default_rng(0)
INPUTS = {{"x": rng.normal(size=(6, 5)), "w": rng.normal(size=(5, 4))}}


def forward(x, w):
    return x @ w


def right(dout, x, w):
    return dout @ w.T, x.T @ dout


def wrong(dout, x, w):
    return dout @ w.T, 1.001 * x.T @ dout


@pytest.mark.parametrize("way", ["fixture", "alone"])
@pytest.mark.parametrize("backward", [right, wrong])
@pytest.mark.parametrize("number", range({tests} + 1))
def test_it(request, way, backward, number):
    if way == "fixture":
        request.getfixturevalue("gradcheck").vjp(forward, backward, INPUTS)
    else:
        fastcheck.check_vjp(forward, backward, INPUTS).raise_if_failed()
"""


class Seconds:
    """What each test takes of the processor, with its set-up and its reports, by its way and its backward pass."""

    def __init__(self) -> None:
        self.of = defaultdict[tuple[str, str], list[float]](list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Generator[None, object, object]:
        """Time a test."""
        start = time.process_time()
        outcome = yield
        key = item.callspec.params["way"], item.callspec.params["backward"].__name__
        self.of[key].append(time.process_time() - start)
        return outcome

    def median(self, way: str, backward: str) -> float:
        """Return the median over tests, but for the first, which may compile."""
        return statistics.median(self.of[way, backward][1:])


def seconds(tests: int) -> Seconds:
    """Run each test in both ways, in turns, so many times and once more; return what they took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test_it.py"
        path.write_text(TESTS.format(tests=tests))
        found = Seconds()
        plugins = ("fastcheck_pytest", "no:cacheprovider", "no:xdist", "no:benchmark")
        options = [option for name in plugins for option in ("-p", name)]
        with redirect_stdout(io.StringIO()):
            pytest.main([str(path), f"--fastcheck-report={folder}/reports", *options], plugins=[found])
    return found


def import_seconds() -> float:
    """Return what importing the plugin adds to a process that has pytest."""
    code = "import pytest, time; t = time.perf_counter(); import fastcheck_pytest; print(time.perf_counter() - t)"
    command, environment = [sys.executable, "-c", code], children.on_these_sources()
    return statistics.median(
        float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
        for _ in range(IMPORTS)
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tests", type=int, default=100)
    asked = parser.parse_args()
    print(f"import of the plugin: {1e3 * import_seconds():.1f} ms (at most {1e3 * IMPORT:.0f})")
    found = seconds(asked.tests)
    for backward in ("right", "wrong"):
        alone, more = found.median("alone", backward), found.median("fixture", backward)
        print(
            f"{backward} gradient: {1e3 * alone:.1f} ms a test alone, {1e3 * more:.1f} ms by the fixture, with a JSON "
            f"report: {1e3 * (more - alone):+.1f} ms (at most {1e3 * PER_TEST:.0f})"
        )


if __name__ == "__main__":
    main()
