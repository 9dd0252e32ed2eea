"""The mistakes of a convolution's forward pass that can be replayed, simplest first: what happened, where to look."""

from __future__ import annotations

from collections.abc import Callable

from fastcheck.diagnosis.catalogue import Hypothesis
from fastcheck.diagnosis.mistakes import (
    arithmetic,
    bias,
    left_out,
    memory_order,
    overwritten,
    pairing,
    placing,
    strides,
    turned,
)
from fastcheck.diagnosis.mistakes.variant import Variants
from fastcheck.diagnosis.problem import Problem

OUTPUT = "output"
"""The name of what a forward pass makes."""

_MEETS = "output o and tap k meet the input at o * stride + k * dilation - padding"


def _of(
    name: str, bug: str, advice: str, variants: Callable[[Problem], Variants], last_resort: bool = False
) -> Hypothesis:
    return Hypothesis(name, bug, (OUTPUT,), advice, variants, last_resort=last_resort)


FORWARD_CATALOGUE: tuple[Hypothesis, ...] = (
    _of("bias missing", "the bias is missing", "add the bias, or leave it out of the case", bias.missing_bias),
    _of(
        "bias repeated",
        "the bias is added several times",
        "add the bias once to every output: not inside the loops over channels and taps, nor in two functions",
        bias.repeated_bias,
    ),
    _of("bias subtracted", "the bias is subtracted", "look for a minus before the bias", bias.subtracted_bias),
    _of(
        "bias along another axis",
        "the bias is added along the wrong axis",
        "a filter's bias is added to its channel: reshape it to (1, C, 1, 1) for NCHW; NumPy's broadcasting takes "
        "the last axis",
        bias.misplaced_bias,
    ),
    _of(
        "kernel flipped",
        "the kernel is flipped: this is a true convolution, not a cross-correlation",
        "flip the weight along its spatial axes before the pass, or do not flip it there (scipy.signal.convolve flips, "
        "correlate does not)",
        turned.flipped_kernel,
    ),
    _of(
        "kernel turned",
        "the kernel's spatial axes are mixed up",
        "check the order of the weight's spatial axes: look for a transposition of the whole kernel, or a rot90",
        turned.turned_kernel,
    ),
    _of(
        "kernel memory",
        "the kernel is read in another order of axes than it is stored in",
        "compare the order of the kernel's axes in memory (OIHW, IOHW, OHWI or HWIO) with the order that the forward "
        "pass indexes: a reshape moves nothing",
        memory_order.kernel_orders,
    ),
    _of(
        "layouts mixed",
        "an operand's memory is read in another layout",
        "look for a reshape where a transposition is needed between NCHW and NHWC",
        memory_order.mixed_layouts,
    ),
    _of(
        "output's layout",
        "the output's memory is in another layout",
        "look for a reshape of the product (filters, samples * positions) or of NHWC outputs where a transposition is "
        "needed",
        memory_order.output_layouts,
    ),
    _of(
        "samples mixed",
        "the order of samples and space is mixed in a reshape of the input",
        "flatten and unflatten in one order: transpose channels to the front before reshape(channels, -1)",
        memory_order.mixed_samples,
    ),
    _of(
        "stride missing",
        "the stride is missing: outputs are those of stride 1",
        f"{_MEETS}: look for a stride that is not passed on, or outputs of stride 1 of which the first are kept",
        strides.missing_stride,
    ),
    _of(
        "input repeated",
        "the input is repeated, where zeros belong between its entries",
        "look for an upsampling (repeat, kron, nearest) of the input: a transposed convolution puts zeros there",
        strides.repeated_input,
    ),
    _of(
        "dilation missing",
        "the dilation is missing: taps are taken as adjacent",
        f"{_MEETS}: look for a dilation that is not passed on",
        strides.missing_dilation,
    ),
    _of("stride and dilation missing", "stride and dilation are both missing", _MEETS, strides.missing_both),
    _of(
        "stride and dilation exchanged",
        "stride and dilation are exchanged",
        f"{_MEETS}: check the order of these arguments",
        strides.exchanged_strides,
    ),
    _of(
        "axes mixed",
        "a parameter of one spatial axis is used for another",
        "look for height and width (h, w; 0, 1) exchanged among the indices of stride, padding and dilation",
        strides.mixed_axes,
    ),
    _of(
        "TensorFlow's padding",
        'the padding is TensorFlow\'s "SAME"',
        "with a stride, TensorFlow pads more after the input than before it: give that padding, of both sides",
        placing.tensorflows_same,
    ),
    _of(
        "padding missing",
        "the padding before the input is missing",
        "pad the input on both sides; where too much is cropped or padded after it, the sizes fit all the same",
        placing.missing_padding,
    ),
    _of(
        "padding on the wrong side",
        "the padding is on the wrong side",
        "check how much is padded before and after each axis",
        placing.wrong_side,
    ),
    _of(
        "padded with copies",
        "the padding is that of another mode",
        "give padding_mode=, or pad otherwise in the forward pass",
        placing.other_mode,
    ),
    _of(
        "remainder misplaced",
        "the rows that no window meets are skipped in the wrong place",
        "where the stride does not divide (size + padding - kernel), the last rows or columns meet no window: windows "
        "begin with the first entry",
        placing.misplaced_remainder,
    ),
    _of(
        "padding off by one",
        "the padding before an axis is off by one",
        "check which side is padded (or cropped, in a transposed convolution), and by how much; even kernels have no "
        "middle",
        placing.padding_off_by_one,
    ),
    _of(
        "padding of another convolution",
        "the padding of the transposed convolution is taken for this one's",
        "a transposed convolution, written as a convolution, is padded by (kernel size - 1) * dilation - padding; "
        "pad or crop once only",
        placing.full_padding,
    ),
    _of(
        "groups mixed",
        "groups are paired wrongly",
        "group g holds filters [g * F, (g + 1) * F) and channels [g * C, (g + 1) * C), F and C being those of a group: "
        "check the index of the first channel, and the order of a reshape",
        pairing.wrong_groups,
    ),
    _of(
        "groups ignored",
        "groups are ignored: every filter meets the channels of all groups",
        "a filter meets the channels of its own group only: check which channels the loop takes",
        pairing.summed_groups,
    ),
    _of(
        "samples or groups not written",
        "the outputs of some samples or groups are not written",
        "look for an index [0] or [-1], for bounds that leave one out, or for an array that is made anew inside the "
        "loop",
        left_out.unwritten_samples,
    ),
    _of(
        "samples averaged",
        "samples have each other's outputs",
        "a convolution treats every sample alone: look for a mean or sum over axis 0, for an index that is not the "
        "loop's, or for an array that all samples share",
        pairing.mixed_outputs,
    ),
    _of(
        "sample used for all",
        "one sample's input is used for all samples",
        "look for an index [0] or [-1] over the batch",
        pairing.first_cotangent_for_all,
    ),
    _of(
        "channels mixed",
        "channels of the input are mixed up",
        "each channel of the kernel meets its own channel of the input: check that index, and axes that are summed",
        pairing.mixed_channels,
    ),
    _of(
        "channels left out",
        "not all channels of the input are counted",
        "an output adds over channels: look for = in place of +=, or for the bounds of that loop",
        left_out.one_channel,
    ),
    _of(
        "taps left out",
        "not all taps of the kernel are counted",
        "an output adds over all taps: look for = in place of +=, or for the bounds of the loops over the kernel",
        left_out.some_taps,
    ),
    _of(
        "windows overwritten",
        "overlapping windows overwrite each other in the output",
        "a transposed convolution adds over windows: look for = in place of +=, or for an indexed += with repeated "
        "indices, which adds once (use np.add.at)",
        overwritten.overwritten_outputs,
    ),
    _of(
        "outputs never written",
        "rows or columns of the output are never written",
        "check the bounds of the loops over outputs: there are (size + padding - extent) // stride + 1 of them",
        left_out.unwritten_outputs,
    ),
    _of(
        "input flipped",
        "the input is flipped in space",
        "look for a flip (rot90, [::-1]) of the input, or of the axes in an image's file format",
        turned.flipped_input,
    ),
    _of(
        "maps turned",
        "height and width are exchanged",
        "look for a transposition, or for rows and columns exchanged in an index",
        turned.turned_maps,
    ),
    _of(
        "activation",
        "the output is that of an activation after the layer",
        "give the output before the activation; of relu, tanh and a square, loss= may be given for the gradients",
        arithmetic.activated,
    ),
    _of(
        "rounded operands",
        "operands are rounded to a narrower type",
        "look for an array of a narrower type (astype, np.float32, a default dtype); if it is meant so, give "
        "precision=",
        arithmetic.narrowed,
    ),
    _of(
        "rounded output",
        "the output is rounded to a narrower type",
        "look for a buffer of a narrower type that the output is written to; if it is meant so, give precision=",
        arithmetic.narrowed_result,
    ),
    _of("shifted", "the output belongs to a shifted input", f"check the offset: {_MEETS}", placing.shifted, True),
)
"""Simplest and most frequent mistakes first: where several make the same array, the first is named first."""
