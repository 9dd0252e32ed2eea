"""What a suite lists, one dataclass a kind: everything that decides a case's result, and nothing that was computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request

Backward = Literal["reference", "torch"]
Dtype = Literal["float64", "float32", "float16"]


MOST_CASES = 100_000
"""Cases of a suite, where nothing else is asked for."""


@dataclass(frozen=True)
class ConvEntry:
    """A convolution on seeded data.

    Attributes
    ----------
    name : str
    request : Request
    geometry : ConvGeometry
    bias : bool
        Whether it has one.
    tensors : tuple of str
        Of ``"input"``, ``"weight"`` and ``"bias"``: those that are checked.
    backward : {"reference", "torch"}
        Whose gradients.
    dtype : {"float64", "float32", "float16"}
        In which its operands are held, and its gradients computed.
    loss : str
        As in `fastcheck.ConvCase`.
    data : str
        What names the data beside the seed: equal names, equal operands.
    """

    name: str
    request: Request
    geometry: ConvGeometry
    bias: bool
    tensors: tuple[str, ...]
    backward: Backward
    dtype: Dtype
    loss: str
    data: str


@dataclass(frozen=True)
class NpzEntry:
    """A user's convolution: an ``.npz`` file as `fastcheck.convolutions.npz_case.load_case` reads it.

    Attributes
    ----------
    name : str
    request : Request
    path : Path
        Absolute.
    shown : str
        The path as the suite has it.
    """

    name: str
    request: Request
    path: Path
    shown: str


@dataclass(frozen=True)
class NetworkEntry:
    """A whole network from a TOML file, with a user's arrays or on seeded data.

    Attributes
    ----------
    name : str
    request : Request
    path : Path
        Of the TOML file, absolute.
    shown : str
        The path as the suite has it.
    params, grads, data : Path or None
        Absolute paths of ``.npz`` files as ``fastcheck network`` takes them; all of them, or ``input`` instead.
    input : tuple of int or None
        (N, ...) of seeded data points; parameters are then initial values and gradients those of the reference pass.
    burn_in : int
        Steps of SGD before the check, with ``input`` alone.
    """

    name: str
    request: Request
    path: Path
    shown: str
    params: Path | None = None
    grads: Path | None = None
    data: Path | None = None
    input: Shape | None = None
    burn_in: int = 0


Entry = ConvEntry | NpzEntry | NetworkEntry


@dataclass(frozen=True)
class Suite:
    """A suite file, read and expanded.

    Attributes
    ----------
    name : str
        Its ``name``, else the file's name without ending.
    text : str
        The file.
    entries : tuple of Entry
        Every case, grids and published networks expanded, in the order of the file; names are distinct.
    """

    name: str
    text: str
    entries: tuple[Entry, ...]

    def described(self) -> dict[str, Any]:
        """Return what a ledger keeps of it."""
        return {"name": self.name, "text": self.text, "cases": len(self.entries)}
