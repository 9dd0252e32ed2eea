"""Checks of PyTorch's functions and modules, in a line each."""

from fastcheck.frameworks.torch_check import check
from fastcheck.frameworks.torch_gradcheck import GradcheckError, gradcheck, gradgradcheck
from fastcheck.frameworks.torch_sequential import from_sequential

__all__ = ["GradcheckError", "check", "from_sequential", "gradcheck", "gradgradcheck"]
