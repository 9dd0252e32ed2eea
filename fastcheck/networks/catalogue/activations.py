"""The mistakes of activations and dropout."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.kinds import EVERY_ACTIVATION, KINKED, RELU, SMOOTH
from fastcheck.networks.mistakes import activations
from fastcheck.networks.mistakes.activations import sloped

_MASK = "multiply the cotangent by the mask of the layer's own input (input > 0), kept from the forward pass"
_SLOPE = "multiply the cotangent by the activation's slope at the layer's own input, kept from the forward pass"
_DROPOUT = "multiply the cotangent by exactly what the forward pass multiplied by: its mask, divided by 1 - p"

ACTIVATIONS: tuple[Hypothesis, ...] = (
    Hypothesis(
        "the slope is missing: the cotangent is passed on as it is", EVERY_ACTIVATION, _SLOPE, sloped(activations.one)
    ),
    Hypothesis("the mask is inverted", RELU, _MASK, sloped(activations.mask_inverted)),
    Hypothesis(
        "the mask is that of positive cotangents, not of positive inputs",
        KINKED,
        f"look for dout > 0, or a relu applied to the cotangent; {_MASK}",
        sloped(activations.mask_of_cotangent),
    ),
    Hypothesis(
        "cotangents are set to zero where they are negative, besides the mask",
        RELU,
        f"look for a relu or a clamp applied to the cotangent itself; {_MASK}",
        sloped(activations.mask_of_both),
    ),
    Hypothesis(
        "the mask is that of the layer's input before the layer in front of it",
        RELU,
        f"look for a variable that an earlier layer overwrote or left; {_MASK}",
        activations.mask_of_before,
    ),
    Hypothesis(
        "the mask is that of another data point",
        RELU,
        f"look at indices of data points; {_MASK}",
        sloped(activations.mask_of_another_sample),
    ),
    Hypothesis(
        "the first data point's mask is used for all",
        RELU,
        f"look at indices of data points; {_MASK}",
        sloped(activations.mask_of_first_sample),
    ),
    Hypothesis(
        "negative inputs have no cotangent, as under a plain relu",
        ("leaky_relu", "elu"),
        "the slope on the negative side is not zero: take the layer's own",
        sloped(activations.mask),
    ),
    Hypothesis(
        "the slopes of both sides are exchanged",
        ("leaky_relu",),
        "look at the comparison that chooses the slope: it is 1 where the input is positive",
        sloped(activations.negative_slope_everywhere),
    ),
    Hypothesis(
        "the slope is applied twice",
        ("leaky_relu", "prelu", *SMOOTH),
        "look for two places that multiply by the slope, the layer and its caller perhaps",
        sloped(activations.slope_twice),
    ),
    Hypothesis(
        "the activation's value is used for its slope",
        ("relu", "leaky_relu", *SMOOTH),
        f"look for a variable that holds the output where the slope belongs; {_SLOPE}",
        sloped(activations.values),
    ),
    Hypothesis(
        "alpha is missing in the slope",
        ("elu",),
        "the slope is alpha * exp(x), or y + alpha",
        sloped(activations.elu_without_alpha),
    ),
    Hypothesis(
        "1 is added to the output where alpha is right",
        ("elu",),
        "the slope is alpha * exp(x), or y + alpha",
        sloped(activations.elu_of_output),
    ),
    Hypothesis(
        "the slope takes exp of the output, not of the input",
        ("elu",),
        "the slope is alpha * exp(x), or y + alpha",
        sloped(activations.elu_by_output),
    ),
    Hypothesis(
        "the slope is that of the form with tanh",
        ("gelu",),
        "take the exact form: the normal distribution function, and x times its density",
        sloped(activations.tanh_gelu),
    ),
    Hypothesis(
        "the slope is that of the exact form",
        ("gelu",),
        "differentiate the form with tanh, as the forward pass has it",
        sloped(activations.exact_gelu),
    ),
    Hypothesis(
        "the slope is that of x sigmoid(1.702 x)",
        ("gelu",),
        "differentiate the form that the forward pass has",
        sloped(activations.gelu_by_sigmoid),
    ),
    Hypothesis(
        "the density's term is missing in the slope",
        ("gelu",),
        "add x times the normal density to the distribution function",
        sloped(activations.gelu_without_density),
    ),
    Hypothesis(
        "the derivative of the tanh's argument is missing",
        ("gelu",),
        "multiply by sqrt(2 / pi) * (1 + 3 * 0.044715 * x^2)",
        sloped(activations.tanh_gelu_without_inner),
    ),
    Hypothesis(
        "the sigmoid is held constant: the second term of the slope is missing",
        ("silu",),
        "the slope is s + x s (1 - s), s the sigmoid",
        sloped(activations.over_input),
    ),
    Hypothesis(
        "the first term of the slope is missing",
        ("silu",),
        "the slope is s + x s (1 - s), s the sigmoid",
        sloped(activations.silu_without_sigmoid),
    ),
    Hypothesis(
        "the slope is the sigmoid's own",
        ("silu",),
        "the slope is s + x s (1 - s), s the sigmoid",
        sloped(activations.silu_of_sigmoid),
    ),
    Hypothesis(
        "the output is not squared in 1 - y^2",
        ("tanh",),
        "the slope is 1 - y^2, y the output",
        sloped(activations.complement),
    ),
    Hypothesis(
        "the square is added in 1 - y^2",
        ("tanh",),
        "the slope is 1 - y^2, y the output",
        sloped(activations.opposite_square),
    ),
    Hypothesis(
        "tanh is applied once more to the output",
        ("tanh",),
        "the slope is 1 - y^2, y the output, or 1 - tanh(x)^2",
        sloped(activations.tanh_of_output),
    ),
    Hypothesis(
        "the input is used in 1 - y^2, which is of the output",
        ("tanh",),
        "the slope is 1 - y^2, y the output",
        sloped(activations.one_minus_square_of_input),
    ),
    Hypothesis(
        "the factor y is missing in y (1 - y)",
        ("sigmoid",),
        "the slope is y (1 - y), y the output",
        sloped(activations.complement),
    ),
    Hypothesis(
        "the sigmoid is applied once more to the output",
        ("sigmoid",),
        "the slope is y (1 - y), y the output",
        sloped(activations.sigmoid_of_output),
    ),
    Hypothesis(
        "the input is used in y (1 - y), which is of the output",
        ("sigmoid",),
        "the slope is y (1 - y), y the output",
        sloped(activations.of_input_as_output),
    ),
    Hypothesis(
        "beta is missing in the slope",
        ("softplus",),
        "the slope is sigmoid(beta * x)",
        sloped(activations.softplus_without_beta),
    ),
    Hypothesis(
        "beta is a factor of the slope",
        ("softplus",),
        "the slope is sigmoid(beta * x): the 1 / beta cancels it",
        sloped(activations.softplus_times_beta),
    ),
    Hypothesis(
        "the mask is missing, the scale is there", ("dropout",), _DROPOUT, sloped(activations.dropout_scale_only)
    ),
    Hypothesis(
        "the scale 1 / (1 - p) is missing, the mask is there",
        ("dropout",),
        _DROPOUT,
        sloped(activations.dropout_mask_only),
    ),
    Hypothesis(
        "mask and scale are missing: the cotangent is passed on as it is",
        ("dropout",),
        _DROPOUT,
        sloped(activations.one),
    ),
    Hypothesis(
        "the cotangent is multiplied by 1 - p, where it is divided by that",
        ("dropout",),
        _DROPOUT,
        sloped(activations.dropout_scale_inverted),
    ),
    Hypothesis(
        "the cotangent is divided by p, where it is divided by 1 - p",
        ("dropout",),
        _DROPOUT,
        sloped(activations.dropout_scale_by_p),
    ),
    Hypothesis(
        "the mask is inverted: what was dropped is kept", ("dropout",), _DROPOUT, sloped(activations.dropout_dropped)
    ),
    Hypothesis(
        "the mask is that of another data point",
        ("dropout",),
        _DROPOUT,
        sloped(activations.dropout_of_another_sample),
    ),
)
