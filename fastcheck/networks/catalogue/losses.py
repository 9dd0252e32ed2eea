"""The mistakes of losses."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.mistakes import losses
from fastcheck.networks.mistakes.losses import cotangent, scaled

_CROSS = "the cotangent of the softmax cross-entropy's input is (softmax(z) - one_hot(y)) / N, without the / N of a sum"
_LOGISTIC = "the cotangent of the logistic loss's input is sigmoid(z) - y, without a further slope"
_HINGE = (
    "each wrong class within the margin has a cotangent of 1, and the true class minus their number; the others have 0"
)
_MEAN = "compare where the loss is averaged over data points with where its gradient is, and see that it is once"
SAMPLES = "look for an index [0], a loop that returns early or ends one too soon, or = in place of += over data points"

LOSSES: tuple[Hypothesis, ...] = (
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
    Hypothesis("the first data point alone is counted in the loss", ("mean", "sum"), SAMPLES, losses.first_sample),
    Hypothesis("the last data point is left out of the loss", ("mean", "sum"), SAMPLES, losses.without_last_sample),
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
)
