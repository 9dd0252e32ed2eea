"""Progress of a batch run: bars on a terminal, lines elsewhere, and names that cannot move the cursor."""

import io
import sys
from threading import Event
from types import SimpleNamespace

from rich.console import Console
from rich.progress import Progress, TextColumn
from suite_examples import entry

from fastcheck.batch.run import runner
from fastcheck.batch.run.plan import plan
from fastcheck.render.batch_progress import SHOWN, Lines, ProgressBars, watching

HOSTILE = "a\x1b[2J\n[red]b"


class Report:
    """As much of one as is told."""

    verdict, error, operands, tensors, passed = "pass", None, None, {}, True

    def __init__(self):
        self.run = {"seconds": 1.0, "threads": 1}


def bars():
    """ProgressBars that draw in memory, and what is said."""
    said, page = [], io.StringIO()
    out = Console(file=page, width=100, force_terminal=True)
    shown = Progress(TextColumn("{task.description}", markup=False), console=out, auto_refresh=False)
    return ProgressBars(said.append, shown), shown, said


def told(shown):
    return [task.description for task in shown.tasks]


def test_there_is_a_bar_for_all_and_one_for_every_case_that_runs():
    watch, shown, said = bars()
    one, two = plan([entry("one"), entry("two")], 1, 2**40)
    watch.began(3, 1, one.urgency + two.urgency)
    assert said == ["1 of 3 cases are finished; 2 to go\n"]
    assert told(shown) == ["1 of 3 cases"]
    watch.progress("one", "weight", 0, 10)
    watch.progress("one", "weight", 5, 10)
    watch.progress("two", "input", 1, 0)
    assert told(shown) == ["1 of 3 cases", "one: weight", "two: input"]
    assert [(task.completed, task.total) for task in shown.tasks[1:]] == [(5, 10), (1, None)]
    watch.progress("one", "bias", 0, 2)
    assert told(shown) == ["1 of 3 cases", "two: input", "one: bias"]
    watch.ended(one, Report(), 1.0)
    assert told(shown) == ["2 of 3 cases", "two: input"]
    assert shown.tasks[0].completed == one.urgency
    watch.ended(two, Report(), 1.0)
    assert told(shown) == ["3 of 3 cases"]
    assert shown.tasks[0].finished
    assert len(said) == 3


def test_no_more_bars_than_fit():
    watch, shown, _ = bars()
    watch.began(100, 0, 1.0)
    for number in range(3 * SHOWN):
        watch.progress(f"case {number}", "weight", 0, 1)
    assert len(shown.tasks) == 1 + SHOWN


def test_names_cannot_move_the_cursor():
    watch, shown, said = bars()
    (case,) = plan([entry(HOSTILE)], 1, 2**40)
    watch.began(1, 0, 1.0)
    watch.progress(HOSTILE, "weight", 0, 1)
    watch.ended(case, Report(), 1.0)
    for text in (*told(shown), *(line.rstrip("\n") for line in said)):
        assert text.isprintable(), text
    assert "[red]b" in said[-1]


def test_a_pipe_gets_lines_alone(monkeypatch):
    said, error = [], io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    with watching(said.append) as watch:
        assert type(watch) is Lines
        watch.began(2, 0, 1.0)
        watch.progress("one", "weight", 0, 1)
        watch.ended(plan([entry("one")], 1, 2**40)[0], Report(), 1.0)
    assert error.getvalue() == ""
    assert len(said) == 1
    with watching(None) as watch:
        watch.ended(plan([entry("one")], 1, 2**40)[0], Report(), 1.0)


def test_a_case_tells_every_stage_once_it_takes_long_and_no_more_than_one_can_see(monkeypatch):
    clock, heard = [100.0], []
    monkeypatch.setattr(runner.time, "perf_counter", lambda: clock[0])
    run = SimpleNamespace(
        end=Event(),
        options=runner.Options.of(threads=1),
        numeric_of=lambda case: None,
        progress=lambda case, *told: heard.append(told),
        failed=heard.append,
    )
    task = runner.CaseTask(run, plan([entry("one")], 1, 2**40)[0])

    def told(seconds, *what):
        clock[0] += seconds
        task.progress(*what)

    def check(stop):
        told(0.4, "input", 0, 10)  # not yet
        told(0.2, "input", 5, 10)
        told(0.05, "input", 6, 10)  # too soon
        told(0.01, "input: audit", 0, 0)
        told(0.2, "weight", 0, 4)
        raise KeyboardInterrupt

    task.check(check)
    assert heard == [("input", 5, 10), ("input: audit", 0, 0), ("weight", 0, 4)]
