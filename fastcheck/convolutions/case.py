"""The case of a convolution: a layer, and the gradients to check."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastcheck.common.arrays import Floating, floating, gradient, refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.keywords import refuse_unknown_keywords
from fastcheck.common.naming import nearest, quoted, refuse_unknown
from fastcheck.common.precision import PRECISIONS
from fastcheck.convolutions import shapes
from fastcheck.convolutions.entries import Entries, entries_of
from fastcheck.convolutions.layout import array_first, channels_last
from fastcheck.engine.settings import Settings

if TYPE_CHECKING:
    from fastcheck.convolutions.pipeline import ConvPipeline

TENSORS = ("input", "weight", "bias")
"""The operands that can have a gradient, in the order of a report."""

EVALUATORS = ("full", "local", "delta")
"""Names of the evaluators of a convolution."""

LOSSES = ("vjp", "square", "relu", "tanh")
"""Names of the losses: sum(grad_output * phi(output)), with phi(z) one of z, z^2 / 2, max(z, 0) and tanh(z)."""

_REQUIRED = ("input", "weight", "grad_output")


class ConvCase:
    """A cross-correlation over one to three spatial axes: its operands, its cotangent and its analytic gradients.

    Parameters
    ----------
    input : array, shape (N, C_in, spatial...)
    weight : array, shape (C_out, C_in / groups, taps...); transposed, (C_in, C_out / groups, taps...)
    bias : array, shape (C_out,), optional
    stride, dilation : int or one int for each spatial axis
    padding : int, one int or pair (low, high) for each spatial axis, "same" or "valid"
    groups : int
    transposed : bool
        Whether the convolution is transposed, as PyTorch's ``conv_transpose2d``: padding is then the number of outputs
        that each side leaves out.
    output_padding : int or one int for each spatial axis
        Outputs that a transposed convolution has more at the end of each axis.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the input is padded with, as in PyTorch.
    loss : {"vjp", "square", "relu", "tanh"}
        The loss is sum(grad_output * phi(output)), with phi(z) one of z, z^2 / 2, max(z, 0) and tanh(z).
    grad_output : array, shaped as the output
        The cotangent of phi(output).
    grads : mapping
        Analytic gradients under ``"input"``, ``"weight"`` and ``"bias"``, at least one of them.
    output : array, optional
        The declared forward result. If given, it is compared before any gradient is judged.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        Precision of the analytic pass, if the dtype of its arrays does not show it. With "bfloat16", arrays of uint16
        are the bits of such numbers.
    layout : {"NCHW", "NHWC", "NCW", "NWC", "NCDHW", "NDHWC"}
        Order of axes, the first two for any number of spatial axes. Channels-last, the weight and its gradient are
        (taps..., C_in / groups, C_out), or (taps..., C_out / groups, C_in) of a transposed convolution, as Keras has
        both. All arrays are transposed to the order above: shapes, indices and messages of the report are of that
        order.

    Arrays are NumPy's, PyTorch's tensors from any device, or whatever converts to an array: float64, float32, float16
    or bfloat16, of any memory layout and byte order. They are converted to float64, which is exact. The gradient of a
    bfloat16 array is judged by bfloat16's rounding.

    Attributes
    ----------
    by_default : set of str
        Those of stride, padding, dilation, groups, transposed, output_padding and padding_mode that nobody gave.

    Raises
    ------
    FastcheckError
        If an array has the wrong dtype or shape, or a non-finite entry. (A non-finite *gradient* is not bad input.)
    """

    evaluators: ClassVar[tuple[str, ...]] = ("local", "full", "delta")

    @refuse_unknown_keywords
    def __init__(
        self,
        input: Any,
        weight: Any,
        bias: Any = None,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
        transposed: Any = False,
        output_padding: Any = 0,
        padding_mode: Any = "zeros",
        loss: str = "vjp",
        grad_output: Any,
        grads: Mapping[str, Any],
        output: Any = None,
        precision: str | None = None,
        layout: str = "NCHW",
    ) -> None:
        if precision is not None:
            refuse_unknown("precision", precision, PRECISIONS)
        refuse_unknown("loss", loss, LOSSES)
        operands = {"input": input, "weight": weight, "bias": bias, "grad_output": grad_output, "output": output}
        given = {name: floating(name, value, precision) for name, value in operands.items() if value is not None}
        for name in _REQUIRED:
            if name not in given:
                raise FastcheckError(f"{name} is None: expected an array")
        given |= _gradients(grads, precision, has_bias=bias is not None)
        self.layout, self.loss, self.precision = layout, loss, precision
        self.channels_last = last = channels_last(layout, given["input"].values.ndim)
        arguments = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "transposed": transposed,
            "output_padding": output_padding,
            "padding_mode": padding_mode,
        }
        self.by_default = {name for name, value in arguments.items() if shapes.is_default(name, value)}
        self.geometry = shapes.fitted(
            {name: one.values.shape for name, one in given.items()},
            {name: value for name, value in arguments.items() if name not in self.by_default},
            last,
        )
        arrays = {name: array_first(name, one.values) if last else one.values for name, one in given.items()}
        self._precisions = {name: one.precision for name, one in given.items()}
        self.grads = {name: arrays[f"grad_{name}"] for name in TENSORS if f"grad_{name}" in arrays}
        self.input, self.weight, self.grad_output = (_canonical(name, arrays[name]) for name in _REQUIRED)
        self.bias = _canonical("bias", arrays["bias"]) if "bias" in arrays else np.zeros(self.geometry.filters)
        self.output = _canonical("output", arrays["output"]) if "output" in arrays else None
        self.output_dtype = arrays["output"].dtype if "output" in arrays else None

    @property
    def plain(self) -> Plain:
        """The case of a convolution that is not transposed and pads with zeros: itself, where it is one."""
        return Plain(self, {}) if self.geometry.plain is self.geometry else self._rearranged

    @cached_property
    def _rearranged(self) -> Plain:
        plain, entries = copy(self), entries_of(self.geometry)
        plain.geometry = self.geometry.plain
        for name, moved in entries.items():
            setattr(plain, name, moved.moved(self.operand(name)))
        return Plain(plain, entries)

    def described(self) -> dict[str, Any]:
        """Return shapes, parameters and the loss by name, as reports show them."""
        return {**self.geometry.described(), "loss": self.loss}

    def declared_precision(self, name: str) -> str | None:
        """Return the precision of ``"output"`` or of a gradient (``"grad_weight"``) that its dtype does not show."""
        return "bfloat16" if self._precisions[name] == "bfloat16" else self.precision

    def operand(self, name: str) -> np.ndarray:
        """Return the float64 array of ``"input"``, ``"weight"`` or ``"bias"`` (zeros without a bias)."""
        return {"input": self.input, "weight": self.weight, "bias": self.bias}[name]

    def pipeline(self, settings: Settings) -> ConvPipeline:
        """Return the pipeline that checks the case with these settings. This imports Numba."""
        from fastcheck.convolutions.pipeline import ConvPipeline

        return ConvPipeline(self, settings)


@dataclass(frozen=True)
class Plain:
    """A plain convolution whose outputs are those of another.

    Attributes
    ----------
    case : ConvCase
        The case with plain operands. Its gradients keep the shapes that they have.
    entries : dict of str to Entries
        Those of the operands that are not as they were.
    """

    case: ConvCase
    entries: dict[str, Entries]

    def moved(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an array of an operand's shape as that of the plain operand."""
        return self.entries[name].moved(array) if name in self.entries else array

    def values(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return what `moved` was given."""
        return self.entries[name].values(array) if name in self.entries else array

    def summed(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return the sums, over the copies of each entry of the operand, of an array of the plain operand's shape."""
        return self.entries[name].summed(array) if name in self.entries else array


def _gradients(grads: Any, precision: str | None, has_bias: bool) -> dict[str, Floating]:
    """Return the gradients by their keys in files, after checking their names."""
    if not isinstance(grads, Mapping) or not grads:
        raise FastcheckError(f"grads is {quoted(grads)}: expected a mapping with at least one of {', '.join(TENSORS)}")
    for name in grads:
        if name not in TENSORS:
            raise FastcheckError(
                f"grads has the key {quoted(name)}{nearest(name, TENSORS)}: expected {', '.join(TENSORS)}"
            )
    if "bias" in grads and not has_bias:
        raise FastcheckError("grads has a gradient for bias, and the case has no bias: give bias too (bias=b)")
    return {f"grad_{name}": gradient(f"grad_{name}", grads[name], precision) for name in TENSORS if name in grads}


def _canonical(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array in float64, after checking that every entry is finite.

    It is contiguous, aligned, writable and of the base class: kernels would be compiled again for any other kind.
    """
    canonical = np.require(array, np.float64, ["C", "A", "W", "E"])
    refuse_non_finite(name, canonical)
    return canonical
