"""Pytrees as JAX's functions take and return them, and the leaves that it differentiates, by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing

try:
    import jax
except ImportError:
    raise FastcheckError(f"JAX is not installed: {installing('jax')}") from None

__all__ = ["is_differentiable", "jax", "leaves_of", "like_leaf", "placed", "refuse_tracers", "type_of", "x64"]

jnp = jax.numpy


def x64() -> AbstractContextManager[Any]:
    """Return a context in which JAX computes in float64, whatever its setting is."""
    home: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    return home.enable_x64(True)


def leaves_of(tree: Any) -> tuple[dict[str, Any], Any]:
    """Return the leaves of a pytree by their paths, such as "['w'][0]", and its structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}, structure


def is_differentiable(leaf: Any) -> bool:
    """Whether JAX differentiates by a leaf: an array of real or complex numbers, or such a number."""
    if isinstance(leaf, (float, complex)):
        return True
    return _is_array(leaf) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def type_of(leaf: Any) -> str:
    """Return the type of a leaf as JAX takes it, by its present setting."""
    return str(jnp.result_type(leaf))


def placed(leaf: Any, array: np.ndarray) -> Any:
    """Return an array as JAX's, in memory of its own; a number where the leaf is one."""
    value = like_leaf(leaf, array)
    return jnp.array(value) if value is array else value


def like_leaf(leaf: Any, array: np.ndarray) -> Any:
    """Return an array, or a number where the leaf is one, whose type gives way to others'."""
    is_number = isinstance(leaf, (float, complex)) or getattr(leaf, "weak_type", False)
    return array.item() if is_number and not array.ndim else array


def refuse_tracers(leaves: Mapping[str, Any]) -> None:
    """Refuse what has no values because JAX is tracing."""
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.core.Tracer):
            raise FastcheckError(
                f"{name} is a tracer, without values: call fastcheck.jax.check outside of jax.jit, grad and vmap"
            )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))
