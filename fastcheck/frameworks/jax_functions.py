"""A function of pytrees, and JAX's gradient of it, in the form that `check_vjp` takes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import listed, quoted
from fastcheck.common.precision import UNITS
from fastcheck.frameworks.jax_trees import (
    is_differentiable,
    jax,
    leaves_of,
    like_leaf,
    placed,
    refuse_tracers,
    type_of,
    x64,
)
from fastcheck.functions.case import START
from fastcheck.functions.conventions import Labelled

Call = Callable[..., dict[str, Any]]
"""A function of leaves by name, which returns arrays by name or path."""

ALONE = ""
"""Path of an output that is not in a container."""

TINY = 2.0**-32
"""A step, as a fraction of the inputs, that is far below the spacing of float32's numbers."""

SLACK, ROUNDINGS = 16.0, 8.0
"""Factors on the errors of a difference quotient, and on a rounding, that are granted to narrower types."""

MOST = 0.05
"""Relative difference of two slopes that is never granted: in half precision the bound above would hide a rounding."""

_DOUBLE = ("float64", "complex128")
_REAL = {"complex64": "float32"}

_IN_A_TUPLE = " with one argument, a tuple (several are given one by one)"

_NARROW = re.compile(r"(?:new_dtype|preferred_element_type)=(float32|float16|bfloat16|complex64)")
"""Types other than float64 that operations convert to, in JAX's own listing of a function."""

_ADVICE = {
    "TracerArrayConversionError": "NumPy cannot take what JAX traces: expected functions of jax.numpy",
    "UnexpectedTracerError": "it keeps a value from an earlier call: expected a function without side effects",
}


class JaxFunction:
    r"""A function of pytrees, as one of the leaves that are differentiated.

    Parameters
    ----------
    function : callable
    args : sequence
        Pytrees. Leaves that are no arrays of real or complex numbers, nor such numbers, are passed on.
    double : bool
        Whether JAX computes in float64; otherwise as it does for the user, in the leaves' own types.
    vectorized : bool
        Whether `forward` takes and returns arrays with a leading axis.

    Attributes
    ----------
    inputs : Labelled
        The leaves that are differentiated, by "input 0" and their paths, such as "input 0['w']".
    types : list of str
        Those in which JAX takes the inputs, without float64 and complex128.
    narrow : list of str
        Those that the function converts to in float64.
    rounding : float or None
        Accuracy of outputs, relative to their size, where these types round them.

    Raises
    ------
    FastcheckError
        If there is no such leaf, a leaf is a tracer, the function raises, or it returns nothing to differentiate.
    """

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], double: bool, vectorized: bool) -> None:
        given, self._structure = leaves_of(tuple(args))
        self._given = {_input(path): leaf for path, leaf in given.items()}
        refuse_tracers(self._given)
        self._function, self._double = function, double
        self._in_a_tuple = _IN_A_TUPLE if len(args) == 1 and isinstance(args[0], (tuple, list)) else ""
        wanted = {name: leaf for name, leaf in self._given.items() if is_differentiable(leaf)}
        if not wanted:
            kinds = listed(sorted({_kind(leaf) for leaf in self._given.values()})) or "nothing"
            raise FastcheckError(f"inputs are {kinds}: expected an array of floating-point numbers among them")
        self.inputs = Labelled({name: np.array(leaf) for name, leaf in wanted.items()})  # which may share memory in JAX
        self.inputs.held = {name: leaf for name, leaf in self._given.items() if name not in wanted}
        self.types = sorted({type_of(leaf) for leaf in wanted.values()} - {*_DOUBLE})
        self.narrow = list[str]()
        self._outputs = self._first_call()
        self.rounding = self._rounding()
        self._evaluate = (
            jax.jit(jax.vmap(self._called)) if vectorized else self._compiled(self._called, lambda: (self._start(),))
        )

    def forward(self, **inputs: np.ndarray) -> Any:
        """Return the outputs that are differentiated: one array, or several by path."""
        place = placed if self._evaluate == self._called else like_leaf  # compiled functions need no copies
        with self._mode(), _explained():
            return _packed(self._evaluate(self._placed(inputs, place)))

    def backward(self, grad_output: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return what `jax.vjp` does."""
        cotangents = grad_output if isinstance(grad_output, dict) else {ALONE: grad_output}
        with self._mode(), _explained():
            sent = {path: jax.numpy.array(one) for path, one in cotangents.items()}
            gradients = self._pullback(self._placed(inputs), sent)
        return {name: np.asarray(gradient) for name, gradient in gradients.items()}

    def cotangent(self, grad_output: Any) -> Any:
        """Return the user's cotangent in the form of `forward`'s outputs; refuse another structure."""
        given = dict(leaves_of(grad_output)[0])
        missing = [path for path in self._outputs if path not in given]
        if missing:
            raise FastcheckError(
                f"grad_output is {quoted(grad_output)}: expected arrays like the outputs, with grad_output{missing[0]}"
            )
        return _packed({path: given[path] for path in self._outputs})

    def refuse_other(self, reference: JaxFunction) -> None:
        """Check that a reference returns the same outputs."""
        mine, other = self._outputs, reference._outputs
        if {*mine} != {*other}:
            raise FastcheckError(f"reference returns {_described(other)}: expected {_described(mine)}, as the function")

    def _mode(self) -> AbstractContextManager[Any]:
        return x64() if self._double else nullcontext()

    def _placed(
        self, inputs: Mapping[str, np.ndarray], place: Callable[[Any, np.ndarray], Any] = placed
    ) -> dict[str, Any]:
        return {name: place(self._given[name], array) for name, array in inputs.items()}

    def _called(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function with leaves in place of those that were given; return outputs by path."""
        values = [leaves.get(name, leaf) for name, leaf in self._given.items()]
        returned = self._function(*jax.tree_util.tree_unflatten(self._structure, values))
        outputs = {path: leaf for path, leaf in leaves_of(returned)[0].items() if is_differentiable(leaf)}
        if not outputs:
            raise FastcheckError(
                f"function returns {quoted(returned)}: expected an array of floating-point numbers, or a pytree of them"
            )
        return outputs

    # The start point

    def _start(self) -> dict[str, Any]:
        arrays = {name: _in_double(array) if self._double else array for name, array in self.inputs.items()}
        return self._placed(arrays)

    def _first_call(self) -> list[str]:
        """Return the paths of the outputs, from a trace of the function, or a call where it cannot be traced."""
        with suppress(Exception), self._mode():
            traced, outputs = jax.make_jaxpr(self._called, return_shape=True)(self._start())
            self.narrow = sorted(set(_NARROW.findall(str(traced)))) if self._double else []
            return list(outputs)
        try:
            with self._mode(), _explained():
                return list(jax.vjp(self._called, self._start())[0])
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by("function", error, START + self._in_a_tuple * isinstance(error, TypeError)) from error

    def _rounding(self) -> float | None:
        """Return the rounding of outputs, relative to their size, by narrower types; None where these round nothing.

        Steps far below the spacing of such a type then show another slope than steps above it.
        """
        unit = max((UNITS[_REAL.get(name, name)] for name in self.narrow), default=0.0)
        if not unit:
            return None
        near, far = (self._quotient(step) for step in (TINY, unit ** (1 / 3)))
        with np.errstate(all="ignore"):
            apart, size = (float(np.linalg.norm(one)) for one in (near - far, far))
        return None if apart <= min(MOST, SLACK * unit ** (2 / 3)) * size else ROUNDINGS * unit

    def _quotient(self, step: float) -> np.ndarray:
        """Return the two-sided difference quotient of all outputs, where every input moves by a part of itself."""
        ends = []
        for side in (1, -1):
            rng = np.random.default_rng(len(self.inputs))
            signs = {name: rng.choice([-1.0, 1.0], array.shape) for name, array in self.inputs.items()}
            moved = {name: _in_double(array) * (1 + side * step * signs[name]) for name, array in self.inputs.items()}
            with self._mode(), _explained():
                outputs = _arrays(self._called(self._placed(moved)))
            ends.append(np.concatenate([_in_double(one).reshape(-1) for one in outputs.values()]))
        return (ends[0] - ends[1]) / (2 * step)

    @functools.cached_property
    def _pullback(self) -> Call:
        """`jax.vjp` as a function of leaves and cotangents."""

        def pullback(leaves: Mapping[str, Any], cotangents: Mapping[str, Any]) -> dict[str, Any]:
            return jax.vjp(self._called, leaves)[1](cotangents)[0]

        def at_start() -> tuple[Any, ...]:
            start = self._start()
            outputs = jax.eval_shape(self._called, start)
            return start, {path: jax.numpy.ones(one.shape, one.dtype) for path, one in outputs.items()}

        return self._compiled(pullback, at_start)

    def _compiled(self, function: Call, arguments: Callable[[], tuple[Any, ...]]) -> Call:
        """Return a function compiled, which takes less time, if it can be traced, twice alike; else as it is."""
        with suppress(Exception), self._mode():
            first, again = (jax.make_jaxpr(_renewed(function))(*arguments()) for _ in range(2))
            if _text(first) == _text(again) and _same_constants(first.consts, again.consts):
                return jax.jit(function)
        return function


@contextmanager
def _explained() -> Iterator[None]:
    """Say in few words what JAX's long messages mean."""
    try:
        yield
    except Exception as error:
        name = type(error).__name__
        if name not in _ADVICE:
            raise
        raise FastcheckError(f"function raises {name}: {_ADVICE[name]}") from error


def _input(path: str) -> str:
    """Return the name of a leaf by its path in the arguments: "input 0['w']" for "[0]['w']"."""
    number, _, rest = path[1:].partition("]")
    return f"input {number}{rest}"


def _kind(leaf: Any) -> str:
    return str(getattr(leaf, "dtype", type(leaf).__name__))


def _arrays(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in outputs.items()}


def _packed(outputs: Mapping[str, Any]) -> Any:
    """Return outputs as `check_vjp` takes them: NumPy's arrays, by path or alone."""
    arrays = _arrays(outputs)
    return arrays[ALONE] if list(arrays) == [ALONE] else Labelled(arrays)


def _in_double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _renewed(function: Call) -> Call:
    """Return a function as one that JAX has not traced yet."""
    return lambda *arguments: function(*arguments)


def _text(trace: Any) -> str:
    """Return JAX's listing of a trace without addresses in memory."""
    return re.sub("0x[0-9a-f]+", "", str(trace))


def _same_constants(first: Sequence[Any], again: Sequence[Any]) -> bool:
    """Whether two traces hold the same arrays."""
    pairs = zip(first, again, strict=True)
    return all(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True) for one, other in pairs)


def _described(outputs: Sequence[str]) -> str:
    return listed(f"output{path}" for path in outputs)
