"""Findings about a backward pass itself, and the forward pass beside it: what was seen, and the next step."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.common.naming import brief, listed
from fastcheck.metrics.health import HealthFinding

# Findings that fail a check: backward is wrong for a cotangent that it may be given.


def of_zero(tensors: Sequence[str], where: str) -> HealthFinding:
    """Describe a backward that returns something for a cotangent of zeros."""
    return HealthFinding(
        "a zero cotangent",
        f"for a cotangent of zeros, backward returns {where}: the gradient should be zero",
        "look for a term in backward that the cotangent does not multiply",
        "fail",
        tuple(tensors),
    )


def not_linear(how: str, tensors: Sequence[str], where: str) -> HealthFinding:
    """Describe a backward that is not linear in the cotangent: ``how`` it was changed, and where that shows."""
    return HealthFinding(
        "not linear in the cotangent",
        f"for {how}, backward does not return {where}: it is not linear in the cotangent",
        "look for what backward clips, rounds, normalises or compares with zero: the slope of an activation depends on "
        "its input, never on the cotangent",
        "fail",
        tuple(tensors),
    )


def wrong_layout(layout: str, tensors: Sequence[str], where: str) -> HealthFinding:
    """Describe a backward that reads a cotangent of one layout as if it had another."""
    article = "an" if layout[0] in "aeiou" else "a"
    return HealthFinding(
        f"{layout} cotangent",
        f"for {article} {layout} cotangent with the same values, backward returns another gradient: {where}",
        "index the cotangent by its own strides, or make it contiguous first (np.ascontiguousarray, .contiguous())",
        "fail",
        tuple(tensors),
    )


def wrong_inputs(function: str, tensors: Sequence[str], where: str) -> HealthFinding:
    """Describe a function whose result depends on the layout of the inputs."""
    return HealthFinding(
        "non-contiguous inputs",
        f"for inputs with the same values that are not contiguous, {function} returns something else: {where}",
        "index the inputs by their own strides, or make them contiguous first (np.ascontiguousarray, .contiguous())",
        "fail",
        tuple(tensors),
    )


def unwritten_memory(tensors: Sequence[str]) -> HealthFinding:
    """Describe a backward whose result has entries that were never written."""
    return HealthFinding(
        "unwritten memory",
        f"where new memory was filled with nan first, backward returns nan in {listed(tensors)}: it reads, or leaves, "
        "memory that it never wrote",
        "begin with zeros in place of empty memory, or write every entry",
        "fail",
        tuple(tensors),
    )


def stale_cache(tensors: Sequence[str], where: str) -> HealthFinding:
    """Describe a backward that reads what the last call of forward left, in place of its own cache."""
    return HealthFinding(
        "stale cache",
        f"after forward was called elsewhere, backward with its first cache returns another gradient: {where}",
        "keep all that backward reads in the cache, as copies: nothing in attributes, globals or reused buffers",
        "fail",
        tuple(tensors),
    )


# Findings that leave a check open


def wrong_structure(structure: str, tensors: Sequence[str], places: Sequence[str]) -> HealthFinding:
    """Describe a structure that the function has not: places name outputs, and the entries that move them too."""
    return HealthFinding(
        "structure",
        f"the structure is not {structure!r}: {listed(places)}",
        "declare what forward computes, or leave structure out: every entry is then moved by itself",
        "inconclusive",
        tuple(tensors),
    )


# Notes


def other_convention(convention: str) -> HealthFinding:
    """Describe a complex gradient that is right under this convention, which is not the one asked for."""
    own, other = ("JAX", "PyTorch") if convention == "jax" else ("PyTorch", "JAX")
    return HealthFinding(
        f"{own}'s convention",
        f"the complex gradient is wrong by {other}'s convention and right by {own}'s, its conjugate",
        f"look for a missing conjugate; check_vjp with complex_convention={convention!r} judges by {own}'s",
    )


def hidden_state(where: str) -> HealthFinding:
    """Describe a backward that depends on where forward was called last."""
    return HealthFinding(
        "hidden state",
        f"after forward was called elsewhere, backward returns another gradient for the same inputs: {where}",
        "it is checked right after forward, which it seems to expect; a layer that is used twice would be wrong",
    )


def changes(function: str, what: Sequence[str]) -> HealthFinding:
    """Describe a function that changes what it is given."""
    return HealthFinding(
        f"{function} changes its arguments",
        f"{function} changes {listed(what)} in place; every call here had copies",
        "write the result to new memory: whoever uses these arrays next reads the changed values",
    )


def refuses(layout: str, error: BaseException) -> HealthFinding:
    """Describe a backward that raises for a cotangent, or inputs, of a layout."""
    return HealthFinding(
        f"{layout} raises",
        f"backward raises {type(error).__name__} for {_a(layout)}: {brief(error, 100)}",
        "such arrays come from slices, transposes and broadcasts: make them contiguous first",
    )


def raises(where: str, error: BaseException) -> HealthFinding:
    """Describe a backward, or its forward, that raises in a call that differs from the first one."""
    return HealthFinding(
        "later call raises",
        f"forward and backward raise {type(error).__name__} {where}: {brief(error, 100)}",
        "autograd makes such calls: backward is to take any cotangent, as often as it is called",
        verdict="inconclusive",
    )


def shared_memory(pairs: Sequence[str]) -> HealthFinding:
    """Describe gradients whose memory is that of something else."""
    return HealthFinding(
        "shared memory",
        f"what backward returns shares memory: {listed(pairs)}",
        "return copies if anybody changes gradients in place (+=, clipping)",
    )


def reused_memory(tensors: Sequence[str]) -> HealthFinding:
    """Describe gradients that the next call overwrites."""
    return HealthFinding(
        "reused memory",
        f"the next call of backward overwrites what it returned before, in {listed(tensors)}",
        "return new arrays, or copy a gradient before the next call",
    )


def no_gradient(labels: Sequence[str], moving: Sequence[str]) -> HealthFinding:
    """Describe inputs whose gradient is None, and those among them that the outputs depend on."""
    depends = f", though the outputs depend on {listed(moving)}" * bool(moving)
    return HealthFinding(
        "no gradient",
        f"backward returns None for {listed(labels)}: taken as not differentiable, and not checked{depends}",
        "return the gradient, unless nobody differentiates by it" if moving else "",
    )


def by_reference() -> HealthFinding:
    """Describe a check whose differences are another function's."""
    return HealthFinding(
        "reference",
        "the differences are those of reference, in float64; forward was compared with it at the inputs alone",
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
