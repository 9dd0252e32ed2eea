"""The mistakes of normalisations."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.kinds import BATCH, NORMS
from fastcheck.networks.mistakes import norms

_NORM = (
    "compare with inverse_std * (g - mean(g) - x_hat * mean(g * x_hat)), g the cotangent times the weight, the means "
    "over the entries that are normalised together"
)
_NORM_WEIGHT = "the weight's gradient is the sum of the cotangent times the normalised input, before weight and bias"

NORMALISATIONS: tuple[Hypothesis, ...] = (
    Hypothesis(
        "the mean is held constant: its term, mean(g), is missing",
        NORMS,
        _NORM,
        norms.of_input(norms.without_mean_term),
    ),
    Hypothesis(
        "the variance is held constant: its term, x_hat * mean(g * x_hat), is missing",
        NORMS,
        _NORM,
        norms.of_input(norms.without_variance_term),
    ),
    Hypothesis(
        "mean and variance are held constant, as running statistics are",
        NORMS,
        f"statistics of the data themselves depend on the input; {_NORM}",
        norms.of_input(norms.without_both_terms),
    ),
    Hypothesis(
        "sums are used where averages are right",
        NORMS,
        f"divide both sums by the number of entries; {_NORM}",
        norms.of_input(norms.without_division),
    ),
    Hypothesis(
        "the division by the standard deviation is missing", NORMS, _NORM, norms.of_input(norms.without_deviation)
    ),
    Hypothesis(
        "the input's gradient is divided by the variance, not by the standard deviation",
        NORMS,
        _NORM,
        norms.of_input(norms.by_variance),
    ),
    Hypothesis(
        "the variance's term counts twice",
        NORMS,
        f"the slope of the square root has a half; {_NORM}",
        norms.of_input(norms.variance_term_twice),
    ),
    Hypothesis("the variance's term is added, not subtracted", NORMS, _NORM, norms.of_input(norms.variance_term_added)),
    Hypothesis(
        "the variance's term is divided by one less than the number of entries",
        NORMS,
        f"look for N - 1, ddof=1 or unbiased=True; {_NORM}",
        norms.of_input(norms.one_less),
    ),
    Hypothesis(
        "the variance is divided by one less than the number of entries, in the whole backward pass",
        NORMS,
        "look for N - 1, ddof=1 or unbiased=True: the output is normalised by the variance that is divided by N",
        norms.samples_variance,
    ),
    Hypothesis("eps is left out", NORMS, "add eps to the variance in the backward pass too", norms.without_eps),
    Hypothesis(
        "the weight is missing in the input's gradient",
        NORMS,
        f"multiply the cotangent by the weight first; {_NORM}",
        norms.without_weight,
    ),
    Hypothesis(
        "frozen statistics are differentiated as if they were the batch's",
        BATCH,
        "with running statistics, the input's gradient is the cotangent times weight / sqrt(running_var + eps)",
        norms.uses_the_batch,
    ),
    Hypothesis(
        "the division by the running standard deviation is missing",
        BATCH,
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
        BATCH,
        "take statistics over data points and space, by channel",
        norms.by_statistics(norms.of_layer, norms.BATCH),
    ),
    Hypothesis(
        "statistics are those of each data point's own channel",
        BATCH,
        "take statistics over data points and space, by channel",
        norms.by_statistics(norms.of_space, norms.BATCH),
    ),
    Hypothesis(
        "statistics are taken over data points alone, not over space",
        BATCH,
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
        NORMS,
        _NORM_WEIGHT,
        norms.weight_by_input,
    ),
    Hypothesis(
        "the weight's gradient multiplies by the output, not by the normalised input",
        NORMS,
        _NORM_WEIGHT,
        norms.weight_by_output,
    ),
    Hypothesis("the mean is not subtracted in the weight's gradient", NORMS, _NORM_WEIGHT, norms.weight_without_mean),
    Hypothesis(
        "the weight's gradient is not divided by the standard deviation",
        NORMS,
        _NORM_WEIGHT,
        norms.weight_without_deviation,
    ),
)
