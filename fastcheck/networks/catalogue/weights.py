"""The mistakes of layers with weights, and of shared parameters."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.kinds import CONVOLUTIONS, LEARNT, WEIGHTED
from fastcheck.networks.catalogue.losses import SAMPLES
from fastcheck.networks.mistakes import convolutions, learnt

_USES = "add the gradients of all uses to one array (+=), and set it to zero once, before the backward pass"
_GROUPS = "channels of group g of the input, filters of group g: compare the slices of both passes, group by group"
_PADDED = "pad with the same mode in both passes, and add what padding receives to the pixels that it copies"

WEIGHTS: tuple[Hypothesis, ...] = (
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
        WEIGHTED,
        "multiply the cotangent by what the layer was given: the activation's output",
        learnt.input_before_activation,
    ),
    Hypothesis(
        "the parameters' gradients take the cotangent before the slope of the activation that follows",
        WEIGHTED,
        "apply the activation's slope to the cotangent first, then use it for weight, bias and input",
        learnt.cotangent_after_activation,
    ),
    Hypothesis("the first data point alone is counted", LEARNT, SAMPLES, learnt.one_sample(0)),
    Hypothesis("the last data point alone is counted", LEARNT, SAMPLES, learnt.one_sample(-1)),
    Hypothesis("the last data point is left out", LEARNT, SAMPLES, learnt.without_last_sample),
    Hypothesis(
        "the first data point alone is counted in the parameters' gradients",
        LEARNT,
        SAMPLES,
        learnt.params_of_one_sample(0),
    ),
    Hypothesis(
        "the last data point alone is counted in the parameters' gradients",
        LEARNT,
        SAMPLES,
        learnt.params_of_one_sample(-1),
    ),
    Hypothesis(
        "the parameters' gradients are averaged over data points, where they are sums",
        LEARNT,
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
    Hypothesis("of shared parameters, the first use alone is counted", LEARNT, _USES, learnt.first_use_only),
    Hypothesis("of shared parameters, the last use alone is counted", LEARNT, _USES, learnt.last_use_only),
    Hypothesis("shared parameters' gradients are averaged over the uses", LEARNT, _USES, learnt.uses_averaged),
    Hypothesis("of shared parameters, later uses are counted twice", LEARNT, _USES, learnt.later_uses_twice),
    Hypothesis(
        "each group's input gets what belongs to the group before it",
        CONVOLUTIONS,
        _GROUPS,
        convolutions.groups_rolled(1),
    ),
    Hypothesis(
        "each group's input gets what belongs to the group after it",
        CONVOLUTIONS,
        _GROUPS,
        convolutions.groups_rolled(-1),
    ),
    Hypothesis(
        "the groups' inputs get their cotangents in the opposite order",
        CONVOLUTIONS,
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
)
