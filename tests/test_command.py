"""The command as a process: status 3 for what nobody expected, Ctrl-C during imports, full and closed streams."""

import os
import signal
import subprocess
import sys

import pytest
from layer_examples import layer, saved

import fastcheck_command
from fastcheck.cli import main as cli

resource = pytest.importorskip("resource", reason="signals, and limits of files, are those of POSIX systems")

ABSENT = ("conv", "absent.npz")
TOLD = "fastcheck: absent.npz cannot be read: No such file or directory\n"
FULL = "fastcheck: standard output cannot be written: No space left on device\n"

POISON = """
import atexit, importlib.abc, os, resource, signal, sys

class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {deed}

sys.meta_path.insert(0, Finder())
"""
"""Does something when a module is about to be imported."""

INTERRUPT = "signal.raise_signal(signal.SIGINT)"


@pytest.fixture
def started(tmp_path):
    """Run the command in a process, in which a deed is done before a module is imported."""

    def call(*arguments, module=None, deed="pass", sigint=signal.SIG_DFL, **options):
        (tmp_path / "sitecustomize.py").write_text(POISON.format(module=module, deed=deed))
        paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, "-m", "fastcheck_command", *map(str, arguments)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "check": False} | options,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": ""},  # what cannot be written waits in buffers
            preexec_fn=lambda: signal.signal(signal.SIGINT, sigint),
        )

    return call


@pytest.fixture
def ended(monkeypatch, capfd):
    """Run the command in this process, with an exception out of the command line; return its status and its error."""
    before = signal.getsignal(signal.SIGINT)

    def call(error):
        def fail(arguments):
            raise error

        monkeypatch.setattr(cli, "status", fail)
        with pytest.raises(SystemExit) as stopped:
            fastcheck_command.main()
        out, err = capfd.readouterr()
        assert out == ""
        return stopped.value.code, err

    yield call
    signal.signal(signal.SIGINT, before)


UNEXPECTED = [
    (ValueError("one\nand \x1b[31manother"), r"ValueError: 'one\nand \x1b[31manother'"),
    (RecursionError("too deep"), "RecursionError: 'too deep'"),
    (SystemExit(0), "SystemExit: '0'"),
    (SystemExit(1), "SystemExit: '1'"),
    (SystemExit(), "SystemExit: ''"),
    (GeneratorExit(), "GeneratorExit: ''"),
    (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError: '[Errno 32] Broken pipe'"),
    (AssertionError("x" * 60_000), f"AssertionError: '{'x' * 500}'"),
]


@pytest.mark.parametrize(("error", "told"), UNEXPECTED, ids=lambda value: type(value).__name__)
def test_what_nobody_expects_is_status_3_in_one_line(error, told, ended, monkeypatch):
    monkeypatch.delenv("FASTCHECK_TRACEBACK", raising=False)
    hint = "set FASTCHECK_TRACEBACK=1 to see the traceback"
    assert ended(error) == (3, f"fastcheck: unexpected {told}; {hint}\n")


def test_the_traceback_is_shown_where_it_is_asked_for(ended, monkeypatch):
    monkeypatch.setenv("FASTCHECK_TRACEBACK", "1")
    code, err = ended(ZeroDivisionError("by zero"))
    assert code == 3
    assert err.startswith("Traceback (most recent call last):\n")
    assert "raise error\n" in err
    assert err.endswith("fastcheck: unexpected ZeroDivisionError: 'by zero'; its traceback is above\n")


def test_an_interrupt_while_one_is_answered_is_one_line(ended):
    assert ended(KeyboardInterrupt()) == (130, "fastcheck: interrupted\n")


@pytest.mark.parametrize(
    ("module", "deed", "told"),
    [
        ("numpy", "raise ImportError('no luck')", "ImportError: 'no luck'; set "),
        ("fastcheck", "sys.exit(1)", "SystemExit: '1'; set "),
        ("fastcheck.cli.main", "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))", ""),
    ],
    ids=["broken", "exits", "no more files"],
)
def test_a_failed_import_is_status_3_in_one_line(module, deed, told, started):
    done = started(*ABSENT, module=module, deed=deed)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith(f"fastcheck: unexpected {told}")


def test_memory_that_is_short_is_status_2(run, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(cli, "compare", fail)
    monkeypatch.setattr(cli.files, "read_pair", fail)
    assert run("compare", "a", "b") == (2, "", "fastcheck: there is not enough memory for this case\n")


# Ctrl-C


@pytest.mark.parametrize(
    ("module", "deed"),
    [*((module, INTERRUPT) for module in ("numpy", "fastcheck.check", "numba")), ("numpy", "Lost()")],
    ids=["numpy", "fastcheck.check", "numba", "an exception that is lost"],
)
def test_ctrl_c_while_modules_are_imported(module, deed, started, tmp_path):
    path = saved(tmp_path / "layer.npz", layer((1, 1, 3, 3), (1, 1, 2, 2)))
    done = started("conv", path, module=module, deed=deed)
    # Python ends by the signal itself where it was raised inside an exec(), though handled: 130 to a shell as well.
    assert done.returncode in (130, -signal.SIGINT)
    assert (done.stdout, done.stderr) == ("", "fastcheck: interrupted\n")


@pytest.mark.jit
def test_an_interrupt_that_is_lost_before_the_work_begins_ends_it(started, tmp_path):
    path = saved(tmp_path / "layer.npz", layer((1, 1, 3, 3), (1, 1, 2, 2)))
    done = started("conv", path, module="numba", deed="Lost()")
    assert (done.returncode, done.stderr) == (130, "")
    assert "no dimension was checked" in " ".join(done.stdout.split())


def test_ctrl_c_at_the_end_is_one_line(started):
    done = started("--version", module="fastcheck.cli.main", deed=f"atexit.register(lambda: {INTERRUPT})")
    assert (done.returncode, done.stderr) == (130, "fastcheck: interrupted\n")


def test_ctrl_c_stays_ignored_where_the_parent_ignores_it(started):
    for module in ("numpy", "fastcheck.check"):
        done = started(*ABSENT, module=module, deed=INTERRUPT, sigint=signal.SIG_IGN)
        assert (done.returncode, done.stderr) == (2, TOLD)


# Streams


def _broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def _full():
    return open("/dev/full", "w")


@pytest.mark.parametrize("stream", [_full, _broken_pipe])
@pytest.mark.parametrize(("deed", "code"), [("pass", 2), ("raise ImportError", 3), (INTERRUPT, 130)])
def test_a_status_stands_where_standard_error_cannot_be_written(stream, deed, code, started):
    with stream() as error:
        assert started(*ABSENT, module="numpy", deed=deed, stderr=error).returncode == code


@pytest.mark.parametrize(("deed", "code"), [("pass", 0), ("raise ImportError", 3)])
def test_a_warning_that_cannot_be_written_changes_no_status(deed, code, started):
    with _full() as error:
        deed = f"import warnings; warnings.warn('of no use'); {deed}"
        assert started("--version", module="numpy", deed=deed, stderr=error).returncode == code


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [("--version", ">&-", 0), ("conv absent.npz", "2>&-", 2), ("", "<&- >&- 2>&-", 2)],
)
def test_closed_streams_change_no_status(arguments, closed, code):
    command = f"{sys.executable} -m fastcheck {arguments} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(("stream", "code", "told"), [(_full, 2, FULL), (_broken_pipe, 0, "")])
def test_help_that_cannot_be_printed(stream, code, told, run, started, monkeypatch):
    for arguments in (["--version"], ["-h"], *([name, "--help"] for name in cli.cli.commands)):
        with monkeypatch.context() as patched, stream() as output:
            patched.setattr(sys, "stdout", output)
            assert run(*arguments) == (code, "", told)
    with stream() as output:  # the whole process: nothing is left that fails when Python ends
        done = started("--help", stdout=output)
        assert (done.returncode, done.stderr) == (code, told)
