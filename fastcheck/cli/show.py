"""The commands that show results: `fastcheck show` for reports and batch runs, `fastcheck diff` for two batch runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from fastcheck.cli.output import check_paths, deliver, deliver_report
from fastcheck.cli.types import Names, examples, json_option, verbose_option
from fastcheck.common import writing
from fastcheck.common.errors import FastcheckError
from fastcheck.reports.files import read_report
from fastcheck.reports.report import Report
from fastcheck.reports.suite_report import NetworkReport, SuiteReport

if TYPE_CHECKING:
    from fastcheck.batch.results import SuiteResults


@click.command("show")
@click.argument("path", metavar="DIR|REPORT.json")
@click.option(
    "--verdict",
    "verdicts",
    type=Names(),
    help="Only cases with these verdicts: pass, fail, inconclusive, error, waiting.",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="PATTERN",
    help="Only cases with this name, or matching a pattern such as 'grid/*'; may be repeated.",
)
@click.option(
    "--tensor",
    "tensors",
    multiple=True,
    metavar="PATTERN",
    help="Only tensors with this name, or matching a pattern; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="List passed cases too, however many cases there are.")
@verbose_option
@json_option
@click.option("--csv", "csv_path", metavar="F.csv", help="Write a CSV file with a row for each case and tensor.")
@click.option("--junit", "junit_path", metavar="F.xml", help="Write a JUnit report for CI.")
@examples("fastcheck show results --verdict fail,error --case 'grid/*' --csv failures.csv")
def show_command(
    path: str,
    verdicts: tuple[str, ...] | None,
    cases: tuple[str, ...],
    tensors: tuple[str, ...],
    everything: bool,
    verbose: bool,
    json_path: str | None,
    csv_path: str | None,
    junit_path: str | None,
) -> int:
    """Print the results of `fastcheck run` in DIR, or a report saved with --json.

    Filters choose the cases and tensors that are listed and written to files. The last line and the exit status cover
    all cases, or those chosen by --case; while any of these is waiting, the exit status is 130. Seconds are the sum
    over all cases. If there are more than 40 cases, passed cases are counted and not listed.
    """
    from fastcheck.batch import results  # imported here, so that other commands start faster

    files = _OutputFiles(json_path, csv_path, junit_path)
    files.check(path)
    report, unfiltered = _read(path)
    whole = results.select_cases(unfiltered, cases)
    shown = results.select_tensors(results.select_verdicts(whole, verdicts or ()), tensors)
    files.write_tables(shown)
    several = isinstance(report, SuiteReport) and not isinstance(report, NetworkReport)
    if not several and not (verdicts or cases or tensors):
        deliver_report(report, path, json_path, verbose=verbose)
        return report.exit_code
    deliver(shown.suite.to_json, lambda: _text(shown, whole, path, everything, verbose), json_path)
    return whole.suite.exit_code


class _OutputFiles(NamedTuple):
    """Paths of the output files; None for those not requested."""

    json: str | None
    csv: str | None
    junit: str | None

    def check(self, path: str) -> None:
        """Refuse files that cannot be written, or that would overwrite the input."""
        check_paths(self.csv, self.json, read=(path,), option="--csv", folders=(path,))
        others = tuple(taken for taken in (self.csv, self.json) if taken not in (None, "-"))
        check_paths(self.junit, None, read=(path, *map(str, others)), option="--junit", folders=(path,))

    def write_tables(self, shown: SuiteResults) -> None:
        """Write the CSV and JUnit files."""
        from fastcheck.render.junit import junit
        from fastcheck.render.suite_csv import write_rows

        if self.csv is not None:
            writing.write_whole(self.csv, lambda stream: write_rows(shown, stream))
        if self.junit is not None:
            text = junit(shown.name, shown.suite, shown.waiting)
            writing.write_whole(self.junit, lambda stream: stream.write(text))


def _read(path: str) -> tuple[Report | SuiteReport, SuiteResults]:
    """Read a folder or a report; the report of a single case becomes a suite of one case, named after the file."""
    from fastcheck.batch import results

    if os.path.isdir(path):
        suite_results = results.read_results(Path(path))
        return suite_results.suite, suite_results
    report = read_report(path)
    return report, results.from_report(report, Path(path).stem)


def _text(shown: SuiteResults, whole: SuiteResults, title: str, everything: bool, verbose: bool) -> str:
    from fastcheck.batch.common_causes import in_common
    from fastcheck.render.batch import chat_line, write_results
    from fastcheck.render.page import text_for

    if shown.names:
        common = in_common(whole.suite.cases)
        message = text_for(sys.stdout, lambda out: write_results(shown, out, title, common, everything, verbose))
    else:
        message = "no case matches\n" if whole.names else "there are no cases\n"
    return f"{message}{chat_line(whole.name, whole.suite, len(whole.waiting))}\n"


@click.command("diff")
@click.argument("before_path", metavar="DIR1")
@click.argument("after_path", metavar="DIR2")
@click.option("--allow-missing", is_flag=True, help="Do not fail where a case of DIR1 is gone from DIR2.")
@json_option
@examples("fastcheck diff monday tuesday --json changes.json")
def diff_command(before_path: str, after_path: str, allow_missing: bool, json_path: str | None) -> int:
    """Compare two runs of a suite: lost cases, changed verdicts, values and ratios that moved, and the speed of both.

    Each run is a folder of `fastcheck run`, or a suite's report saved with --json. The exit status is 1 if a case of
    the first is gone from the second, or if a verdict got worse: a pass was lost, or an inconclusive verdict or an
    error became a failure. New cases, and those that the first had not finished, do not count. Of what changed, all
    is listed; of the rest, how many cases still fail.

    If a tensor's verdict is unchanged, a value among the worst of both runs has moved if it differs by more than the
    sum of both error bars, and a ratio above 1e-12 if it differs by more than a factor of ten.
    """
    from fastcheck.batch.diff import difference
    from fastcheck.render.diff import write_difference
    from fastcheck.render.page import text_for

    check_paths(None, json_path, read=(before_path, after_path), folders=(before_path, after_path))
    changed = difference(_suite(before_path), _suite(after_path))

    def text() -> str:
        return text_for(sys.stdout, lambda out: write_difference(changed, out, before_path, after_path))

    deliver(changed.to_json, text, json_path)
    return int(changed.worse) if allow_missing else changed.exit_code


def _suite(path: str) -> SuiteResults:
    report, results = _read(path)
    if isinstance(report, Report | NetworkReport):
        raise FastcheckError(f"{path} is the report of one case: expected a suite's, or a folder of `fastcheck run`")
    return results
