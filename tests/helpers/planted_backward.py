"""Broken backward passes of convolutions, as people write them, in plain NumPy: slices, loops over taps, im2col.

Each takes a layer, its arrays and its right gradients, and returns the wrong ones by name, or None where that layer
cannot have this bug. Nothing here knows of fastcheck.
"""

import numpy as np


def backward(x, w, v, stride, padding, dilation, groups):
    """Return the VJPs by a loop over taps, for whatever geometry is believed."""
    samples, spatial = len(x), v.shape[2:]
    padded, grad_padded = _padded(x, w, v, stride, padding, dilation)
    grad_w = np.zeros_like(w)
    vg = v.reshape(samples, groups, -1, *spatial)
    wg = w.reshape(groups, -1, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        axes = zip(dilation, tap, stride, spatial, strict=True)
        place = (..., *(slice(d * t, d * t + s * o, s) for d, t, s, o in axes))
        met = padded[place].reshape(samples, groups, -1, *spatial)
        flat = (array.reshape(*array.shape[:3], -1) for array in (vg, met))
        grad_w[(..., *tap)] = np.einsum("ngfo,ngco->gfc", *flat).reshape(w.shape[:2])
        share = np.einsum("gfc,ngf...->ngc...", wg[(..., *tap)], vg)
        grad_padded[place] += share.reshape(samples, -1, *spatial)
    inside = tuple(slice(low, low + size) for (low, _), size in zip(padding, x.shape[2:], strict=True))
    return {
        "input": np.ascontiguousarray(grad_padded[(..., *inside)]),
        "weight": grad_w,
        "bias": v.sum(axis=(0, *range(2, v.ndim))),
        "padded": grad_padded,
    }


def _padded(x, w, v, stride, padding, dilation):
    """The padded input, with more zeros at the end where windows reach further, and zeros of that shape."""
    axes = zip(x.shape[2:], padding, stride, v.shape[2:], dilation, w.shape[2:], strict=True)
    sides = [(low, max(high, s * (o - 1) + d * (k - 1) + s - n - low)) for n, (low, high), s, o, d, k in axes]
    padded = np.pad(x, [(0, 0), (0, 0), *sides])
    return padded, np.zeros_like(padded)


def _believing(layer, x, w, v, **believed):
    return backward(x, w, v, **{**layer.arguments, **believed})


def _ones(values):
    return (1,) * len(values)


def _only(right, **wrong):
    return {**right, **{name: np.ascontiguousarray(grad) for name, grad in wrong.items()}}


def _space(array):
    return tuple(range(2, array.ndim))


def kernel_flipped(layer, x, w, v, right):
    return _only(right, input=_believing(layer, x, np.flip(w, _space(w)), v)["input"])


def kernel_flipped_along_one_axis(layer, x, w, v, right):
    return _only(right, input=_believing(layer, x, w[..., ::-1], v)["input"]) if w.ndim > 3 else None


def kernel_turned_once(layer, x, w, v, right):
    if w.ndim != 4 or w.shape[2] != w.shape[3]:
        return None
    return _only(right, input=_believing(layer, x, np.rot90(w, 1, (2, 3)), v)["input"])


def kernel_transposed(layer, x, w, v, right):
    if w.ndim != 4 or w.shape[2] != w.shape[3]:
        return None
    return _only(right, input=_believing(layer, x, w.swapaxes(2, 3), v)["input"])


def channels_not_swapped(layer, x, w, v, right):
    filters, channels = len(w) // layer.groups, w.shape[1]
    parts = [part.reshape(channels, filters, *w.shape[2:]) for part in np.split(w, layer.groups)]
    swapped = np.concatenate([part.swapaxes(0, 1) for part in parts])
    return _only(right, input=_believing(layer, x, swapped, v)["input"])


def neither_swapped_nor_flipped(layer, x, w, v, right):
    """The forward convolution, applied to the cotangent."""
    if min(len(w) // layer.groups, w.shape[1]) == 1:
        return None
    return channels_not_swapped(layer, x, np.flip(w, _space(w)), v, right)


def kernel_read_as_hwio(layer, x, w, v, right):
    if layer.groups > 1:
        return None
    read = w.ravel().reshape(*w.shape[2:], w.shape[1], w.shape[0])
    return _only(
        right, input=_believing(layer, x, np.ascontiguousarray(read.transpose(-1, -2, *range(w.ndim - 2))), v)["input"]
    )


def cotangent_flipped(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, x, w, np.flip(v, _space(v)))["weight"])


def input_flipped(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, np.flip(x, _space(x)), w, v)["weight"])


def weight_gradient_flipped(layer, x, w, v, right):
    return _only(right, weight=np.flip(right["weight"], _space(w)))


def weight_gradient_transposed(layer, x, w, v, right):
    if w.ndim != 4 or w.shape[2] != w.shape[3]:
        return None
    return _only(right, weight=right["weight"].transpose(0, 1, 3, 2))


def weight_gradient_stored_by_channel(layer, x, w, v, right):
    if layer.groups > 1:
        return None
    return _only(right, weight=right["weight"].swapaxes(0, 1).ravel().reshape(w.shape))


def weight_gradient_stored_hwio(layer, x, w, v, right):
    if layer.groups > 1:
        return None
    return _only(right, weight=right["weight"].transpose(*_space(w), 1, 0).ravel().reshape(w.shape))


def stride_missing(layer, x, w, v, right):
    return _believing(layer, x, w, v, stride=_ones(layer.stride))


def stride_missing_in_the_weight(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, x, w, v, stride=_ones(layer.stride))["weight"])


def cotangent_repeated(layer, x, w, v, right):
    for axis, times in enumerate(layer.stride, 2):
        v = np.repeat(v, times, axis)
    return _only(right, input=_believing(layer, x, w, v, stride=_ones(layer.stride))["input"])


def dilation_missing(layer, x, w, v, right):
    return _believing(layer, x, w, v, dilation=_ones(layer.dilation))


def dilation_missing_in_the_input(layer, x, w, v, right):
    return _only(right, input=_believing(layer, x, w, v, dilation=_ones(layer.dilation))["input"])


def stride_for_dilation(layer, x, w, v, right):
    """The cotangent as a kernel, dilated by the layer's dilation and moved by its stride."""
    padded = np.pad(x, [(0, 0), (0, 0), *((low, high + 60) for low, high in layer.padding)])
    grad = np.zeros_like(w)
    per_group, filters = w.shape[1], len(w) // layer.groups
    for f, c, *tap in np.ndindex(*w.shape):
        axes = zip(tap, layer.stride, layer.dilation, v.shape[2:], strict=True)
        window = tuple(slice(t * s, t * s + d * o, d) for t, s, d, o in axes)
        met = padded[(slice(None), f // filters * per_group + c, *window)]
        grad[(f, c, *tap)] = (v[:, f] * met).sum()
    return _only(right, weight=grad)


def height_and_width_of_the_padding(layer, x, w, v, right):
    return _believing(layer, x, w, v, padding=layer.padding[::-1])


def height_and_width_of_the_stride(layer, x, w, v, right):
    return _believing(layer, x, w, v, stride=layer.stride[::-1])


def height_and_width_of_the_dilation(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, x, w, v, dilation=layer.dilation[::-1])["weight"])


def padding_not_cropped(layer, x, w, v, right):
    inside = tuple(slice(size) for size in x.shape[2:])
    return _only(right, input=right["padded"][(..., *inside)])


def padding_missing_in_the_weight(layer, x, w, v, right):
    none = ((0, 0),) * len(layer.padding)
    return _only(right, weight=_believing(layer, x, w, v, padding=none)["weight"])


def padded_with_its_edge(layer, x, w, v, right):
    whole = np.pad(x, [(0, 0), (0, 0), *layer.padding], mode="edge")
    return _only(right, weight=_believing(layer, whole, w, v, padding=((0, 0),) * len(layer.padding))["weight"])


def padded_by_reflection(layer, x, w, v, right):
    if any(max(pair) >= size for pair, size in zip(layer.padding, x.shape[2:], strict=True)):
        return None
    whole = np.pad(x, [(0, 0), (0, 0), *layer.padding], mode="reflect")
    return _only(right, weight=_believing(layer, whole, w, v, padding=((0, 0),) * len(layer.padding))["weight"])


def _cropped(layer, x, right, lows):
    wide = np.pad(right["padded"], [(0, 0), (0, 0), *((9, 20),) * (x.ndim - 2)])
    return wide[(..., *(slice(9 + low, 9 + low + size) for low, size in zip(lows, x.shape[2:], strict=True)))]


def cropped_before_only(layer, x, w, v, right):
    return _only(right, input=_cropped(layer, x, right, [low + high for low, high in layer.padding]))


def cropped_as_the_other_side(layer, x, w, v, right):
    if not any(high for _, high in layer.padding):
        return None
    return _only(right, input=_cropped(layer, x, right, [high for _, high in layer.padding]))


def cropped_one_too_many(layer, x, w, v, right):
    return _only(right, input=_cropped(layer, x, right, [low + 1 for low, _ in layer.padding]))


def padded_one_less_along_width(layer, x, w, v, right):
    padding = (*layer.padding[:-1], (layer.padding[-1][0] - 1, layer.padding[-1][1]))
    if layer.padding[-1][0] == 0:
        return None
    return _only(right, weight=_believing(layer, x, w, v, padding=padding)["weight"])


def remainder_first(layer, x, w, v, right):
    axes = zip(x.shape[2:], layer.padding, layer.dilation, w.shape[2:], layer.stride, strict=True)
    rest = [(n + low + high - d * (k - 1) - 1) % s for n, (low, high), d, k, s in axes]
    lows = [low - one for (low, _), one in zip(layer.padding, rest, strict=True)]
    return _only(right, input=_cropped(layer, x, right, lows)) if any(rest) else None


def shifted_diagonally(layer, x, w, v, right):
    if x.ndim < 4:
        return None
    lows = [low for low, _ in layer.padding]
    lows[-2:] = lows[-2] - 2, lows[-1] + 1
    return _only(right, input=_cropped(layer, x, right, lows))


def cotangent_rolled(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, x, w, np.roll(v, 1, -1))["weight"])


def groups_reversed(layer, x, w, v, right):
    if layer.groups == 1:
        return None
    turned = np.concatenate(np.split(x, layer.groups, 1)[::-1], 1)
    return _only(right, weight=_believing(layer, turned, w, v)["weight"])


def first_group_for_all(layer, x, w, v, right):
    if layer.groups == 1:
        return None
    first = np.concatenate(np.split(x, layer.groups, 1)[:1] * layer.groups, 1)
    return _only(right, weight=_believing(layer, first, w, v)["weight"])


def groups_interleaved(layer, x, w, v, right):
    if layer.groups == 1:
        return None
    order = np.concatenate([np.arange(g, x.shape[1], layer.groups) for g in range(layer.groups)])
    return _only(right, weight=_believing(layer, x[:, order], w, v)["weight"])


def kernel_of_the_first_group(layer, x, w, v, right):
    if layer.groups == 1:
        return None
    first = np.concatenate(np.split(w, layer.groups)[:1] * layer.groups)
    return _only(right, input=_believing(layer, x, first, v)["input"])


def groups_ignored(layer, x, w, v, right):
    """A kernel of all filters by a group's channels, for each group's channels."""
    if layer.groups == 1:
        return None
    parts = [backward(part, w, v, **{**layer.arguments, "groups": 1})["input"] for part in np.split(x, layer.groups, 1)]
    return _only(right, input=np.concatenate(parts, 1))


def last_group_only(layer, x, w, v, right):
    if layer.groups == 1:
        return None
    weight = np.zeros_like(w)
    weight[-(len(w) // layer.groups) :] = right["weight"][-(len(w) // layer.groups) :]
    return _only(right, weight=weight)


def last_sample_only(layer, x, w, v, right):
    return _only(
        right, weight=_believing(layer, x[-1:], w, v[-1:])["weight"], bias=v[-1].reshape(v.shape[1], -1).sum(1)
    )


def first_sample_only(layer, x, w, v, right):
    return _only(right, weight=_believing(layer, x[:1], w, v[:1])["weight"])


def last_input_for_all(layer, x, w, v, right):
    """A cache that keeps the last sample's patches alone."""
    kept = np.repeat(x[-1:], len(x), 0)
    return _only(right, weight=_believing(layer, kept, w, v)["weight"])


def channels_summed(layer, x, w, v, right):
    """tensordot over the channels too."""
    groups = x.reshape(len(x), layer.groups, -1, *x.shape[2:])
    total = np.broadcast_to(groups.sum(2, keepdims=True), groups.shape).reshape(x.shape)
    return _only(right, weight=_believing(layer, total, w, v)["weight"])


def last_filter_only(layer, x, w, v, right):
    """grad_input = ... in the loop over a group's filters."""
    per = len(w) // layer.groups
    last = np.zeros_like(v)
    last[:, per - 1 :: per] = v[:, per - 1 :: per]
    return _only(right, input=_believing(layer, x, w, last)["input"])


def samples_not_transposed(layer, x, w, v, right):
    """dout.reshape(filters, -1), without bringing filters to the front."""
    mixed = v.reshape(v.shape[1], v.shape[0], *v.shape[2:]).swapaxes(0, 1)
    return _only(right, weight=_believing(layer, x, w, mixed)["weight"])


def samples_flattened_last(layer, x, w, v, right):
    """dout.transpose(1, 2, 3, 0).reshape(filters, -1) against columns whose samples come first."""
    rows = np.moveaxis(v, 0, -1).reshape(v.shape[1], -1)
    mixed = rows.reshape(v.shape[1], v.shape[0], *v.shape[2:]).swapaxes(0, 1)
    return _only(right, weight=_believing(layer, x, w, mixed)["weight"])


def cotangent_read_as_nhwc(layer, x, w, v, right):
    read = np.moveaxis(v.ravel().reshape(v.shape[0], *v.shape[2:], v.shape[1]), -1, 1)
    return _believing(layer, x, w, np.ascontiguousarray(read))


def gradient_returned_as_nhwc(layer, x, w, v, right):
    return _only(right, input=np.moveaxis(right["input"], 1, -1).ravel().reshape(x.shape))


def input_read_as_nhwc(layer, x, w, v, right):
    read = np.moveaxis(x.ravel().reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1)
    return _only(right, weight=_believing(layer, np.ascontiguousarray(read), w, v)["weight"])


def rows_and_columns_exchanged(layer, x, w, v, right):
    if v.ndim != 4 or v.shape[2] != v.shape[3]:
        return None
    return _believing(layer, x, w, np.ascontiguousarray(v.swapaxes(2, 3)))


def _scattered(layer, x, w, v, windows):
    """grad_padded[window] = w * v, in the order of windows."""
    _, grad = _padded(x, w, v, **{k: layer.arguments[k] for k in ("stride", "padding", "dilation")})
    per, groups = len(w) // layer.groups, layer.groups
    wg, vg = w.reshape(groups, per, *w.shape[1:]), v.reshape(len(v), groups, per, *v.shape[2:])
    for o in windows:
        window = _window(layer, w, o)
        grad[(..., *window)] = np.einsum("gfc...,ngf->ngc...", wg, vg[(..., *o)]).reshape(len(x), -1, *w.shape[2:])
    return grad


def _window(layer, w, o):
    axes = zip(o, layer.stride, layer.dilation, w.shape[2:], strict=True)
    return tuple(slice(i * s, i * s + d * (k - 1) + 1, d) for i, s, d, k in axes)


def windows_overwritten(layer, x, w, v, right):
    grad = _scattered(layer, x, w, v, np.ndindex(*v.shape[2:]))
    return _only(right, input=_cropped(layer, x, {"padded": grad}, [low for low, _ in layer.padding]))


def windows_overwritten_backwards(layer, x, w, v, right):
    grad = _scattered(layer, x, w, v, reversed(list(np.ndindex(*v.shape[2:]))))
    return _only(right, input=_cropped(layer, x, {"padded": grad}, [low for low, _ in layer.padding]))


def filters_and_windows_overwritten(layer, x, w, v, right):
    """for f: for i: for j: grad[window] = w[f] * v[f, i, j]"""
    per_group, per = w.shape[1], len(w) // layer.groups
    times = _believing(layer, x, np.ones_like(w), np.ones_like(v))["padded"].max()
    if times <= per or per == 1:  # each entry is in one window
        return None
    _, grad = _padded(x, w, v, **{k: layer.arguments[k] for k in ("stride", "padding", "dilation")})
    for n, f, *o in np.ndindex(*v.shape):
        window = _window(layer, w, o)
        first = f // per * per_group
        grad[(n, slice(first, first + per_group), *window)] = w[f] * v[(n, f, *o)]
    return _only(right, input=_cropped(layer, x, {"padded": grad}, [low for low, _ in layer.padding]))


def last_position_only(layer, x, w, v, right):
    """grad_weight = ... inside the loops over output rows and columns."""
    last = np.zeros_like(v)
    corner = (..., *(-1,) * (v.ndim - 2))
    last[corner] = v[corner]
    return _only(right, weight=_believing(layer, x, w, last)["weight"])


def last_column_left_out(layer, x, w, v, right):
    cut = v.copy()
    cut[..., -1] = 0
    wrong = _believing(layer, x, w, cut)
    return _only(right, weight=wrong["weight"], input=wrong["input"])


def last_row_and_column_left_out(layer, x, w, v, right):
    cut = np.zeros_like(v)
    inner = (..., *(slice(-1),) * (v.ndim - 2))
    cut[inner] = v[inner]
    return _only(right, weight=_believing(layer, x, w, cut)["weight"])


def windows_at_the_border_left_out(layer, x, w, v, right):
    """if the window leaves the input: continue"""
    cut = v.copy()
    for o in np.ndindex(*v.shape[2:]):
        axes = zip(o, layer.stride, layer.padding, layer.dilation, w.shape[2:], x.shape[2:], strict=True)
        if any(i * s - low < 0 or i * s - low + d * (k - 1) >= n for i, s, (low, _), d, k, n in axes):
            cut[(..., *o)] = 0
    wrong = _believing(layer, x, w, cut)
    return _only(right, weight=wrong["weight"], input=wrong["input"])


def last_columns_never_written(layer, x, w, v, right):
    wrong = right["input"].copy()
    wrong[..., -2:] = 0
    return _only(right, input=wrong)


def border_never_written(layer, x, w, v, right):
    inner = (..., *(slice(1, -1),) * (x.ndim - 2))
    wrong = np.zeros_like(x)
    wrong[inner] = right["input"][inner]
    return _only(right, input=wrong)


def bias_averaged_over_samples(layer, x, w, v, right):
    return _only(right, bias=v.mean(0).reshape(v.shape[1], -1).sum(1))


def bias_averaged(layer, x, w, v, right):
    return _only(right, bias=v.mean(axis=(0, *_space(v))))


def bias_summed_over_channels(layer, x, w, v, right):
    for axis in (*range(2, v.ndim), 0):
        if v.shape[axis] == v.shape[1]:
            return _only(right, bias=v.sum(axis=tuple(a for a in range(v.ndim) if a != axis)))
    return None


def bias_of_the_first_sample(layer, x, w, v, right):
    return _only(right, bias=v[0].reshape(v.shape[1], -1).sum(1))


def operands_in_float16(layer, x, w, v, right):
    x, w, v = (array.astype(np.float16).astype(np.float64) for array in (x, w, v))
    wrong = _believing(layer, x, w, v)
    return _only(right, weight=wrong["weight"], input=wrong["input"])


def weight_in_float32(layer, x, w, v, right):
    return _only(right, input=_believing(layer, x, w.astype(np.float32).astype(np.float64), v)["input"])


def cotangent_in_bfloat16(layer, x, w, v, right):
    fraction, exponent = np.frexp(v)
    rounded = np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)
    return _only(right, weight=_believing(layer, x, w, rounded)["weight"])


def gradient_stored_in_float32(layer, x, w, v, right):
    return _only(right, weight=right["weight"].astype(np.float32).astype(np.float64))


PLANTS = {
    "kernel flipped": (kernel_flipped, kernel_flipped_along_one_axis),
    "kernel turned": (kernel_turned_once, kernel_transposed),
    "channels not swapped": (channels_not_swapped, neither_swapped_nor_flipped),
    "kernel memory": (kernel_read_as_hwio,),
    "cotangent flipped": (cotangent_flipped,),
    "input flipped": (input_flipped,),
    "weight gradient turned": (weight_gradient_flipped, weight_gradient_transposed),
    "weight gradient's storage": (weight_gradient_stored_by_channel, weight_gradient_stored_hwio),
    "stride missing": (stride_missing, stride_missing_in_the_weight),
    "cotangent repeated": (cotangent_repeated,),
    "dilation missing": (dilation_missing, dilation_missing_in_the_input),
    "stride and dilation exchanged": (stride_for_dilation,),
    "axes mixed": (
        height_and_width_of_the_padding,
        height_and_width_of_the_stride,
        height_and_width_of_the_dilation,
    ),
    "padding missing": (padding_not_cropped, padding_missing_in_the_weight),
    "padding on the wrong side": (cropped_before_only, cropped_as_the_other_side),
    "padded with copies": (padded_with_its_edge, padded_by_reflection),
    "padding off by one": (cropped_one_too_many, padded_one_less_along_width),
    "remainder misplaced": (remainder_first,),
    "shifted": (shifted_diagonally,),
    "cotangent rolled": (cotangent_rolled,),
    "groups mixed": (groups_reversed, first_group_for_all, groups_interleaved, kernel_of_the_first_group),
    "groups ignored": (groups_ignored,),
    "one group": (last_group_only,),
    "one sample": (last_sample_only, first_sample_only, bias_of_the_first_sample),
    "sample used for all": (last_input_for_all,),
    "channels mixed": (channels_summed,),
    "one filter": (last_filter_only,),
    "samples mixed": (samples_not_transposed, samples_flattened_last),
    "layouts mixed": (cotangent_read_as_nhwc, input_read_as_nhwc),
    "gradient's layout": (gradient_returned_as_nhwc,),
    "maps turned": (rows_and_columns_exchanged,),
    "windows overwritten": (windows_overwritten, windows_overwritten_backwards, filters_and_windows_overwritten),
    "one position": (last_position_only,),
    "outputs left out": (last_column_left_out, last_row_and_column_left_out, windows_at_the_border_left_out),
    "entries never written": (last_columns_never_written, border_never_written),
    "bias averaged": (bias_averaged_over_samples, bias_averaged),
    "bias over other axes": (bias_summed_over_channels,),
    "rounded operands": (operands_in_float16, weight_in_float32, cotangent_in_bfloat16),
    "rounded gradient": (gradient_stored_in_float32,),
}
"""The plants by the class of mistake that each is one of."""


def averaged(plant):
    """The same mistake, and the weight gradient divided by the number of samples."""

    def both(layer, x, w, v, right):
        wrong = plant(layer, x, w, v, right)
        return wrong and {**wrong, "weight": wrong["weight"] / len(x)} if len(x) > 1 else None

    both.__name__ = plant.__name__
    return both
