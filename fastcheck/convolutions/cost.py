"""The cost of differencing a convolution, from its geometry alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastcheck.convolutions.geometry import ConvGeometry

CURVED_COST = 30
"""Cost of a moved output to which a curved loss applies phi, relative to one of a linear loss."""


def kind_of(evaluator: str) -> str:
    """Return the evaluator that a setting stands for: "auto" picks ``delta``."""
    return "delta" if evaluator == "auto" else evaluator


def of_conv(geometry: ConvGeometry, evaluator: str, loss: str, tensors: Iterable[str]) -> dict[str, int]:
    """Return the cost of one dimension of each tensor: outputs moved for ``delta``, multiply-adds for the others."""
    names = tuple(tensors)
    if evaluator == "full":
        return dict.fromkeys(names, 2 * forward(geometry))
    products = {name: geometry.products_per_dimension(name) for name in names}
    if evaluator == "local":
        return {name: 2 * work for name, work in products.items()}
    moved = {name: work // geometry.terms for name, work in products.items()}
    return moved if loss == "vjp" else {name: CURVED_COST * work for name, work in moved.items()}


def forward(geometry: ConvGeometry) -> int:
    """Return the multiply-adds of a forward pass."""
    return math.prod(geometry.output_shape) * geometry.terms
