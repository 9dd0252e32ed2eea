"""A Python loss of arrays, and the gradient that somebody wrote for it."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from fastcheck.common.arguments import Shape, index_of, positive
from fastcheck.common.arrays import Floating, finite, gradient
from fastcheck.common.errors import FastcheckError, raised_by
from fastcheck.common.naming import LONGEST_VALUE, brief, quoted, refuse_unknown
from fastcheck.common.precision import PRECISIONS, UNITS, U
from fastcheck.engine.magnitudes import rms
from fastcheck.engine.settings import Settings
from fastcheck.functions import blind, calls, state
from fastcheck.functions.calls import Stacked
from fastcheck.functions.form import Form, of_other_shape
from fastcheck.functions.state import Arrays
from fastcheck.functions.step_search import NOISES
from fastcheck.metrics import health
from fastcheck.metrics.health import LOSS, Functions, HealthFinding
from fastcheck.reports.tensor_report import ForwardReport

if TYPE_CHECKING:
    from fastcheck.functions.noise import Noise
    from fastcheck.functions.patterns import Pattern
    from fastcheck.functions.pipeline import FunctionPipeline
    from fastcheck.functions.processes import Workers


START = "at the start point"

MANY = 1000
"""Parameters from which entries of a tensor share a step, and tensors of which few are differenced share the noise and
the start of their searches."""

LARGE = 2**16
"""Parameters beyond which a function is large. Its gradient's noise is then pooled over entries, since so many show it
with three samples; the loss's is measured for all tensors at once; ``dims="auto"`` differences few by themselves."""

SMALL_ENTRY = 2.0**-10
"""An entry below this fraction of a typical one is either small by accident or has a scale of its own."""

MOVED = 2.0**-10
"""Relative perturbation of params that shows how the loss scales, and what it remembers between calls."""


class Evaluation(NamedTuple):
    """A value of a loss.

    Attributes
    ----------
    value : float
        Any number; nan where the loss raised.
    terms : float64 array or None
        What the value is the sum of, where that is known.
    raised : FastcheckError or None
    """

    value: float
    terms: np.ndarray | None = None
    raised: FastcheckError | None = None


class FunctionCase:
    """A loss, its parameters and its analytic gradient at one point.

    Parameters
    ----------
    loss : callable
        Takes params as NumPy's float64 arrays, in the form in which they are given (an array, a dict, a list or a
        tuple), and returns a finite number (or an array of size 1).
    grad : callable, array, mapping, list or tuple
        The gradient in the form of params, or a function of params that returns it: float64, float32, float16 or
        bfloat16.
    params : array, mapping of str to arrays, or list or tuple of arrays
        float64, float32, float16 or bfloat16. They are converted to float64, which is exact.
    noise, relative_noise : float, optional
        Accuracy of the loss: the largest error of a value, absolute or relative to its size at the start point.
    precision : {"float64", "float32", "tf32", "float16", "bfloat16"}, optional
        The arithmetic that computed the gradient, where its dtype does not show it.
    vectorized : bool, optional
        Whether the loss takes params with a leading axis, and returns a number for each point along it.

    Attributes
    ----------
    params : dict of str to float64 array
    grads : dict of str to array
    wavering : dict of str to float64 array
        How much the gradient differs from call to call.
    later : dict of str to array
        The gradient of a second call, where it was another one.
    start : float
        The loss at params, after the gradient was called.
    accuracy : float
        Declared bound on the error of a value of the loss; 0 without one.
    largest : float
        The largest magnitude of the loss seen so far.
    scatter : float
        Standard deviation of the loss from call to call at params.
    findings : list of HealthFinding
        Findings about the functions themselves.

    Raises
    ------
    FastcheckError
        If an argument is none of these, a name or shape does not fit, a parameter is not finite, or the loss or its
        gradient raises at params, changes its argument, returns no finite number there or differs by more than its
        last bits when called again. A non-finite *gradient* is not bad input: it fails the check.
    """

    evaluators: ClassVar[tuple[str, ...]] = ("full",)
    patterns: Mapping[str, Pattern] = MappingProxyType({})
    """The outputs that entries of some tensors can move."""
    detecting: Mapping[str, int] = MappingProxyType({})
    """The calls that it took to look for a pattern, by tensor."""
    names: ClassVar[Functions] = LOSS
    workers: Workers | None = None
    """The processes that threads other than the one that checks have the function called in."""

    def __init__(
        self,
        loss: Callable[[Any], Any],
        grad: Any,
        params: Any,
        *,
        noise: float | None = None,
        relative_noise: float | None = None,
        precision: str | None = None,
        vectorized: bool = False,
    ) -> None:
        if not callable(loss):
            raise FastcheckError(f"loss is {quoted(loss)}: expected a function of params that returns a number")
        if precision is not None:
            refuse_unknown("precision", precision, PRECISIONS)
        self._loss, self._vectorized, self._loop = loss, vectorized, calls.compiled_loop(loss)
        self._grad = grad if callable(grad) else None
        self.precision, self.findings = precision, list[HealthFinding]()
        self._form = Form.of(params)
        given = self._form.named("params", params)
        self.params = {name: finite(self.label(name), value, precision) for name, value in given.items()}
        self._moved, self.largest, self._lock = False, 0.0, threading.Lock()
        first = self.start = self._value_here()
        self.accuracy = self._declared(noise, relative_noise)
        self.scatter, findings = self._scattered()
        self.findings += findings
        analytic = self._matched(grad) if self._grad is None else self._called_gradient()
        self.grads = _values(analytic)
        self._precisions = {name: one.precision for name, one in analytic.items()}
        self.wavering = {name: np.zeros(array.shape) for name, array in self.params.items()}
        self.later = dict[str, np.ndarray]()
        if self._grad is not None:
            self._examine_gradient(first)
        self._moved, self.largest = False, abs(self.start)
        self._stacked = self._verified_stacks() if vectorized else None

    @property
    def has_function(self) -> bool:
        """Whether the gradient is a function, which can be called at other points."""
        return self._grad is not None

    @property
    def has_many(self) -> bool:
        """Whether the function has so many parameters that they share what is measured for some of them."""
        return sum(array.size for array in self.params.values()) >= MANY

    @property
    def is_large(self) -> bool:
        """Whether the function has so many parameters that few calls for each would take too long."""
        return sum(array.size for array in self.params.values()) > LARGE

    def blind_spots(self) -> Iterator[str]:
        """Yield what of the inputs would hide mistakes, in words."""
        yield from blind.equal_inputs(self.params, self.label)

    def label(self, name: str) -> str:
        """Return the user's name for a tensor."""
        return self._form.label("params", name)

    def gradient_label(self, name: str) -> str:
        """Return the user's name for a tensor's gradient."""
        return self._form.label("grad", name)

    def index(self, name: str, dim: int) -> tuple[int, ...]:
        """Return the multi-index of a flat index."""
        return index_of(dim, self.params[name].shape)

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors."""
        return {name: array.shape for name, array in self.params.items()}

    def operand(self, name: str) -> np.ndarray:
        """Return a tensor's parameters."""
        return self.params[name]

    def pipeline(self, settings: Settings) -> FunctionPipeline:
        """Return the pipeline that checks the case with these settings; imports Numba."""
        from fastcheck.functions.pipeline import FunctionPipeline

        return FunctionPipeline(self, settings)

    def described(self) -> dict[str, Any]:
        """Return the shapes as a report states them."""
        return {name: list(shape) for name, shape in self.shapes().items()}

    def precision_of(self, name: str) -> str:
        """Return the precision that a gradient was computed in."""
        return self.declared_precision(name) or self.grads[name].dtype.name

    def declared_precision(self, name: str) -> str | None:
        """Return the precision of a gradient that its dtype does not show."""
        return "bfloat16" if self._precisions[name] == "bfloat16" else self.precision

    def half_unit(self, name: str) -> float:
        """Return the unit round-off of a gradient in half precision or tf32, 0 for a wider type."""
        unit = UNITS[self.precision_of(name)]
        return unit if unit > UNITS["float32"] else 0.0

    def size(self, name: str) -> float:
        """Return the root mean square of a tensor's non-zero entries; without any, that of all tensors, else 1."""
        own = rms(self.params[name])
        return own or rms(np.array([rms(array) for array in self.params.values()])) or 1.0

    def small(self, name: str) -> np.ndarray:
        """Return which entries of a tensor are far smaller than a typical one, zeros included."""
        return np.abs(self.params[name]) < SMALL_ENTRY * self.size(name)

    @property
    def magnitude(self) -> float:
        """The size of the loss at params, of which its rounding is a fraction."""
        return abs(self.start)

    @property
    def least_noise(self) -> np.ndarray:
        """The least standard deviation of the loss's rounding: of each of its terms, or of its value, without axes."""
        return np.array(self.scatter)

    @property
    def declared_errors(self) -> np.ndarray:
        """The declared bound on the error of the loss, of each of its terms or of its value."""
        return np.array(self.accuracy)

    def parts(self) -> list[tuple[slice, np.ndarray]]:
        """Return slices of terms that are alike, with their sizes at params; none where the loss is one number."""
        return []

    @property
    def carried(self) -> float:
        """The largest change of the loss that a gradient in low precision is made of, terms that cancel included."""
        return self.promised

    @functools.cached_property
    def promised(self) -> float:
        """The largest change of the loss that the analytic gradient promises when an entry moves by its own size.

        It is invariant under rescaling of the parameters, and scales with the loss. Where no non-zero entry promises a
        change, zeros are assumed to move by the typical size. A change that the loss's own rounding hides counts as 0.
        """
        own, every = [], []
        with np.errstate(over="ignore", invalid="ignore"):
            for name, grad in self.grads.items():
                slopes, values = np.abs(grad.astype(np.float64)), np.abs(self.params[name])
                every.append(_largest(slopes * self.size(name)))
                own.append(_largest(slopes * values) if values.any() else every[-1])
        largest = max(own) or max(every)
        return largest if largest > U * self.magnitude else 0.0

    def sent(self) -> dict[str, Any]:
        """Return what of the user's must be sent to other processes that evaluate the function, by name."""
        return {self.names.function: self._loss}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs to evaluate the function: no gradient."""
        left_out = ("_grad", "grads", "later", "wavering", "patterns", "findings", "workers", "_lock", "_loop")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _loop=calls.compiled_loop(state["_loss"]))

    def place(self, term: int) -> str:
        """Return words for one of the loss's terms."""
        return f"term {term}"

    def copies(self) -> Arrays:
        """Return private copies of params, which may be changed."""
        return {name: array.copy() for name, array in self.params.items()}

    def value(self, arrays: Arrays, where: Callable[[], str]) -> float:
        """Evaluate the loss near params and return any number it gives; nan where it raises, as outside its domain."""
        return self.attempt(arrays, where).value

    def attempt(self, arrays: Arrays, where: Callable[[], str]) -> Evaluation:
        """Evaluate as `value` does; return the value with its terms, and the error that the loss raised."""
        if self.workers is not None and self.workers.wanted:
            evaluation = self.workers.attempt(arrays, where)
        else:
            try:
                returned = self._evaluated(arrays)
            except Exception as error:
                return Evaluation(math.nan, raised=raised_by(self.names.function, error, where()))
            evaluation = self._measured(returned, where)
        self._note(np.array(evaluation.value))
        return evaluation

    def moved(
        self, arrays: Arrays, name: str, dims: np.ndarray, points: np.ndarray, noises: Noise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the loss with one entry after another moved to other values, and nothing but the loss in between.

        Parameters
        ----------
        arrays : dict of str to float64 array
            Copies of params, which are moved and restored.
        name : str
        dims : int64 array, shape (n,)
            Flat indices of the tensor.
        points : float64 array, shape (k, n)
            Values of each entry.
        noises : Noise

        Returns
        -------
        tuple of float64 array
            The loss, of shape (k, n), nan where it raises; and its standard deviation, of shape (n,).
        """
        workers = self.workers if self.workers is not None and self.workers.wanted else None
        move = self._with_moves if workers is None else workers.with_moves
        values, noise = move(arrays, name, dims, points, noises)
        self._note(values)
        return values, noise

    def _with_moves(
        self, arrays: Arrays, name: str, dims: np.ndarray, points: np.ndarray, noises: Noise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate in this process as `moved` does."""
        values = np.empty(points.shape)
        if self._stacked is None:
            values[...] = self._called_with_moves(arrays, name, dims, points)
        else:
            for part, several in self._stacked.moved(name, dims, points, self._near(name)):
                values[:, part] = several.T
        return values, np.full(len(dims), noises.whole)

    def _called_with_moves(self, arrays: Arrays, name: str, dims: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Call the loss as `moved` says: in compiled code where it is compiled and that is possible."""
        params, flat, where = self._form.packed(arrays), arrays[name].reshape(-1), self._near(name)
        if self._loop is not None:
            try:
                return self._loop(params, flat, dims, points)
            except Exception:  # of a loss that Numba cannot call in a loop: it takes a dict, or returns no number
                self._loop = None
        with np.errstate(all="ignore"):
            return calls.one_by_one(self._loss, params, flat, dims, points, lambda value: _number(value, where))

    def _near(self, name: str) -> Callable[[], str]:
        return lambda: f"with an entry of {self.label(name)} perturbed"

    def _note(self, values: np.ndarray) -> None:
        """Note whether the loss changes, and its largest value."""
        self._moved = self._moved or bool(((values != self.start) & ~np.isnan(values)).any())
        with self._lock:
            self.largest = max(self.largest, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))

    def sample(self, arrays: Arrays, where: Callable[[], str]) -> np.ndarray:
        """Evaluate the loss and return its terms, or its value, without axes; nan where it raises."""
        value, terms, _ = self.attempt(arrays, where)
        return np.full(self.least_noise.shape, value) if terms is None else terms

    def gradient(self, arrays: Arrays) -> Arrays | None:
        """Evaluate the analytic gradient near params; None where it raises."""
        assert self._grad is not None
        try:
            grad = quietly(self._grad, self._form.packed(arrays))
        except Exception:
            return None
        return _values(self._matched(grad))

    @property
    def forward(self) -> ForwardReport | None:
        """The comparison of the function with another one that is differenced; None where it is differenced itself."""
        return None

    def examine(self, errors: Mapping[str, np.ndarray]) -> None:
        """Add findings on the gradient function that need the bounds on its rounding; here there are none."""

    def examine_end(self) -> None:
        """Add the findings of a finished check: whether the loss ever changed, and still repeats its first value."""
        if any(finding.verdict for finding in self.findings):
            return
        try:
            pairs = ((self.start, self._value_here()), *self._after_moves())
        except FastcheckError:  # it returned a finite number there before
            self.findings.append(health.loss_remembers(self.start, math.nan, self.names))
            return
        differing = [pair for pair in pairs if all(map(math.isfinite, pair)) and not self._same(*pair)]
        if differing:
            self.findings.append(health.loss_remembers(*differing[0], self.names))
        elif not self._moved:
            zero = not any(array.any() for array in self.grads.values())
            self.findings.append(health.loss_never_moves(self.start, zero, self.names))

    def refuse_changes(self, arrays: Arrays, function: str) -> None:
        """Check that arrays still equal params after a function was called with them."""
        for name, array in self.params.items():
            if not (array == arrays[name]).all():  # of a stack, all of its points
                raise FastcheckError(
                    f"{function} changes {self.label(name)}, which it is given: expected a function that leaves its "
                    "argument unchanged"
                )

    def _evaluated(self, arrays: Arrays) -> Any:
        given = {name: array[None] for name, array in arrays.items()} if self._vectorized else arrays
        return quietly(self._loss, self._form.packed(given))

    def _measured(self, returned: Any, where: Callable[[], str]) -> Evaluation:
        """Return the value of what the loss returned; refuse anything but a number."""
        return Evaluation(_number(calls.numbers(returned, 1, where)[0] if self._vectorized else returned, where))

    def _together(self, stack: Arrays, where: Callable[[], str]) -> np.ndarray:
        """Evaluate points along a leading axis as `sample` evaluates one; raise what the loss raises."""
        count = len(next(iter(stack.values())))
        return calls.numbers(quietly(self._loss, self._form.packed(stack)), count, where)

    @property
    def _size_of_call(self) -> int:
        """The numbers that the loss takes and returns."""
        return 1 + sum(array.size for array in self.params.values())

    def _verified_stacks(self) -> Stacked:
        """Return the loss as a function of stacks, once that is shown to be right."""
        function = self.names.function
        stacked = Stacked(
            self.params,
            self.least_noise.shape,
            self._size_of_call,
            self._together,
            lambda stack: self.refuse_changes(stack, function),
        )
        noise = float(np.max(NOISES * self.least_noise + 2 * self.declared_errors))
        stacked.verify(lambda arrays: self.sample(arrays, lambda: "near the start point"), function, noise)
        return stacked

    def _declared(self, noise: float | None, relative_noise: float | None) -> float:
        """Return the declared bound on the error of a value, and note it; 0 without one."""
        accuracy = _accuracy(noise, relative_noise, self.start)
        if accuracy:
            self.findings.append(health.loss_accuracy(accuracy))
        return accuracy

    def _scattered(self) -> tuple[float, list[HealthFinding]]:
        """Return the standard deviation of the loss from call to call, and a finding if there is one."""
        return state.scatter(self.start, self._value_here, self.accuracy, self._scale)

    def _value_here(self) -> float:
        """Evaluate the loss at params themselves, where it must be a finite number."""
        arrays = self.copies()
        try:
            value = self._measured(self._evaluated(arrays), lambda: START).value
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by(self.names.function, error, self._start) from error
        self.refuse_changes(arrays, self.names.function)
        if not math.isfinite(value):
            raise FastcheckError(f"{self.names.function} is {value!r} {START}: expected a finite number")
        return value

    @property
    def _start(self) -> str:
        """Words for the start point, where a function raises: it may expect the tensors that the user has."""
        return f"{START}, called with NumPy arrays (torch.as_tensor makes tensors)" if self._form.has_tensors else START

    def _scale(self) -> float:
        """Return how much the loss, if it were linear, would change when all params became zero."""
        changes = []
        for part in (1 + MOVED, 1 - MOVED):
            arrays = {name: part * array for name, array in self.params.items()}
            changes.append(abs(self.value(arrays, lambda: "at slightly perturbed params") - self.start) / MOVED)
        return max((change for change in changes if math.isfinite(change)), default=0.0)

    def _same(self, before: float, after: float) -> bool:
        accuracy = max(self.accuracy, NOISES * self.scatter)
        return state.same(before, after, self._value_here, accuracy, self._size_of(before))

    def _size_of(self, value: float) -> float:
        """Return the size of which a value's rounding is a fraction."""
        return abs(value)

    def _after_moves(self) -> Iterator[tuple[float, float]]:
        """Yield pairs of values that should be equal: at one other point in separate arrays, then at params again.

        The last evaluation reuses an array of the other point, which exposes a loss that caches by identity.
        """
        several = [self.copies() for _ in range(3)]
        for arrays in several:
            for array in arrays.values():
                array *= 1 + MOVED
        first, *others = [self.value(arrays, lambda: "at slightly perturbed params") for arrays in several]
        yield from ((first, other) for other in others)
        for name, array in several[0].items():
            array[...] = self.params[name]
        yield self.start, self.value(several[0], lambda: START)

    def _called_gradient(self) -> dict[str, Floating]:
        arrays = self.copies()
        assert self._grad is not None
        try:
            grad = quietly(self._grad, self._form.packed(arrays))
        except FastcheckError:
            raise
        except Exception as error:
            raise raised_by(self.names.gradient, error, self._start) from error
        if grad is None:
            raise FastcheckError(f"{self.names.gradient} returns None {self._start}: is its return missing?")
        matched = self._matched(grad)
        self.refuse_changes(arrays, self.names.gradient)
        return matched

    def _examine_gradient(self, before: float) -> None:
        """Call the gradient again, then the loss: both should repeat their values."""
        again = _values(self._called_gradient())
        self.start = self._value_here()
        if not self._same(before, self.start):
            self.findings.append(health.loss_changed_by_grad(before, self.start, self.names))
            return
        self.wavering, findings = self._repeated(again)
        self.later = again if findings else {}
        self.findings += findings

    def _repeated(self, again: Arrays) -> tuple[Arrays, list[HealthFinding]]:
        """Compare the gradient of a second call; return how much it differs, and a finding if there is one."""
        units = {name: self.half_unit(name) for name in self.grads}
        return state.compared(self.grads, again, lambda: _values(self._called_gradient()), units, self.names.gradient)

    def _matched(self, grad: Any) -> dict[str, Floating]:
        """Return copies of the gradient's arrays, in the order of params."""
        return {name: self._shaped(name, value) for name, value in self._form.named("grad", grad).items()}

    def _shaped(self, name: str, value: Any) -> Floating:
        label = self.gradient_label(name)
        array, precision = gradient(label, value, self.precision)
        expected = self.params[name].shape
        if array.shape != expected:
            hint = of_other_shape(label, value, expected)
            whose = f"{expected}, that of {self.label(name)}"
            raise FastcheckError(f"{label} has shape {array.shape}: expected {whose}{hint}")
        return Floating(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"), precision)


def _values(arrays: Mapping[str, Floating]) -> Arrays:
    return {name: one.values for name, one in arrays.items()}


def _largest(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].max(initial=0.0))


def quietly(function: Callable[[Any], Any], params: Any) -> Any:
    """Call a user's function without NumPy's warnings: an overflow is a value like any other."""
    with np.errstate(all="ignore"):
        return function(params)


def _accuracy(noise: float | None, relative_noise: float | None, value: float) -> float:
    """Return the declared bound on the error of a value of the loss."""
    absolute = 0.0 if noise is None else positive("noise", noise)
    relative = 0.0 if relative_noise is None else positive("relative_noise", relative_noise)
    if relative and not value:
        raise FastcheckError(
            f"relative_noise is {relative_noise!r}, but the loss is 0 {START}: expected noise= instead"
        )
    return max(absolute, relative * abs(value))


def _instead(returned: Any) -> str:
    """Return what a loss that returns no number is likely to have meant, or an empty string."""
    if returned is None:
        return "; is its return missing?"
    if isinstance(returned, (list, tuple)) and returned and returned[0] is not None and np.ndim(returned[0]) == 0:
        return "; its first element is one: return that alone"
    return ""


def _number(returned: Any, where: Callable[[], str]) -> float:
    value = returned
    if isinstance(value, np.ma.MaskedArray):
        raise FastcheckError(f"loss returns a masked array {where()}: expected one number")
    if hasattr(value, "item"):  # an array of NumPy or another library
        size = math.prod(getattr(value, "shape", ()))
        if size != 1:
            shape = tuple(value.shape)
            raise FastcheckError(
                f"loss returns an array of shape {shape} {where()}: expected one number, such as (v * output).sum() "
                "with a fixed v, the grad_output"
            )
        value = value.item()
    if isinstance(value, np.floating):  # longdouble's item() is itself
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FastcheckError(
            f"loss returns {brief(repr(returned), LONGEST_VALUE)} {where()}: expected one number{_instead(returned)}"
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf
