"""The command that runs a suite."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import click

from fastcheck.batch.suite.entries import MOST_CASES, Suite
from fastcheck.cli.output import check_paths, say
from fastcheck.cli.types import Seconds, examples, json_option, threads_option
from fastcheck.common import machine, writing
from fastcheck.common.errors import FastcheckError
from fastcheck.common.naming import shown

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {f"{letter}IB": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)}


class Bytes(click.ParamType[Any]):
    """A number of bytes: 8GiB, 500MB."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
        size = math.nan if found is None else float(found[1]) * _UNITS.get(found[2].upper(), math.nan)
        if not size < 2**63:
            self.fail(f"{value!r}: expected a size such as 8GiB or 500MB, below 8 EiB", param, ctx)
        return int(size)


class Workers(click.ParamType[Any]):
    """The address of a Dask scheduler, or local:N, which becomes N."""

    name = "ADDRESS|local:N"

    _ADDRESS = re.compile(r"(?:(?:tcp|tls|wss?|ucxx?)://)?(?:[\w.-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})/?", re.ASCII)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, _, count = str(value).partition(":")
        if kind == "local" and re.fullmatch("[0-9]{1,4}", count) and 0 < int(count) <= machine.MOST_THREADS:
            return int(count)
        found = None if kind == "local" else self._ADDRESS.fullmatch(str(value))
        if found is None or not 0 < int(found[1]) < 2**16:
            self.fail(
                f"{shown(value)}: expected the address of a scheduler, such as tcp://10.0.0.1:8786, or local:N with "
                f"1 to {machine.MOST_THREADS} workers",
                param,
                ctx,
            )
        return str(value)


@click.command("run")
@click.argument("suite_path", metavar="SUITE.toml")
@click.option("--out", "folder", metavar="DIR", help="Of the ledger, made if absent. The same command goes on there.")
@click.option("--dry-run", is_flag=True, help="List the cases, with estimated work and memory, and check nothing.")
@click.option("--memory", type=Bytes(), help="What all running cases may take together. Default: most of what is free.")
@threads_option
@click.option("--fail-fast", is_flag=True, help="End with the first case that fails.")
@click.option("--timeout", type=Seconds(), help="Seconds for each case.")
@click.option(
    "--isolate", is_flag=True, help="A process for every case: one that crashes takes nothing else down with it."
)
@click.option("--keep-numeric", is_flag=True, help="Keep the numeric gradients in DIR/numeric, as .npy files.")
@click.option("--restart", is_flag=True, help="Put the ledger that is there aside, and begin anew.")
@click.option("--dask", type=Workers(), help='On the workers of a Dask cluster; needs: pip install "fastcheck[dask]".')
@click.option("--yes", is_flag=True, help=f"Run a suite of more than {MOST_CASES:,} cases.")
@click.option("--allow-outside", is_flag=True, help="Read files outside of the suite's folder.")
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
    """Check every case of a suite, and keep each result in a ledger at once.

    Kill it at any moment: the same command goes on where it was, without what is finished. `fastcheck show DIR` tells
    what was found, `fastcheck diff DIR1 DIR2` what has changed.
    """
    from fastcheck.batch.suite.file import read_suite

    folders = () if folder is None else (folder,)
    check_paths(junit_path, json_path, read=(suite_path,), option="--junit", folders=folders)
    suite = read_suite(Path(suite_path), allow_outside=allow_outside, most=None if yes else MOST_CASES)
    if dry_run:
        return _list(suite, options)
    if folder is None:
        raise FastcheckError("there is no --out: expected the folder of the ledger")
    return _run(suite, Path(folder), json_path, junit_path, options)


def _list(suite: Suite, options: dict[str, Any]) -> int:
    from fastcheck.batch.run import plan as plans
    from fastcheck.batch.run.runner import Options
    from fastcheck.render.page import text_for
    from fastcheck.render.plan import write_plan

    settings = Options.of(threads=options["threads"], memory=options["memory"])
    planned = plans.plan(suite.entries, settings.threads, settings.memory)
    say(text_for(sys.stdout, lambda out: write_plan(suite.name, planned, settings.memory, out)))
    return 2 if any(case.problem for case in planned) else 0


def _run(suite: Suite, folder: Path, json_path: str | None, junit_path: str | None, options: dict[str, Any]) -> int:
    from fastcheck.batch import results as answers
    from fastcheck.batch.run import local, runner
    from fastcheck.render.batch import chat_line
    from fastcheck.render.batch_progress import watching
    from fastcheck.render.junit import junit

    dask = options.pop("dask")
    settings = runner.Options.of(**options)
    with watching(None if json_path == "-" else say) as watch:
        outcome = runner.run(suite, folder, settings, watch, _crew(dask, settings, local))
    found = answers.suite_report(folder)
    if junit_path is not None:
        writing.write_whole(junit_path, lambda stream: stream.write(junit(suite.name, found.suite, found.waiting)))
    if json_path not in (None, "-"):
        writing.write_whole(json_path, lambda stream: stream.write(found.suite.to_json()))
    say(found.suite.to_json() if json_path == "-" else f"{chat_line(suite.name, found.suite, len(found.waiting))}\n")
    return 130 if outcome.interrupted else 1 if outcome.stopped else found.suite.exit_code


def _crew(dask: str | int | None, options: Any, local: Any) -> Any:
    if dask is None:
        return local.Processes if options.isolate else local.Threads
    if options.isolate:
        raise FastcheckError("--isolate and --dask stand together: a cluster's workers are processes of their own")
    from fastcheck.batch.run import cluster

    return cluster.backend(dask)
