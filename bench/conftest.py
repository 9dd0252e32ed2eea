"""Threads of every side, the layers that benchmarks share, and where results go."""

import os

import children
import pytest
import torch
from results import Results

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Let `pytest bench` measure: the project's own options switch benchmarks off, for its tests."""
    config.option.benchmark_enable = True


def pytest_xdist_auto_num_workers():
    """Return that benchmarks run in this process: others beside them would be measured with them."""
    return 0


@pytest.fixture(scope="session", autouse=True)
def threads():
    """The number of threads that every side gets, PyTorch included."""
    torch.set_num_threads(THREADS)
    return THREADS


@pytest.fixture
def results(request):
    """Where a section of docs/benchmarks.md is recorded: its file names the command that measures it again."""
    return Results(f"pytest bench/{request.path.name}")


@pytest.fixture(scope="session")
def widths(tmp_path_factory):
    """The widths of vectors that this machine has, each with an environment and a cache of its own."""
    return children.widths(tmp_path_factory.mktemp("caches"), THREADS)
