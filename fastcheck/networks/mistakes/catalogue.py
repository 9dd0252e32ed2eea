"""The mistakes of a network's backward pass that can be replayed: what happened, where to look, in which layers."""

from __future__ import annotations

from typing import NamedTuple

from fastcheck.networks.mistakes import activations, branches, convolutions, learnt, losses, norms, pooling
from fastcheck.networks.mistakes.activations import sloped
from fastcheck.networks.mistakes.losses import cotangent, scaled
from fastcheck.networks.mistakes.row import Carry


class Hypothesis(NamedTuple):
    """A mistake that code can make in the backward pass of a layer, or of a loss.

    Attributes
    ----------
    bug : str
        What the program did, in a few words; unique among those of a kind. Reports add the layers.
    kinds : tuple of str
        Kinds of layers, or losses, that can have it.
    advice : str
        Where to look in the code.
    carry : callable
        Makes the mistake in one row.
    """

    bug: str
    kinds: tuple[str, ...]
    advice: str
    carry: Carry


_RELU = ("relu",)
_KINKED = ("relu", "leaky_relu", "prelu")
_SMOOTH = ("elu", "gelu", "silu", "tanh", "sigmoid", "softplus")
_EVERY_ACTIVATION = (*_KINKED, *_SMOOTH)
_MAX, _AVERAGE = ("max_pool",), ("avg_pool", "global_avg_pool")
_BATCH = ("batch_norm",)
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm")
_WEIGHTED = ("dense", "conv", "conv_transpose")
_CONVOLUTIONS = ("conv", "conv_transpose")
_LEARNT = (*_WEIGHTED, "prelu", "embedding", *_NORMS)
_JOINS = ("add", "concat")
_ANY = (
    *(*_EVERY_ACTIVATION, *_MAX, *_AVERAGE, *_NORMS, *_WEIGHTED, "softmax", "dropout", "flatten"),
    *_JOINS,
)

_MASK = "multiply the cotangent by the mask of the layer's own input (input > 0), kept from the forward pass"
_SLOPE = "multiply the cotangent by the activation's slope at the layer's own input, kept from the forward pass"
_WINNER = "keep the position of each window's largest entry in the forward pass, and add the cotangent there"
_SHARE = "divide the cotangent by the number of entries that the forward pass divides by, and add it to each of them"
_NORM = (
    "compare with inverse_std * (g - mean(g) - x_hat * mean(g * x_hat)), g the cotangent times the weight, the means "
    "over the entries that are normalised together"
)
_NORM_WEIGHT = "the weight's gradient is the sum of the cotangent times the normalised input, before weight and bias"
_DROPOUT = "multiply the cotangent by exactly what the forward pass multiplied by: its mask, divided by 1 - p"
_ADD = "a cotangent reaches every branch whole; where branches meet again on the way back, they add up"
_USES = "add the gradients of all uses to one array (+=), and set it to zero once, before the backward pass"
_ORDER = "undo the reshape of the forward pass with the same shape and the same order of axes"
_SOFTMAX = "compare with s * (v - sum(s * v)), s the output and the sum over the classes"
_CROSS = "the cotangent of the softmax cross-entropy's input is (softmax(z) - one_hot(y)) / N, without the / N of a sum"
_LOGISTIC = "the cotangent of the logistic loss's input is sigmoid(z) - y, without a further slope"
_HINGE = (
    "each wrong class within the margin has a cotangent of 1, and the true class minus their number; the others have 0"
)
_MEAN = "compare where the loss is averaged over data points with where its gradient is, and see that it is once"
_GROUPS = "channels of group g of the input, filters of group g: compare the slices of both passes, group by group"
_PADDED = "pad with the same mode in both passes, and add what padding receives to the pixels that it copies"
_SAMPLES = "look for an index [0], a loop that returns early or ends one too soon, or = in place of += over data points"

CATALOGUE: tuple[Hypothesis, ...] = (
    # Losses
    Hypothesis(
        "the loss's cotangent is summed over data points, where the loss is averaged",
        ("mean",),
        _MEAN,
        scaled(losses.points),
    ),
    Hypothesis(
        "the loss's cotangent is divided by the number of data points once too often",
        ("mean", "sum"),
        _MEAN,
        scaled(lambda row: 1 / losses.points(row)),
    ),
    Hypothesis(
        "the loss's cotangent is divided by the number of outputs",
        ("mean", "sum"),
        "look for a mean over all entries of the output: the loss adds up those of a data point",
        scaled(lambda row: 1 / losses.entries(row)),
    ),
    Hypothesis(
        "the loss's cotangent has the opposite sign",
        ("mean", "sum"),
        "look for target - output in place of output - target, or for a gradient ascent",
        scaled(lambda row: -1.0),
    ),
    Hypothesis(
        "the loss's cotangent is twice what it should be",
        ("mean", "sum"),
        "look for the 2 of a square's derivative where the loss has a half, or a gradient that is added twice",
        scaled(lambda row: 2.0),
    ),
    Hypothesis(
        "the loss's cotangent is half of what it should be",
        ("mean", "sum"),
        "look for a half that the loss does not have, or a mean over two",
        scaled(lambda row: 0.5),
    ),
    Hypothesis("the first data point alone is counted in the loss", ("mean", "sum"), _SAMPLES, losses.first_sample),
    Hypothesis("the last data point is left out of the loss", ("mean", "sum"), _SAMPLES, losses.without_last_sample),
    Hypothesis(
        "the one-hot target is not subtracted from the probabilities",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.probabilities),
    ),
    Hypothesis(
        "the target is subtracted for the true class alone: the other classes' probabilities are missing",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.only_true_class),
    ),
    Hypothesis(
        "the probabilities are missing: the cotangent is minus the one-hot target",
        ("softmax_cross_entropy",),
        f"the logarithm of the softmax's sum has a gradient too; {_CROSS}",
        cotangent(losses.minus_targets),
    ),
    Hypothesis(
        "log-probabilities are used where probabilities are right",
        ("softmax_cross_entropy",),
        f"look for log_softmax, and apply exp to it; {_CROSS}",
        cotangent(losses.log_for_probabilities),
    ),
    Hypothesis(
        "the outputs themselves are used where probabilities are right: there is no softmax",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.outputs_for_probabilities),
    ),
    Hypothesis(
        "softmax is applied twice",
        ("softmax_cross_entropy",),
        "look for a softmax before a loss that has its own: give that loss the outputs before it",
        cotangent(losses.softmax_twice),
    ),
    Hypothesis(
        "the exponentials are not divided by their sum",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.exponentials),
    ),
    Hypothesis(
        "the gradient is that of minus the probability: the logarithm is missing",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.without_logarithm),
    ),
    Hypothesis(
        "the probabilities' cotangent is used for the outputs': the softmax's own backward pass is missing",
        ("softmax_cross_entropy",),
        f"-y / p is the gradient with respect to the probabilities; {_CROSS}",
        cotangent(losses.without_softmax),
    ),
    Hypothesis(
        "the softmax is differentiated once more: its Jacobian multiplies p - y",
        ("softmax_cross_entropy",),
        f"p - y has the softmax's Jacobian in it already; {_CROSS}",
        cotangent(losses.times_jacobian),
    ),
    Hypothesis(
        "p - y is multiplied by p (1 - p)",
        ("softmax_cross_entropy",),
        f"that is the slope of a sigmoid under squared errors; {_CROSS}",
        cotangent(losses.times_variance),
    ),
    Hypothesis(
        "a sigmoid of every output is used where the softmax over classes is right",
        ("softmax_cross_entropy",),
        _CROSS,
        cotangent(losses.binary_cross_entropy),
    ),
    Hypothesis(
        "the softmax is taken over the data points, not over the classes",
        ("softmax_cross_entropy",),
        "look at the axis of the softmax, and of its sum and maximum: it is that of the classes",
        cotangent(losses.over_samples),
    ),
    Hypothesis(
        "targets are one class too high",
        ("softmax_cross_entropy",),
        "look at how the one-hot target is indexed: classes count from 0",
        cotangent(losses.other_class(1)),
    ),
    Hypothesis(
        "targets are one class too low",
        ("softmax_cross_entropy",),
        "look at how the one-hot target is indexed: classes count from 0",
        cotangent(losses.other_class(-1)),
    ),
    Hypothesis(
        "the probabilities alone are divided by the number of data points, the targets are not",
        ("softmax_cross_entropy",),
        "put p - y in parentheses before it is divided by N",
        cotangent(losses.averaged_probabilities),
    ),
    Hypothesis(
        "the targets alone are divided by the number of data points, the probabilities are not",
        ("softmax_cross_entropy",),
        "put p - y in parentheses before it is divided by N",
        cotangent(losses.averaged_targets),
    ),
    Hypothesis(
        "the target is not subtracted from the output",
        ("squared_error",),
        "the cotangent of (z - y)^2 / 2 is z - y",
        cotangent(losses.output_alone),
    ),
    Hypothesis(
        "the cotangent is the sign of the error: that of absolute errors",
        ("squared_error",),
        "the cotangent of (z - y)^2 / 2 is z - y",
        cotangent(losses.sign),
    ),
    Hypothesis(
        "the cotangent is the squared error itself",
        ("squared_error",),
        "look for a variable that holds the loss where its gradient belongs: that is z - y",
        cotangent(losses.squared),
    ),
    Hypothesis(
        "the target is added to the output, not subtracted",
        ("squared_error",),
        "the cotangent of (z - y)^2 / 2 is z - y",
        cotangent(losses.added_target),
    ),
    Hypothesis("the target is added, not subtracted", ("logistic",), _LOGISTIC, cotangent(losses.logistic_added)),
    Hypothesis(
        "the target is not subtracted from the sigmoid", ("logistic",), _LOGISTIC, cotangent(losses.logistic_alone)
    ),
    Hypothesis(
        "the outputs themselves are used where their sigmoid is right",
        ("logistic",),
        _LOGISTIC,
        cotangent(losses.outputs_for_probabilities),
    ),
    Hypothesis(
        "s - y is multiplied by the sigmoid's slope, s (1 - s): that is the gradient of squared errors",
        ("logistic",),
        _LOGISTIC,
        cotangent(losses.logistic_squared),
    ),
    Hypothesis(
        "the probabilities' cotangent is used for the outputs': the sigmoid's slope, s (1 - s), is missing",
        ("logistic",),
        _LOGISTIC,
        cotangent(losses.logistic_over),
    ),
    Hypothesis(
        "the sigmoid is taken of minus the output", ("logistic",), _LOGISTIC, cotangent(losses.logistic_of_sign)
    ),
    Hypothesis(
        "the true class has no cotangent", ("multiclass_hinge",), _HINGE, cotangent(losses.hinge_without_true_class)
    ),
    Hypothesis(
        "1 is subtracted for the true class, where it is the number of classes within the margin",
        ("multiclass_hinge",),
        _HINGE,
        cotangent(losses.hinge_true_class_once),
    ),
    Hypothesis(
        "1 is subtracted for the true class of every data point, even where no class is within the margin",
        ("multiclass_hinge",),
        _HINGE,
        cotangent(losses.hinge_true_class_always),
    ),
    Hypothesis(
        "the true class is counted among the wrong ones",
        ("multiclass_hinge",),
        f"skip j == y in the sum over classes; {_HINGE}",
        cotangent(losses.hinge_true_class_counted),
    ),
    Hypothesis(
        "the margin is missing",
        ("multiclass_hinge",),
        "compare z_j - z_y + margin > 0, as the loss does",
        cotangent(losses.hinge_without_margin),
    ),
    Hypothesis(
        "the worst class alone is counted, where all within the margin are",
        ("multiclass_hinge",),
        f"look for max in place of sum over classes; {_HINGE}",
        cotangent(losses.hinge_worst_only),
    ),
    Hypothesis(
        "the gradient is that of squared terms",
        ("multiclass_hinge",),
        _HINGE,
        cotangent(losses.hinge_squared),
    ),
    # Activations and dropout
    Hypothesis(
        "the slope is missing: the cotangent is passed on as it is", _EVERY_ACTIVATION, _SLOPE, sloped(activations.one)
    ),
    Hypothesis("the mask is inverted", _RELU, _MASK, sloped(activations.mask_inverted)),
    Hypothesis(
        "the mask is that of positive cotangents, not of positive inputs",
        _KINKED,
        f"look for dout > 0, or a relu applied to the cotangent; {_MASK}",
        sloped(activations.mask_of_cotangent),
    ),
    Hypothesis(
        "cotangents are set to zero where they are negative, besides the mask",
        _RELU,
        f"look for a relu or a clamp applied to the cotangent itself; {_MASK}",
        sloped(activations.mask_of_both),
    ),
    Hypothesis(
        "the mask is that of the layer's input before the layer in front of it",
        _RELU,
        f"look for a variable that an earlier layer overwrote or left; {_MASK}",
        activations.mask_of_before,
    ),
    Hypothesis(
        "the mask is that of another data point",
        _RELU,
        f"look at indices of data points; {_MASK}",
        sloped(activations.mask_of_another_sample),
    ),
    Hypothesis(
        "the first data point's mask is used for all",
        _RELU,
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
        ("leaky_relu", "prelu", *_SMOOTH),
        "look for two places that multiply by the slope, the layer and its caller perhaps",
        sloped(activations.slope_twice),
    ),
    Hypothesis(
        "the activation's value is used for its slope",
        ("relu", "leaky_relu", *_SMOOTH),
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
    # Pooling
    Hypothesis(
        "every one of several largest entries of a window gets the whole cotangent",
        _MAX,
        f"look for input == output as the mask; {_WINNER}",
        pooling.all_ties,
    ),
    Hypothesis(
        "several largest entries of a window share the cotangent",
        _MAX,
        f"the check gives it to the first of them, as PyTorch does; {_WINNER}",
        pooling.split_ties,
    ),
    Hypothesis(
        "the last of several largest entries of a window gets the cotangent",
        _MAX,
        "the check gives it to the first of them, as PyTorch does: compare with >, not >=",
        pooling.last_tie,
    ),
    Hypothesis("the smallest entry of a window gets the cotangent", _MAX, _WINNER, pooling.smallest),
    Hypothesis("the entry largest in size gets the cotangent", _MAX, _WINNER, pooling.largest_in_size),
    Hypothesis("the second largest entry of a window gets the cotangent", _MAX, _WINNER, pooling.second),
    Hypothesis("the first entry of a window gets the cotangent", _MAX, _WINNER, pooling.first_entry),
    Hypothesis("the last entry of a window gets the cotangent", _MAX, _WINNER, pooling.last_entry),
    Hypothesis("every entry of a window gets the whole cotangent", _MAX, _WINNER, pooling.everywhere),
    Hypothesis("the cotangent is divided among a window, as that of an average", _MAX, _WINNER, pooling.averaged),
    Hypothesis(
        "where windows overlap, the last one's cotangent replaces the others'",
        _MAX,
        f"use += (np.add.at) in place of =; {_WINNER}",
        pooling.overwritten(pooling.winners),
    ),
    Hypothesis(
        "where windows overlap, the first one's cotangent alone counts",
        _MAX,
        f"use += (np.add.at) in place of =; {_WINNER}",
        pooling.overwritten(pooling.winners, last=False),
    ),
    Hypothesis(
        "the average's cotangent is not divided by the size of the window", _AVERAGE, _SHARE, pooling.everywhere
    ),
    Hypothesis(
        "the average's cotangent is divided by the size of the window twice", _AVERAGE, _SHARE, pooling.averaged_twice
    ),
    Hypothesis(
        "padding is counted in the average's division, or left out, unlike in the forward pass",
        ("avg_pool",),
        f"see count_include_pad; {_SHARE}",
        pooling.averaged_with_padding,
    ),
    Hypothesis(
        "the average's cotangent is divided by the whole window, even where that reaches beyond the padding",
        ("avg_pool",),
        f"see ceil_mode; {_SHARE}",
        pooling.averaged_beyond,
    ),
    Hypothesis("the first entry of a window gets the average's cotangent", _AVERAGE, _SHARE, pooling.first_entry),
    Hypothesis(
        "where windows of the average overlap, the last one's part replaces the others'",
        ("avg_pool",),
        f"use += in place of =; {_SHARE}",
        pooling.overwritten(pooling.shares),
    ),
    Hypothesis(
        "windows that reach beyond the map hand nothing back",
        ("max_pool", "avg_pool"),
        "with ceil_mode, the last windows are smaller; go over all outputs, and clip the windows to the map",
        pooling.without_windows_beyond,
    ),
    # Normalisations
    Hypothesis(
        "the mean is held constant: its term, mean(g), is missing",
        _NORMS,
        _NORM,
        norms.of_input(norms.without_mean_term),
    ),
    Hypothesis(
        "the variance is held constant: its term, x_hat * mean(g * x_hat), is missing",
        _NORMS,
        _NORM,
        norms.of_input(norms.without_variance_term),
    ),
    Hypothesis(
        "mean and variance are held constant, as running statistics are",
        _NORMS,
        f"statistics of the data themselves depend on the input; {_NORM}",
        norms.of_input(norms.without_both_terms),
    ),
    Hypothesis(
        "sums are used where averages are right",
        _NORMS,
        f"divide both sums by the number of entries; {_NORM}",
        norms.of_input(norms.without_division),
    ),
    Hypothesis(
        "the division by the standard deviation is missing", _NORMS, _NORM, norms.of_input(norms.without_deviation)
    ),
    Hypothesis(
        "the input's gradient is divided by the variance, not by the standard deviation",
        _NORMS,
        _NORM,
        norms.of_input(norms.by_variance),
    ),
    Hypothesis(
        "the variance's term counts twice",
        _NORMS,
        f"the slope of the square root has a half; {_NORM}",
        norms.of_input(norms.variance_term_twice),
    ),
    Hypothesis(
        "the variance's term is added, not subtracted", _NORMS, _NORM, norms.of_input(norms.variance_term_added)
    ),
    Hypothesis(
        "the variance's term is divided by one less than the number of entries",
        _NORMS,
        f"look for N - 1, ddof=1 or unbiased=True; {_NORM}",
        norms.of_input(norms.one_less),
    ),
    Hypothesis(
        "the variance is divided by one less than the number of entries, in the whole backward pass",
        _NORMS,
        "look for N - 1, ddof=1 or unbiased=True: the output is normalised by the variance that is divided by N",
        norms.samples_variance,
    ),
    Hypothesis("eps is left out", _NORMS, "add eps to the variance in the backward pass too", norms.without_eps),
    Hypothesis(
        "the weight is missing in the input's gradient",
        _NORMS,
        f"multiply the cotangent by the weight first; {_NORM}",
        norms.without_weight,
    ),
    Hypothesis(
        "frozen statistics are differentiated as if they were the batch's",
        _BATCH,
        "with running statistics, the input's gradient is the cotangent times weight / sqrt(running_var + eps)",
        norms.uses_the_batch,
    ),
    Hypothesis(
        "the division by the running standard deviation is missing",
        _BATCH,
        "with running statistics, the input's gradient is the cotangent times weight / sqrt(running_var + eps)",
        norms.frozen(norms.frozen_without_deviation),
    ),
    Hypothesis(
        "all channels are normalised as one group",
        ("group_norm", "instance_norm"),
        "take statistics over the channels of one group",
        norms.one_group,
    ),
    Hypothesis(
        "every channel is normalised by itself",
        ("group_norm",),
        "take statistics over the channels of one group",
        norms.groups_of_one,
    ),
    Hypothesis(
        "statistics are those of the whole batch",
        ("layer_norm", "group_norm", "instance_norm"),
        "take statistics of each data point by itself",
        norms.by_statistics(norms.of_batch),
    ),
    Hypothesis(
        "statistics are those of each data point",
        _BATCH,
        "take statistics over data points and space, by channel",
        norms.by_statistics(norms.of_layer, norms.BATCH),
    ),
    Hypothesis(
        "statistics are those of each data point's own channel",
        _BATCH,
        "take statistics over data points and space, by channel",
        norms.by_statistics(norms.of_space, norms.BATCH),
    ),
    Hypothesis(
        "statistics are taken over data points alone, not over space",
        _BATCH,
        "take statistics over data points and space, by channel: axis=(0, 2, 3) for NCHW",
        norms.by_statistics(norms.of_samples, norms.BATCH),
    ),
    Hypothesis(
        "statistics are taken over channels alone, at each position",
        ("layer_norm",),
        "take statistics over all axes of a data point",
        norms.by_statistics(norms.of_channels),
    ),
    Hypothesis(
        "the weight's gradient multiplies by the input, not by its normalised form",
        _NORMS,
        _NORM_WEIGHT,
        norms.weight_by_input,
    ),
    Hypothesis(
        "the weight's gradient multiplies by the output, not by the normalised input",
        _NORMS,
        _NORM_WEIGHT,
        norms.weight_by_output,
    ),
    Hypothesis("the mean is not subtracted in the weight's gradient", _NORMS, _NORM_WEIGHT, norms.weight_without_mean),
    Hypothesis(
        "the weight's gradient is not divided by the standard deviation",
        _NORMS,
        _NORM_WEIGHT,
        norms.weight_without_deviation,
    ),
    # Layers with weights
    Hypothesis(
        "the weight is not transposed in the input's gradient",
        ("dense",),
        "with y = x @ W.T + b, the input's gradient is dout @ W; a square weight lets the wrong one pass",
        learnt.weight_not_transposed,
    ),
    Hypothesis(
        "the weight is reshaped where it is to be transposed, in the input's gradient",
        ("dense",),
        "a reshape moves no entry: use .T",
        learnt.weight_reshaped,
    ),
    Hypothesis(
        "the weight's gradient takes the layer's input before the activation in front of it",
        _WEIGHTED,
        "multiply the cotangent by what the layer was given: the activation's output",
        learnt.input_before_activation,
    ),
    Hypothesis(
        "the parameters' gradients take the cotangent before the slope of the activation that follows",
        _WEIGHTED,
        "apply the activation's slope to the cotangent first, then use it for weight, bias and input",
        learnt.cotangent_after_activation,
    ),
    Hypothesis("the first data point alone is counted", _LEARNT, _SAMPLES, learnt.one_sample(0)),
    Hypothesis("the last data point alone is counted", _LEARNT, _SAMPLES, learnt.one_sample(-1)),
    Hypothesis("the last data point is left out", _LEARNT, _SAMPLES, learnt.without_last_sample),
    Hypothesis(
        "the first data point alone is counted in the parameters' gradients",
        _LEARNT,
        _SAMPLES,
        learnt.params_of_one_sample(0),
    ),
    Hypothesis(
        "the last data point alone is counted in the parameters' gradients",
        _LEARNT,
        _SAMPLES,
        learnt.params_of_one_sample(-1),
    ),
    Hypothesis(
        "the parameters' gradients are averaged over data points, where they are sums",
        _LEARNT,
        "the loss divides by the number of data points already: sum over them in the layers",
        learnt.params_averaged,
    ),
    Hypothesis(
        "a row that is used several times has the gradient of its last use alone",
        ("embedding",),
        "use np.add.at(grad, ids, dout) in place of grad[ids] = dout or grad[ids] += dout",
        learnt.rows_assigned,
    ),
    Hypothesis(
        "a row that is used several times has the gradient of its first use alone",
        ("embedding",),
        "use np.add.at(grad, ids, dout) in place of grad[ids] = dout or grad[ids] += dout",
        learnt.rows_of_first_use,
    ),
    Hypothesis(
        "a row's gradient is averaged over its uses, where it is a sum",
        ("embedding",),
        "add up the cotangents of all uses of a row (see scale_grad_by_freq)",
        learnt.rows_averaged,
    ),
    Hypothesis(
        "every row's gradient is written to the next row",
        ("embedding",),
        "look at whether rows count from 0 or from 1",
        learnt.rows_next,
    ),
    Hypothesis(
        "the slope's gradient counts positive inputs too",
        ("prelu",),
        "sum the cotangent times the input where the input is negative",
        learnt.slopes_of_all_entries,
    ),
    Hypothesis(
        "the slope's gradient is not multiplied by the input",
        ("prelu",),
        "sum the cotangent times the input where the input is negative",
        learnt.slopes_without_input,
    ),
    Hypothesis(
        "the slope's gradient multiplies by the output, not by the input",
        ("prelu",),
        "sum the cotangent times the input where the input is negative",
        learnt.slopes_by_output,
    ),
    Hypothesis(
        "negative inputs hand nothing back, as under a plain relu",
        ("prelu",),
        "multiply the cotangent by the learned slope where the input is negative",
        learnt.slope_as_relu,
    ),
    Hypothesis("of shared parameters, the first use alone is counted", _LEARNT, _USES, learnt.first_use_only),
    Hypothesis("of shared parameters, the last use alone is counted", _LEARNT, _USES, learnt.last_use_only),
    Hypothesis("shared parameters' gradients are averaged over the uses", _LEARNT, _USES, learnt.uses_averaged),
    Hypothesis("of shared parameters, later uses are counted twice", _LEARNT, _USES, learnt.later_uses_twice),
    Hypothesis(
        "each group's input gets what belongs to the group before it",
        _CONVOLUTIONS,
        _GROUPS,
        convolutions.groups_rolled(1),
    ),
    Hypothesis(
        "each group's input gets what belongs to the group after it",
        _CONVOLUTIONS,
        _GROUPS,
        convolutions.groups_rolled(-1),
    ),
    Hypothesis(
        "the groups' inputs get their cotangents in the opposite order",
        _CONVOLUTIONS,
        _GROUPS,
        convolutions.groups_reversed,
    ),
    Hypothesis(
        "the padding is taken for the map reflected at its edges", ("conv",), _PADDED, convolutions.padded_as("reflect")
    ),
    Hypothesis(
        "the padding is taken for copies of the map's last pixels",
        ("conv",),
        _PADDED,
        convolutions.padded_as("replicate"),
    ),
    Hypothesis("the padding is taken for the map's other end", ("conv",), _PADDED, convolutions.padded_as("circular")),
    Hypothesis("the padding is taken for zeros", ("conv",), _PADDED, convolutions.padded_as("zeros")),
    # Branches and order
    Hypothesis("the layer's first branch gets nothing back", _JOINS, _ADD, branches.dropped(0)),
    Hypothesis(
        "the skip, or another later branch, gets nothing back",
        _JOINS,
        f"look for a skip connection without its own gradient; {_ADD}",
        branches.dropped(1),
    ),
    Hypothesis("the first branch counts twice", _JOINS, _ADD, branches.doubled(0)),
    Hypothesis("the skip, or another later branch, counts twice", _JOINS, _ADD, branches.doubled(1)),
    Hypothesis("the cotangent is divided among the branches of a sum", ("add",), _ADD, branches.averaged),
    Hypothesis(
        "the branches of a concatenation get each other's part",
        ("concat",),
        "cut the cotangent at the number of channels of the first input, in the order of the forward pass",
        branches.exchanged,
    ),
    Hypothesis(
        "what it hands back is lost: its input is read by other layers too",
        _ANY,
        f"look for = in place of += where an activation is used more than once; {_ADD}",
        branches.not_read,
    ),
    Hypothesis(
        "what it hands back is counted twice: its input is read by other layers too",
        _ANY,
        f"look for an activation used more than once, whose cotangent is added again; {_ADD}",
        branches.read_twice,
    ),
    Hypothesis("the flat cotangent is taken for channels-last", ("flatten",), _ORDER, branches.channels_last),
    Hypothesis(
        "the flat cotangent is taken for one with all axes reversed",
        ("flatten",),
        f"look for order='F'; {_ORDER}",
        branches.axes_reversed,
    ),
    Hypothesis("rows and columns of the flat cotangent are exchanged", ("flatten",), _ORDER, branches.space_transposed),
    Hypothesis(
        "the cotangents of all data points are reshaped at once, with the data points along the wrong axis",
        ("flatten",),
        f"keep the axis of the data points first; {_ORDER}",
        branches.samples_last,
    ),
    Hypothesis("the diagonal alone is left of the Jacobian", ("softmax",), _SOFTMAX, branches.softmax_diagonal),
    Hypothesis("the sum is held constant", ("softmax",), _SOFTMAX, branches.softmax_without_sum),
    Hypothesis("the cotangent is passed on as it is", ("softmax",), _SOFTMAX, branches.softmax_passes),
    Hypothesis("the factor s is missing", ("softmax",), _SOFTMAX, branches.softmax_sum_only),
    Hypothesis("the gradient is that of a log-softmax", ("softmax",), _SOFTMAX, branches.log_softmax),
    Hypothesis("the softmax is taken over pixels", ("softmax",), _SOFTMAX, branches.softmax_over(1)),
    Hypothesis("the softmax is taken over data points", ("softmax",), _SOFTMAX, branches.softmax_over(2)),
    Hypothesis(
        "nothing is handed back to its input",
        _ANY,
        "look for a detached value, an input gradient that is not returned, or one that is not assigned",
        learnt.nothing_back,
    ),
)
"""Mistakes by kind of layer, or loss; "mean" and "sum" stand for any loss with that reduction."""
