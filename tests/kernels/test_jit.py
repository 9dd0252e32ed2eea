"""Compilation: one signature a kernel, cached on disk, and quiet where no folder is writable."""

import json
import os
import shutil
import sys
from pathlib import Path

import processes
import pytest

from fastcheck_kernels import _jit

ROOT = Path(__file__).parents[2]

ENTRIES = {
    *("forward", "adjoint", "weight_vjp", "_perturb_whole", "_perturb_input", "_perturb_filters", "pack", "power_sums"),
    *("product_sums", "channel_sums", "reduce", "spread", "bars", "fold", "move", "along", "planes"),
}
"""Kernels that Python calls, of a linear loss."""


PACKAGE = {
    "kernels.py": """
from pack._jit import kernel
from pack.helper import twice
@kernel("contract")
def quadruple(x):
    return twice(twice(x))
""",
    "helper.py": """
from pack._jit import kernel
@kernel("contract")
def twice(x):
    return FACTOR * x
""",
    "__main__.py": """
from pack.kernels import quadruple
print(quadruple(1.0), sum(quadruple.stats.cache_hits.values()), sum(quadruple.stats.cache_misses.values()))
""",
}
"""A package of kernels that is compiled as ours is, in a moment."""


@pytest.mark.jit
def test_a_second_process_compiles_nothing_until_any_source_changes(tmp_path):
    """Numba looks at the kernel's own file alone: an edit of a helper elsewhere must be seen as well."""
    package = tmp_path / "pack"
    package.mkdir()
    shutil.copy(_jit.__file__, package)

    def run(factor):
        for name, text in PACKAGE.items():
            (package / name).write_text(text.replace("FACTOR", factor))
        command = [sys.executable, "-m", "pack"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = processes.run(command, env=environment)
        value, *hits_and_misses = done.stdout.split()
        return float(value), [int(count) for count in hits_and_misses]

    assert run("2") == (4.0, [0, 1])
    assert run("2") == (4.0, [1, 0])
    assert run("3") == (9.0, [0, 1])


@pytest.mark.jit
def test_kernels_have_one_signature_and_a_warm_process_compiles_none():
    """In the cache that all tests share: what it does not hold yet, the first process adds."""
    command = [sys.executable, ROOT / "tests" / "helpers" / "compiled.py", "convolutions"]
    # A kernel that is compiled loads those that it calls, a loaded one does not: the first run may count more.
    _, first, warm = (json.loads(processes.run(command, env=processes.environment()).stdout) for _ in range(3))
    assert {name: warm["signatures"].get(name) for name in ENTRIES} == dict.fromkeys(ENTRIES, 1)
    assert warm["hits"] == first["hits"] + first["misses"] > len(ENTRIES)
    assert warm["misses"] == 0


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
