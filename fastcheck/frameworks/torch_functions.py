"""A function of PyTorch's tensors, and autograd's gradient of it, in the form that `check_vjp` takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import listed
from fastcheck.frameworks.torch_in_place import Watch
from fastcheck.frameworks.torch_tensors import (
    ALONE,
    Tensor,
    copied,
    in_double,
    is_differentiable,
    packed,
    refuse_unusable,
    tensors_of,
    torch,
)
from fastcheck.functions.case import START
from fastcheck.functions.conventions import Labelled
from fastcheck.metrics import autograd_health
from fastcheck.metrics.health import HealthFinding

SEED = 0
"""Seed with which every call begins of a function that draws random numbers."""

IN_ITS_OWN_TYPE = " in float64; one that only takes its own type needs reference=, the same function in float64"


@dataclass(frozen=True)
class Call:
    """A function, its inputs by name, and how it is called with values in their place.

    Attributes
    ----------
    given : dict of str to object
        As the user has them.
    function : callable
        Takes values by name, and returns what the user's function does.
    buffers : frozenset of str
        Names of inputs that are never differentiated.
    """

    given: dict[str, Any]
    function: Callable[[Mapping[str, Any]], Any]
    buffers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, function: Callable[..., Any], inputs: Sequence[Any]) -> Call:
        """Return the call of a function of inputs, named "input 0", "input 1", ..."""
        return cls(
            {f"input {number}": value for number, value in enumerate(inputs)}, lambda values: function(*values.values())
        )

    @property
    def differentiated(self) -> list[str]:
        """The names of tensors that require a gradient; of all that could, where none does.

        Raises
        ------
        FastcheckError
            If none could.
        """
        able = self._able
        if not able:
            kinds = listed(sorted({type(value).__name__ for value in self.given.values()})) or "nothing"
            raise FastcheckError(f"inputs are {kinds}: expected a tensor of floating-point numbers among them")
        return [name for name in able if self.given[name].requires_grad] or able

    def notes(self) -> Iterator[HealthFinding]:
        """Yield what is not checked, though it could be."""
        left_out = [name for name in self._able if name not in self.differentiated]
        if left_out:
            yield autograd_health.not_checked(left_out)

    @property
    def _able(self) -> list[str]:
        return [name for name, value in self.given.items() if is_differentiable(value) and name not in self.buffers]


class TorchFunction:
    """A function of the tensors that are differentiated.

    Parameters
    ----------
    call : Call
    double : bool
        Whether all tensors are given in double precision; otherwise in their own types.

    Attributes
    ----------
    inputs : Labelled
        The tensors that are differentiated.
    start : dict of str to tensor
        The same, as the function gets them.
    notes : list of HealthFinding
        What calls at the start point showed.

    Raises
    ------
    FastcheckError
        If the function cannot be called, or autograd reaches no input from its outputs.
    """

    def __init__(self, call: Call, double: bool) -> None:
        refuse_unusable(call.given)
        self._call, self._double = call, double
        self.inputs = Labelled({name: call.given[name].detach() for name in call.differentiated})
        self.inputs.held = {name: value for name, value in call.given.items() if name not in self.inputs}
        self.start = {name: in_double(value) if double else value for name, value in self.inputs.items()}
        self._threads, self._thread = torch.get_num_threads(), threading.local()
        self._generators = generators(call.given.values())
        self._is_random, self._needs_graph, self._works_in_place = False, True, False
        self._keys = list[Any]()
        self.notes = list(self._tried_out())

    def forward(self, **inputs: Any) -> Any:
        """Return the outputs that are differentiated: one tensor, or several by position or key."""
        with torch.set_grad_enabled(self._needs_graph):
            outputs = self._outputs(self._leaves(inputs) if self._needs_graph else inputs)
        return packed({key: value.detach() for key, value in outputs.items()})

    def backward(self, grad_output: Any, **inputs: Any) -> dict[str, Tensor]:
        """Return autograd's gradient: zeros for an input that it does not reach."""
        leaves = self._leaves(inputs)
        outputs = self._outputs(leaves)
        grads = self._gradients(outputs, leaves, grad_output if isinstance(grad_output, dict) else {ALONE: grad_output})
        return {name: torch.zeros_like(leaves[name]) if grad is None else grad for name, grad in grads.items()}

    def values(self, inputs: Mapping[str, Tensor] = {}) -> dict[str, Any]:
        """Return all inputs as the function gets them, some with other values."""
        return {name: self._value(name, inputs) for name in self._call.given}

    def in_place_of(self, call: Call) -> Callable[..., Any]:
        """Return another function as one of the same inputs in double precision, with the same outputs."""

        def reference(**inputs: Any) -> Any:
            values = {name: inputs.get(name, in_double(copied(value))) for name, value in call.given.items()}
            outputs = tensors_of(call.function(values))
            missing = [key for key in self._keys if key not in outputs]
            if missing:
                raise FastcheckError(f"reference returns no output {missing[0]!r}: expected those of the function")
            return packed({key: outputs[key].detach() for key in self._keys})

        return reference

    def _gradients(
        self, outputs: Mapping[Any, Tensor], leaves: Mapping[str, Tensor], cotangents: Mapping[Any, Tensor]
    ) -> dict[str, Tensor | None]:
        sent = [cotangents[key] for key in outputs]
        grads = torch.autograd.grad([*outputs.values()], [*leaves.values()], sent, allow_unused=True)
        return dict(zip(leaves, grads, strict=True))

    def _leaves(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.detach().requires_grad_() for name, value in inputs.items()}

    def _outputs(self, inputs: Mapping[str, Tensor]) -> dict[Any, Tensor]:
        """Call the function; return the outputs that are differentiated."""
        outputs = self._called_with(self.values(inputs))
        return {key: outputs[key] for key in self._keys if key in outputs}

    def _called_with(self, values: Mapping[str, Any]) -> dict[Any, Tensor]:
        """Call the function with tensors that it may change, and that are not leaves."""
        self._use_as_many_threads()
        with self._frozen():
            return tensors_of(self._call.function(values))

    def _use_as_many_threads(self) -> None:
        """Let PyTorch use as many threads as in the thread that asked for the check: each has its own number."""
        if not hasattr(self._thread, "is_set"):
            torch.set_num_threads(self._threads)
            self._thread.is_set = True

    def _value(self, name: str, inputs: Mapping[str, Tensor]) -> Any:
        if name in inputs:
            value = inputs[name].contiguous() if self._is_random else inputs[name]  # numbers are drawn in its order
            return value.clone() if value.requires_grad or self._works_in_place else value
        value = copied(self._call.given[name])
        return in_double(value) if self._double else value

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Seed PyTorch's generators if the function draws from them, and restore them."""
        before = _states(self._generators) if self._is_random else []
        for generator in self._generators if self._is_random else ():
            generator.manual_seed(SEED)
        try:
            yield
        finally:
            for generator, state in zip(self._generators, before, strict=False):
                generator.set_state(state)

    # The start point

    def _tried_out(self) -> Iterator[HealthFinding]:
        """Call the function a few times, settle how it is to be called, and yield what this shows."""
        others = [value for value in self._call.given.values() if is_differentiable(value)]
        types = {str(value.dtype).removeprefix("torch.") for value in others if value.dtype != in_double(value).dtype}
        if types and self._double:
            yield autograd_health.in_double(sorted(types))
        leaves = self._leaves(self.start)
        watch, outputs = self._first_call(leaves)
        if self._is_random:
            yield autograd_health.random_numbers()
        changed, unknown = watch.changed()
        self._works_in_place = bool(changed)
        if unknown:
            yield autograd_health.changed("forward", unknown)
        able = {key: value for key, value in outputs.items() if is_differentiable(value)}
        self._keys = [key for key, value in able.items() if value.requires_grad]
        if not self._keys:
            raise FastcheckError(_unreached(outputs))
        if len(self._keys) < len(able):
            yield autograd_health.detached([f"output {key}" for key in able if key not in self._keys])
        reached = {key: outputs[key] for key in self._keys}
        with suppress(Exception):  # what backward raises, the check reports
            grads = self._gradients(reached, leaves, {key: torch.ones_like(value) for key, value in reached.items()})
            if None in grads.values():
                yield autograd_health.unreached([name for name, grad in grads.items() if grad is None])
        changed, _ = watch.changed()
        if changed:
            yield autograd_health.changed("backward", changed)
        self._needs_graph = not self._is_same_without_graph(reached)

    def _first_call(self, leaves: Mapping[str, Tensor]) -> tuple[Watch, dict[Any, Tensor]]:
        """Return a watch on what the function is given, and what it returns."""
        before = _states(self._generators)
        try:
            watch, outputs = self._watched(leaves)
            if not all(map(torch.equal, before, _states(self._generators))):
                self._is_random = True
                watch, outputs = self._watched(leaves)
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by("the function", error, f"{START}{self._advice()}") from error
        return watch, outputs

    def _watched(self, leaves: Mapping[str, Tensor]) -> tuple[Watch, dict[Any, Tensor]]:
        values = self.values(leaves)
        watch = Watch(values)
        return watch, self._called_with(values)

    def _is_same_without_graph(self, outputs: Mapping[Any, Tensor]) -> bool:
        """Whether the function returns the same bits where autograd records nothing, which is faster."""
        try:
            with torch.no_grad():
                others = self._outputs({name: value.clone() for name, value in self.start.items()})
        except Exception:  # it uses autograd itself
            return False
        return outputs.keys() == others.keys() and all(torch.equal(outputs[key], others[key]) for key in outputs)

    def _advice(self) -> str:
        """Return what to try where a function raises for inputs that were converted, and not for its own."""
        own = {name: value.clone() for name, value in self._call.given.items() if isinstance(value, Tensor)}
        if not self._double or all(value.dtype == in_double(value).dtype for value in own.values()):
            return ""
        try:
            self._call.function(self._call.given | own)
        except Exception:
            return ""
        return IN_ITS_OWN_TYPE


def generators(values: Iterable[Any]) -> list[torch.Generator]:
    """Return the generators of random numbers of the CPU, and of the devices on which tensors lie."""
    devices = sorted({value.get_device() for value in values if isinstance(value, Tensor) and value.is_cuda})
    return [torch.default_generator, *(torch.cuda.default_generators[device] for device in devices)]


def _states(several: Sequence[torch.Generator]) -> list[Tensor]:
    return [generator.get_state() for generator in several]


def _unreached(outputs: Mapping[Any, Tensor]) -> str:
    """Return what to say of a function none of whose outputs requires a gradient."""
    if not outputs:
        return "the function returns no tensor: expected a tensor, or several in a tuple or a dict"
    types = listed(sorted({str(value.dtype).removeprefix("torch.") for value in outputs.values()}))
    return (
        f"no output of the function ({types}) requires a gradient: autograd does not lead from it to an input; look "
        "for .detach(), .data, .item(), torch.no_grad() and NumPy, or a result that has no gradient, such as an index"
    )
