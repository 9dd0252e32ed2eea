"""Arrays as users have them: NumPy's, PyTorch's tensors, and anything that converts; one clear line for the rest."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastcheck.common.arguments import index_of
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed, shown

_EXPECTED = "expected float64, float32, float16 or bfloat16"


class Floating(NamedTuple):
    """An array of floating-point numbers.

    Attributes
    ----------
    values : float64, float32 or float16 array, in either byte order
        bfloat16 arrives as float32, which is exact.
    precision : str
        Name of the type in which the array was given: "float64", "float32", "float16" or "bfloat16".
    """

    values: np.ndarray
    precision: str


def as_array(name: str, value: Any) -> np.ndarray:
    """Return an array of any dtype; refuse what is none, and a masked array, whose hidden entries would count."""
    return _read(name, value)[0]


def floating(name: str, value: Any, declared: str | None = None) -> Floating:
    """Return an array of floating-point numbers, and its type; refuse any other dtype.

    Parameters
    ----------
    name : str
        The user's name for the array.
    value : array
    declared : str, optional
        The precision that the user declares. Under "bfloat16", an array of uint16 holds the bits of such numbers.
    """
    plain = as_it_is(value)
    if plain is not None:
        return Floating(plain, "float64")
    array, half = _read(name, value)
    dtype = array.dtype
    if dtype == np.float64 and dtype.isnative:
        return Floating(array, "float64")
    if _is_bfloat16(dtype) or (declared == "bfloat16" and dtype.newbyteorder("=") == np.uint16):
        array, half = _of_bits(array), True
    elif dtype.newbyteorder("=") not in (np.float64, np.float32, np.float16):
        if isinstance(value, int):
            raise FastcheckError(f"{name} is {shown(value)}: {_EXPECTED.replace('expected', 'expected an array of')}")
        raise FastcheckError(f"{name} has dtype {dtype}: {_EXPECTED}{_advice(name, value, dtype)}")
    return Floating(_with_quiet_nans(array), "bfloat16" if half else array.dtype.newbyteorder("=").name)


def as_it_is(value: Any) -> np.ndarray | None:
    """Return a float64 array of NumPy's, or PyTorch's in the same memory; None for what must be read with more care."""
    if type(value) is np.ndarray:
        return value if value.dtype == np.float64 else None
    torch = sys.modules.get("torch")
    if torch is None or type(value) is not torch.Tensor or value.dtype is not torch.float64:
        return None
    try:
        plain: np.ndarray = value.numpy()
        return plain
    except (RuntimeError, TypeError):  # on another device, sparse, with a graph, or negated lazily
        return None


def gradient(name: str, value: Any, declared: str | None = None) -> Floating:
    """Return a gradient as `floating` does; the refusal of None says what PyTorch means by it."""
    if value is None:
        raise FastcheckError(
            f"{name} is None: autograd did not reach it (the loss does not depend on it, or requires_grad is False); "
            "expected an array"
        )
    return floating(name, value, declared)


def finite(label: str, value: Any, declared: str | None = None) -> np.ndarray:
    """Return a float64 copy of an array, after checking that it is not empty and that every entry is finite."""
    array = np.array(floating(label, value, declared).values, dtype=np.float64, order="C")
    if not array.size:
        raise FastcheckError(f"{label} is empty: it has shape {array.shape}")
    refuse_non_finite(label, array)
    return array


def refuse_non_finite(label: str, array: np.ndarray) -> None:
    """Refuse an array with an entry that is not finite; the refusal names the first one."""
    is_finite = np.isfinite(array)
    if not is_finite.all():
        index = index_of(int(np.argmin(is_finite)), array.shape)
        raise FastcheckError(f"{label} is {array[index]} at index {list(index)}: expected finite numbers")


def holds_arrays(value: Any) -> bool:
    """Whether a value is a list or tuple of arrays, not one array written as a list of numbers."""
    return isinstance(value, (list, tuple)) and any(
        entry is None or (hasattr(entry, "__array__") and not isinstance(entry, np.generic)) for entry in value
    )


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch, which is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_complex(value: Any) -> bool:
    """Whether a value is an array of complex numbers."""
    if is_tensor(value):
        return bool(value.is_complex())
    dtype = getattr(value, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind == "c"


def made_like(given: Any, array: np.ndarray, own_type: bool) -> Any:
    """Return new memory with an array's values: a tensor on the same device where ``given`` is one, else NumPy's array.

    Parameters
    ----------
    given : array
        As the user has it.
    array : float64 or complex128 array
    own_type : bool
        Whether the result has the type of ``given``; otherwise it has that of ``array``.
    """
    if is_tensor(given):
        made = sys.modules["torch"].from_numpy(np.array(array, order="C"))
        return made.to(given.device, given.dtype if own_type else made.dtype)
    dtype = np.dtype(getattr(given, "dtype", np.float64)) if own_type else array.dtype
    # What NumPy makes of bfloat16 in a file has no arithmetic: float32 holds its values.
    return np.array(array, np.float32 if dtype.kind == "V" and dtype.name != "bfloat16" else dtype, order="C")


def fresh(value: Any) -> Any:
    """Return a copy of an array or a tensor, and anything else as it is."""
    if is_tensor(value):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


def _read(name: str, value: Any) -> tuple[np.ndarray, bool]:
    """Return an array, and whether it was a tensor of bfloat16."""
    if is_tensor(value):
        return _of_tensor(name, value)
    if value is None:
        raise FastcheckError(f"{name} is None: expected an array")
    if isinstance(value, np.ma.MaskedArray):
        raise FastcheckError(f"{name} is a masked array: expected one without a mask, such as its .filled(0)")
    if isinstance(value, Mapping):
        raise FastcheckError(
            f"{name} is a mapping, of {listed(map(shown, value))}: expected an array; name nested arrays in one "
            "mapping, as in {'layer.weight': array}"
        )
    try:
        return np.asarray(value), False
    except Exception as error:  # whatever another library's array raises
        raise FastcheckError(f"{name} is not an array: {' '.join(str(error).split())}") from None


def _of_tensor(name: str, tensor: Any) -> tuple[np.ndarray, bool]:
    """Return a tensor's values, from any device, and whether they were bfloat16."""
    torch = sys.modules["torch"]
    if tensor.is_quantized:
        raise FastcheckError(f"{name} is a quantised tensor, {tensor.dtype}: expected its .dequantize()")
    if tensor.layout != torch.strided:
        raise FastcheckError(f"{name} is a sparse tensor, {tensor.layout}: expected its .to_dense()")
    if tensor.is_meta:
        raise FastcheckError(f"{name} is a tensor on the meta device, which has no values: expected one with values")
    half = tensor.dtype == torch.bfloat16
    try:
        plain = tensor.detach().cpu()
        return (plain.float() if half else plain).resolve_conj().resolve_neg().numpy(), half
    except Exception as error:  # float8 and other types that NumPy does not have
        raise FastcheckError(f"{name} has dtype {tensor.dtype}: {_EXPECTED} ({error})") from None


def _is_bfloat16(dtype: np.dtype) -> bool:
    """Whether a dtype is bfloat16: that of ml_dtypes (JAX), or what NumPy makes of it in a file, two bytes of void."""
    return dtype.name == "bfloat16" or (dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None)


def _of_bits(array: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16's bits: the upper half of a float32's."""
    bits = array.view(np.uint16) if array.dtype.kind == "V" else array
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _advice(name: str, value: Any, dtype: np.dtype) -> str:
    if dtype.newbyteorder("=") == np.uint16:
        return "; bits of bfloat16 need precision='bfloat16' (--precision bfloat16)"
    if dtype.kind == "c":
        return "; fastcheck.check_vjp takes complex arrays"
    if dtype.kind not in "iub" or not name.isidentifier():
        return ""
    plain = f"{name}.astype(float)" if hasattr(value, "astype") else f"np.array({name}, float)"
    return f"; {f'{name}.double()' if is_tensor(value) else plain} converts it"


def _with_quiet_nans(array: np.ndarray) -> np.ndarray:
    """Return an array whose NaNs are quiet: NumPy warns when it converts a signalling NaN to float64."""
    if array.dtype.itemsize == 8:
        return array
    unknown = np.isnan(array)
    return np.where(unknown, array.dtype.type(np.nan), array) if unknown.any() else array
