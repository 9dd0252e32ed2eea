"""The table of patterns: what each is called, what proposes it, and what it says."""

from __future__ import annotations

from fastcheck.diagnosis.patterns import (
    attention,
    contributions,
    penalties,
    places,
    scales,
    slopes,
    stale,
    sums,
    values,
)
from fastcheck.diagnosis.patterns.pattern import IN_PART, Pattern

_ADVISED = "{advice}"

_OF_DECAY = (
    "compare the penalty in the loss with its gradient: its factor, its 2 or 1/2, its sign, and where it is added"
)

_REACHED = "look at how the code reaches the entries that fail: the ends of a loop or slice, an index"

_FACTORS = ("zeros", "scalar cotangent", "named factor", "norm clip", "factor")

_OF_BOTH = "look for a scale that acts on the data's part of the loss and not on the penalty, or the reverse"

_OF_ARRAYS = (
    Pattern(
        "earlier call",
        stale.earlier_call,
        "this is what an earlier call left: a second call at the same point returns the right gradient",
        "look for a gradient that is kept between calls and returned before it is computed anew, as the first step's",
    ),
    Pattern(
        "added to earlier",
        stale.added_to_earlier,
        "the gradient is added to what an earlier call left: a second call adds the right one once more",
        "set gradients to zero before each call, or write = in place of +=",
        ("earlier call",),
    ),
    Pattern(
        "zeros",
        scales.zeros,
        "the gradient is zero everywhere: it was never written",
        "look for an array that is allocated and not filled, a gradient that is not returned, or a detached graph",
        ("earlier call", "added to earlier"),
    ),
    Pattern(
        "flat",
        values.flat,
        "every derivative is zero: forward does not change with this tensor",
        "where forward rounds, compares or takes signs, any other gradient is a choice, as of a straight-through "
        "estimator, that no difference confirms; otherwise look for a forward that does not read the tensor",
        ("earlier call", "added to earlier"),
    ),
    Pattern(
        "scalar cotangent",
        scales.scalar_cotangent,
        "the gradient does not contain {of}: it is that of the number itself",
        "multiply by {of}, which is 1 only where nothing follows: the number may be scaled, or be one of several",
    ),
    Pattern("named factor", scales.named_factor, "the gradient {words}", _ADVISED, ("scalar cotangent",)),
    Pattern(
        "norm clip",
        scales.norm_clip,
        "the gradient is clipped by norm: the norm of {of} is {limit}",
        "check the gradient before it is clipped, or leave the clipping out",
        ("scalar cotangent",),
    ),
    Pattern(
        "factor",
        scales.any_factor,
        "the gradient has a factor of {factor} everywhere",
        "look for a constant that is missing, wrong or used twice: a temperature, a learning rate, a gradient scaler",
        ("scalar cotangent", "named factor", "norm clip", "zeros"),
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
        "handed on",
        slopes.handed_on,
        "the gradient is {of}, handed on unchanged",
        "look for a slope or a mask that is missing: of a ReLU, a clip, a dropout, an activation",
        (*_FACTORS, "rearranged"),
    ),
    Pattern(
        "masked",
        slopes.masked,
        "the gradient is {of} {where}, and zero elsewhere",
        "look at the mask: which array it is made of, its comparison, and whether that array was changed in place",
        (*_FACTORS, "value clip", "handed on"),
    ),
    Pattern(
        "mask too many",
        slopes.mask_too_many,
        "the gradient is right {where}, and set to zero elsewhere: by a mask that does not belong here",
        "look at the mask: which array it is made of, its comparison, and whether it was applied already",
        (*_FACTORS, "value clip", "masked"),
    ),
    Pattern(
        "softmax",
        sums.softmax_slopes,
        "the gradient is {words}",
        "compare with the forward pass: softmax or log-softmax, over which axis, and the sum in its backward pass",
        (*_FACTORS, "handed on"),
    ),
    Pattern(
        "mean missing",
        sums.mean_missing,
        "the gradient's own mean over {axes} is not taken away from it",
        "look for a normalisation's mean, which depends on all entries: backward subtracts the gradient's mean",
        ("zeros", "constant", "handed on", "softmax"),
    ),
    Pattern(
        "variance missing",
        sums.variance_missing,
        "the term of the variance over {axes} is missing: the gradient's part along the normalised values is to be "
        "taken away",
        "look for x_hat * mean(grad * x_hat) in the backward pass of the normalisation: the variance is no constant",
        ("zeros", "penalty"),
    ),
    Pattern(
        "statistics constant",
        sums.statistics_constant,
        "mean and variance over {axes} are taken for constants: the gradient's mean, and its part along the normalised "
        "values, are to be taken away",
        "look for mean(grad) and x_hat * mean(grad * x_hat) in the backward pass of the normalisation",
        ("zeros", "constant", "penalty", "mean missing", "variance missing"),
    ),
    Pattern(
        "norm missing",
        sums.norm_missing,
        "the norm over {axes} is taken for a constant: the gradient's part along the tensor itself is to be taken away",
        "look for x * mean(grad * x) / mean(x^2) in the backward pass: of an RMS norm, or of a division by the length",
        ("zeros", "penalty", "variance missing"),
    ),
    Pattern(
        "softmax term missing",
        sums.softmax_missing,
        "the sum over {axes} is missing in the backward pass of a softmax or log-softmax",
        "softmax: p * (grad - sum(p * grad)); log-softmax: grad - p * sum(grad); cross-entropy: p - one_hot(label)",
        ("zeros", "mean missing", "softmax"),
    ),
    Pattern(
        "label missing",
        sums.label_missing,
        "the label's part is missing: the one that is subtracted where {labels} names an entry along {axes}",
        "look for p - one_hot(label) in the backward pass of the cross-entropy",
        ("zeros",),
    ),
    Pattern(
        "attention",
        attention.attention,
        "the backward pass of attention {words}",
        _ADVISED,
        (*_FACTORS, "rearranged"),
    ),
    Pattern(
        "leaky slope",
        slopes.leaky_slope,
        "where {name} is negative the gradient is {slope} times {of}, and should be {right} times",
        "look at the slope on the negative side, in both passes",
        (*_FACTORS, "handed on", "masked"),
    ),
    Pattern(
        "slope",
        slopes.other_slope,
        "the gradient is {of} times {slope}",
        "compare with the slope that the forward pass has: is it of the input or of the output, and of which function?",
        (*_FACTORS, "handed on", "softmax", "softmax term missing"),
    ),
    Pattern(
        "cotangent forgotten",
        slopes.cotangent_forgotten,
        "the gradient does not contain {of}: it is the slope alone",
        "look at where {of} enters: the slope is to be multiplied by it",
        _FACTORS,
    ),
    Pattern(
        "cotangent twice",
        slopes.cotangent_twice,
        "{of} is multiplied in twice",
        "look at where {of} enters: every path multiplies by it once",
        _FACTORS,
    ),
    Pattern(
        "slope twice",
        slopes.slope_twice,
        "the slope is applied twice to {of}",
        "look for an activation's slope in two places: in its own backward pass and in the next layer's",
        _FACTORS,
    ),
    Pattern(
        "operand missing",
        slopes.operand_missing,
        "the gradient lacks the factor {name}",
        "look at the product in which {name} takes part: the gradient of one factor is multiplied by the others",
        (*_FACTORS, "handed on", "masked", "cotangent forgotten"),
    ),
    Pattern(
        "operand too many",
        slopes.operand_too_many,
        "the gradient is multiplied by {name} once too often",
        "look at the product in which {name} takes part: the gradient of one factor is multiplied by the others, once",
        (*_FACTORS, "handed on", "masked", "slope", "cotangent twice", "slope twice"),
    ),
    Pattern(
        "flushed",
        values.flushed,
        "values of at most {size} in size are zero{of}",
        "look for a narrower type in the middle of the computation, or a threshold; losses in float16 are scaled",
        (*_FACTORS, "value clip", "mask too many", "masked"),
    ),
    Pattern(
        "part zero",
        scales.part_zero,
        f"{IN_PART} is zero: never written, or set to zero",
        f"{_REACHED}, a mask",
        (*_FACTORS, "value clip", "mask too many", "masked", "flushed"),
    ),
    Pattern(
        "part flat",
        scales.flat_in_part,
        f"{IN_PART} is not zero, though forward does not depend on these entries",
        "look for a mask that backward lacks: of rows that are ignored or padded, of a ReLU, a clip or a dropout",
        (*_FACTORS, "value clip", "handed on", "masked"),
    ),
    Pattern(
        "part named factor",
        scales.part_named_factor,
        f"{IN_PART} {{words}}",
        f"{_REACHED}, one that is used twice; {{advice}}",
        (*_FACTORS, "absolute values", "leaky slope"),
    ),
    Pattern(
        "part factor",
        scales.part_factor,
        f"{IN_PART} has a factor of {{factor}}",
        "look for a scale that is applied to these entries alone",
        (*_FACTORS, "value clip", "absolute values", "leaky slope", "flushed", "part zero", "part named factor"),
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

PATTERNS = (
    *_OF_ARRAYS,
    Pattern(
        "contributions",
        contributions.contributions,
        "{words}",
        _ADVISED,
        tuple(one.name for one in _OF_ARRAYS if not one.bug.startswith(IN_PART)),
    ),
)
"""The patterns, cheapest and simplest first."""
