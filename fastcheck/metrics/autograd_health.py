"""Notes about what a framework differentiates: how its functions were called, and what autograd does not reach."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.common.naming import listed
from fastcheck.metrics.health import HealthFinding


def in_double(types: Sequence[str]) -> HealthFinding:
    """Describe inputs of other types that were given in double precision."""
    return HealthFinding(
        "double precision",
        f"inputs in {listed(types)} were converted to float64, in which all ran",
        "reference= checks a function in its own type",
    )


def x64(types: Sequence[str]) -> HealthFinding:
    """Describe inputs that JAX takes in other types, and that were given in double precision."""
    return HealthFinding(
        "double precision",
        f"inputs in {listed(types)} were converted to float64, in which all ran, under jax.enable_x64",
        "reference= checks a function in its own type",
    )


def narrower(types: Sequence[str], rounding: float | None) -> HealthFinding:
    """Describe a function that converts numbers to a type narrower than float64, and the rounding of its outputs."""
    seen = "its outputs show no rounding of that" if rounding is None else f"its outputs count as {rounding:.1g} off"
    return HealthFinding(
        "narrower types",
        f"the function that is differenced converts numbers to {listed(types)} on its way: {seen}",
        "" if rounding is None else "reference=, the same function in float64 throughout, has smaller error bars",
    )


def random_numbers() -> HealthFinding:
    """Describe a function that draws random numbers."""
    return HealthFinding(
        "random numbers", "the function draws random numbers (dropout?): it draws the same ones in every call"
    )


def training_mode() -> HealthFinding:
    """Describe a module in training mode."""
    return HealthFinding(
        "training mode",
        "the module was checked in training mode, as it was given: with the statistics of the batch, and with dropout",
    )


def detached(outputs: Sequence[str]) -> HealthFinding:
    """Describe outputs of floating-point numbers that autograd does not reach."""
    verb = "does" if len(outputs) == 1 else "do"
    return HealthFinding(
        "detached output", f"{listed(outputs)} {verb} not require a gradient and {verb} not count in the check"
    )


def changed(function: str, tensors: Sequence[str]) -> HealthFinding:
    """Describe a forward or backward that changes tensors in place without autograd's knowledge."""
    advice = {
        "forward": "call ctx.mark_dirty on what it changes, or write the result to new memory",
        "backward": "write the result to new memory: what ctx.save_for_backward keeps may be the caller's own tensor",
    }
    return HealthFinding(
        f"{function} changes its arguments",
        f"{function} changes {listed(tensors)} in place, and autograd does not know of it",
        advice[function],
        "fail",
        tuple(tensors),
    )


def not_checked(tensors: Sequence[str]) -> HealthFinding:
    """Describe inputs that could be differentiated, and are not."""
    several = len(tensors) > 1
    return HealthFinding(
        "not checked",
        f"{listed(tensors)} {'do' if several else 'does'} not require a gradient",
        f".requires_grad_() includes {'them' if several else 'it'}",
    )


def unreached(tensors: Sequence[str]) -> HealthFinding:
    """Describe inputs for which autograd returns None."""
    return HealthFinding(
        "no gradient",
        f"autograd returns None for {listed(tensors)}: zeros in this check",
        tensors=tuple(tensors),
    )
