"""Entries of a suite, one dataclass per kind: everything that decides a case's result, and nothing computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fastcheck.common.arguments import Shape
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.engine.settings import Request

Backward = Literal["reference", "torch"]
"""Backward passes that suites know by a word."""

Dtype = Literal["float64", "float32", "float16"]


MOST_CASES = 100_000
"""Default limit on the number of cases in a suite."""


class UserFunction(NamedTuple):
    """A function of the user's, by name: reading a suite imports nothing.

    Attributes
    ----------
    name : str
        As written in the suite: ``"package.module:function"``.
    folder : Path
        Folder of the suite, where its module is looked up first.
    """

    name: str
    folder: Path

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ConvEntry:
    """A convolution on seeded data.

    Attributes
    ----------
    name : str
    request : Request
    geometry : ConvGeometry
    bias : bool
        Whether it has a bias.
    tensors : tuple of str
        Tensors that are checked, from ``"input"``, ``"weight"`` and ``"bias"``.
    backward : {"reference", "torch"} or UserFunction
        Backward pass that computes the gradients.
    dtype : {"float64", "float32", "float16"}
        Type in which operands are stored and gradients are computed.
    loss : str
        As in `fastcheck.ConvCase`.
    data : str
        Name that, with the seed, determines the data: equal names give equal operands.
    """

    name: str
    request: Request
    geometry: ConvGeometry
    bias: bool
    tensors: tuple[str, ...]
    backward: Backward | UserFunction
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
        Absolute path.
    shown : str
        The path as written in the suite.
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
        Absolute path of the TOML file.
    shown : str
        The path as written in the suite.
    params, grads, data : Path or None
        Absolute paths of ``.npz`` files, as for ``fastcheck network``: either all three, or ``input`` instead.
    input : tuple of int or None
        Shape (N, ...) of seeded data points. Parameters are then initial values, and gradients come from the reference
        pass.
    burn_in : int
        Steps of SGD before the check; only with ``input``.
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


@dataclass(frozen=True)
class FunctionEntry:
    """What a function of the user's describes: arguments of a public function of fastcheck, or a case.

    Attributes
    ----------
    name : str
    request : Request
    function : UserFunction
        Returns it, with options.
    """

    name: str
    request: Request
    function: UserFunction


class GradientEntry(FunctionEntry):
    """A Python loss and its gradient, as `fastcheck.check_gradient` takes them."""


class TorchEntry(FunctionEntry):
    """A function or a module of PyTorch, as `fastcheck.torch.check` takes it."""


Entry = ConvEntry | NpzEntry | NetworkEntry | FunctionEntry


def user_function(entry: Entry) -> UserFunction | None:
    """Return the user's function that checking an entry calls; None if it calls none."""
    if isinstance(entry, FunctionEntry):
        return entry.function
    given = entry.backward if isinstance(entry, ConvEntry) else None
    return given if isinstance(given, UserFunction) else None


@dataclass(frozen=True)
class Suite:
    """A suite file, read and expanded.

    Attributes
    ----------
    name : str
        Its ``name``, or the file's name without extension.
    text : str
        Text of the file.
    entries : tuple of Entry
        All cases in the order of the file, with grids and published networks expanded; names are distinct.
    """

    name: str
    text: str
    entries: tuple[Entry, ...]

    def described(self) -> dict[str, Any]:
        """Return the description of the suite for the ledger."""
        return {"name": self.name, "text": self.text, "cases": len(self.entries)}
