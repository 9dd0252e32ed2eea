"""Threads of every side, and the layers that benchmarks share."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="session", autouse=True)
def threads():
    """The number of threads that every side gets, PyTorch included."""
    torch.set_num_threads(THREADS)
    return THREADS
