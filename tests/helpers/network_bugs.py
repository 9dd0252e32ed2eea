"""What a diagnosis should say of the mistakes of `planted_network`, and the same mistakes in one layer alone."""

import numpy as np
import torch
import torch_network
from planted_network import MISTAKES, planted
from torch_network import LAYERS

SAID = {
    "conv_forgets_the_stride": "the stride is missing",
    "conv_forgets_the_dilation": "the dilation is missing",
    "conv_swaps_the_sides_of_its_padding": "the padding is cropped on the wrong side",
    "conv_flips_the_kernel": "the kernel is flipped in the input gradient",
    "conv_mixes_up_the_groups": "group",
    "conv_takes_the_first_channel_only": "only the first",
    "conv_bias_of_one_sample_only": "only the first",
    "conv_averages_over_the_batch": "averaged over data points",
    "conv_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "dense_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "dense_counts_a_shared_weight_twice": "later uses are counted twice",
    "conv_leaves_its_padding_to_zeros": "taken for zeros",
    "conv_forgets_what_the_padding_takes_from_the_map": "taken for zeros",
    "conv_repeats_the_edge_where_it_should_go_around": "the padding is taken for copies of the map's last pixels",
    "conv_transpose_flips_the_kernel": "the kernel is flipped in the input gradient",
    "conv_transpose_takes_the_weight_for_a_convolutions": "axes",
    "conv_transpose_mixes_up_the_groups": "group",
    "conv_transpose_forgets_the_output_padding": "output rows or columns are left out: the last position",
    "conv_transpose_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "embedding_keeps_the_last_use_of_a_row": "the gradient of its last use alone",
    "embedding_averages_over_the_uses_of_a_row": "averaged over its uses",
    "embedding_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "dense_uses_the_weight_as_it_is": "the weight is not transposed",
    "dense_takes_one_sample_only": "the first data point alone is counted",
    "dense_forgets_the_bias": "zero everywhere",
    "max_pool_takes_the_first_of_the_window": "the first entry of a window",
    "max_pool_takes_the_last_of_the_window": "the last entry of a window",
    "max_pool_spreads_over_the_window": "as that of an average",
    "max_pool_takes_the_smallest": "the smallest entry",
    "max_pool_takes_the_second": "the second largest entry",
    "max_pool_overwrites_where_windows_overlap": "the last one's cotangent replaces the others'",
    "max_pool_forgets_windows_beyond_the_map": "windows that reach beyond the map hand nothing back",
    "avg_pool_forgets_windows_beyond_the_map": "windows that reach beyond the map hand nothing back",
    "avg_pool_counts_what_lies_beyond_the_padding": "even where that reaches beyond the padding",
    "avg_pool_leaves_padding_out": "padding is counted in the average's division, or left out",
    "avg_pool_counts_padding": "padding is counted in the average's division, or left out",
    "avg_pool_forgets_the_division": "not divided by the size of the window",
    "global_avg_pool_forgets_the_division": "not divided by the size of the window",
    "batch_norm_holds_its_statistics_constant": "mean and variance are held constant",
    "batch_norm_holds_its_variance_constant": "the variance is held constant",
    "batch_norm_divides_by_one_less": "the variance is divided by one less than the number of entries",
    "batch_norm_forgets_the_weight": "the weight is missing in the input's gradient",
    "batch_norm_frozen_uses_the_batch": "frozen statistics are differentiated",
    "batch_norm_frozen_forgets_the_mean": "the mean is not subtracted in the weight's gradient",
    "batch_norm_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "layer_norm_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "layer_norm_forgets_the_mean_term": "the mean is held constant",
    "layer_norm_holds_its_variance_constant": "the variance is held constant",
    "layer_norm_forgets_eps": "eps is left out",
    "group_norm_holds_its_variance_constant": "the variance is held constant",
    "group_norm_holds_its_statistics_constant": "mean and variance are held constant",
    "group_norm_takes_all_channels_for_one_group": "all channels are normalised as one group",
    "group_norm_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "instance_norm_holds_its_mean_constant": "the mean is held constant",
    "instance_norm_takes_statistics_of_the_batch": "statistics are those of the whole batch",
    "softmax_forgets_the_other_entries": "the diagonal alone is left",
    "softmax_sums_over_pixels": "the softmax is taken over pixels",
    "softmax_holds_its_sum_constant": "the sum is held constant",
    "dropout_forgets_the_scale": "the scale 1 / (1 - p) is missing",
    "dropout_passes_everything": "the mask is missing, the scale is there",
    "flatten_puts_channels_last": "channels-last",
    "flatten_reverses_the_axes": "all axes reversed",
    "relu_passes_everything": "the slope is missing",
    "relu_uses_another_sample": "the mask is that of another data point",
    "leaky_relu_has_slope_one": "the slope is missing",
    "leaky_relu_has_no_slope": "as under a plain relu",
    "prelu_takes_one_sample_only": "the first data point alone is counted in the parameters' gradients",
    "prelu_adds_up_positive_entries_too": "counts positive inputs too",
    "prelu_forgets_the_slope_of_its_input": "as under a plain relu",
    "prelu_overwrites_the_gradient_of_an_earlier_use": "the first use alone",
    "elu_forgets_alpha": "alpha is missing in the slope",
    "gelu_uses_the_form_with_tanh": "the slope is that of the form with tanh",
    "gelu_uses_the_exact_form": "the slope is that of the exact form",
    "gelu_forgets_the_density": "the density's term is missing",
    "silu_forgets_the_second_term": "the second term of the slope is missing",
    "tanh_forgets_the_square": "the output is not squared in 1 - y^2",
    "sigmoid_forgets_a_factor": "the activation's value is used for its slope",
    "softplus_forgets_beta": "beta is missing in the slope",
    "softplus_keeps_beta_as_a_factor": "beta is a factor of the slope",
    "add_drops_the_residual": "the skip, or another later branch, gets nothing back",
    "add_drops_the_main_branch": "the skip, or another later branch, gets nothing back",
    "add_averages": "divided among the branches of a sum",
    "concat_swaps_its_branches": "get each other's part",
    "concat_drops_the_last_branch": "the skip, or another later branch, gets nothing back",
    "softmax_cross_entropy_forgets_the_target": "the one-hot target is not subtracted",
    "softmax_cross_entropy_forgets_the_mean": "summed over data points, where the loss is averaged",
    "softmax_cross_entropy_averages": "divided by the number of data points once too often",
    "softmax_cross_entropy_shifts_the_targets": "targets are one class too high",
    "squared_error_forgets_the_half": "the loss's cotangent is twice what it should be",
    "squared_error_averages_over_entries": "divided by the number of outputs",
    "multiclass_hinge_forgets_the_true_class": "the true class has no cotangent",
    "multiclass_hinge_counts_the_true_class_once": "1 is subtracted for the true class, where",
    "multiclass_hinge_forgets_the_margin": "the margin is missing",
    "logistic_adds_the_target": "the target is added, not subtracted",
    "logistic_has_the_wrong_sign": "the opposite sign",
    "l2_is_omitted": "none of the regularisation's",
    "l2_is_doubled": "the regularisation's twice",
    "l2_reaches_the_biases": "times the parameter is too much",
    "l2_is_the_same_for_every_group": "times the parameter is",
    "l1_is_omitted": "none of the regularisation's",
    "l1_forgets_the_sign": "the sign is missing in the l1 term's gradient",
}
"""A part of the sentence that names each mistake."""


def in_layers(names, kind, wrong):
    """Return what replaces a kind of layer in `torch_network` so that the named layers alone make a mistake."""
    mistaken = planted(kind, wrong)

    def forward(layer, inputs, tensors, mask):
        return (mistaken if layer.name in names else LAYERS[kind])(layer, inputs, tensors, mask)

    return {kind: forward}


def gradients(name, network, params, x, y, masks, dtype=torch.float64):
    """Return the gradients of a mistake of `planted_network`, by name."""
    return MISTAKES[name].gradients(network, params, x, y, masks, dtype=dtype)


def with_noise(grads, seed, part=1e-3):
    """Return gradients with noise of a part of each tensor's size."""
    rng = np.random.default_rng([seed, 10**6])
    sizes = {name: np.sqrt(np.mean(np.square(grad))) for name, grad in grads.items()}
    return {name: grad + part * sizes[name] * rng.standard_normal(grad.shape) for name, grad in grads.items()}


def right(network, params, x, y, masks, dtype=torch.float64, replaced=None):
    """Return PyTorch's gradients, perhaps with wrong layers."""
    return torch_network.gradients(network, params, x, y, masks, dtype=dtype, replaced=replaced)[1]


def told(report):
    """Return the last phase's diagnoses, by tensor that failed."""
    phase = list(report.cases.values())[-1]
    return {name: one.diagnosis or {} for name, one in phase.tensors.items() if one.verdict == "fail"}


def said(diagnosis):
    """Return all bugs that a diagnosis says may be the one."""
    return f"{diagnosis.get('bug', '')}; {diagnosis.get('evidence', '')}"
