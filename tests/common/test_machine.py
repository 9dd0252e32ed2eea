"""What a process took is its own."""

import subprocess
import sys

import numpy as np

from fastcheck.common import machine


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    held = np.ones(40_000_000)
    command = [sys.executable, "-c", "from fastcheck.common import machine; print(machine.peak_bytes())"]
    found = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert machine.peak_bytes() > held.nbytes > found > 1e6
