"""Parts shared by the commands: parameter types, options, and the example below a command's help."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import click

from fastcheck.cli.output import say
from fastcheck.common import machine
from fastcheck.common.arguments import integer, positive
from fastcheck.common.precision import PRECISIONS
from fastcheck.engine.settings import KINKS


class Integers(click.ParamType[Any]):
    """One integer, or one per spatial axis: 2 or 2,1."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected an integer, or one per spatial axis (2,1)", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


class Padding(click.ParamType[Any]):
    """One integer (1), one per spatial axis (1,2), pairs low:high (0:1,2:2), same or valid."""

    name = "P"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).lower() in ("same", "valid"):
            return str(value).lower()
        try:
            entries = [self._entry(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected integers (1 or 1,2), pairs (0:1,2:2), same or valid", param, ctx)
        return entries[0] if len(entries) == 1 and isinstance(entries[0], int) else entries

    @staticmethod
    def _entry(part: str) -> int | tuple[int, int]:
        if ":" not in part:
            return int(part)
        low, high = part.split(":")
        return int(low), int(high)


class Dims(click.ParamType[Any]):
    """all, auto, or a number."""

    name = "all|auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("all", "auto"):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: expected all, auto or a number of at least 1", param, ctx)


class Directions(click.ParamType[Any]):
    """auto, or a number from 0."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value == "auto" else integer("directions", int(value), least=0)
        except ValueError:
            self.fail(f"{value!r}: expected auto or a number of at least 0", param, ctx)


class StepType(click.ParamType[Any]):
    """auto, or a number, such as 1e-5 or 2^-17."""

    name = "auto|H"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            power = re.fullmatch(r"2(?:\^|\*\*)([+-]?\d{1,3})", str(value))
            return float(value) if power is None else 2.0 ** int(power[1])
        except ValueError:
            self.fail(f"{value!r}: expected auto or a number such as 1e-5 or 2^-17", param, ctx)


class Indices(click.ParamType[Any]):
    """A number of worst dimensions, or comma-separated flat indices: 3,17; a single index needs a final comma: 17,."""

    name = "N|I,I..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [int(part) for part in str(value).removesuffix(",").split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected a number, or flat indices such as 3,17", param, ctx)
        return numbers if "," in str(value) else numbers[0]


class Seconds(click.ParamType[Any]):
    """A positive finite number of seconds."""

    name = "S"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return positive("seconds", float(value))
        except ValueError:
            self.fail(f"{value!r}: expected a positive finite number of seconds", param, ctx)


class StepList(click.ParamType[Any]):
    """Comma-separated steps."""

    name = "H,H..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected comma-separated numbers, such as 1e-1,1e-2,1e-3,1e-4", param, ctx)


class Names(click.ParamType[Any]):
    """Comma-separated names."""

    name = "NAME[,NAME...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(part.strip() for part in str(value).split(","))


class Renaming(click.ParamType[Any]):
    """Names in a file: weight=w,grad_weight=dW."""

    name = "NAME=KEY[,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        pairs = [part.strip().partition("=") for part in str(value).split(",")]
        if not all(name and key for name, _, key in pairs):
            self.fail(f"{value!r}: expected names and the file's keys, such as weight=w,grad_weight=dW", param, ctx)
        return {name: key for name, _, key in pairs}


def printing(text: Callable[[click.Context], str]) -> Callable[[click.Context, click.Parameter, bool], None]:
    """Make the callback of an option that prints a text by `say` and ends the command; click's own may raise."""

    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            say(f"{text(context)}\n")
            context.exit()

    return show


_help_option = click.help_option("-h", "--help", callback=printing(lambda context: context.get_help()))


def examples(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a help option to a command, and an example to its help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__doc__ = f"{function.__doc__}\n\n    \b\n    Example:\n      {text}\n"
        return _help_option(function)

    return decorate


json_option = click.option(
    "--json", "json_path", metavar="F", help="Write the JSON report to F; with -, print it alone on standard output."
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Print every ratio, audit, regime and the worst dimensions of all tensors."
)
map_option = click.option(
    "--map",
    "mapped",
    is_flag=True,
    help="Show where the digits are: over filters, channels and taps, and over the image.",
)
table_option = click.option(
    "--table", "table_path", metavar="F.csv", help="Write every checked dimension to a CSV file."
)
directions_option = click.option(
    "--directions",
    type=Directions(),
    default="auto",
    show_default=True,
    help="Directions over all dimensions at once; auto: 20 where --dims leaves some out, else none.",
)
step_option = click.option(
    "--step", type=StepType(), default="auto", show_default=True, help="Step h of the differences."
)


def evaluator_option(names: Collection[str]) -> Callable[[Any], Any]:
    """Return the option that chooses among evaluators."""
    return click.option("--evaluator", type=click.Choice(("auto", *names)), default="auto", show_default=True)


def dims_option(default: str, help: str) -> Callable[[Any], Any]:
    """Return the option for the number of dimensions to check."""
    return click.option("--dims", type=Dims(), default=default, show_default=True, help=help)


def seed_option(help: str) -> Callable[[Any], Any]:
    """Return the option for the random seed."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=help)


kinks_option = click.option(
    "--kinks",
    type=click.Choice(KINKS),
    default="widen",
    show_default=True,
    help="Treatment of a dimension that crosses a kink: widen its error bar, or leave it out and count it.",
)
precision_option = click.option(
    "--precision", type=click.Choice(PRECISIONS), help="Precision of the analytic pass, if its dtype does not show it."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, machine.MOST_THREADS), help="Number of threads. Default: all processors."
)
