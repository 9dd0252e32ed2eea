"""fastcheck: is the gradient that you wrote by hand right, and how close is close enough?"""

import importlib
from typing import TYPE_CHECKING, Any

from fastcheck.check import check, check_gradient, check_vjp, compare
from fastcheck.common.errors import FastcheckError
from fastcheck.common.version import __version__
from fastcheck.convolutions.case import ConvCase
from fastcheck.convolutions.npz_case import load_case
from fastcheck.functions.case import FunctionCase
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.check import check_network
from fastcheck.networks.network import Network
from fastcheck.reports.mismatch import GradientMismatchError
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport
from fastcheck.sweeps.report import Sweep
from fastcheck.sweeps.sweep import sweep

if TYPE_CHECKING:
    from fastcheck.diagnosis.blind_spots import blind_spots

# Importing this package does not import Numba; calling `check` does (tests/test_imports.py).

__all__ = [
    "ConvCase",
    "FastcheckError",
    "FunctionCase",
    "GradientMismatchError",
    "Network",
    "NetworkCase",
    "NetworkReport",
    "Report",
    "SuiteReport",
    "Sweep",
    "__version__",
    "blind_spots",
    "check",
    "check_gradient",
    "check_network",
    "check_vjp",
    "compare",
    "load_case",
    "sweep",
]

_ON_DEMAND = ("jax", "layers", "torch", "zoo")
"""Modules that are imported when they are first used: some import a framework."""


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(f"fastcheck.{name}")
    if name == "blind_spots":
        return importlib.import_module("fastcheck.diagnosis.blind_spots").blind_spots
    raise AttributeError(f"module 'fastcheck' has no attribute {name!r}")
