"""fastcheck: is the gradient that you wrote by hand right, and how close is close enough?"""

from fastcheck.cases.conv import ConvCase
from fastcheck.cases.function import FunctionCase
from fastcheck.check import check, check_gradient, compare
from fastcheck.errors import FastcheckError, GradientMismatchError
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
    "Report",
    "Sweep",
    "__version__",
    "check",
    "check_gradient",
    "compare",
    "load_case",
    "sweep",
]
