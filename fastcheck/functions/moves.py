"""Entries of an input moved together: what the outputs do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from fastcheck.functions.case import FunctionCase
from fastcheck.functions.state import Arrays


class Moves:
    """Perturbs entries of one tensor, and counts the calls.

    Parameters
    ----------
    case : FunctionCase
        One whose loss is a sum of terms.
    name : str
        The tensor.

    Attributes
    ----------
    calls : int
    """

    def __init__(self, case: FunctionCase, name: str) -> None:
        self._case, self._name, self.calls = case, name, 0
        self._private, self._lock = threading.local(), threading.Lock()

    @property
    def values(self) -> np.ndarray:
        """The tensor's entries, flat."""
        return self._case.params[self._name].reshape(-1)

    def terms(self, dims: np.ndarray, values: np.ndarray) -> np.ndarray | None:
        """Return by how much each weighted output changes with other values of some entries; None where it raises."""
        arrays = self._arrays()
        flat = arrays[self._name].reshape(-1)
        flat[dims] = values
        with self._lock:
            self.calls += 1
        try:
            return self._case.attempt(arrays, self._where(dims)).terms
        finally:
            flat[dims] = self.values[dims]

    def _arrays(self) -> Arrays:
        """Return this thread's own copies of params."""
        if not hasattr(self._private, "arrays"):
            self._private.arrays = self._case.copies()
        arrays: Arrays = self._private.arrays
        return arrays

    def _where(self, dims: np.ndarray) -> Callable[[], str]:
        label = self._case.label(self._name)
        return lambda: f"with {len(dims):,} entr{'y' if len(dims) == 1 else 'ies'} of {label} perturbed"
