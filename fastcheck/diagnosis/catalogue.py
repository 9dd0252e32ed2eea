"""The mistakes of convolutions that can be replayed, simplest first: what happened, where to look, what hides it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

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
from fastcheck.diagnosis.problem import SPACE, Problem


class Hypothesis(NamedTuple):
    """A mistake that a backward pass can make, in one or more variants.

    Attributes
    ----------
    name : str
        A key, unique in the catalogue.
    bug : str
        What the program did, in a few words.
    tensors : tuple of str
        The tensors whose gradients it can explain.
    advice : str
        Where to look in the code.
    variants : callable
        Takes a `Problem`; yields the ways to make the mistake there, none where it is none.
    hidden : tuple of (callable, str)
        Why a case can hide the mistake: a condition on its problem, and the reason in words.
    least_rank : int
        The fewest spatial axes with which a layer can have it.
    last_resort : bool
        Whether it is tried only where none before it fits: it describes the gradient more than the code.
    """

    name: str
    bug: str
    tensors: tuple[str, ...]
    advice: str
    variants: Callable[[Problem], Variants]
    hidden: tuple[tuple[Callable[[Problem], bool], str], ...] = ()
    least_rank: int = 1
    last_resort: bool = False


def _space(problem: Problem) -> tuple[int, ...]:
    return problem.v.shape[SPACE:]


def _differ(values: tuple[int, ...]) -> bool:
    return len(set(values)) > 1


_ONE_TAP = (lambda p: max(p.taps) == 1, "the kernel has one tap")
ONE_SAMPLE = (lambda p: len(p.v) == 1, "there is one sample (N = 1)")
_ONE_GROUP = (lambda p: len(p.w) == 1, "there is one group")
_STRIDE_ONE = (lambda p: max(p.stride) == 1, "the stride is 1")
_DILATION_ONE = (lambda p: max(p.dilation) == 1, "the dilation is 1")
_NO_PADDING = (lambda p: not any(p.low) and not p.sources, "there is no padding before the input")
ONE_OUTPUT = (lambda p: max(_space(p)) == 1, "there is one output position")
_ONE_CHANNEL = (
    lambda p: min(p.w.shape[1:3]) == 1,
    "a group has one channel or one filter (depthwise, or C = 1), so that memory is the same in either order",
)

BOTH = ("input", "weight")
ALL = ("input", "weight", "bias")

CATALOGUE: tuple[Hypothesis, ...] = (
    Hypothesis(
        "slope",
        "the slope of the loss is missing or wrong",
        ALL,
        "multiply the cotangent with the loss's slope at the layer's own output (a relu's mask is output > 0) before "
        "anything else uses it",
        arithmetic.missing_slope,
    ),
    Hypothesis(
        "bias averaged",
        "the bias gradient is averaged, where it is a sum",
        ("bias",),
        "sum the cotangent over samples and space; look for mean in place of sum, or a division by the batch size",
        bias.averaged_bias,
        ((lambda p: len(p.v) * math.prod(_space(p)) == 1, "there is one sample with one output position"),),
    ),
    Hypothesis(
        "bias over other axes",
        "the bias gradient is summed over the wrong axes",
        ("bias",),
        "sum over samples and space, and keep the channels: axis=(0, 2, 3) for NCHW",
        bias.bias_axes,
    ),
    Hypothesis(
        "kernel flipped",
        "the kernel is flipped in the input gradient",
        ("input",),
        "see how the kernel is turned for the input gradient: a scatter (input[o * stride + k] += w[k] * g[o]) needs "
        "no flip; a convolution of the cotangent needs one flip along each spatial axis, unless the function that "
        "computes it flips already",
        turned.flipped_kernel,
        (_ONE_TAP,),
    ),
    Hypothesis(
        "kernel turned",
        "the kernel's spatial axes are mixed up in the input gradient",
        ("input",),
        "look for a transposition of the whole kernel, or a single rot90 where two are needed",
        turned.turned_kernel,
        (_ONE_TAP,),
        least_rank=2,
    ),
    Hypothesis(
        "channels not swapped",
        "the kernel's channel axes are not swapped in the input gradient",
        ("input",),
        "the input gradient sums over filters: transpose the kernel's first two axes (w.transpose(1, 0, ...)); a "
        "reshape moves nothing",
        memory_order.unswapped_channels,
        (_ONE_CHANNEL,),
    ),
    Hypothesis(
        "kernel memory",
        "the kernel is read in another order of axes than it is stored in",
        ("input",),
        "compare the order of the kernel's axes in memory (OIHW, OHWI or HWIO) with the order that the backward pass "
        "indexes",
        memory_order.kernel_memory,
        (
            (
                lambda p: math.prod(p.taps) == 1 or p.w.shape[2] == 1,
                "the kernel has one tap, or groups have one channel",
            ),
        ),
    ),
    Hypothesis(
        "cotangent flipped",
        "the cotangent is flipped in the weight gradient",
        ("weight",),
        "the weight gradient slides the cotangent over the input as it is: remove the flip (rot90, [::-1], or a "
        "convolution that flips by itself)",
        turned.flipped_cotangent,
        (ONE_OUTPUT,),
    ),
    Hypothesis(
        "input flipped",
        "the input is flipped in the weight gradient",
        ("weight",),
        "the weight gradient slides the cotangent over the input as it is: remove the flip (rot90, [::-1])",
        turned.flipped_input,
    ),
    Hypothesis(
        "weight gradient turned",
        "the weight gradient is flipped or its spatial axes are exchanged",
        ("weight",),
        "check whether the forward pass is a true convolution, with a flipped kernel: then flip in both passes; "
        "otherwise in neither",
        turned.turned_weight_gradient,
        (_ONE_TAP,),
    ),
    Hypothesis(
        "stride missing",
        "the stride is missing: the cotangent is used as if the stride were 1",
        BOTH,
        "place output o at o * stride in the input: put stride - 1 zeros between the cotangent's entries (as a "
        "dilation) before the gradient is computed by a convolution; the input gradient of a transposed convolution "
        "is a convolution of the cotangent with that stride",
        strides.missing_stride,
        (_STRIDE_ONE, ONE_OUTPUT),
    ),
    Hypothesis(
        "cotangent repeated",
        "the cotangent is repeated, where zeros belong between its entries",
        BOTH,
        "look for an upsampling (repeat, kron, nearest) of the cotangent: with a stride, it is dilated with zeros",
        strides.repeated_cotangent,
        (_STRIDE_ONE,),
    ),
    Hypothesis(
        "dilation missing",
        "the dilation is missing: taps are taken as adjacent",
        BOTH,
        "tap k meets the input at o * stride + k * dilation - padding, in all gradients as in the forward pass",
        strides.missing_dilation,
        (_DILATION_ONE, _ONE_TAP),
    ),
    Hypothesis(
        "stride and dilation missing",
        "stride and dilation are both missing",
        BOTH,
        "tap k of output o meets the input at o * stride + k * dilation - padding, in all gradients as in the forward "
        "pass",
        strides.missing_both,
        (_STRIDE_ONE, _DILATION_ONE),
    ),
    Hypothesis(
        "stride and dilation exchanged",
        "stride and dilation are exchanged",
        BOTH,
        "the weight gradient is a convolution of the input with the cotangent as its kernel: there, the layer's stride "
        "is the dilation and its dilation the stride",
        strides.exchanged_strides,
        ((lambda p: p.stride == p.dilation, "stride and dilation are the same"),),
    ),
    Hypothesis(
        "axes mixed",
        "a parameter of one spatial axis is used for another",
        BOTH,
        "look for height and width (h, w; 0, 1) exchanged among the indices of stride, padding and dilation",
        strides.mixed_axes,
        (
            (
                lambda p: not any(map(_differ, (p.stride, p.low, p.dilation))),
                "stride, padding and dilation are the same along all axes",
            ),
        ),
        least_rank=2,
    ),
    Hypothesis(
        "padding missing",
        "the padding is not taken into account",
        BOTH,
        "pad the input for the weight gradient; of the padded input's gradient, return [padding : padding + size], not "
        "its beginning",
        placing.missing_padding,
        (_NO_PADDING,),
    ),
    Hypothesis(
        "padding on the wrong side",
        "the padding is cropped on the wrong side",
        BOTH,
        "what is cropped before each axis is the padding before it: check which side gets the odd row",
        placing.wrong_side,
        (_NO_PADDING,),
    ),
    Hypothesis(
        "remainder misplaced",
        "the rows that no window meets are put in the wrong place",
        BOTH,
        "where the stride does not divide (size + padding - kernel), the last rows or columns of the input meet no "
        "window: pad the gradient with zeros after the others (output_padding), not before",
        placing.misplaced_remainder,
        (_STRIDE_ONE, (lambda p: not list(placing.misplaced_remainder(p)), "the stride leaves no remainder")),
    ),
    Hypothesis(
        "padding off by one",
        "the padding is off by one",
        BOTH,
        "check the padding of the backward convolution: (kernel size - 1) * dilation - padding before each axis; for "
        "even kernels the two sides differ",
        placing.padding_off_by_one,
    ),
    Hypothesis(
        "padding of another convolution",
        "the padding of the backward convolution is taken for the layer's",
        BOTH,
        "a convolution of the cotangent is padded by (kernel size - 1) * dilation - padding; crop or pad once only",
        placing.full_padding,
    ),
    Hypothesis(
        "groups mixed",
        "groups are paired wrongly",
        BOTH,
        "group g holds filters [g * F, (g + 1) * F) and channels [g * C, (g + 1) * C), F and C being those of a group: "
        "check the index of the first channel, and the order of a reshape",
        pairing.wrong_groups,
        (_ONE_GROUP,),
    ),
    Hypothesis(
        "groups ignored",
        "groups are ignored: every filter counts for every channel",
        ("input",),
        "a channel meets the filters of its own group only: loop over groups, or use a block-diagonal kernel",
        pairing.ignored_groups,
        (_ONE_GROUP,),
    ),
    Hypothesis(
        "one group",
        "groups other than one have no gradient",
        ALL,
        "look for an assignment inside the loop over groups that discards what the others wrote",
        left_out.one_group,
        (_ONE_GROUP,),
    ),
    Hypothesis(
        "one sample",
        "not all samples are counted",
        ("weight", "bias"),
        "add over the batch: look for = in place of += in the loop over samples, an index [0] or [-1], or bounds that "
        "leave one out",
        left_out.one_sample,
        (ONE_SAMPLE,),
    ),
    Hypothesis(
        "sample used for all",
        "one sample's array is used for all samples",
        ("input", "weight"),
        "look for an index [0] or [-1] over the batch, or a variable that keeps the last sample after the forward loop",
        pairing.first_cotangent_for_all,
        (ONE_SAMPLE,),
    ),
    Hypothesis(
        "channels mixed",
        "channels of the input are mixed up in the weight gradient",
        ("weight",),
        "each channel of the kernel meets its own channel of the input: check that index, and axes that are summed",
        pairing.mixed_channels,
        ((lambda p: p.w.shape[2] == 1, "groups have one channel"),),
    ),
    Hypothesis(
        "one filter",
        "one filter alone counts in the input gradient",
        ("input",),
        "the input gradient adds over filters: look for = in place of += in that loop",
        left_out.one_filter,
        ((lambda p: p.v.shape[2] == 1, "a group has one filter"),),
    ),
    Hypothesis(
        "windows overwritten",
        "overlapping windows overwrite each other in the input gradient",
        ("input",),
        "the input gradient adds over windows: look for = in place of +=, or for an indexed += with repeated indices, "
        "which adds once (use np.add.at)",
        overwritten.overwritten_windows,
        (
            (
                lambda p: not p.transposed and not overwritten.overlap(p),
                "windows share no entry of the input (the stride is at least the kernel's extent, or there is one)",
            ),
        ),
    ),
    Hypothesis(
        "one position",
        "the windows of one position alone count",
        ALL,
        "look for = in place of += inside the loops over output rows and columns, or for a return inside them",
        left_out.one_position,
        (ONE_OUTPUT,),
    ),
    Hypothesis(
        "outputs left out",
        "output rows or columns are left out",
        ALL,
        "check the bounds of the loops over outputs: there are (size + padding - extent) // stride + 1 of them, and "
        "windows that reach into the padding count too",
        left_out.dropped_positions,
        (ONE_OUTPUT,),
    ),
    Hypothesis(
        "entries never written",
        "rows or columns of the input gradient are never written",
        ("input",),
        "check the bounds of the loops that write the input gradient, and how it is cropped and filled up",
        left_out.unwritten_entries,
        (
            (
                lambda p: max(p.x.shape[SPACE:]) == 1,
                "the input has one position",
            ),
        ),
    ),
    Hypothesis(
        "samples mixed",
        "the order of samples and space is mixed in a reshape",
        ALL,
        "flatten both matrices in the same order: transpose channels to the front before reshape(channels, -1), and "
        "give im2col's columns the same order of samples and positions",
        memory_order.mixed_samples,
        (ONE_SAMPLE,),
    ),
    Hypothesis(
        "layouts mixed",
        "an operand's memory is read in another layout",
        ALL,
        "look for a reshape where a transposition is needed between NCHW and NHWC",
        memory_order.mixed_layouts,
        ((lambda p: math.prod(p.v.shape[1:3]) == 1 and math.prod(p.x.shape[1:3]) == 1, "there is one channel"),),
    ),
    Hypothesis(
        "gradient's layout",
        "the input gradient's memory is in another layout",
        ("input",),
        "look for a reshape where a transposition is needed between NCHW and NHWC, in what the backward pass returns",
        memory_order.gradient_layouts,
        ((lambda p: math.prod(p.x.shape[1:3]) == 1, "the input has one channel"),),
    ),
    Hypothesis(
        "weight gradient's storage",
        "the weight gradient's memory is in another order of axes",
        ("weight",),
        "compare the order of axes that the backward pass writes (OIHW, IOHW, OHWI or HWIO) with the weight's: "
        "transpose before reshape",
        memory_order.stored_weight_gradient,
        (_ONE_CHANNEL,),
    ),
    Hypothesis(
        "maps turned",
        "height and width are exchanged",
        BOTH,
        "look for a transposition, or for rows and columns exchanged in an index",
        turned.turned_maps,
        (ONE_OUTPUT,),
        least_rank=2,
    ),
    Hypothesis(
        "padded with copies",
        "the input is padded with copies of its entries, where the layer pads with zeros",
        BOTH,
        "look for np.pad with another mode than constant, or a padding function whose default is not zero",
        placing.other_padding,
        ((lambda p: not any(p.low) and not any(p.high) and not p.sources and not p.transposed, "there is no padding"),),
    ),
    Hypothesis(
        "padding mode ignored",
        "copies that pad the input are taken for zeros",
        BOTH,
        "with reflect, replicate or circular padding, add the gradient of the padding to the entries that it copies, "
        "and pad the input in the same way for the weight gradient",
        placing.dropped_copies,
    ),
    Hypothesis(
        "rounded operands",
        "operands are rounded to a narrower type",
        ALL,
        "look for an array or a constant of a narrower type (astype, np.float32, a default dtype) in the backward "
        "pass; if it is meant so, give precision=",
        arithmetic.narrowed,
    ),
    Hypothesis(
        "rounded gradient",
        "the gradient is rounded to a narrower type",
        ALL,
        "look for a buffer of a narrower type that the gradient is written to; if it is meant so, give precision=",
        arithmetic.narrowed_result,
    ),
    Hypothesis(
        "cotangent rolled",
        "the cotangent is shifted around its borders",
        BOTH,
        "look for np.roll, an index modulo the size, or an index of -1 that wraps around",
        placing.rolled,
        (ONE_OUTPUT,),
    ),
    Hypothesis(
        "shifted",
        "the gradient belongs to a shifted input",
        BOTH,
        "check the offset between outputs and inputs: output o and tap k meet at o * stride + k * dilation - padding",
        placing.shifted,
        last_resort=True,
    ),
)
"""Simplest and most frequent mistakes first: where several make the same array, the first is named first."""
