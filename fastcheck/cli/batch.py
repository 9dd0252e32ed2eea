"""The command that runs a suite."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import click

from fastcheck.batch.suite.entries import MOST_CASES, Suite
from fastcheck.cli.output import check_paths, deliver, say
from fastcheck.cli.types import Seconds, examples, json_option, threads_option
from fastcheck.common import machine, writing
from fastcheck.common.errors import FastcheckError
from fastcheck.common.extras import installing
from fastcheck.common.naming import printable, shown

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {f"{letter}IB": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)}


class Bytes(click.ParamType[Any]):
    """A number of bytes: 8GiB, 500MB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
        size = math.nan if match is None else float(match[1]) * _UNITS.get(match[2].upper(), math.nan)
        if not size < 2**63:
            self.fail(f"{value!r}: expected a size such as 8GiB or 500MB, below 8 EiB", param, ctx)
        return int(size)


class Workers(click.ParamType[Any]):
    """The address of a Dask scheduler, or local:N, which is converted to N."""

    name = "ADDRESS|local:N"

    _ADDRESS = re.compile(r"(?:(?:tcp|tls|wss?|ucxx?)://)?(?:[\w.-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})/?", re.ASCII)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, _, count = str(value).partition(":")
        if kind == "local" and re.fullmatch("[0-9]{1,4}", count) and 0 < int(count) <= machine.MOST_THREADS:
            return int(count)
        match = None if kind == "local" else self._ADDRESS.fullmatch(str(value))
        if match is None or not 0 < int(match[1]) < 2**16:
            self.fail(
                f"{shown(value)}: expected the address of a scheduler, such as tcp://10.0.0.1:8786, or local:N with "
                f"1 to {machine.MOST_THREADS} workers",
                param,
                ctx,
            )
        return str(value)


@click.command("run")
@click.argument("suite_path", metavar="SUITE.toml")
@click.option(
    "--out",
    "folder",
    metavar="DIR",
    help="Folder of the ledger; created if absent, resumed if present. Default: SUITE-results in the working folder.",
)
@click.option("--dry-run", is_flag=True, help="List the cases with estimated work and memory, and check nothing.")
@click.option("--memory", type=Bytes(), help="Memory for all running cases together. Default: most of what is free.")
@threads_option
@click.option("--fail-fast", is_flag=True, help="Stop at the first case that fails.")
@click.option("--timeout", type=Seconds(), help="Time limit for each case, in seconds.")
@click.option(
    "--isolate", is_flag=True, help="Run each case in its own process, so that a crash affects no other case."
)
@click.option("--keep-numeric", is_flag=True, help="Keep the numeric gradients in DIR/numeric, as .npy files.")
@click.option("--restart", is_flag=True, help="Set an existing ledger aside, and start over.")
@click.option("--dask", type=Workers(), help=f"Run on a Dask cluster; needs: {installing('dask')}.")
@click.option("--yes", is_flag=True, help=f"Allow a suite of more than {MOST_CASES:,} cases.")
@click.option("--allow-outside", is_flag=True, help="Allow files outside the suite's folder.")
@json_option
@click.option("--junit", "junit_path", metavar="F.xml", help="Write a JUnit report for CI.")
@examples("fastcheck run nightly.toml --out results --junit results.xml")
def run_command(
    suite_path: str,
    folder: str | None,
    dry_run: bool,
    yes: bool,
    allow_outside: bool,
    json_path: str | None,
    junit_path: str | None,
    **options: Any,
) -> int:
    """Check every case of a suite, and write each result to a ledger at once.

    You can kill the run at any time; the same command resumes it and repeats no finished work. `fastcheck show DIR`
    prints the results, `fastcheck diff DIR1 DIR2` the changes between two runs.

    A suite can name functions (backward = "package.module:function", and for gradient, function and torch): running it
    imports their modules, from the suite's folder or from sys.path, and runs their code with your rights. --dry-run
    imports none.
    """
    from fastcheck.batch.suite.file import read_suite

    given, folder = folder, folder or f"{Path(suite_path).stem}-results"
    check_paths(junit_path, json_path, read=(suite_path,), option="--junit", folders=(folder,))
    suite = read_suite(Path(suite_path), allow_outside=allow_outside, most=None if yes else MOST_CASES)
    if dry_run:
        return _list(suite, options)
    if given is None and json_path != "-":
        say(f"results: {printable(folder)}\n")
    return _run(suite, Path(folder), json_path, junit_path, options)


def _list(suite: Suite, options: dict[str, Any]) -> int:
    from fastcheck.batch.run.plan import plan
    from fastcheck.batch.run.runner import Options
    from fastcheck.render.page import text_for
    from fastcheck.render.plan import write_plan

    settings = Options.of(threads=options["threads"], memory=options["memory"], isolate=options["isolate"])
    planned = plan(suite.entries, settings.threads, settings.memory)
    budget, own = settings.memory, settings.own_bytes
    say(text_for(sys.stdout, lambda out: write_plan(suite.name, planned, budget, own, out)))
    return 2 if any(case.problem for case in planned) else 0


def _run(suite: Suite, folder: Path, json_path: str | None, junit_path: str | None, options: dict[str, Any]) -> int:
    from fastcheck.batch.results import read_results
    from fastcheck.batch.run import local, runner
    from fastcheck.render.batch import chat_line
    from fastcheck.render.batch_progress import watching
    from fastcheck.render.junit import junit

    dask = options.pop("dask")
    settings = runner.Options.of(**options)
    alone = json_path == "-"
    # What functions of the user's print must not stand beside the JSON.
    printing = contextlib.redirect_stdout(sys.stderr) if alone else contextlib.nullcontext()
    with printing, watching(None if alone else say) as watch:
        outcome = runner.run(suite, folder, settings, watch, _backend(dask, settings, local))
    results = read_results(folder)
    report, waiting = results.suite, results.waiting
    if junit_path is not None:
        writing.write_whole(junit_path, lambda stream: stream.write(junit(suite.name, report, waiting)))
    hint = "" if report.passed else f"why: fastcheck show {folder}\n"
    deliver(report.to_json, lambda: f"{hint}{chat_line(suite.name, report, len(waiting))}\n", json_path)
    return 130 if outcome.interrupted else 1 if outcome.stopped else report.exit_code


def _backend(dask: str | int | None, options: Any, local: Any) -> Any:
    if dask is None:
        return local.Processes if options.isolate else local.Threads
    if options.isolate:
        raise FastcheckError("--isolate and --dask cannot be combined: workers of a cluster are separate processes")
    from fastcheck.batch.run import cluster

    return cluster.backend(dask)
