"""Broken forward passes of convolutions, as people write them, in plain NumPy and PyTorch.

Each takes a layer, its operands and its right output, and returns the wrong output, or None where that layer cannot
have this bug. Nothing here knows of fastcheck.
"""

import numpy as np
import torch


def forward(x, w, b, stride, padding, dilation, groups, sizes=None):
    """The output by a loop over taps, of the given spatial sizes where these are not what the arguments give."""
    samples, spatial = len(x), sizes or output_sizes(x, w, stride, padding, dilation)
    axes = zip(x.shape[2:], padding, stride, spatial, dilation, w.shape[2:], strict=True)
    sides = [(low, max(high, s * (o - 1) + d * (k - 1) + s - n - low)) for n, (low, high), s, o, d, k in axes]
    padded = np.pad(x, [(0, 0), (0, 0), *sides])
    out = np.zeros((samples, groups, len(w) // groups, *spatial), np.result_type(x, w))
    wg = w.reshape(groups, -1, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        axes = zip(dilation, tap, stride, spatial, strict=True)
        place = (..., *(slice(d * t, d * t + s * o, s) for d, t, s, o in axes))
        met = padded[place].reshape(samples, groups, -1, *spatial)
        out += np.einsum("gfc,ngc...->ngf...", wg[(..., *tap)], met)
    return out.reshape(samples, -1, *spatial) + spread(b, x.ndim)


def output_sizes(x, w, stride, padding, dilation):
    axes = zip(x.shape[2:], padding, dilation, w.shape[2:], stride, strict=True)
    return tuple((n + low + high - d * (k - 1) - 1) // s + 1 for n, (low, high), d, k, s in axes)


def spread(b, axes):
    return b.reshape(1, -1, *(1,) * (axes - 2))


def _believing(layer, x, w, b, z, **believed):
    return forward(x, w, b, **{**layer.arguments, **believed}, sizes=z.shape[2:])


def _ones(values):
    return (1,) * len(values)


def _space(array):
    return tuple(range(2, array.ndim))


def bias_missing(layer, x, w, b, z):
    return z - spread(b, z.ndim)


def bias_added_twice(layer, x, w, b, z):
    return z + spread(b, z.ndim)


def bias_added_in_the_loop_over_taps(layer, x, w, b, z):
    taps = int(np.prod(w.shape[2:]))
    return z + (taps - 1) * spread(b, z.ndim) if taps > 1 else None


def bias_subtracted(layer, x, w, b, z):
    return z - 2 * spread(b, z.ndim)


def bias_added_along_the_last_axis(layer, x, w, b, z):
    return z - spread(b, z.ndim) + b if z.shape[-1] == len(b) > 1 else None


def a_true_convolution(layer, x, w, b, z):
    return _believing(layer, x, np.flip(w, _space(w)), b, z)


def kernel_flipped_along_width(layer, x, w, b, z):
    return _believing(layer, x, w[..., ::-1], b, z) if w.ndim > 3 else None


def kernel_transposed(layer, x, w, b, z):
    square = w.ndim == 4 and w.shape[2] == w.shape[3]
    return _believing(layer, x, w.swapaxes(2, 3), b, z) if square else None


def kernel_turned(layer, x, w, b, z):
    square = w.ndim == 4 and w.shape[2] == w.shape[3]
    return _believing(layer, x, np.rot90(w, 1, (2, 3)), b, z) if square else None


def kernel_read_as_hwio(layer, x, w, b, z):
    if layer.groups > 1:
        return None
    read = w.ravel().reshape(*w.shape[2:], w.shape[1], w.shape[0])
    return _believing(layer, x, read.transpose(-1, -2, *range(w.ndim - 2)), b, z)


def kernel_read_as_ohwi(layer, x, w, b, z):
    read = w.ravel().reshape(w.shape[0], *w.shape[2:], w.shape[1])
    return _believing(layer, x, np.moveaxis(read, -1, 1), b, z)


def kernel_read_as_iohw(layer, x, w, b, z):
    if layer.groups > 1:
        return None
    return _believing(layer, x, w.ravel().reshape(w.shape[1], w.shape[0], *w.shape[2:]).swapaxes(0, 1), b, z)


def input_read_as_nhwc(layer, x, w, b, z):
    read = x.ravel().reshape(len(x), *x.shape[2:], x.shape[1])
    return _believing(layer, np.moveaxis(read, -1, 1), w, b, z)


def output_written_as_nhwc(layer, x, w, b, z):
    return np.moveaxis(z, 1, -1).ravel().reshape(z.shape)


def product_reshaped_without_a_transposition(layer, x, w, b, z):
    """The matrix (filters, samples * positions) of im2col, read as (samples, filters, ...)."""
    return np.moveaxis(z, 1, 0).ravel().reshape(z.shape) if len(z) > 1 else None


def stride_missing(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, stride=_ones(layer.stride))


def stride_of_the_other_axis(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, stride=layer.stride[::-1])


def dilation_missing(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, dilation=_ones(layer.dilation))


def stride_for_dilation(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, stride=layer.dilation, dilation=layer.stride)


def padding_missing_before(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, padding=tuple((0, low + high) for low, high in layer.padding))


def padding_on_the_other_side(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, padding=tuple((high, low) for low, high in layer.padding))


def padding_of_the_other_axis(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, padding=layer.padding[::-1])


def padding_one_more_before(layer, x, w, b, z):
    return _believing(layer, x, w, b, z, padding=tuple((low + 1, high) for low, high in layer.padding))


def _padded_by(layer, x, w, b, z, mode, most):
    if any(max(pair) > size - most for pair, size in zip(layer.padding, x.shape[2:], strict=True)):
        return None
    whole = np.pad(x, [(0, 0), (0, 0), *layer.padding], mode=mode)
    return _believing(layer, whole, w, b, z, padding=((0, 0),) * len(layer.padding))


def padded_with_its_edge(layer, x, w, b, z):
    return _padded_by(layer, x, w, b, z, "edge", 0)


def padded_by_reflection(layer, x, w, b, z):
    return _padded_by(layer, x, w, b, z, "reflect", 1)


def padded_circularly(layer, x, w, b, z):
    return _padded_by(layer, x, w, b, z, "wrap", 0)


def _grouped(array, groups):
    return array.reshape(array.shape[0], groups, -1, *array.shape[2:])


def groups_reversed(layer, x, w, b, z):
    return _believing(layer, _grouped(x, layer.groups)[:, ::-1].reshape(x.shape), w, b, z)


def channels_interleaved_among_groups(layer, x, w, b, z):
    order = np.arange(x.shape[1]).reshape(-1, layer.groups).T.ravel()
    return _believing(layer, x[:, order], w, b, z)


def first_group_for_all(layer, x, w, b, z):
    first = np.repeat(_grouped(x, layer.groups)[:, :1], layer.groups, 1)
    return _believing(layer, first.reshape(x.shape), w, b, z)


def groups_ignored(layer, x, w, b, z):
    summed = np.repeat(_grouped(x, layer.groups).sum(1, keepdims=True), layer.groups, 1)
    return _believing(layer, summed.reshape(x.shape), w, b, z) if layer.groups > 1 else None


def last_group_only(layer, x, w, b, z):
    kept = _grouped(np.zeros_like(z), layer.groups)
    kept[:, -1] = _grouped(z, layer.groups)[:, -1]
    return kept.reshape(z.shape) if layer.groups > 1 else None


def first_sample_only(layer, x, w, b, z):
    return np.concatenate([z[:1], np.zeros_like(z[1:])])


def averaged_over_the_batch(layer, x, w, b, z):
    return np.broadcast_to(z.mean(0, keepdims=True), z.shape).copy()


def input_of_the_last_sample_for_all(layer, x, w, b, z):
    return _believing(layer, np.broadcast_to(x[-1:], x.shape), w, b, z)


def last_channel_only(layer, x, w, b, z):
    per_group = w.shape[1]
    kept = np.zeros_like(x)
    kept[:, per_group - 1 :: per_group] = x[:, per_group - 1 :: per_group]
    return _believing(layer, kept, w, b, z) if per_group > 1 else None


def last_tap_column_left_out(layer, x, w, b, z):
    kept = w.copy()
    kept[..., -1] = 0
    return _believing(layer, x, kept, b, z) if w.shape[-1] > 1 else None


def last_tap_only(layer, x, w, b, z):
    kept = np.zeros_like(w)
    last = (..., *(-1,) * (w.ndim - 2))
    kept[last] = w[last]
    return _believing(layer, x, kept, b, z)


def last_column_never_written(layer, x, w, b, z):
    kept = z.copy()
    kept[..., -1] = 0
    return kept if z.shape[-1] > 1 else None


def last_row_never_written(layer, x, w, b, z):
    kept = z.copy()
    kept[:, :, -1] = 0
    return kept if z.ndim > 3 and z.shape[2] > 1 else None


def relu_included(layer, x, w, b, z):
    return np.maximum(z, 0)


def tanh_included(layer, x, w, b, z):
    return np.tanh(z)


def half_of_it(layer, x, w, b, z):
    return z / 2


def divided_by_the_batch(layer, x, w, b, z):
    return z / len(z) if len(z) > 1 else None


def operands_in_float16(layer, x, w, b, z):
    rounded = (array.astype(np.float16).astype(np.float64) for array in (x, w, b))
    return _believing(layer, *rounded, z)


def stored_in_float32(layer, x, w, b, z):
    return z.astype(np.float32).astype(np.float64)


def computed_in_bfloat16(layer, x, w, b, z):
    one = torch.from_numpy(z).to(torch.bfloat16)
    return one.double().numpy()


PLANTS = {
    "the bias is missing": (bias_missing,),
    "the bias is added several times": (bias_added_twice, bias_added_in_the_loop_over_taps),
    "the bias is subtracted": (bias_subtracted,),
    "the bias is added along the wrong axis": (bias_added_along_the_last_axis,),
    "the kernel is flipped": (a_true_convolution, kernel_flipped_along_width),
    "the kernel's spatial axes are mixed up": (kernel_transposed, kernel_turned),
    "the kernel is read in another order": (kernel_read_as_hwio, kernel_read_as_ohwi, kernel_read_as_iohw),
    "an operand's memory is read in another layout": (input_read_as_nhwc,),
    "the output's memory is in another layout": (output_written_as_nhwc, product_reshaped_without_a_transposition),
    "the stride is missing": (stride_missing,),
    "the dilation is missing": (dilation_missing,),
    "stride and dilation are exchanged": (stride_for_dilation,),
    "a parameter of one spatial axis is used for another": (stride_of_the_other_axis, padding_of_the_other_axis),
    "the padding before the input is missing": (padding_missing_before,),
    "the padding is on the wrong side": (padding_on_the_other_side,),
    "the padding before an axis is off by one": (padding_one_more_before,),
    "the padding is that of another mode": (padded_with_its_edge, padded_by_reflection, padded_circularly),
    "groups are paired wrongly": (groups_reversed, channels_interleaved_among_groups, first_group_for_all),
    "groups are ignored": (groups_ignored,),
    "the outputs of some samples or groups are not written": (last_group_only, first_sample_only),
    "samples have each other's outputs": (averaged_over_the_batch,),
    "one sample's input is used for all": (input_of_the_last_sample_for_all,),
    "not all channels of the input are counted": (last_channel_only,),
    "not all taps of the kernel are counted": (last_tap_column_left_out, last_tap_only),
    "rows or columns of the output are never written": (last_column_never_written, last_row_never_written),
    "the output is that of an activation": (relu_included, tanh_included),
    "the output is half": (half_of_it,),
    "the output is divided by N": (divided_by_the_batch,),
    "operands are rounded": (operands_in_float16,),
    "the output is rounded": (stored_in_float32, computed_in_bfloat16),
}
"""The plants by how the sentence that names each begins."""

NARROW = (operands_in_float16, stored_in_float32, computed_in_bfloat16)
"""The plants that float32 hides."""
