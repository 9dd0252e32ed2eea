"""Cold and warm start of the command line, and the compile time of every kernel."""

import subprocess
import sys
from statistics import median
from time import perf_counter

import children
import pytest
from layer_examples import layer, saved

LAYER = layer((1, 8, 12, 12), (8, 8, 3, 3), padding=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("case") / "layer.npz", LAYER)


def _seconds(cache, *arguments):
    environment = children.on_these_sources({"NUMBA_CACHE_DIR": str(cache)})
    start = perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
    return perf_counter() - start


def test_start(benchmark, results, case, tmp_path):
    conv = ("-m", "fastcheck", "conv", str(case))

    def run():
        cold = _seconds(tmp_path, *conv)
        sides = {conv: [], ("-c", "import numba"): []}
        for _ in range(9):
            for arguments, taken in sides.items():
                taken.append(_seconds(tmp_path, *arguments))
        return cold, *map(median, sides.values())

    cold, warm, numba = benchmark.pedantic(run, rounds=1)
    rows = [
        {"what": "first check ever, cache empty", "seconds": cold, "target": "at most 15 s"},
        {"what": "`fastcheck conv`, warm", "seconds": warm, "target": ""},
        {"what": '`python -c "import numba"`', "seconds": numba, "target": ""},
        {"what": "the former above the latter", "seconds": warm - numba, "target": "at most 0.6 s"},
    ]
    results.record("start", rows)


def test_compilation(benchmark, results, tmp_path):
    rows = benchmark.pedantic(
        children.call, args=("compilation.py",), kwargs={"environment": {"NUMBA_CACHE_DIR": str(tmp_path)}}, rounds=1
    )
    results.record("compilation", rows)
