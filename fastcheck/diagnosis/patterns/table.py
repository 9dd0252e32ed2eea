"""The table of patterns: what each is called, what proposes it, and what it says."""

from __future__ import annotations

from fastcheck.diagnosis.patterns import penalties, places, scales, values
from fastcheck.diagnosis.patterns.pattern import IN_PART, Pattern

_ADVISED = "{advice}"

_OF_DECAY = (
    "compare the penalty in the loss with its gradient: its factor, its 2 or 1/2, its sign, and where it is added"
)

_REACHED = "look at how the code reaches the entries that fail: the ends of a loop or slice, an index"

_FACTORS = ("zeros", "named factor", "norm clip", "factor")

_OF_BOTH = "look for a scale that acts on the data's part of the loss and not on the penalty, or the reverse"

PATTERNS = (
    Pattern(
        "zeros",
        scales.zeros,
        "the gradient is zero everywhere: it was never written",
        "look for an array that is allocated and not filled, a gradient that is not returned, or a detached graph",
    ),
    Pattern("named factor", scales.named_factor, "the gradient {words}", _ADVISED),
    Pattern(
        "norm clip",
        scales.norm_clip,
        "the gradient is clipped by norm: the norm of {of} is {limit}",
        "check the gradient before it is clipped, or leave the clipping out",
    ),
    Pattern(
        "factor",
        scales.any_factor,
        "the gradient has a factor of {factor} everywhere",
        "look for a scale that is missing or applied twice: a temperature, a learning rate, a gradient scaler",
        ("named factor", "norm clip", "zeros"),
    ),
    Pattern("penalty", penalties.penalty, "{words}", _OF_DECAY),
    Pattern(
        "constant",
        penalties.constant,
        "the gradient has {k} added to every entry",
        "look for an accumulator that does not start at zero, or an epsilon or a shift that is added to the gradient",
    ),
    Pattern(
        "value clip",
        values.value_clip,
        "the gradient {words}",
        "check the gradient before it is clipped; look for a clamp or a ReLU applied to the gradient itself",
        ("zeros",),
    ),
    Pattern(
        "absolute values",
        values.absolute,
        "the gradient has lost its signs: all values are absolute",
        "look for abs, or for the square root of a square",
    ),
    Pattern(
        "squares",
        values.squares,
        "every value of the gradient is squared",
        "look for the squares that an optimizer keeps, or a factor applied to itself",
    ),
    Pattern(
        "signs",
        values.signs,
        "the gradient holds only the signs of its values{times}",
        "look for sign() in the backward pass, or the update of an optimizer in place of the gradient",
        ("zeros",),
    ),
    Pattern(
        "rounded",
        values.rounded,
        "the gradient is rounded to {type}",
        "look for a cast or a buffer of {type}; if it was meant, give precision='{type}'",
        ("zeros",),
    ),
    Pattern(
        "exchanged",
        places.exchanged,
        "{words}",
        "look at the order in which gradients are returned and unpacked",
    ),
    Pattern(
        "another",
        places.another,
        "this is the gradient of {other}",
        "look at the order in which gradients are returned and unpacked, and at a name that is used twice",
    ),
    Pattern("rearranged", places.rearrangements, "the gradient {words}", _ADVISED, ("zeros",)),
    Pattern(
        "part zero",
        scales.part_zero,
        f"{IN_PART} is zero: never written, or set to zero",
        f"{_REACHED}, a mask",
        (*_FACTORS, "value clip"),
    ),
    Pattern(
        "part named factor",
        scales.part_named_factor,
        f"{IN_PART} {{words}}",
        f"{_REACHED}, one that is used twice; {{advice}}",
        (*_FACTORS, "absolute values"),
    ),
    Pattern(
        "part factor",
        scales.part_factor,
        f"{IN_PART} has a factor of {{factor}}",
        "look for a scale that is applied to these entries alone",
        (*_FACTORS, "value clip", "absolute values", "part zero", "part named factor"),
    ),
    Pattern(
        "named factor and penalty",
        penalties.named_factor_and_penalty,
        "the gradient {words}, with {c} times the parameter {does}",
        _OF_BOTH,
        (*_FACTORS, "penalty"),
    ),
    Pattern(
        "factor and penalty",
        penalties.factor_and_penalty,
        "the gradient {words}, with {c} times the parameter {does}",
        _OF_BOTH,
        (*_FACTORS, "penalty", "named factor and penalty"),
    ),
)
"""The patterns, cheapest and simplest first."""
