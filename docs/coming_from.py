"""The same check by each of several gradient checkers, on five faults, written into docs/coming-from.md.

python docs/coming_from.py [--check]

A layer's GELU (the approximation by tanh) and its backward pass are checked by every checker that is installed; rows of
others stay as they are on the page. --check writes nothing, and ends with status 1 where the page says something else.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).parent / "coming-from.md"

OPEN, CLOSE = "<!-- faults: written by docs/coming_from.py -->\n", "<!-- end -->"

C, K = float(np.sqrt(2 / np.pi)), 0.044715

X = 1.5 * np.random.default_rng(0).normal(size=(8, 8))
"""Where all of them check."""

AT = 17
"""The entry that one fault changes."""

Slope = Callable[[Any, Any], Any]
"""Takes a module of array functions and the input; returns the derivative of each output by its input."""


def gelu(xp: Any, x: Any) -> Any:
    """Return x Phi(x), by Hendrycks and Gimpel's approximation."""
    return 0.5 * x * (1 + xp.tanh(C * (x + K * x**3)))


def right(xp: Any, x: Any, k: float = K) -> Any:
    """Return the derivative."""
    t = xp.tanh(C * (x + k * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * C * (1 + 3 * k * x**2)


def _in_one_entry(xp: Any, x: Any) -> Any:
    factors = np.ones(X.size)
    factors[AT] = 1.01
    return right(xp, x) * xp.asarray(factors.reshape(X.shape))


def _second_term_forgotten(xp: Any, x: Any) -> Any:
    return 0.5 * (1 + xp.tanh(C * (x + K * x**3)))


FAULTS: dict[str, Slope] = {
    "none": right,
    "0.04471 for 0.044715": lambda xp, x: right(xp, x, 0.04471),
    "one entry of 64 off by 1 %": _in_one_entry,
    "slope 1 beyond 2.5": lambda xp, x: xp.where(x > 2.5, 1.0, right(xp, x)),
    "divided by the 8 rows": lambda xp, x: right(xp, x) / len(X),
    "second term forgotten": _second_term_forgotten,
}
"""Derivatives, the right one first."""


def by_fastcheck(slope: Slope) -> str:
    import fastcheck

    report = fastcheck.check_vjp(lambda x: gelu(np, x), lambda v, x: v * slope(np, x), [X], progress=False)
    wrong = re.search(r"is wrong in ([^(]*?entries)", str(report).replace("\n ", ""))
    return f"fails: {wrong[1]}" if wrong else report.verdict + "es"


def _by_torch(slope: Slope, check: Callable[..., Any]) -> str:
    import torch

    class Gelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return gelu(torch, x)

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:
            return grad_output * slope(torch, ctx.saved_tensors[0])

    return _answer(lambda: check(Gelu.apply, torch.tensor(X, requires_grad=True)))


def by_torch(slope: Slope) -> str:
    import torch

    return _by_torch(slope, torch.autograd.gradcheck)


def by_fast_mode(slope: Slope) -> str:
    import torch

    return _by_torch(slope, lambda function, x: torch.autograd.gradcheck(function, x, fast_mode=True))


def by_jax(slope: Slope) -> str:
    import jax
    from jax.test_util import check_grads

    function = jax.custom_vjp(lambda x: gelu(jax.numpy, x))
    function.defvjp(lambda x: (gelu(jax.numpy, x), x), lambda x, v: (v * slope(jax.numpy, x),))
    with jax.enable_x64(True):
        return _answer(lambda: check_grads(function, (jax.numpy.array(X),), order=1, modes=["rev"]))


def by_scipy(slope: Slope) -> str:
    from scipy.optimize import check_grad

    apart = check_grad(lambda x: gelu(np, x).sum(), lambda x: slope(np, x.reshape(X.shape)).ravel(), X.ravel())
    return f"returns {apart:.0e}"


def by_pytensor(slope: Slope) -> str:
    import pytensor
    import pytensor.tensor as pt
    from pytensor.gradient import verify_grad

    class Gelu(pytensor.graph.op.Op):
        itypes, otypes = [pt.dmatrix], [pt.dmatrix]

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            outputs[0][0] = gelu(np, inputs[0])

        def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> Any:
            return [cotangents[0] * _Derivative(slope)(inputs[0])]

    class _Derivative(pytensor.graph.op.Op):
        itypes, otypes = [pt.dmatrix], [pt.dmatrix]

        def __init__(self, slope: Slope) -> None:
            self.slope = slope

        def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
            outputs[0][0] = self.slope(np, inputs[0])

    with pytensor.config.change_flags(mode="FAST_COMPILE", cxx=""):
        return _answer(lambda: verify_grad(Gelu(), [X], rng=np.random.default_rng(0)))


def by_warp(slope: Slope) -> str:
    import warp as wp
    import warp.autograd

    wp.config.quiet = True

    @wp.func
    def gelu_of(x: wp.float64, derivative: wp.float64) -> wp.float64:
        cubic = wp.float64(C) * (x + wp.float64(K) * x * x * x)
        return wp.float64(0.5) * x * (wp.float64(1.0) + wp.tanh(cubic))

    @wp.func_grad(gelu_of)
    def adjoint(x: wp.float64, derivative: wp.float64, cotangent: wp.float64):
        wp.adjoint[x] += cotangent * derivative

    @wp.kernel
    def every(x: wp.array(dtype=wp.float64), derivative: wp.array(dtype=wp.float64), y: wp.array(dtype=wp.float64)):
        i = wp.tid()
        y[i] = gelu_of(x[i], derivative[i])

    x, y = (wp.array(array, dtype=wp.float64, requires_grad=True) for array in (X.ravel(), np.zeros(X.size)))
    derivative = wp.array(slope(np, X).ravel(), dtype=wp.float64)
    options = {"raise_exception": False, "show_summary": False, "input_output_mask": [("x", "y")]}
    return _answer(lambda: warp.autograd.gradcheck(every, X.size, [x, derivative], [y], **options))


def by_course(slope: Slope) -> str:
    """As course notes teach it: ten random entries, h of 1e-5, |a - n| / (|a| + |n|) printed for each."""
    analytic, errors = slope(np, X), []
    for index in np.random.default_rng(0).choice(X.size, 10, replace=False):
        moved = [X.copy(), X.copy()]
        for one, h in zip(moved, (1e-5, -1e-5), strict=True):
            one.flat[index] += h
        numeric = (gelu(np, moved[0]).sum() - gelu(np, moved[1]).sum()) / 2e-5
        errors.append(abs(analytic.flat[index] - numeric) / (abs(analytic.flat[index]) + abs(numeric)))
    return f"prints up to {max(errors):.0e}"


def by_allclose(slope: Slope) -> str:
    """As kernels are tested: against automatic differentiation of another implementation, in float32."""
    import torch

    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(x, approximate="tanh").sum(), x)
    return _answer(lambda: torch.testing.assert_close(slope(torch, x.detach()).float(), expected, rtol=1e-2, atol=1e-2))


CHECKERS: dict[str, tuple[str, Callable[[Slope], str]]] = {
    "fastcheck": ("numpy", by_fastcheck),
    "torch.autograd.gradcheck": ("torch", by_torch),
    "its fast mode": ("torch", by_fast_mode),
    "jax.test_util.check_grads": ("jax", by_jax),
    "scipy.optimize.check_grad": ("scipy", by_scipy),
    "warp.autograd.gradcheck": ("warp", by_warp),
    "pytensor.gradient.verify_grad": ("pytensor", by_pytensor),
    "grad_check_sparse": ("numpy", by_course),
    "assert_close, 1e-2": ("torch", by_allclose),
}
"""What each checker needs, and its check of a derivative; the answer in a few words."""


def row(name: str) -> str | None:
    """Return a checker's row of the table; None where it is not installed."""
    needed, check = CHECKERS[name]
    try:
        importlib.import_module(needed)
    except ImportError:
        return None
    return f"| `{name}` | {' | '.join(check(slope) for slope in FAULTS.values())} |"


def table(page: str) -> str:
    """Return the table, with the page's own rows of checkers that are not installed."""
    kept = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    head = ["| checker | no fault | " + " | ".join(list(FAULTS)[1:]) + " |", "| --- |" + " --- |" * len(FAULTS)]
    return "\n".join([*head, *(row(name) or kept[name] for name in CHECKERS)]) + "\n"


def written(page: str) -> str:
    """Return the page with the table as it should be."""
    before, _, rest = page.partition(OPEN)
    return f"{before}{OPEN}{table(page)}{CLOSE}{rest.partition(CLOSE)[2]}"


def _answer(check: Callable[[], Any]) -> str:
    """Return whether a check passes; some return False, and some raise."""
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        try:
            return "fails" if check() is False else "passes"
        except (AssertionError, RuntimeError, ValueError):
            return "fails"
        except Exception as error:
            if type(error).__name__ == "GradientError":  # pytensor's
                return "fails"
            raise


def main() -> int:
    """Write the page, or compare it."""
    page = PAGE.read_text()
    made = written(page)
    if "--check" in sys.argv:
        return int(made != page)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
