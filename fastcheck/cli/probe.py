"""The commands for programs in any language: `fastcheck probe` writes points, `fastcheck judge` judges the gradient."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from fastcheck.cli.output import check_paths, complain, deliver_report, say
from fastcheck.cli.types import (
    Names,
    StepType,
    examples,
    json_option,
    precision_option,
    seed_option,
    verbose_option,
)
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import listed
from fastcheck.common.progress import silent

LARGE = 10**9
"""Bytes from which a folder's size is told before it is written."""


class _Outputs(click.ParamType[Any]):
    """NAME=SHAPE, such as y=8x16."""

    name = "NAME=SHAPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fastcheck.probes.files import shape_of

        name, equals, shape = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r}: expected a name and a shape, such as y=8x16", param, ctx)
        return name, shape_of(f"output {name}", shape)


@click.command("probe")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--out", "folder", metavar="DIR", required=True, help="Folder to write.")
@click.option(
    "--output",
    "outputs",
    type=_Outputs(),
    multiple=True,
    help="An output of the program and its shape: y=8x16. May be repeated. Default: one number, the loss.",
)
@click.option("--directions", type=click.IntRange(1, 10_000), default=24, show_default=True, help="Random directions.")
@click.option("--step", type=StepType(), default="auto", show_default=True, help="Step h, such as 2^-17 or 1e-5.")
@click.option("--only", type=Names(), help="Arrays to move: w,b. Default: all of floating point.")
@click.option(
    "--grads",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Gradients, if you have them: they balance how far each array moves. Arrays without one do not move.",
)
@click.option("--format", type=click.Choice(("raw", "npy")), default="raw", show_default=True, help="Format of files.")
@seed_option("Random seed for the directions and the cotangent.")
@click.option("--force", is_flag=True, help="Replace a folder of probes, with all that is in it.")
@examples("fastcheck probe x.npy w.npy --output y=8x16 --out probes")
def probe_command(
    inputs: tuple[str, ...],
    folder: str,
    outputs: tuple[tuple[str, tuple[int, ...]], ...],
    directions: int,
    step: Any,
    only: tuple[str, ...] | None,
    grads: tuple[str, ...],
    format: Any,
    seed: int,
    force: bool,
) -> int:
    """Write points for a program in any language: evaluate its forward pass at each, then run `fastcheck judge`.

    Each INPUT is an .npz file, an .npy file, or a raw file with its type and shape (w.bin:float32:8x16), perhaps after
    its name (w=weights.npy). Arrays of integers, and those that --only leaves out, do not move.

    DIR gets a file for each array that moves, with all points one after another, and the cotangent grad_NAME of each
    output. Your program reads them, and writes each output at all points, one after another, and its gradient at the
    first point.
    """
    from fastcheck.common.progress import progress_bar
    from fastcheck.probes import probe
    from fastcheck.probes.files import read_inputs

    arrays = read_inputs(inputs)
    balance = probe.read_balance(grads, arrays) if grads else None
    if len({name for name, _ in outputs}) < len(outputs):
        raise FastcheckError("--output is given twice for one name: expected another name for each output")
    probes = probe.Probes(
        arrays,
        only=only if only is not None else None if balance is None else tuple(balance),
        grads=balance,
        outputs=dict(outputs) or None,
        count=directions,
        step=None if step == "auto" else step,
        format=format,
        seed=seed,
    )
    if probes.bytes >= LARGE:
        complain(f"fastcheck: writing {probe.amount(probes.bytes)} to {folder}\n")
    with progress_bar() as hook:
        manifest = probes.write(folder, force, hook or silent)
    say(_instructions(manifest, folder, probe.amount(probes.bytes)))
    return 0


def _instructions(manifest: Any, folder: str, size: str) -> str:
    """Return what lies in the folder, and what the program is to write."""
    ending = ".bin" if manifest.format == "raw" else ".npy"
    outputs = listed([f"{output.name}{ending}" for output in manifest.outputs], 6)
    grads = listed([f"grad_{tensor.name}{ending}" for tensor in manifest.tensors], 6)
    kind = "raw little-endian numbers" if manifest.format == "raw" else "NumPy's .npy"
    rows = [(one, f"{manifest.count} points, one after another") for one in manifest.tensors]
    rows += [(one, "does not move") for one in manifest.constants]
    rows += [(one, "the cotangent") for one in manifest.cotangents]
    width = max(len(one.file) for one, _ in rows)
    lines = [f"{folder}: {manifest.count:,} points, {size}, {kind}"]
    for one, what in rows:
        shape = "x".join(map(str, one.shape)) or "1"
        lines.append(f"  {one.file:<{width}}  {one.dtype} {shape:<10} {what}")
    lines += [
        f"let your program write there {outputs} (at all {manifest.count:,} points, one after another)",
        f"and {grads} (at the first point); then: {shlex.join(['fastcheck', 'judge', folder])}",
    ]
    return "\n".join(lines) + "\n"


def _read_files(folder: str, *given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files that a judgement reads, which a report may not overwrite."""
    from fastcheck.probes.files import split_name

    paths = [split_name(text)[1] for texts in given for text in texts]
    return tuple(map(str, [*Path(folder).glob("*"), *paths]))


@click.command("judge")
@click.argument("folder", metavar="DIR")
@click.option(
    "--outputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Outputs at all points: raw, .npy, .npz, or a folder. Default: NAME.bin or NAME.npy in DIR.",
)
@click.option(
    "--grads",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Gradients at the first point. Default: grad_NAME.bin or grad_NAME.npy in DIR.",
)
@click.option(
    "--grad-output",
    multiple=True,
    metavar="[NAME=]FILE",
    help="The cotangent, if it is not the one in DIR: the loss is sum(grad_output * output).",
)
@click.option("--noise", type=float, help="Accuracy of the outputs: each may be off by so much (a solver, say).")
@click.option("--relative-noise", type=float, help="The same, relative to each output.")
@precision_option
@json_option
@verbose_option
@examples("fastcheck judge probes --outputs y.bin --grads w=grad_w.bin")
def judge_command(
    folder: str,
    outputs: tuple[str, ...],
    grads: tuple[str, ...],
    grad_output: tuple[str, ...],
    noise: float | None,
    relative_noise: float | None,
    precision: str | None,
    json_path: str | None,
    verbose: bool,
) -> int:
    """Judge the gradient of a program that evaluated the points in DIR, which `fastcheck probe` wrote.

    The report says how large an error of an entry would have been seen, and with what chance it would have been missed.
    """
    from fastcheck.common.progress import progress_bar
    from fastcheck.probes.judge import judge

    check_paths(None, json_path, read=_read_files(folder, outputs, grads, grad_output))
    with progress_bar() as hook:
        report = judge(
            folder,
            outputs=outputs,
            grads=grads,
            grad_output=grad_output,
            noise=noise,
            relative_noise=relative_noise,
            precision=precision,
            progress=hook or silent,
        )
    deliver_report(report, folder, json_path, verbose=verbose)
    return report.exit_code
