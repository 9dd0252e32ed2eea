"""Checks of JAX's functions, in a line each."""

from fastcheck.frameworks.jax_check import check

__all__ = ["check"]
