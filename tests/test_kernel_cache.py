"""Compilation: counted, cached on disk, and quiet where no folder is writable."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastcheck_kernels import _jit

ROOT = Path(__file__).parent.parent

EVERYTHING = """
import sys
sys.path[:0] = [{tests!r}]
import numpy as np
from layers import case, layer
import fastcheck
from fastcheck_kernels import conv, curved, delta, difference, direction, judge, planes
from fastcheck.cases import forward
from concurrent.futures import ThreadPoolExecutor
for made in (
    case(layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, groups=2)),
    case(layer((1, 3, 20), (4, 3, 5), dilation=2), dtype=np.float32),
    case(layer((1, 2, 4, 5, 6), (2, 2, 2, 2, 2))),
):
    for evaluator in ("local", "full", "delta"):
        assert fastcheck.check(made, dims=30, evaluator=evaluator).passed
    with ThreadPoolExecutor(1) as pool:
        forward.backward(made.geometry, made.input, made.weight, made.grad_output, pool)
modules = (conv, curved, delta, difference, direction, judge, planes)
found = {{k for module in modules for k in vars(module).values() if hasattr(k, "signatures") and k.signatures}}
called = [kernel for kernel in found if kernel.stats.cache_misses or kernel.stats.cache_hits]
entered = [kernel for kernel in called if kernel.py_func.__name__ in {entries!r}]
misses = sum(sum(kernel.stats.cache_misses.values()) for kernel in entered)
print(len(entered), max(len(kernel.signatures) for kernel in entered), misses)
"""


ENTRIES = {
    *("forward", "adjoint", "weight_vjp", "_perturb_whole", "_perturb_input", "_perturb_filters", "pack", "power_sums"),
    *("product_sums", "channel_sums", "reduce", "spread", "bars", "fold", "move", "along", "planes"),
}
"""Kernels that Python calls, of a linear loss."""


def _run(cache, sources=ROOT, **environment):
    code = EVERYTHING.format(tests=str(ROOT / "tests"), entries=ENTRIES)
    paths = f"{sources}{os.pathsep}{sources / 'kernels'}"
    environment = os.environ | {"PYTHONPATH": paths} | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {}) | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return [int(word) for word in done.stdout.split()]


@pytest.fixture
def sources(tmp_path):
    for name in ("fastcheck", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path


@pytest.mark.jit
def test_every_kernel_compiles_once_for_all_ranks_dtypes_and_evaluators_and_is_cached(tmp_path, sources):
    cache = tmp_path / "cache"
    count = len(ENTRIES)
    assert _run(cache, sources) == [count, 1, count]
    assert _run(cache, sources) == [count, 1, 0]
    # Numba looks at the kernel's own file alone: an edit of a helper elsewhere must be seen as well.
    helper = sources / "kernels" / "fastcheck_kernels" / "_jit.py"
    helper.write_text(helper.read_text() + "\n# edited\n")
    assert _run(cache, sources) == [count, 1, count]


def test_without_a_writable_cache_folder_kernels_still_compile(monkeypatch):
    def refuse(*arguments, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(_jit.numba, "njit", refuse)

    def double(x):
        return 2 * x

    assert _jit.kernel("contract")(double) is double


@pytest.mark.parametrize("flag", ["nsz", "nnan", "ninf", "fast", "arcp"])
def test_flags_that_could_fold_a_difference_are_refused(flag):
    with pytest.raises(ValueError, match="only 'contract' and 'reassoc'"):
        _jit.kernel("contract", flag)
