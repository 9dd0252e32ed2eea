"""The command line, which passes its arguments to the public functions."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

from fastcheck.check import check, compare
from fastcheck.cli.batch import run_command
from fastcheck.cli.network import network_command
from fastcheck.cli.output import check_paths, complain, deliver, deliver_report, deliver_table, say
from fastcheck.cli.probe import judge_command, probe_command
from fastcheck.cli.show import diff_command, show_command
from fastcheck.cli.types import (
    Indices,
    Integers,
    Names,
    Padding,
    Renaming,
    StepList,
    dims_option,
    directions_option,
    evaluator_option,
    examples,
    json_option,
    kinks_option,
    map_option,
    precision_option,
    printing,
    seed_option,
    step_option,
    table_option,
    threads_option,
    verbose_option,
)
from fastcheck.common import machine, writing
from fastcheck.common.errors import FastcheckError, as_message
from fastcheck.common.extras import installing
from fastcheck.common.interrupts import Interrupts, listening
from fastcheck.common.meanings import meant, remark
from fastcheck.common.naming import printable
from fastcheck.common.version import __version__
from fastcheck.convolutions import npz_case
from fastcheck.convolutions.case import EVALUATORS, LOSSES, ConvCase
from fastcheck.convolutions.geometry import PADDING_MODES
from fastcheck.convolutions.layout import LAYOUTS
from fastcheck.reports import files
from fastcheck.reports.mismatch import GradientMismatchError
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport
from fastcheck.sweeps.report import Sweep
from fastcheck.sweeps.sweep import sweep
from fastcheck.workloads import seeded, zoo
from fastcheck.workloads.published import NETWORKS

USAGE_ERROR = 2
INTERRUPTED = 130

_COMPLETE = "_FASTCHECK_COMPLETE"
"""Environment variable in which a shell requests completions from click."""


_CASE_OPTIONS = (
    click.argument("case_path", metavar="CASE.npz"),
    click.option(
        "--stride",
        type=Integers(),
        help="Stride: one integer, or one per axis (2,1). Overrides the file, as do the options up to --layout.",
    ),
    click.option(
        "--padding",
        type=Padding(),
        help="Padding: one integer, one per axis (1,2), pairs low:high (0:1,2:2), same or valid.",
    ),
    click.option("--padding-mode", type=click.Choice(PADDING_MODES), help="What the input is padded with."),
    click.option("--dilation", type=Integers(), help="Dilation: one integer, or one per axis (2,1)."),
    click.option("--groups", type=int, help="Number of groups of channels."),
    click.option("--transposed", is_flag=True, default=None, help="The convolution is transposed."),
    click.option(
        "--output-padding",
        type=Integers(),
        help="Outputs that a transposed convolution has more: one integer, or one per axis (1,0).",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSSES),
        help="phi in the loss sum(grad_output * phi(output)); vjp means phi(z) = z.",
    ),
    precision_option,
    click.option(
        "--layout",
        type=click.Choice(LAYOUTS, case_sensitive=False),
        help="Order of the arrays' axes. NHWC: channels last, and weights HWIO, or HWOI where transposed. Default: "
        "the file's, else NCHW.",
    ),
    click.option(
        "--keys",
        type=Renaming(),
        help="Names that the arrays have in the file: weight=w,grad_weight=dW.",
    ),
    click.option("--ignore-extra", is_flag=True, help="Ignore arrays of other names."),
)


def _case_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments of a convolution case: its file, and the options that override the file."""
    for option in reversed(_CASE_OPTIONS):
        function = option(function)
    return function


_COMMANDS = {".npz": "conv", ".npy": "compare", ".toml": "run", ".json": "show"}
"""The commands that take a file, by its ending."""


class _Commands(click.Group):
    """The commands; a file in place of one is refused with the command that takes it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        command = _COMMANDS.get(os.path.splitext(args[0])[1])
        if command is not None:
            ctx.fail(f"No such command {args[0]!r}: did you mean fastcheck {command} {args[0]}?")
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="Show the version and exit.",
    callback=printing(lambda context: f"fastcheck, version {__version__}"),
)
@examples("fastcheck conv layer.npz --stride 2 --padding 1")
def cli() -> None:
    """Check a hand-written gradient, and learn how close is close enough.

    Exit status: 0 pass, 1 a gradient (or the declared forward) is wrong, 2 bad input or usage, 3 inconclusive or
    crashed, 130 interrupted; of several cases, the worst decides. FASTCHECK_TRACEBACK=1 prints the traceback of a
    crash.
    """


@cli.command("conv")
@_case_options
@dims_option("auto", "Dimensions to check; a number is divided among the tensors.")
@directions_option
@step_option
@evaluator_option(EVALUATORS)
@kinks_option
@threads_option
@seed_option("Random seed for the sample.")
@click.option("--explain", is_flag=True, help="Sweep the step at the worst dimensions of each failing tensor.")
@click.option(
    "--suggest",
    is_flag=True,
    help="Check nothing: list the known mistakes that this case cannot show, and a case that would show them.",
)
@table_option
@json_option
@verbose_option
@map_option
@examples("fastcheck conv layer.npz --stride 2 --padding 0:1,2:2 --dims all --table dims.csv")
def conv_command(
    case_path: str,
    dims: Any,
    directions: Any,
    step: Any,
    evaluator: Any,
    kinks: Any,
    threads: int | None,
    seed: int,
    explain: bool,
    suggest: bool,
    table_path: str | None,
    json_path: str | None,
    verbose: bool,
    mapped: bool,
    **options: Any,
) -> int:
    """Check a convolution layer of one to three spatial axes.

    CASE.npz holds input, weight, grad_output, at least one of grad_input, grad_weight and grad_bias, and optionally
    bias, output, stride, padding, dilation, groups, transposed, output_padding, padding_mode, loss, precision and
    layout.
    """
    from fastcheck.common.progress import progress_bar

    check_paths(table_path, json_path, read=(case_path,))
    case = npz_case.load_case_by_options(case_path, **options)
    if suggest:
        if json_path is not None or table_path is not None:
            raise FastcheckError("--suggest checks nothing: expected neither --json nor --table beside it")
        return _suggest(case)
    with progress_bar() as hook:
        report = check(
            case,
            dims=dims,
            directions=directions,
            step=step,
            evaluator=evaluator,
            kinks=kinks,
            threads=threads,
            seed=seed,
            keep=mapped or table_path is not None,
            explain=explain,
            progress=hook,
        )
    deliver_table(report, table_path)
    deliver_report(report, case_path, json_path, verbose=verbose, mapped=mapped)
    return report.exit_code


def _suggest(case: ConvCase) -> int:
    """Print the mistakes that a case cannot show, and a case that would show them."""
    from fastcheck.diagnosis.blind_spots import blind_spots, suggested
    from fastcheck.render.blind_spots import text

    say(text(blind_spots(case), suggested(case)))
    return 0


cli.add_command(network_command)
cli.add_command(probe_command)
cli.add_command(judge_command)
cli.add_command(run_command)


@cli.command("sweep")
@_case_options
@click.option("--tensor", help="Tensor to sweep: input, weight or bias. Default: all with a gradient.")
@click.option(
    "--dims",
    type=Indices(),
    default="3",
    show_default=True,
    help="Number of dimensions per tensor, the worst by a check; or flat indices of --tensor: 3,17.",
)
@click.option("--steps", type=StepList(), help="Steps h. Default: 1e-1 to 1e-12, four per decade.")
@evaluator_option(EVALUATORS)
@threads_option
@seed_option("Random seed for the check.")
@click.option("--plot", "plot_path", metavar="F.svg|F.png", help=f"Save a plot to a file; needs: {installing('plot')}.")
@json_option
@examples("fastcheck sweep layer.npz --tensor weight --dims 3,17 --plot sweep.svg")
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
    """Difference a few dimensions at many steps h, and interpret the curve of errors.

    As h decreases, the error of a correct gradient falls as h^2 (truncation), then rises as 1/h (round-off). A plateau
    means a coding mistake, a sudden drop a kink. The exit status is 1 if any curve indicates a coding mistake.
    """
    from fastcheck.common.progress import progress_bar
    from fastcheck.render.page import text_for
    from fastcheck.render.sweep import write_sweep

    check_paths(plot_path, json_path, read=(case_path,), option="--plot")
    picture = None if plot_path is None else _drawer(plot_path)
    case = npz_case.load_case_by_options(case_path, **options)
    try:
        with progress_bar() as hook:
            swept = sweep(
                case,
                tensor=tensor,
                dims=dims,
                steps=steps,
                evaluator=evaluator,
                threads=threads,
                seed=seed,
                progress=hook,
            )
    except GradientMismatchError as error:  # the forward pass is not the declared one, so neither are the gradients
        deliver_report(error.report, case_path, json_path)
        return error.report.exit_code
    if plot_path is not None and picture is not None:
        writing.write_bytes(plot_path, picture(swept))
    deliver(swept.to_json, lambda: text_for(sys.stdout, lambda out: write_sweep(swept, out, case_path)), json_path)
    return swept.exit_code


def _drawer(plot_path: str) -> Callable[[Sweep], bytes]:
    """Return a function that draws a sweep in the format of the file's name; refuse other formats before any work."""
    from fastcheck.render.plot import picture, picture_format

    ending = picture_format(plot_path)
    return lambda swept: picture(swept, ending)


@cli.command("compare")
@click.argument("analytic_path", metavar="A.npy")
@click.argument("numeric_path", metavar="N.npy")
@precision_option
@table_option
@json_option
@verbose_option
@map_option
@examples("fastcheck compare analytic.npy numeric.npy")
def compare_command(
    analytic_path: str,
    numeric_path: str,
    precision: str | None,
    table_path: str | None,
    json_path: str | None,
    verbose: bool,
    mapped: bool,
) -> int:
    """Compare two gradients that you already have: both ratios, digits and signs.

    Both files are .npy, or both .npz with the same names.
    """
    check_paths(table_path, json_path, read=(analytic_path, numeric_path))
    pair = files.read_pair(analytic_path, numeric_path)
    report = compare(*pair, precision=precision, keep=mapped or table_path is not None)
    deliver_table(report, table_path)
    title = f"{analytic_path} against {numeric_path}"
    deliver_report(report, title, json_path, verbose=verbose, mapped=mapped)
    return report.exit_code


@cli.command("demo")
@click.argument("name", metavar="[network]", type=click.Choice(("network",)), required=False)
@threads_option
@seed_option("Random seed for the network demo.")
@examples("fastcheck demo; fastcheck demo network")
def demo_command(name: str | None, threads: int | None, seed: int) -> int:
    """Check the first layers of two published networks on a real photograph, then watch a real bug fail.

    The other demo, "network", checks a whole network on handwritten digits. Its first layer agrees in fewer digits
    than the others, at first for a harmless reason, then because of a bug. Both demos need: pip install
    ".[demo]" in a clone of fastcheck.
    """
    return _layers_demo(threads) if name is None else _network_demo(threads, seed)


def _layers_demo(threads: int | None) -> int:
    from fastcheck.common.progress import progress_bar
    from fastcheck.render.text import as_text
    from fastcheck.workloads import demo

    as_expected, warm = True, False
    for scene in demo.SCENES:
        say(f"\n{scene.story}\n\n")
        with progress_bar() as hook:
            if hook:
                hook("making the layer (the first run compiles the kernels)", 0, 0)
            case = scene.case(threads)
            if not warm:  # the speed that is shown is not the compiler's
                warm = bool(check(case, dims=len(case.grads), directions=0, evaluator="local", threads=threads))
            # The scenes are about samples, and what they miss.
            report = check(case, dims=scene.dims, directions=0, evaluator="local", threads=threads, progress=hook)
        say(as_text(report, sys.stdout))
        if report.interrupted:
            return INTERRUPTED
        as_expected &= report.verdict == scene.expected
        if scene.moral and report.verdict == scene.expected:
            say(f"\n{scene.moral}\n")
    return 0 if as_expected else 1


def _network_demo(threads: int | None, seed: int) -> int:
    from fastcheck.common.progress import progress_bar
    from fastcheck.render.text import as_text
    from fastcheck.workloads import demo_network

    def show(item: NetworkReport | str) -> None:
        say(item if isinstance(item, str) else as_text(item, sys.stdout, verbose=True))

    with progress_bar() as hook:
        return demo_network.run(threads=threads, seed=seed, say=show, progress=hook)


@cli.command("zoo")
@click.argument("network", metavar="NAME")
@click.option(
    "--backward",
    type=click.Choice(seeded.BACKWARDS),
    default="reference",
    show_default=True,
    help=f"Backward pass to check; torch needs: {installing('torch')}.",
)
@click.option("--tensors", type=Names(), default="weight,bias", show_default=True, help="Tensors to check.")
@click.option("--layers", type=Names(), help="Names, or patterns such as layer1.*. Default: all.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Number of samples.")
@dims_option("all", "Dimensions to check in each layer; a number is divided among its tensors.")
@step_option
@evaluator_option(EVALUATORS)
@threads_option
@seed_option("Random seed for data and sample.")
@json_option
@verbose_option
@examples("fastcheck zoo resnet50 --layers 'layer1.*' --tensors weight,input --dims 1000")
def zoo_command(network: str, json_path: str | None, verbose: bool, **options: Any) -> int:
    """Check every conv layer of a published network, at its published shapes, on seeded data.

    NAME is alexnet, vgg16, resnet50, mobilenet_v2, convnext_t, audio (WaveNet) or c3d.
    """
    from fastcheck.common.progress import progress_bar
    from fastcheck.render.suite import case_line

    check_paths(None, json_path)

    def show(name: str, case: Report) -> None:
        say(case_line(name, case))

    with progress_bar() as hook:
        suite = zoo.run(network, **options, on_case=None if json_path == "-" else show, progress=hook)
    if json_path != "-":
        say(f"\n{NETWORKS[network].source}\n")
    deliver_report(suite, network, json_path, verbose=verbose)
    return suite.exit_code


@cli.command("bench")
@click.option(
    "--threads",
    type=click.IntRange(1, machine.MOST_THREADS),
    help="Number of threads, for PyTorch as well. Default: all processors.",
)
@json_option
@examples("fastcheck bench --json bench.json")
def bench_command(threads: int | None, json_path: str | None) -> int:
    """Benchmark this machine in about a minute: its peak vector rate, and how close checks of published
    layers come to it.

    If PyTorch is installed, its own backward passes are measured too, alternating with the checks.
    """
    from fastcheck.common.progress import progress_bar
    from fastcheck.render.benchmark import write_benchmark
    from fastcheck.render.page import text_for
    from fastcheck.workloads import benchmark  # imports Numba

    check_paths(None, json_path)
    with progress_bar() as hook:
        results = benchmark.run(threads=threads, progress=hook)
    deliver(
        lambda: json.dumps(results, indent=2) + "\n",
        lambda: text_for(sys.stdout, lambda out: write_benchmark(results, out)),
        json_path,
    )
    return 0


cli.add_command(show_command)
cli.add_command(diff_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    sys.exit(status(sys.argv[1:] if arguments is None else arguments))


def status(arguments: list[str]) -> int:
    """Run the command line and return its status; bad input gives one line on standard error.

    Unexpected exceptions propagate.
    """
    with listening() as interrupts:
        return _status(arguments, interrupts)


def _status(arguments: list[str], interrupts: Interrupts) -> int:
    try:
        return _run(arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        complain(f"{error.format_message()}\n")
        return USAGE_ERROR
    except click.NoSuchOption as error:
        return _refused(f"{error.format_message()}{_meant(error)}")
    except click.ClickException as error:
        return _refused(error.format_message())
    except FastcheckError as error:
        return _refused(str(error))
    except MemoryError:
        return _refused("there is not enough memory for this case")
    except KeyboardInterrupt:
        return _interrupted()
    except Exception:
        if not interrupts.interrupted:
            raise
        return _interrupted()


def _meant(error: click.NoSuchOption) -> str:
    """Return the option that means what an unknown one means, or what to do in its place."""
    known = [name for option in (error.ctx.command.params if error.ctx else ()) for name in option.opts]
    option = meant(error.option_name, known)
    if option is not None and not error.possibilities:
        return f" Did you mean {option}?"
    return f" ({remark(error.option_name)})" * bool(remark(error.option_name))


def _run(arguments: list[str]) -> int:
    """Run a command as click's `cli.main` does, except that a closed pipe does not make the status 1."""
    if instruction := os.environ.get(_COMPLETE):
        return shell_complete(cli, {}, "fastcheck", _COMPLETE, instruction)
    try:
        with cli.make_context("fastcheck", list(arguments)) as context:
            return int(cli.invoke(context))
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code


def _refused(message: str) -> int:
    complain(f"fastcheck: {as_message(printable(' '.join(message.split())))}\n")
    return USAGE_ERROR


def _interrupted() -> int:
    complain("fastcheck: interrupted\n")
    return INTERRUPTED


if __name__ == "__main__":
    import fastcheck_command

    fastcheck_command.main()
