"""Checks of PyTorch's functions and modules, in a line each."""

from fastcheck.frameworks.torch_check import check

__all__ = ["check"]
