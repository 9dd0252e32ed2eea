"""What the axes of a checked tensor are, and which of them a picture shows together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from fastcheck.common.arguments import Shape

_SPACE = {0: (), 1: ("position",), 2: ("row", "column"), 3: ("depth", "row", "column")}
"""Names of spatial axes, by their number."""

_TAPS = {0: (), 1: ("tap",), 2: ("tap row", "tap column"), 3: ("tap depth", "tap row", "tap column")}
"""Names of the axes of a kernel, by their number."""

_Names = tuple[str, ...]
_Axes = tuple[_Names, Mapping[int, _Names]]

_CONV: dict[str, _Axes] = {
    "weight": (("filter", "channel"), _TAPS),
    "bias": (("filter",), {0: ()}),
    "input": (("sample", "channel"), _SPACE),
}
_TRANSPOSED: dict[str, _Axes] = _CONV | {"weight": (("channel", "filter"), _TAPS)}
_DENSE: dict[str, _Axes] = {"weight": (("output", "input"), _SPACE), "bias": (("output",), {0: ()})}
_NORM: dict[str, _Axes] = dict.fromkeys(("weight", "bias"), (("channel",), _SPACE))

_TABLE: dict[str, _Axes] = {"weight": (("row", "column"), _SPACE)}

_NAMES = {
    "conv": _CONV,
    **dict.fromkeys(("conv_transpose", "transposed conv"), _TRANSPOSED),
    "dense": _DENSE,
    "embedding": _TABLE,
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "prelu"), _NORM),
}
"""Names of the leading axes and of those after them, by kind of layer and tensor."""


class Plane(NamedTuple):
    """Up to two axes of a tensor, with names and extents. Of two, the first is drawn downwards, the second across."""

    axes: tuple[int, ...]
    names: tuple[str, ...]
    extents: tuple[int, ...]

    @property
    def title(self) -> str:
        """The names of the axes, the one that runs downwards first."""
        return " x ".join(self.names)

    @property
    def rows(self) -> int:
        """Number of entries downwards."""
        return self.extents[0] if len(self.extents) == 2 else 1

    @property
    def columns(self) -> int:
        """Number of entries across."""
        return self.extents[-1] if self.extents else 1


def planes_of(name: str, shape: Shape, operands: Mapping[str, Any] | None) -> tuple[Plane, ...]:
    """Return the planes that show a tensor: its leading axes, and the last two of its spatial ones.

    Planes of a single entry are left out.

    Parameters
    ----------
    name : str
    shape : tuple of int
    operands : mapping or None
        As in `fastcheck.Report`. They tell whether the tensor belongs to a convolution, or to which layer of a network;
        the axes of other tensors have numbers.
    """
    lead, space = _axis_names(name, shape, operands or {})
    rank, first = len(shape), len(lead)
    last = max(first, rank - 2)
    cuts = [0, rank] if rank <= 2 else sorted({0, *range(first, last + 1), rank})
    planes = [_plane(range(*ends), lead + space, shape) for ends in pairwise(cuts)]
    return tuple(plane for plane in planes if plane.rows * plane.columns > 1) or (Plane((), (), ()),)


def axis_names(name: str, shape: Shape, operands: Mapping[str, Any] | None) -> _Names:
    """Return the names of a tensor's axes; arguments as in `planes_of`."""
    lead, space = _axis_names(name, shape, operands or {})
    return lead + space


def _plane(axes: range, names: _Names, shape: Shape) -> Plane:
    return Plane(tuple(axes), tuple(names[axis] for axis in axes), tuple(shape[axis] for axis in axes))


def _axis_names(name: str, shape: Shape, operands: Mapping[str, Any]) -> tuple[_Names, _Names]:
    """Return the names of a tensor's leading axes, and of the spatial ones after them."""
    layer, _, tensor = name.rpartition(".")
    lead, after = _NAMES.get(_kind(layer, operands), {}).get(tensor, ((), {}))
    space = after.get(len(shape) - len(lead))
    if space is not None:
        return lead, space
    numbered = tuple(f"axis {axis}" for axis in range(len(shape)))
    return numbered[:2], numbered[2:]


def _kind(layer: str, operands: Mapping[str, Any]) -> str:
    """Return the kind of layer that a tensor belongs to; empty where that is unknown."""
    if not layer and isinstance(operands.get("groups"), int):
        return "transposed conv" if operands.get("transposed") else "conv"
    listed = (str(entry).rpartition(" (") for entry in operands.get("layers", ()))
    return next((kind.removesuffix(")") for one, _, kind in listed if one == layer), "")
