"""The command line: arguments to the same public functions."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from fastcheck import npz, zoo
from fastcheck.cases.conv import LOSSES, PRECISIONS
from fastcheck.check import EVALUATORS, KINKS, check, compare
from fastcheck.errors import FastcheckError, GradientMismatchError
from fastcheck.interrupts import Interrupts, listening
from fastcheck.published import NETWORKS
from fastcheck.report import Report
from fastcheck.suite import SuiteReport
from fastcheck.sweep import EVALUATORS as SWEPT_BY
from fastcheck.sweep import sweep
from fastcheck.sweep_report import Sweep
from fastcheck.version import __version__

USAGE_ERROR = 2
INTERRUPTED = 130


class _Integers(click.ParamType[Any]):
    """One integer, or one for each spatial axis: 2 or 2,1."""

    name = "N[,N...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [int(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected an integer, or one for each spatial axis (2,1)", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


class _Padding(click.ParamType[Any]):
    """1, one for each spatial axis (1,2), pairs low:high (0:1,2:2), same or valid."""

    name = "P"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("same", "valid"):
            return value
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


class _Dims(click.ParamType[Any]):
    """all, auto, or a number."""

    name = "all|auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("all", "auto"):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: expected all, auto or a number of at least 1", param, ctx)


class _Step(click.ParamType[Any]):
    """auto, or a number."""

    name = "auto|H"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto":
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r}: expected auto or a number such as 1e-5", param, ctx)


class _Indices(click.ParamType[Any]):
    """A number of the worst, or flat indices with commas: 3,17; a comma behind a single one: 17,."""

    name = "N|I,I..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [int(part) for part in str(value).removesuffix(",").split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected a number, or flat indices such as 3,17", param, ctx)
        return numbers if "," in str(value) else numbers[0]


class _StepList(click.ParamType[Any]):
    """Steps with commas between them."""

    name = "H,H..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected numbers with commas between them, such as 1e-1,1e-2,1e-3,1e-4", param, ctx)


class _Names(click.ParamType[Any]):
    """Names with commas between them."""

    name = "NAME[,NAME...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return tuple(part.strip() for part in str(value).split(","))


def _examples(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put an example below a command's help, and let a command without arguments be readable as well."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__doc__ = f"{function.__doc__}\n\n    \b\n    Example:\n      {text}\n"
        return function

    return decorate


_json_option = click.option(
    "--json", "json_path", metavar="F", help="Write the JSON report to F; - prints it alone on standard output."
)
_table_option = click.option(
    "--table", "table_path", metavar="F.csv", help="Write every checked dimension to a CSV file."
)


_CASE_OPTIONS = (
    click.argument("case_path", metavar="CASE.npz"),
    click.option("--stride", type=_Integers(), help="Wins over the file's, as do the next four."),
    click.option("--padding", type=_Padding(), help="1, 1,2, low:high pairs such as 0:1,2:2, same or valid."),
    click.option("--dilation", type=_Integers()),
    click.option("--groups", type=int),
    click.option(
        "--loss", type=click.Choice(LOSSES), help="The loss is sum(grad_output * phi(output)); vjp: phi(z) = z."
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), help="How the analytic pass computed, where dtypes do not tell."
    ),
)


def _case_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what names a convolution case: its file, and what wins over the file."""
    for option in reversed(_CASE_OPTIONS):
        function = option(function)
    return function


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fastcheck")
@_examples("fastcheck conv layer.npz --stride 2 --padding 1")
def cli() -> None:
    """Check a gradient that was written by hand, and learn how close is close enough.

    Exit status: 0 pass, 1 a gradient (or the declared forward) is wrong, 2 bad input or usage, 3 inconclusive or
    crashed, 130 interrupted; of several cases the worst decides.
    """


@cli.command("conv")
@_case_options
@click.option(
    "--dims",
    type=_Dims(),
    default="auto",
    show_default=True,
    help="Dimensions to check: a number is spread over the tensors.",
)
@click.option("--step", type=_Step(), default="auto", show_default=True, help="The step h of the differences.")
@click.option("--evaluator", type=click.Choice(EVALUATORS), default="auto", show_default=True)
@click.option(
    "--kinks",
    type=click.Choice(KINKS),
    default="widen",
    show_default=True,
    help="What becomes of a dimension that crosses one: a wider error bar, or it is left out and counted.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all processors.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")
@click.option("--explain", is_flag=True, help="Of failing tensors, sweep the step at the worst dimensions.")
@_table_option
@_json_option
@_examples("fastcheck conv layer.npz --stride 2 --padding 0:1,2:2 --dims all --table dims.csv")
def conv_command(
    case_path: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int | None,
    loss: str | None,
    precision: str | None,
    dims: Any,
    step: Any,
    evaluator: Any,
    kinks: Any,
    threads: int | None,
    seed: int,
    explain: bool,
    table_path: str | None,
    json_path: str | None,
) -> int:
    """Check a convolution layer of one to three spatial axes.

    CASE.npz holds input, weight, grad_output, at least one of grad_input, grad_weight and grad_bias, and optionally
    bias, output, stride, padding, dilation, groups, loss and precision.
    """
    from fastcheck.render.progress import progress_bar

    _check_paths(table_path, json_path, read=(case_path,))
    case = npz.load_case(
        case_path, stride=stride, padding=padding, dilation=dilation, groups=groups, loss=loss, precision=precision
    )
    with progress_bar() as hook:
        report = check(
            case,
            dims=dims,
            step=step,
            evaluator=evaluator,
            kinks=kinks,
            threads=threads,
            seed=seed,
            keep=table_path is not None,
            explain=explain,
            progress=hook,
        )
    _write_table(report, table_path)
    _deliver(report, case_path, json_path)
    return report.exit_code


@cli.command("sweep")
@_case_options
@click.option("--tensor", help="input, weight or bias; by default all that have a gradient.")
@click.option(
    "--dims",
    type=_Indices(),
    default="3",
    show_default=True,
    help="So many of each tensor, the worst by a check; or flat indices of --tensor: 3,17.",
)
@click.option("--steps", type=_StepList(), help="Default: 1e-1 to 1e-12, four in each decade.")
@click.option("--evaluator", type=click.Choice(SWEPT_BY), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all processors.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the check's sample.")
@click.option(
    "--plot", "plot_path", metavar="F.svg|F.png", help='Draw it to a file; needs: pip install "fastcheck[plot]".'
)
@_json_option
@_examples("fastcheck sweep layer.npz --tensor weight --dims 3,17 --plot sweep.svg")
def sweep_command(
    case_path: str,
    tensor: str | None,
    dims: Any,
    steps: Any,
    evaluator: Any,
    threads: int | None,
    seed: int,
    plot_path: str | None,
    json_path: str | None,
    **options: Any,
) -> int:
    """Difference a few dimensions at many steps h, and read what the curve of errors tells.

    The error of a correct gradient falls as h^2 (truncation) and rises as 1/h (round-off). A plateau is a coding
    mistake, a sudden fall a kink. Exit status 1 where a dimension reads as a coding mistake.
    """
    from fastcheck.render.progress import progress_bar
    from fastcheck.render.sweep import write_sweep
    from fastcheck.render.text import text_for

    _check_paths(plot_path, json_path, read=(case_path,), option="--plot")
    picture = None if plot_path is None else _drawer(plot_path)
    case = npz.load_case(case_path, **options)
    try:
        with progress_bar() as hook:
            found = sweep(
                case,
                tensor=tensor,
                dims=dims,
                steps=steps,
                evaluator=evaluator,
                threads=threads,
                seed=seed,
                progress=hook,
            )
    except GradientMismatchError as error:  # of the forward pass: the gradients are another function's
        _deliver(error.report, case_path, json_path)
        return error.report.exit_code
    if plot_path is not None and picture is not None:
        npz.write_bytes(plot_path, picture(found))
    if json_path not in (None, "-"):
        npz.write_whole(json_path, lambda stream: stream.write(found.to_json()))
    _say(found.to_json() if json_path == "-" else text_for(sys.stdout, lambda out: write_sweep(found, out, case_path)))
    return found.exit_code


def _drawer(plot_path: str) -> Callable[[Sweep], bytes]:
    """Return what draws a sweep in the format that the file's name asks for; refuse others before any work."""
    from fastcheck.render.plot import picture, picture_format

    ending = picture_format(plot_path)
    return lambda found: picture(found, ending)


@cli.command("compare")
@click.argument("analytic_path", metavar="A.npy")
@click.argument("numeric_path", metavar="N.npy")
@_table_option
@_json_option
@_examples("fastcheck compare analytic.npy numeric.npy")
def compare_command(analytic_path: str, numeric_path: str, table_path: str | None, json_path: str | None) -> int:
    """Compare two gradients that you already have: both ratios, digits and signs.

    Both files are .npy, or both .npz with the same names.
    """
    _check_paths(table_path, json_path, read=(analytic_path, numeric_path))
    report = compare(npz.read_gradients(analytic_path), npz.read_gradients(numeric_path), keep=table_path is not None)
    _write_table(report, table_path)
    _deliver(report, f"{analytic_path} against {numeric_path}", json_path)
    return report.exit_code


@cli.command("demo")
@click.option("--threads", type=click.IntRange(min=1), help="Default: all processors.")
@_examples("fastcheck demo")
def demo_command(threads: int | None) -> int:
    """Check the first layers of two published networks on a real photograph, then see a real bug fail.

    Needs the extra: pip install "fastcheck[demo]".
    """
    from fastcheck import demo
    from fastcheck.render.progress import progress_bar
    from fastcheck.render.text import as_text

    as_expected = True
    for scene in demo.SCENES:
        _say(f"\n{scene.story}\n")
        with progress_bar() as hook:
            if hook:
                hook("making the layer (the first run compiles the kernels)", 0, 0)
            case = scene.case(threads)
            report = check(case, dims=scene.dims, evaluator="local", threads=threads, progress=hook)
        _say(as_text(report, sys.stdout))
        if report.interrupted:
            return INTERRUPTED
        as_expected &= report.verdict == scene.expected
    return 0 if as_expected else 1


@cli.command("zoo")
@click.argument("network", metavar="NAME")
@click.option(
    "--backward",
    type=click.Choice(zoo.BACKWARDS),
    default="reference",
    show_default=True,
    help='Whose gradients; torch needs: pip install "fastcheck[torch]".',
)
@click.option("--tensors", type=_Names(), default="weight,bias", show_default=True, help="Those that a layer has.")
@click.option("--layers", type=_Names(), help="Names, or patterns such as layer1.*; by default all.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples.")
@click.option(
    "--dims", type=_Dims(), default="all", show_default=True, help="Dimensions of each layer, spread over its tensors."
)
@click.option("--step", type=_Step(), default="auto", show_default=True, help="The step h of the differences.")
@click.option("--evaluator", type=click.Choice(EVALUATORS), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: all processors.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the data and the sample.")
@_json_option
@_examples("fastcheck zoo resnet50 --layers 'layer1.*' --tensors weight,input --dims 1000")
def zoo_command(network: str, json_path: str | None, **options: Any) -> int:
    """Check every conv layer of a published network, at its published shapes, on seeded data.

    NAME is alexnet, vgg16, resnet50, mobilenet_v2, convnext_t, audio (WaveNet) or c3d.
    """
    from fastcheck.render.progress import progress_bar
    from fastcheck.render.text import case_line

    _check_paths(None, json_path)

    def tell(name: str, case: Report) -> None:
        _say(case_line(name, case))

    with progress_bar() as hook:
        suite = zoo.run(network, **options, on_case=None if json_path == "-" else tell, progress=hook)
    _deliver(suite, f"\n{network}: {NETWORKS[network].source}", json_path)
    return suite.exit_code


@cli.command("bench")
@click.option("--threads", type=click.IntRange(min=1), help="Of every side. Default: all processors.")
@_json_option
@_examples("fastcheck bench --json bench.json")
def bench_command(threads: int | None, json_path: str | None) -> int:
    """Measure this machine in about a minute: its vectors' limit, and checks of published layers beside it.

    Where PyTorch is installed, its own backward passes are measured as well, in turns with the checks.
    """
    from fastcheck import benchmark  # imports Numba
    from fastcheck.render.benchmark import write_benchmark
    from fastcheck.render.progress import progress_bar
    from fastcheck.render.text import text_for

    _check_paths(None, json_path)
    with progress_bar() as hook:
        found = benchmark.run(threads=threads, progress=hook)
    text = json.dumps(found, indent=2) + "\n"
    if json_path not in (None, "-"):
        npz.write_whole(json_path, lambda stream: stream.write(text))
    _say(text if json_path == "-" else text_for(sys.stdout, lambda out: write_benchmark(found, out)))
    return 0


@cli.command("show")
@click.argument("report_path", metavar="REPORT.json")
@_json_option
@_examples("fastcheck conv layer.npz --json report.json; fastcheck show report.json")
def show_command(report_path: str, json_path: str | None) -> int:
    """Print a report that was saved with --json; the exit status is that of the check."""
    _check_paths(None, json_path)
    report = npz.read_report(report_path)
    _deliver(report, report_path, json_path)
    return report.exit_code


def _check_paths(
    table_path: str | None, json_path: str | None, read: tuple[str, ...] = (), option: str = "--table"
) -> None:
    """Refuse output paths that could not be written, or that would overwrite each other or what is read."""
    if table_path == "-":
        raise FastcheckError(f"{option} is '-': expected a file (only --json writes to standard output)")
    taken = {os.path.realpath(path): path for path in read}
    for path in (table_path, json_path):
        if path is None or path == "-":
            continue
        npz.check_writable(path)
        if os.path.realpath(path) in taken:
            raise FastcheckError(f"{path} is named twice: expected an output file of its own")
        taken[os.path.realpath(path)] = path


def _write_table(report: Report, table_path: str | None) -> None:
    from fastcheck.render.table import write_table

    if table_path is not None:
        npz.write_whole(table_path, lambda stream: write_table(report, stream))


def _deliver(report: Report | SuiteReport, title: str, json_path: str | None) -> None:
    """Write the JSON report that was asked for, and print the report."""
    from fastcheck.render.text import as_text

    if json_path == "-":
        _say(report.to_json())
        return
    if json_path is not None:
        npz.write_whole(json_path, lambda stream: stream.write(report.to_json()))
    _say(as_text(report, sys.stdout, title))


def _say(text: str) -> None:
    """Write to standard output; whoever reads it may stop reading, which is no failure of the check."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise FastcheckError(f"standard output cannot be written: {error.strerror or error}") from None


def _prepare_streams() -> None:
    """Make the standard streams take any text, and exist."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, for the process's life
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status; bad input is told in one line on standard error."""
    _prepare_streams()
    with listening() as interrupts:
        sys.exit(_status(arguments, interrupts))


def _status(arguments: list[str] | None, interrupts: Interrupts) -> int:
    try:
        return int(cli.main(arguments, prog_name="fastcheck", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.ClickException as error:
        return _complain(error.format_message())
    except FastcheckError as error:
        return _complain(str(error))
    except MemoryError:
        return _complain("there is not enough memory for this case")
    except (KeyboardInterrupt, click.Abort):
        click.echo("fastcheck: interrupted", err=True)
        return INTERRUPTED
    except Exception:
        if not interrupts.heard:
            raise
        click.echo("fastcheck: interrupted", err=True)
        return INTERRUPTED


def _complain(message: str) -> int:
    click.echo(f"fastcheck: {' '.join(message.split())}", err=True)
    return USAGE_ERROR


if __name__ == "__main__":
    main()
