"""At another width of vectors kernels, and tiles with them, are those of a machine that has it."""

import os
import sys

import processes
import pytest
import widths

CODE = (
    "from fastcheck.workloads import roofline; from fastcheck_kernels import tile\n"
    "print(roofline.simd_bits(), 64 * tile.VECTOR)"
)


@pytest.mark.jit
@pytest.mark.parametrize("bits", widths.WITHOUT)
def test_a_narrower_width_is_that_of_kernels_and_tiles(bits, tmp_path):
    found = widths.narrower()
    if bits not in found:
        pytest.skip(f"vectors have {bits} bits here, or there is no choice")
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | found[bits] | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    done = processes.run([sys.executable, "-c", CODE], env=environment)
    assert (done.stdout, done.stderr) == (f"{bits} 256\n", "")
