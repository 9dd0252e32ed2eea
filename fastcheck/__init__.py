"""fastcheck: is the gradient that you wrote by hand right, and how close is close enough?"""

from fastcheck.cases.conv import ConvCase
from fastcheck.cases.function import FunctionCase
from fastcheck.cases.network import NetworkCase
from fastcheck.check import check, check_gradient, compare
from fastcheck.errors import FastcheckError, GradientMismatchError
from fastcheck.network import Network
from fastcheck.network_check import check_network
from fastcheck.network_report import NetworkReport
from fastcheck.npz import load_case
from fastcheck.report import Report
from fastcheck.sweep import sweep
from fastcheck.sweep_report import Sweep
from fastcheck.version import __version__

# Nothing here imports Numba: `check` does when it is called (tests/test_imports.py).

__all__ = [
    "ConvCase",
    "FastcheckError",
    "FunctionCase",
    "GradientMismatchError",
    "Network",
    "NetworkCase",
    "NetworkReport",
    "Report",
    "Sweep",
    "__version__",
    "check",
    "check_gradient",
    "check_network",
    "compare",
    "load_case",
    "sweep",
]
