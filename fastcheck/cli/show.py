"""The commands that tell what was found: reports, a batch run, and what changed between two of these."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from fastcheck.cli.output import check_paths, deliver, say
from fastcheck.cli.types import Names, examples, json_option
from fastcheck.common import writing
from fastcheck.common.errors import FastcheckError
from fastcheck.reports import files as npz
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport

if TYPE_CHECKING:
    from fastcheck.batch.results import Answers


@click.command("show")
@click.argument("path", metavar="DIR|REPORT.json")
@click.option("--verdict", "verdicts", type=Names(), help="Of cases: pass, fail, inconclusive, error, waiting.")
@click.option(
    "--case", "cases", multiple=True, metavar="PATTERN", help="A name, or a pattern such as 'grid/*'; may be repeated."
)
@click.option("--tensor", "tensors", multiple=True, metavar="PATTERN", help="Of a tensor; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="List those that passed as well, however many cases there are.")
@json_option
@click.option("--csv", "csv_path", metavar="F.csv", help="Write a row for every case and tensor.")
@click.option("--junit", "junit_path", metavar="F.xml", help="Write a JUnit report for CI.")
@examples("fastcheck show results --verdict fail,error --case 'grid/*' --csv failures.csv")
def show_command(
    path: str,
    verdicts: tuple[str, ...] | None,
    cases: tuple[str, ...],
    tensors: tuple[str, ...],
    everything: bool,
    json_path: str | None,
    csv_path: str | None,
    junit_path: str | None,
) -> int:
    """Print what `fastcheck run` found in DIR, or a report that was saved with --json.

    Filters choose what is listed and written to files. The last line and the exit status are those of all cases, or of
    the ones that --case chooses; with cases that wait to be finished the status is 130. Seconds are those of all cases
    together. Of more than 40 cases, those that passed are counted and not listed.
    """
    from fastcheck.batch import results as answers  # only here, so that other commands start sooner

    files = _OutputFiles(json_path, csv_path, junit_path)
    files.check(path)
    report, found = _read(path)
    whole = answers.of_cases(found, cases)
    shown = answers.of_tensors(answers.of_verdicts(whole, verdicts or ()), tensors)
    several = isinstance(report, SuiteReport) and not isinstance(report, NetworkReport)
    if not several and not (verdicts or cases or tensors):
        files.write_tables(shown)
        deliver(report, path, json_path)
        return report.exit_code
    files.write_tables(shown)
    files.write_json(shown.suite)
    if json_path != "-":
        say(_text(shown, whole, path, everything))
    return whole.suite.exit_code


class _OutputFiles(NamedTuple):
    """Paths of what is written, None where it is not asked for."""

    json: str | None
    csv: str | None
    junit: str | None

    def check(self, path: str) -> None:
        """Refuse what could not be written, or would overwrite what is read."""
        check_paths(self.csv, self.json, read=(path,), option="--csv", folders=(path,))
        others = tuple(taken for taken in (self.csv, self.json) if taken not in (None, "-"))
        check_paths(self.junit, None, read=(path, *map(str, others)), option="--junit", folders=(path,))

    def write_tables(self, shown: Answers) -> None:
        """Write CSV and JUnit."""
        from fastcheck.render.junit import junit
        from fastcheck.render.rows import write_rows

        if self.csv is not None:
            writing.write_whole(self.csv, lambda stream: write_rows(shown, stream))
        if self.junit is not None:
            text = junit(shown.name, shown.suite, shown.waiting)
            writing.write_whole(self.junit, lambda stream: stream.write(text))

    def write_json(self, suite: SuiteReport) -> None:
        """Write the JSON report, or print it."""
        if self.json == "-":
            say(suite.to_json())
        elif self.json is not None:
            writing.write_whole(self.json, lambda stream: stream.write(suite.to_json()))


def _read(path: str) -> tuple[Report | SuiteReport, Answers]:
    """Read a folder or a report; what is no suite is one of a single case that is named as the file."""
    from fastcheck.batch import results as answers

    if os.path.isdir(path):
        found = answers.suite_report(Path(path))
        return found.suite, found
    report = npz.read_report(path)
    return report, answers.of_report(report, Path(path).stem)


def _text(shown: Answers, whole: Answers, title: str, everything: bool) -> str:
    from fastcheck.render.batch import chat_line, write_answers
    from fastcheck.render.page import text_for

    if shown.names:
        message = text_for(sys.stdout, lambda out: write_answers(shown, out, title, everything))
    else:
        message = "no case is like that\n" if whole.names else "there is no case\n"
    return f"{message}{chat_line(whole.name, whole.suite, len(whole.waiting))}\n"


@click.command("diff")
@click.argument("before_path", metavar="DIR1")
@click.argument("after_path", metavar="DIR2")
@json_option
@examples("fastcheck diff monday tuesday --json changes.json")
def diff_command(before_path: str, after_path: str, json_path: str | None) -> int:
    """Compare two runs of a suite: verdicts that changed, values and ratios that moved, and how fast both were.

    Each is a folder of `fastcheck run`, or a suite's report that was saved with --json. Exit status 1 where a verdict
    got worse: what passed does so no longer, or what was inconclusive or an error fails. Cases that only one of both
    has, or had not finished before, count for nothing.

    A tensor whose verdict is the same has moved where a value among the worst of both differs by more than both error
    bars together, or a ratio above 1e-12 by more than a factor of ten.
    """
    from fastcheck.batch.diff import difference
    from fastcheck.render.difference import write_difference
    from fastcheck.render.page import text_for

    check_paths(None, json_path, read=(before_path, after_path), folders=(before_path, after_path))
    found = difference(_suite(before_path), _suite(after_path))
    if json_path == "-":
        say(found.to_json())
        return found.exit_code
    if json_path is not None:
        writing.write_whole(json_path, lambda stream: stream.write(found.to_json()))
    say(text_for(sys.stdout, lambda out: write_difference(found, out, before_path, after_path)))
    return found.exit_code


def _suite(path: str) -> Answers:
    report, found = _read(path)
    if isinstance(report, Report | NetworkReport):
        raise FastcheckError(f"{path} is the report of one case: expected a suite's, or a folder of `fastcheck run`")
    return found
