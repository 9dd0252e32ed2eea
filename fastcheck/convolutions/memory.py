"""The memory that a check may take, known before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Collection

from fastcheck.common.machine import OVERHEAD, refuse_beyond
from fastcheck.convolutions.geometry import ConvGeometry


def needed_bytes(geometry: ConvGeometry, tensors: Collection[str]) -> int:
    """Return the most bytes that checking a convolution takes: twice its operands and results, and `OVERHEAD`.

    Operands and results are input, weight, bias, output, grad_output and the gradients of ``tensors``, in float64. A
    transposed convolution has those of its plain form too, with three more numbers for each.
    """
    shapes = [geometry.shape_of(name) for name in ("input", "weight", "bias", *tensors)]
    entries = sum(math.prod(shape) for shape in (*shapes, geometry.output_shape, geometry.output_shape))
    if geometry.plain is not geometry:
        entries += 2 * (math.prod(geometry.plain.input_shape) + math.prod(geometry.plain.weight_shape))
    return 2 * 8 * entries + OVERHEAD


def refuse_what_cannot_fit(name: str, geometry: ConvGeometry, tensors: Collection[str]) -> None:
    """Refuse a layer that needs more memory than is available.

    Raises
    ------
    FastcheckError
        The message names the layer, the bytes that it needs and those available.
    """
    needed = needed_bytes(geometry, tensors)
    refuse_beyond(
        needed,
        lambda available: (
            f"{name} with input shape {geometry.input_shape} needs {needed:,} bytes, and {available:,} are available: "
            "expected a smaller batch, or fewer layers or tensors"
        ),
    )
