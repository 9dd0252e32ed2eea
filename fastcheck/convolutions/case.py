"""The case of a convolution: a layer, and the gradients to check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastcheck.common.arrays import as_floating, refuse_non_finite
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import nearest, refuse_unknown
from fastcheck.common.precision import PRECISIONS
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Settings

if TYPE_CHECKING:
    from fastcheck.convolutions.pipeline import ConvPipeline

TENSORS = ("input", "weight", "bias")
"""The operands that can have a gradient, in the order of a report."""

EVALUATORS = ("full", "local", "delta")
"""Names of the evaluators of a convolution."""

LOSSES = ("vjp", "square", "relu", "tanh")
"""Names of the losses: sum(grad_output * phi(output)), with phi(z) one of z, z^2 / 2, max(z, 0) and tanh(z)."""


class ConvCase:
    """A cross-correlation over one to three spatial axes: its operands, its cotangent and its analytic gradients.

    Parameters
    ----------
    input : array, shape (N, C_in, spatial...)
    weight : array, shape (C_out, C_in / groups, taps...)
    bias : array, shape (C_out,), optional
    stride, dilation : int or one int for each spatial axis
    padding : int, one int or pair (low, high) for each spatial axis, "same" or "valid"
    groups : int
    loss : {"vjp", "square", "relu", "tanh"}
        The loss is sum(grad_output * phi(output)), with phi(z) one of z, z^2 / 2, max(z, 0) and tanh(z).
    grad_output : array, shaped as the output
        The cotangent of phi(output).
    grads : mapping
        Analytic gradients under ``"input"``, ``"weight"`` and ``"bias"``, at least one of them.
    output : array, optional
        The declared forward result. If given, it is compared before any gradient is judged.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        Precision of the analytic pass, if the dtype of its arrays does not show it.

    All arrays are float64, float32 or float16, of any memory layout and byte order. They are converted to float64,
    which is exact.

    Raises
    ------
    FastcheckError
        If an array has the wrong dtype or shape, or a non-finite entry. (A non-finite *gradient* is not bad input.)
    """

    evaluators: ClassVar[tuple[str, ...]] = ("local", "full", "delta")

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
        loss: str = "vjp",
        grad_output: Any,
        grads: Mapping[str, Any],
        output: Any = None,
        precision: str | None = None,
    ) -> None:
        raw = {"input": as_floating("input", input), "weight": as_floating("weight", weight)}
        self.geometry = ConvGeometry.of(
            raw["input"].shape, raw["weight"].shape, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        if bias is not None:
            raw["bias"] = _shaped("bias", bias, self.geometry.shape_of("bias"), ("filter",))
        names = self.geometry.axis_names
        cotangent = _shaped("grad_output", grad_output, self.geometry.output_shape, names)
        self.grads = self._gradients(grads, has_bias=bias is not None)
        declared = None if output is None else _shaped("output", output, self.geometry.output_shape, names)
        refuse_unknown("loss", loss, LOSSES)
        self.loss = loss
        if precision is not None:
            refuse_unknown("precision", precision, PRECISIONS)
        self.precision = precision
        self.input = _canonical("input", raw["input"])
        self.weight = _canonical("weight", raw["weight"])
        self.bias = _canonical("bias", raw["bias"]) if "bias" in raw else np.zeros(self.geometry.weight_shape[0])
        self.grad_output = _canonical("grad_output", cotangent)
        self.output = None if declared is None else _canonical("output", declared)
        self.output_dtype = None if declared is None else declared.dtype

    def _gradients(self, grads: Mapping[str, Any], has_bias: bool) -> dict[str, np.ndarray]:
        if not isinstance(grads, Mapping) or not grads:
            raise FastcheckError(f"grads is {grads!r}: expected a mapping with at least one of {', '.join(TENSORS)}")
        for name in grads:
            if name not in TENSORS:
                raise FastcheckError(
                    f"grads has the key {name!r}{nearest(name, TENSORS)}: expected {', '.join(TENSORS)}"
                )
        if "bias" in grads and not has_bias:
            raise FastcheckError("grads has a gradient for bias, and the case has no bias")
        axes = {
            "input": self.geometry.axis_names,
            "weight": ("filter", "channel", *self.geometry.axis_names[2:]),
            "bias": ("filter",),
        }
        return {
            name: _shaped(f"grad_{name}", grads[name], self.geometry.shape_of(name), axes[name])
            for name in TENSORS
            if name in grads
        }

    def described(self) -> dict[str, Any]:
        """Return shapes, parameters and the loss by name, as reports show them."""
        return {**self.geometry.described(), "loss": self.loss}

    def operand(self, name: str) -> np.ndarray:
        """Return the float64 array of ``"input"``, ``"weight"`` or ``"bias"`` (zeros without a bias)."""
        return {"input": self.input, "weight": self.weight, "bias": self.bias}[name]

    def pipeline(self, settings: Settings) -> ConvPipeline:
        """Return the pipeline that checks the case with these settings. This imports Numba."""
        from fastcheck.convolutions.pipeline import ConvPipeline

        return ConvPipeline(self, settings)


def _shaped(name: str, value: Any, expected: tuple[int, ...], axes: tuple[str, ...]) -> np.ndarray:
    array = as_floating(name, value)
    if array.ndim != len(expected):
        raise FastcheckError(f"{name} has shape {array.shape}: expected {len(expected)} axes, {expected}")
    for axis, (got, want) in enumerate(zip(array.shape, expected, strict=True)):
        if got != want:
            raise FastcheckError(
                f"{name} has shape {array.shape}: axis {axis} ({axes[axis]}) is {got}, expected {want} in {expected}"
            )
    return array


def _canonical(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array in float64, after checking that every entry is finite.

    It is contiguous, aligned, writable and of the base class: kernels would be compiled again for any other kind.
    """
    canonical = np.require(array, np.float64, ["C", "A", "W", "E"])
    refuse_non_finite(name, canonical)
    return canonical
