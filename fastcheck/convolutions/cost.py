"""What differencing a convolution takes, known from its geometry alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fastcheck.convolutions.geometry import ConvGeometry

CURVED_COST = 30
"""How many times as long a moved output takes where phi is applied to it."""


def kind_of(evaluator: str) -> str:
    """Return the evaluator that is meant: "auto" picks ``delta``."""
    return "delta" if evaluator == "auto" else evaluator


def of_conv(geometry: ConvGeometry, evaluator: str, loss: str, tensors: Iterable[str]) -> dict[str, int]:
    """Return what a dimension of each tensor costs: outputs that ``delta`` moves, multiply-adds of the others."""
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
