"""Convolution cases in ``.npz`` files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastcheck.common.array_file import Archive
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import brief
from fastcheck.common.npz import archive_of
from fastcheck.common.npz_names import Wanted
from fastcheck.common.opened import Opened, Source, opened
from fastcheck.convolutions import memory, shapes
from fastcheck.convolutions.case import TENSORS, ConvCase
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.layout import channels_last

_REQUIRED = ("input", "weight", "grad_output")
_GRADIENTS = tuple(f"grad_{name}" for name in TENSORS)
_NUMBERS = ("stride", "padding", "dilation", "groups", "transposed", "output_padding")
_GEOMETRY = (*_NUMBERS, "padding_mode")
_OPTIONS = (*_GEOMETRY, "loss", "precision", "layout")
_KEYS = (*_REQUIRED, "bias", "output", *_GRADIENTS, *_OPTIONS)

_CONFIGURED = _GEOMETRY[:2]
"""Keys that are in people's ``conv_param``."""

_LONGEST_OPTION = 4096
"""Bytes of a value that is not an operand, at most: it is a few integers, or a word."""


def load_case(
    path: Source, *, keys: Mapping[str, str] | None = None, ignore_extra: bool = False, **overrides: Any
) -> ConvCase:
    """Read a convolution case from an ``.npz`` file.

    Parameters
    ----------
    path : path
        A file with the keys ``input, weight, grad_output``, at least one of ``grad_input, grad_weight, grad_bias``, and
        optionally ``bias, output, stride, padding, dilation, groups, transposed, output_padding, padding_mode, loss,
        precision, layout``.
    keys : mapping of str to str, optional
        Names of these in the file, where they are others: ``{"weight": "w", "grad_weight": "dW"}``.
    ignore_extra : bool
        Whether to ignore arrays of other names. They are refused otherwise, unless ``keys`` is given and their names
        resemble none of the above, and none of a configuration (``conv_param``). The latter are ignored where stride
        and padding are given otherwise.
    **overrides
        Values of ``stride``, ``padding``, ``dilation``, ``groups``, ``transposed``, ``output_padding``,
        ``padding_mode``, ``loss``, ``precision`` and ``layout`` that override the file's; None keeps the file's.

    Returns
    -------
    ConvCase

    Raises
    ------
    FastcheckError
        If the file cannot be read, a key is missing or unknown, the arrays do not make a case, or, by their headers,
        checking them needs more memory than is available.
    """
    return _read(path, overrides, Wanted(_KEYS, names=keys or {}, ignore_extra=ignore_extra))


def load_case_by_options(
    path: Source, *, keys: Mapping[str, str] | None, ignore_extra: bool, **overrides: Any
) -> ConvCase:
    """Read a case as `load_case` does; refusals name options of the command line in place of arguments."""
    return _read(path, overrides, Wanted(_KEYS, names=keys or {}, ignore_extra=ignore_extra, by_options=True))


def _read(path: Source, overrides: Mapping[str, Any], wanted: Wanted) -> ConvCase:
    given = [name for name, value in overrides.items() if value is not None]
    with opened(path) as file:
        archive = _case_archive(file, wanted._replace(given=given, configured=_CONFIGURED))
        options = _options(archive, overrides)
        outline = _outline(archive, options)
        memory.refuse_what_cannot_fit(str(file), outline.geometry, outline.tensors)
        arrays = {key: archive.array(key) for key in archive.keys if key not in _OPTIONS}
    case = ConvCase(
        arrays["input"],
        arrays["weight"],
        arrays.get("bias"),
        grad_output=arrays["grad_output"],
        grads={name: arrays[f"grad_{name}"] for name in outline.tensors},
        output=arrays.get("output"),
        **options,
    )
    case.by_default -= options.keys()
    return case


class Outline(NamedTuple):
    """The outline of a case, from the headers of its file: enough to know the cost of checking it."""

    geometry: ConvGeometry
    loss: str
    tensors: tuple[str, ...]


def case_outline(path: Source) -> Outline:
    """Read the headers of a convolution's file and nothing else; raises as `load_case` does."""
    with opened(path) as file:
        archive = _case_archive(file, Wanted(_KEYS, configured=_CONFIGURED))
        return _outline(archive, _options(archive, {}))


def _case_archive(file: Opened, wanted: Wanted) -> Archive:
    archive = archive_of(file, wanted)
    for key in _REQUIRED:
        if key not in archive.keys:
            raise FastcheckError(f"{file} has no key {key!r}: expected {', '.join(_REQUIRED)} and at least one grad_*")
    if not any(key in archive.keys for key in _GRADIENTS):
        raise FastcheckError(f"{file} has no gradient to check: expected at least one of {', '.join(_GRADIENTS)}")
    return archive


def _outline(archive: Archive, options: Mapping[str, Any]) -> Outline:
    declared = {key: archive.header(key).shape for key in archive.keys if key not in _OPTIONS}
    last = channels_last(options.get("layout", "NCHW"), len(declared["input"]))
    given = {key: options[key] for key in _GEOMETRY if key in options}
    geometry = shapes.fitted(declared, given, last, absent="not in the file")
    tensors = tuple(name for name in TENSORS if f"grad_{name}" in archive.keys)
    return Outline(geometry, options.get("loss", "vjp"), tensors)


def _options(archive: Archive, overrides: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: _option(key, archive) for key in _OPTIONS if key in archive.keys}
    return options | {key: value for key, value in overrides.items() if value is not None}


def _option(key: str, archive: Archive) -> Any:
    header = archive.header(key)
    small = header.bytes <= _LONGEST_OPTION
    if small and header.dtype.kind == "U" and not header.shape:
        return str(archive.array(key))
    if small and key in _NUMBERS and header.dtype.kind in ("iufb" if key == "transposed" else "iuf"):
        return archive.array(key)
    raise FastcheckError(
        f"{key} has dtype {brief(header.dtype)} and shape {header.shape}: expected integers or a string"
    )
