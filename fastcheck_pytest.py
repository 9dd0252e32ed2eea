"""The pytest plugin: the fixture ``gradcheck``, its options, and what becomes of its reports.

It is not part of the package, because importing the package takes a while, and pytest imports plugins in every run:
nothing of fastcheck is imported before a test checks something.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import os
import random
import re
import shlex
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastcheck import ConvCase, Network, NetworkReport, Report

__tracebackhide__ = True
"""Asks pytest to leave the functions of this module out of tracebacks, which then end at the test's own line."""

_RANDOM = "random"

_LONGEST_NAME = 120
"""Largest number of characters of a file's name, but for a digest and its ending."""


# Options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fixture."""
    group = parser.getgroup("fastcheck", "gradient checks, by the fixture gradcheck")
    group.addoption(
        "--fastcheck-seed",
        type=_seed,
        metavar="N",
        help="Random seed of checks that give none, 0 by default; 'random' takes another one in every run.",
    )
    group.addoption(
        "--fastcheck-dims",
        type=_dims,
        metavar="all|auto|N",
        help="Dimensions to check, where a check gives none: all, a sample of N, or what takes seconds (auto).",
    )
    group.addoption("--fastcheck-report", metavar="DIR", help="Write the JSON report of every check into this folder.")


def _seed(text: str) -> int | str:
    return _RANDOM if text == _RANDOM else _number(text, 0, f"{_RANDOM!r} or a number")


def _dims(text: str) -> int | str:
    return text if text in ("all", "auto") else _number(text, 1, "'all', 'auto' or a number")


def _number(text: str, least: int, expected: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"it is {text!r}: expected {expected} of at least {least}")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Settle what must be the same in all processes of a run, before any worker starts with these options."""
    options = config.option
    if options.fastcheck_seed == _RANDOM:
        options.fastcheck_seed = random.SystemRandom().randrange(10**6)
    if options.fastcheck_report is not None:
        options.fastcheck_report = os.path.abspath(config.invocation_params.dir / options.fastcheck_report)
        try:
            os.makedirs(options.fastcheck_report, exist_ok=True)
        except OSError as error:
            message = f"--fastcheck-report {options.fastcheck_report} cannot be made: {error.strerror or error}"
            raise pytest.UsageError(message) from None


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return the options that are given, since those of a configuration file are easily forgotten."""
    options = _given(config, "seed", "dims", "report")
    return f"fastcheck: {' '.join(options)}" if options else None


def _given(config: pytest.Config, *names: str) -> list[str]:
    """Return the options that are given, as they are written on a command line."""
    values = ((f"--fastcheck-{name}", config.getoption(f"fastcheck_{name}")) for name in names)
    return [f"{option} {shlex.quote(str(value))}" for option, value in values if value is not None]


# The fixture


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> GradCheck:
    """Check gradients: gradcheck.vjp, .function, .case, .network, .torch and .jax fail the test in about ten lines."""
    return GradCheck(request.node)


class GradCheck:
    """The fixture ``gradcheck`` of a test.

    Each method calls a function of fastcheck with the arguments that it gets, and returns the report if the check
    passed. Otherwise the test fails with a `fastcheck.GradientMismatchError`, whose text says which tensor is wrong,
    where and by how much, and how to run the check again. A check that is *inconclusive* fails too, since nobody knows
    that such a gradient is right; ``inconclusive="pass"`` returns its report.

    The options ``seed`` and ``dims`` are those of the command line where a call does not give them, and ``keep`` is
    True, so that a failure says where wrong entries lie.
    """

    def __init__(self, node: pytest.Item) -> None:
        self._node, self._checks = node, 0

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Refuse to be called as PyTorch's function of this name is."""
        from fastcheck import FastcheckError

        raise FastcheckError(
            "gradcheck is fastcheck's fixture: call gradcheck.torch(function, x, w), .jax, .vjp, .function, .case or "
            ".network (fastcheck.torch.gradcheck takes the arguments of PyTorch's)"
        )

    def vjp(self, forward: Callable[..., Any], backward: Callable[..., Any], inputs: Any, **options: Any) -> Report:
        """Check a forward and a backward pass of arrays by `fastcheck.check_vjp`."""
        from fastcheck import check_vjp

        return self._checked(check_vjp, (forward, backward, inputs), options)

    def function(self, loss: Callable[[Any], Any], grad: Any, params: Any, **options: Any) -> Report:
        """Check a loss and its gradient by `fastcheck.check_gradient`."""
        from fastcheck import check_gradient

        return self._checked(check_gradient, (loss, grad, params), options)

    def case(self, case: ConvCase, **options: Any) -> Report:
        """Check a convolution by `fastcheck.check`."""
        from fastcheck import check

        return self._checked(check, (case,), options)

    def network(self, network: Network, params: Any, grads: Any, x: Any, y: Any, **options: Any) -> NetworkReport:
        """Check a whole network by `fastcheck.check_network`."""
        from fastcheck import check_network

        return self._checked(check_network, (network, params, grads, x, y), options)

    def torch(self, function: Any, *inputs: Any, **options: Any) -> Report:
        """Check a function or a module of PyTorch by `fastcheck.torch.check`."""
        return self._checked(_adapter("torch").check, (function, *inputs), options)

    def jax(self, function: Callable[..., Any], *args: Any, **options: Any) -> Report:
        """Check a function of JAX by `fastcheck.jax.check`."""
        return self._checked(_adapter("jax").check, (function, *args), options)

    def _checked(self, check: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        from fastcheck import FastcheckError, GradientMismatchError
        from fastcheck.reports.brief import brief

        try:
            accepted = _accepted(options.pop("inconclusive", "fail"))
            report = check(*arguments, **self._defaults(check) | options)
        except FastcheckError as error:
            raise self._tidied(error) from error.__cause__
        self._keep(report)
        if report.interrupted:
            raise KeyboardInterrupt  # ends the run, and not this test alone
        if report.verdict not in accepted:
            own_seed = report.seed if "seed" in options else None
            raise GradientMismatchError("\n".join([*brief(report), self._replay(report.seed, own_seed)]), report)
        return report

    def _defaults(self, check: Callable[..., Any]) -> dict[str, Any]:
        """Return what a check gets that the test does not say, as far as it has such arguments."""
        parameters = inspect.signature(check).parameters
        config = self._node.config
        values = {"seed": config.getoption("fastcheck_seed"), "dims": config.getoption("fastcheck_dims"), "keep": True}
        return {name: value for name, value in values.items() if value is not None and name in parameters}

    def _keep(self, report: Report | NetworkReport) -> None:
        """Add a report's figures to the test's properties, and write its JSON where that is asked for."""
        self._checks += 1
        prefix = f"fastcheck.{self._checks}" if self._checks > 1 else "fastcheck"
        for name, value in {**_figures(report), "report": self._written(report)}.items():
            if value is not None:
                # The fixture record_property would warn of a strict schema, where this is no mistake of the test's.
                self._node.user_properties.append((f"{prefix}.{name}", value))

    def _written(self, report: Report | NetworkReport) -> str | None:
        """Write a report into the folder of reports, and return its path; None where there is no such folder."""
        from fastcheck.common.writing import write_whole

        folder = self._node.config.getoption("fastcheck_report")
        if folder is None:
            return None
        path = os.path.join(folder, _file_name(self._node.nodeid, self._checks))
        write_whole(path, lambda stream: stream.write(report.to_json()))
        return path

    def _replay(self, seed: int, own_seed: int | None) -> str:
        """Return the command that runs the check again."""
        config = self._node.config
        options = _given(config, "dims")
        options += [f"--fastcheck-seed {seed}"] if own_seed is None else [f" # seed={own_seed} is the test's own"]
        path = os.path.relpath(self._node.path, config.invocation_params.dir)
        names = self._node.nodeid.partition("::")[2]
        return " ".join(["replay: pytest", shlex.quote(f"{path}::{names}"), *options])

    def _tidied(self, error: BaseException) -> BaseException:
        """Take fastcheck's own frames off the tracebacks of an error and of its causes, except under --full-trace."""
        one: BaseException | None = error
        while one is not None and not self._node.config.getoption("fulltrace", False):
            one.__traceback__ = _without_ours(one.__traceback__)
            one = one.__cause__
        return error


def _figures(report: Report | NetworkReport) -> dict[str, str | int | float | None]:
    """Return what a table of many checks would show of this one."""
    from fastcheck.reports.suite_report import every_tensor

    tensors = [tensor for _, _, tensor in every_tensor(report)]
    digits = [tensor.digits["min"] for tensor in tensors if tensor.digits["min"] is not None]
    return {
        "verdict": report.verdict,
        "seed": report.seed,
        "checked": sum(tensor.dims_checked for tensor in tensors),
        "of": sum(tensor.dims_total for tensor in tensors),
        "wrong": sum(tensor.beyond_error_bar for tensor in tensors),
        "fewest_digits": round(min(digits), 1) if digits else None,
    }


def _accepted(inconclusive: object) -> tuple[str, ...]:
    """Return the verdicts of a test that passes."""
    from fastcheck.common.naming import refuse_unknown

    refuse_unknown("inconclusive", inconclusive, ("fail", "pass"))
    return ("pass", "inconclusive") if inconclusive == "pass" else ("pass",)


def _adapter(name: str) -> ModuleType:
    """Import the part of fastcheck for a framework."""
    from fastcheck import FastcheckError
    from fastcheck.common.extras import installing

    try:
        return importlib.import_module(f"fastcheck.{name}")
    except ModuleNotFoundError as error:
        absent = error.name
    if absent == f"fastcheck.{name}":
        raise FastcheckError(f"gradcheck.{name}: this version of fastcheck has no {absent}")
    raise FastcheckError(f"gradcheck.{name} needs {absent}, which is not installed: {installing(name)}")


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of fastcheck, which surround those of the user's functions."""
    steps = []
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for step in reversed(steps):
        module = str(step.tb_frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in ("fastcheck", "fastcheck_kernels"):
            kept = TracebackType(kept, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return kept


def _file_name(nodeid: str, number: int) -> str:
    """Return a name for a check's report that any file system takes: the test's, with a digest of all of it."""
    words = re.sub(r"[^\w.-]+", "_", nodeid, flags=re.ASCII)[-_LONGEST_NAME:].strip("_")
    digest = hashlib.sha256(nodeid.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{words}-{digest}{f'-{number}' if number > 1 else ''}.json"
