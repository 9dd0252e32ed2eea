"""`fastcheck.jax.check`: the gradient that `jax.vjp` returns, against differences of the function's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from fastcheck.check import checked_vjp
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.naming import quoted
from fastcheck.common.progress import ProgressHook
from fastcheck.engine.sampling import Dims
from fastcheck.frameworks.jax_functions import JaxFunction
from fastcheck.metrics import autograd_health
from fastcheck.metrics.health import HealthFinding
from fastcheck.reports.report import Report


@refuse_unknown_keywords
def check(
    function: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    grad_output: Any = None,
    structure: Any = None,
    dims: Dims = "auto",
    step: float | Literal["auto"] = "auto",
    stencil: Literal["auto", 3, 5] = "auto",
    directions: int | Literal["auto"] = "auto",
    noise: float | None = None,
    relative_noise: float | None = None,
    precision: str | None = None,
    vectorized: bool = False,
    threads: int = 1,
    seed: int = 0,
    keep: bool = False,
    progress: ProgressHook | Literal[False] | None = None,
) -> Report:
    r"""Difference a function of JAX's arrays, and judge the gradient that `jax.vjp` returns for it.

    Rules of `jax.custom_vjp` and `jax.custom_jvp` are what is judged, wherever the function uses them. Complex
    gradients follow JAX's convention.

    Parameters
    ----------
    function : callable
        Called as function(\*args). It returns an array or a pytree of arrays; those of real or complex numbers are
        checked. It may be compiled by `jax.jit`. Static arguments are given by `functools.partial`.
    \*args
        Point at which to check: pytrees. Arrays of real or complex numbers, and such numbers, are differentiated; other
        leaves are passed on. They are called ``"input 0"``, or ``"input 0['w']"`` by their paths, as
        `jax.tree_util.keystr` writes these.
    reference : callable, optional
        The same function in float64, for one that computes in float32 or less only: it is differenced instead. Without
        it, everything runs in float64, under ``jax.enable_x64``, and all inputs are converted.
    grad_output : pytree like the outputs, optional
        The cotangent. By default it is seeded and random.
    vectorized : bool
        Whether `jax.vmap` evaluates many points in one call.
    structure, dims, step, stencil, directions, noise, relative_noise, precision, threads, seed, keep, progress
        As in `fastcheck.check_vjp`.

    Returns
    -------
    Report
        It is true if the gradient passed. ``health`` lists findings about the function itself.

    Raises
    ------
    FastcheckError
        If an argument is invalid, the function raises, or it returns no arrays.

    Notes
    -----
    The function, and `jax.vjp` of it, are compiled if JAX can trace them, twice with the same result; otherwise they
    are called as they are.

    Examples
    --------
    >>> import jax.numpy as jnp, fastcheck
    >>> fastcheck.jax.check(lambda p, x: jnp.tanh(x @ p["w"]), {"w": jnp.ones((3, 2))}, jnp.eye(3)).passed
    True
    """
    for name, one in (("function", function), ("reference", reference or function)):
        if not callable(one):
            raise FastcheckError(f"{name} is {quoted(one)}: expected a function of arrays, then its arguments")
    if not isinstance(vectorized, (bool, np.bool_)):
        raise FastcheckError(f"vectorized is {quoted(vectorized)}: expected True or False")
    alone = reference is None
    mine = JaxFunction(function, args, double=alone, vectorized=bool(vectorized) and alone)
    differenced = mine if reference is None else JaxFunction(reference, args, double=True, vectorized=bool(vectorized))
    mine.refuse_other(differenced)
    return checked_vjp(
        mine.forward,
        mine.backward,
        mine.inputs,
        [*_notes(differenced, alone)],
        reference=None if alone else differenced.forward,
        grad_output=None if grad_output is None else mine.cotangent(grad_output),
        complex_convention="jax",
        structure=structure,
        dims=dims,
        step=step,
        stencil=stencil,
        directions=directions,
        noise=noise,
        relative_noise=differenced.rounding if noise is None and relative_noise is None else relative_noise,
        precision=precision,
        vectorized=vectorized,
        threads=threads,
        seed=seed,
        keep=keep,
        progress=progress,
    )


def _notes(differenced: JaxFunction, alone: bool) -> Iterator[HealthFinding]:
    """Yield the types in which functions ran: without a reference, the function itself ran in float64."""
    if differenced.types and alone:
        yield autograd_health.x64(differenced.types)
    if differenced.narrow:
        yield autograd_health.narrower(differenced.narrow, differenced.rounding)
