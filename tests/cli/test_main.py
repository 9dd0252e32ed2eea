"""The command line as a user meets it: verdicts, files, exit codes, and one clear line for bad input."""

import csv
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
import zipfile
from itertools import count

import numpy as np
import processes
import pytest
from layer_examples import case, layer, saved

import fastcheck
from fastcheck.common import writing
from fastcheck.common.progress import progress_bar
from fastcheck.convolutions import table_evaluator
from fastcheck.engine import coordinator
from fastcheck.render.dimensions_csv import write_table

LAYER = layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, groups=2)


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "layer.npz", LAYER)


LAYERS = {
    "strided": layer((2, 3, 11, 11), (4, 3, 3, 3), stride=2, padding=1),
    "dilated": layer((1, 3, 12, 12), (4, 3, 3, 3), dilation=2, padding=2),
    "grouped": layer((2, 6, 8, 8), (4, 3, 3, 3), groups=2),
    "depthwise": layer((1, 5, 9, 9), (5, 1, 3, 3), padding=1, groups=5),
    "1-D": layer((2, 3, 50), (4, 3, 9), stride=4, padding=3),
    "3-D": layer((1, 2, 6, 7, 8), (3, 2, 2, 3, 3), padding=1),
}


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_pytorchs_gradients_pass_and_one_flipped_sign_fails_with_its_index(name, dtype, run, tmp_path):
    good = saved(tmp_path / "good.npz", LAYERS[name], dtype=dtype)
    code, out, _ = run("conv", good)
    assert code == 0, out
    assert "PASS" in out
    weight = np.load(good)["grad_weight"]
    place = np.unravel_index(weight.size // 2, weight.shape)
    weight[place] *= -1
    code, out, _ = run("conv", saved(tmp_path / "bad.npz", LAYERS[name], dtype=dtype, grad_weight=weight))
    assert code == 1, out
    assert "FAIL: weight is wrong in 1 of " in " ".join(out.split())
    assert f"\n  {[int(i) for i in place]} " in out
    assert "opposite sign" in out


def test_options_win_over_the_file(run, tmp_path):
    bare = saved(tmp_path / "bare.npz", LAYER, stride=None, padding=None, dilation=None, groups=None)
    assert run("conv", bare, "--stride", 2, "--padding", 1, "--groups", 2)[0] == 0
    assert run("conv", bare, "--stride", "2,2", "--padding", "1:1,1:1", "--groups", 2, "--dilation", "1,1")[0] == 0
    assert run("conv", saved(tmp_path / "wrong.npz", LAYER, stride=np.array(3)), "--stride", "2")[0] == 0
    same = layer((1, 2, 7, 7), (3, 2, 3, 3), padding=1)
    assert run("conv", saved(tmp_path / "same.npz", same, padding=np.array("same")))[0] == 0
    assert run("conv", saved(tmp_path / "same.npz", same, padding=None), "--padding", "same")[0] == 0


def test_json_alone_on_standard_output(run, path):
    code, out, err = run("conv", path, "--json", "-", "--dims", 40, "--seed", 5, "--step", 0.5, "--evaluator", "full")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data["requested"] == {"step": 0.5, "evaluator": "full", "dims": 40, "kinks": "widen"}
    assert sum(tensor["dims_checked"] for tensor in data["tensors"].values()) == 40


@pytest.mark.parametrize(("given", "count"), [((), 20), (("--directions", 5), 5), (("--directions", 0), None)])
def test_directions_cover_what_a_sample_leaves_out(given, count, run, path):
    code, out, _ = run("conv", path, "--dims", 6, *given)
    assert code == 0
    assert (f"{count} directions over all" in out) == (count is not None)


def test_json_and_table_files(run, path, tmp_path):
    json_path, table_path = tmp_path / "r.json", tmp_path / "t.csv"
    code, shown, _ = run("conv", path, "--json", json_path, "--table", table_path, "--dims", "all")
    assert code == 0
    report = json.loads(json_path.read_text())
    rows = list(csv.DictReader(io.StringIO(table_path.read_text())))
    assert len(rows) == sum(tensor["dims_checked"] for tensor in report["tensors"].values())
    weight = np.load(path)["grad_weight"]
    for row in rows:
        if row["tensor"] == "weight":
            assert float(row["analytic"]) == weight[tuple(map(int, row["index"].split()))]
        gap = float(row["analytic"]) - float(row["numeric"])
        assert float(row["difference"]) == gap
        assert abs(gap) <= float(row["error_bar"])
        assert row["verdict"] == "pass"
    assert {row["same_sign"] for row in rows} == {"yes"}
    code, again, _ = run("show", json_path)
    assert code == 0
    assert again.splitlines()[1:] == shown.splitlines()[1:]  # the first line names the file
    assert sorted(os.listdir(tmp_path)) == ["layer.npz", "r.json", "t.csv"]
    assert run("show", json_path, "--json", "-")[1] == json_path.read_text()


def test_names_in_tables_are_no_formulas_and_no_escapes():
    names = {
        **{name: f"'{name}" for name in ("=1+1", "+1", "-1", "@SUM(A1)", " =1", "\uff1d1")},
        "\x1b[31mred": "\\x1b[31mred",
        "\t=1": "\\t=1",
        "new\nline": "new\\nline",
        "a=b-c": "a=b-c",
    }
    arrays = {name: np.array([-1.5, 2.5]) for name in names}
    report = fastcheck.compare(arrays, arrays, keep=True)
    stream = io.StringIO()
    write_table(report, stream)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["tensor"] for row in rows[::2]] == list(names.values())
    assert {row["analytic"] for row in rows[::2]} == {"-1.5"}


def test_a_wrong_forward_is_told(run, tmp_path):
    output = case(LAYER).output * 2
    code, out, _ = run("conv", saved(tmp_path / "bad.npz", LAYER, output=output))
    assert code == 1
    assert "the output is twice" in out
    assert "no gradient was judged" in out


def test_compare(run, tmp_path):
    a = np.random.default_rng(0).standard_normal((3, 4))
    for name, array in (("a", a), ("n", a * (1 + 1e-12)), ("wrong", -a), ("near", a * (1 + 1e-5))):
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "a.npz", w=a)
    np.savez(tmp_path / "n.npz", w=a)
    code, out, _ = run("compare", tmp_path / "a.npy", tmp_path / "n.npy", "--verbose")
    assert code == 0
    assert "rules of thumb: norm ratio at most 1e-09 (met); max ratio below 0.01 (met)" in out
    assert run("compare", tmp_path / "a.npy", tmp_path / "wrong.npy")[0] == 1
    assert run("compare", tmp_path / "a.npy", tmp_path / "near.npy")[0] == 3
    assert run("compare", tmp_path / "a.npz", tmp_path / "n.npz", "--table", tmp_path / "t.csv")[0] == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 13


def test_help_has_an_example_everywhere(run):
    for command in ((), ("conv",), ("sweep",), ("compare",), ("demo",), ("zoo",), ("show",), ("probe",), ("judge",)):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "Example:" in out
        assert "fastcheck " in out.split("Example:")[1]
    assert run("--version")[1].split()[-1] == fastcheck.__version__
    assert run()[0] == 2


def test_shells_can_complete(run, monkeypatch):
    monkeypatch.setenv("_FASTCHECK_COMPLETE", "zsh_source")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.startswith("#compdef fastcheck")
    monkeypatch.setenv("_FASTCHECK_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "fastcheck sw")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert "sweep" in run()[1]


BAD_ARGUMENTS = {
    "dims of 0": (["--dims", "0"], "dims is 0: expected"),
    "dims in words": (["--dims", "some"], "'some': expected all, auto or a number"),
    "a step of 0": (["--step", "0"], "step is 0.0: expected a positive finite number"),
    "a step in words": (["--step", "small"], "'small': expected auto or a number"),
    "a step too small": (["--step", "1e-40"], "the smallest usable step is"),
    "stride 0": (["--stride", "0"], "stride is 0: expected an integer of at least 1"),
    "stride in words": (["--stride", "two"], "'two': expected an integer"),
    "too many strides": (["--stride", "1,2,3"], "stride is [1, 2, 3]: expected one integer, or 2"),
    "odd padding": (["--padding", "1:2:3"], "'1:2:3': expected integers"),
    "groups that do not divide": (["--groups", "3"], "groups is 3: it must divide the 4 input channels"),
    "an unknown evaluator": (["--evaluator", "magic"], "'magic' is not one of 'auto', 'full', 'local', 'delta'"),
    "an unknown option": (["--strides", "2"], "No such option"),
    "an absent output folder": (["--json", "no/such/folder/r.json"], "no/such/folder/r.json cannot be written"),
    "a folder as output": (["--table", "/"], "/ cannot be written: it is a folder"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name, refused, path):
    arguments, message = BAD_ARGUMENTS[name]
    assert message in refused("conv", path, *arguments)


LONG, LONGER = "1" * 310, "9" * 10_000  # no float64 is so large; no int is read from so many digits
NO_NUMBERS = ("", ",", "nan", "inf", "1.5", "\u00b2", LONGER)
ABSURD = {
    ("conv", "--stride"): (*NO_NUMBERS, "1,", ":", LONG),
    ("conv", "--padding"): (*NO_NUMBERS, "::", ":1", "1:", "-1:-1", LONG),
    ("conv", "--dilation"): (*NO_NUMBERS, LONG),
    ("conv", "--groups"): (*NO_NUMBERS, LONG),
    ("conv", "--dims"): (*NO_NUMBERS, "1e5", "-1"),
    ("conv", "--step"): ("", ",", "nan", "inf", "1e999", "-1", "1e-320", LONG, LONGER),
    ("conv", "--threads"): NO_NUMBERS,
    ("conv", "--seed"): (*NO_NUMBERS, "-1"),
    ("sweep", "--tensor"): ("", ",", LONGER),
    ("sweep", "--steps"): ("", ",", "nan", "inf", "1e999", "1e-1,", LONG, LONGER),
    ("sweep", "--dims"): (*NO_NUMBERS, LONG, "0", "-1"),
}


@pytest.mark.parametrize(("command", "option"), ABSURD)
def test_absurd_values_are_refused_in_one_line(command, option, refused, path):
    for value in ABSURD[command, option]:
        name = option.removeprefix("--")
        told = refused(command, path, option, value)
        assert f"'{option}'" in told or told.startswith((f"fastcheck: {name} ", "fastcheck: steps ")), (value, told)


@pytest.mark.parametrize("size", [*NO_NUMBERS[:-3], "-1", "1e5", "8 EiB", "8388608TiB", "0XB", "\u0661", LONG, LONGER])
def test_absurd_sizes_are_refused_in_one_line(size, refused):
    assert "'--memory'" in refused("run", "absent.toml", "--memory", size)
    assert "absent.toml cannot be read" in refused("run", "absent.toml", "--memory", "8388607.9 TiB")


def test_lists_of_no_names_are_refused(refused):
    for value in ("", ",", " , "):
        assert "no layer is named ''" in refused("zoo", "alexnet", "--layers", value)
        assert "a tensor is ''" in refused("zoo", "alexnet", "--tensors", value)


ONES = np.ones((2, 6, 5, 5))
BAD_ARRAYS = {
    "a missing key": ({"input": None}, "has no key 'input'"),
    "a missing cotangent": ({"grad_output": None}, "has no key 'grad_output'"),
    "no gradient": ({"grad_input": None, "grad_weight": None, "grad_bias": None}, "has no gradient to check"),
    "an unknown key": ({"wieght": np.ones(3)}, "unknown key 'wieght' (did you mean 'weight'?)"),
    "a wrong rank": ({"weight": np.ones((6, 2, 3))}, "weight has shape (6, 2, 3): expected 4 axes"),
    "a shape that does not fit": ({"grad_output": np.ones((2, 6, 5, 4))}, "axis 3 (width) is 4, expected 5"),
    "channels that do not fit": ({"weight": np.ones((6, 3, 3, 3))}, "axis 1 is 3, expected 2"),
    "nan": (
        {"grad_output": np.where(ONES.cumsum().reshape(ONES.shape) == 8, np.nan, ONES)},
        "grad_output is nan at index [0, 0, 1, 2]",
    ),
    "integers": ({"weight": np.ones((6, 2, 3, 3), dtype=int)}, "weight has dtype int64"),
    "complex numbers": ({"bias": np.ones(6, dtype=complex)}, "bias has dtype complex128"),
    "pickled objects": ({"bias": np.array([None] * 6)}, "is a pickled array of objects"),
    "an empty tensor": ({"input": np.ones((0, 4, 9, 9))}, "input is empty"),
    "stride 0": ({"stride": np.array(0)}, "stride is 0: expected"),
    "a stride that is not whole": ({"stride": np.array(1.5)}, "stride is 1.5: expected an integer of at least 1"),
    "a kernel larger than the input": ({"dilation": np.array(9)}, "larger than the padded input along height"),
    "groups that do not divide": ({"groups": np.array(4)}, "groups is 4: it must divide the 6 filters"),
    "an unknown precision": ({"precision": np.array("half")}, "precision is 'half': expected one of float64"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(name, refused, tmp_path):
    changes, message = BAD_ARRAYS[name]
    assert message in refused("conv", saved(tmp_path / "bad.npz", LAYER, **changes))


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def _not_an_archive(path):
    path.write_text("input, weight\n")


def _empty(path):
    path.write_bytes(b"")


def _flipped_bits(path):
    data = bytearray(path.read_bytes())
    data[200:2000] = bytes(255 - byte for byte in data[200:2000])
    path.write_bytes(data)


def _header(shape, dtype="<f8"):
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _member(path, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input.npy", data)


def _declares_more_than_it_holds(path):
    _member(path, _header((1000, 1000)) + bytes(80))


def _declares_more_than_the_memory(path):
    _member(path, _header((10**6, 10**9)) + bytes(80))


def _a_member_that_is_no_array(path):
    _member(path, b"hello")


BAD_FILES = {
    _truncated: "not an .npz file, or is truncated",
    _not_an_archive: "not an .npz file, or is truncated",
    _empty: "not an .npz file, or is truncated",
    _flipped_bits: "layer.npz",
    _declares_more_than_it_holds: "is truncated: it declares 8,000,000 bytes",
    _declares_more_than_the_memory: "it does not fit in memory",
    _a_member_that_is_no_array: "input in",
}


@pytest.mark.parametrize("damage", BAD_FILES, ids=lambda damage: damage.__name__)
def test_bad_files(damage, refused, path):
    damage(path)
    assert BAD_FILES[damage] in refused("conv", path)


def test_files_that_cannot_be_read(refused, tmp_path):
    assert "absent.npz cannot be read: No such file" in refused("conv", tmp_path / "absent.npz")
    assert "cannot be read: Is a directory" in refused("conv", tmp_path)
    assert "cannot be read: No such file" in refused("compare", tmp_path / "a.npy", tmp_path / "n.npy")
    (tmp_path / "r.json").write_bytes(b"\xff\xfe")
    assert "not text" in refused("show", tmp_path / "r.json")
    (tmp_path / "r.json").write_text("{}")
    assert "r.json: the report is not one of fastcheck's" in refused("show", tmp_path / "r.json")
    np.save(tmp_path / "a.npy", np.ones(100))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "n.npy").write_bytes(whole[:-9])
    told = refused("compare", tmp_path / "a.npy", tmp_path / "n.npy")
    assert "is truncated: it declares 800 bytes and holds 791" in told
    np.save(tmp_path / "n.npy", np.array([None]), allow_pickle=True)
    assert "pickled" in refused("compare", tmp_path / "a.npy", tmp_path / "n.npy")


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("before")

    def write(stream):
        stream.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(fastcheck.FastcheckError, match=r"report.json cannot be written: No space left on device"):
        writing.write_whole(target, write)
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.json"]
    writing.write_whole(target, lambda stream: stream.write("after"))
    assert target.read_text() == "after"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_ctrl_c_stops_at_the_next_block_with_a_partial_report(run, path, monkeypatch):
    """No block ends once it was pressed, until the check has: what that has found, it had before."""
    monkeypatch.setattr(table_evaluator, "BLOCK_DIMS", 64)
    difference, numbers, begun, gate = coordinator.OpenTensor.difference, count(), [], threading.Event()

    def interrupting(tensor, block):
        number = next(numbers)
        begun.append(number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if number >= 2:
            gate.wait(processes.PATIENCE)
        return difference(tensor, block)

    monkeypatch.setattr(coordinator.OpenTensor, "difference", interrupting)
    code, out, err = run("conv", path, "--dims", "all", "--evaluator", "full", "--json", "-", "--threads", 2)
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("fastcheck"):
            thread.join(processes.PATIENCE)
    report = json.loads(out)
    assert (code, err) == (130, "")
    assert (report["interrupted"], report["verdict"]) == (True, "inconclusive")
    found = report["tensors"]["input"]
    assert found["dims_checked"] in (64, 128)
    assert found["dims_checked"] < found["dims_total"]
    assert found["beyond_error_bar"] == 0
    assert len(begun) <= 2 + 2  # one for each thread, and none after


COMPILING = """
import os, signal, sys
from numba.core import event
from fastcheck.cli import main as cli

class Interrupts(event.Listener):
    left = int(sys.argv[2])

    def on_start(self, event):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def on_end(self, event):
        pass

event.register(sys.argv[1], Interrupts())
cli.main(sys.argv[3:])
"""
"""Is interrupted as so many steps of Numba's of a kind have begun."""


@pytest.mark.jit
@pytest.mark.parametrize(
    ("kind", "number"), [("compile", 1), ("compile", 6), ("run_pass", 100), ("compiler_lock", 1), ("llvm_lock", 2)]
)
def test_ctrl_c_while_kernels_compile(kind, number, path, tmp_path):
    """The compiler turns an interrupt into exceptions of its own, or swallows it."""
    arguments = ["conv", str(path), "--dims", "all", "--evaluator", "full"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "empty")}
    done = processes.run([sys.executable, "-c", COMPILING, f"numba:{kind}", str(number), *arguments], env=environment)
    # Python ends by the signal itself where it was raised inside an exec(), though handled: 130 to a shell as well.
    assert done.returncode in (130, -signal.SIGINT), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


TERMINAL = """
import sys
from rich.progress import Progress
from fastcheck.cli import main as cli

update = Progress.update
Progress.update = lambda bar, *told, **more: update(bar, *told, refresh=True, **more)
cli.main(sys.argv[1:])
"""
"""Draws all that is told, where usually it is what is there ten times a second."""


@pytest.mark.jit
def test_progress_is_shown_on_a_terminal_and_not_in_a_pipe(tmp_path):
    """A pseudo-terminal stands in for the person's own."""
    path = saved(tmp_path / "layer.npz", layer((1, 8, 32, 32), (16, 8, 3, 3), padding=1))
    command = [sys.executable, "-c", TERMINAL, "conv", str(path), "--evaluator", "full", "--dims", "300"]
    piped = processes.run(command)
    assert (piped.returncode, piped.stderr) == (0, "")
    leader, follower = pty.openpty()
    with processes.child(command, stdout=subprocess.DEVNULL, stderr=follower) as process:
        os.close(follower)
        seen = b"".join(iter(lambda: _read(leader), b""))
        assert process.wait(processes.PATIENCE) == 0
    os.close(leader)
    assert b"weight" in seen
    assert b"/s" in seen


def _read(leader):
    """Return what a terminal was given, and nothing once nobody has it any more."""
    try:
        return os.read(leader, 4096)
    except OSError:
        return b""


def test_names_in_a_progress_bar_are_neither_markup_nor_escapes(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar() as hook:
        hook("[/]\x1b[31mred", 1, 2)
    assert "[/]\\x1b[31mred" in terminal.getvalue()
    assert "\x1b[31mred" not in terminal.getvalue()


def _compared(folder, factor=1.0):
    """Return the command that compares a gradient with so many times itself."""
    for name, array in (("a.npy", factor * np.ones(3)), ("n.npy", np.ones(3))):
        np.save(folder / name, array)
    return f"{sys.executable} -m fastcheck compare {folder / 'a.npy'} {folder / 'n.npy'}"


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0), (2.0, 1)])
def test_a_reader_that_stops_reading_changes_nothing(factor, expected, tmp_path):
    for options in ("", "--json -"):
        command = f"{_compared(tmp_path, factor)} {options} | true; exit ${{PIPESTATUS[0]}}"
        done = processes.run(["bash", "-c", command])
        assert (done.returncode, done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [("> /dev/full", 2, "fastcheck: standard output cannot be written: No space left on device\n"), (">&-", 0, "")],
)
def test_standard_output_that_cannot_be_written(redirected, code, told, tmp_path):
    for options in ("", "--json -"):
        command = f"{_compared(tmp_path)} {options} {redirected}"
        done = processes.run(["bash", "-c", command])
        assert (done.returncode, done.stderr) == (code, told)


def test_a_name_that_the_terminal_cannot_show(tmp_path):
    path = saved(tmp_path / "é✓.npz", LAYER)
    command = [sys.executable, "-m", "fastcheck", "conv", str(path)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = processes.run(command, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_outputs_do_not_overwrite_each_other_or_the_case(refused, path, tmp_path):
    assert "named twice" in refused("conv", path, "--json", tmp_path / "r", "--table", tmp_path / "r")
    assert "named twice" in refused("conv", path, "--json", path)
    assert "--table is '-'" in refused("conv", path, "--table", "-")
    assert "File name too long" in refused("conv", path, "--json", tmp_path / ("r" * 300))
    np.load(path)


OUTPUTS = {
    "": "'' cannot be written: expected the path of a file",
    "a\0b": r"'a\x00b' cannot be written: expected the path of a file",
    "dangling": "dangling cannot be written: {}/nowhere is not a folder",
    "loop": "loop cannot be written: Too many levels of symbolic links",
    "layer.npz/r.json": "layer.npz/r.json cannot be written: Not a directory",
    "/dev/full": "/dev/full cannot be written: No space left on device",
    "/dev/fd/0": "/dev/fd/0 cannot be written: Bad file descriptor",
    "/dev/fd/987654321": "/dev/fd/987654321 cannot be written: Bad file descriptor",
    "/proc/no-file": "/proc/no-file cannot be written: ",
}


@pytest.mark.parametrize("option", ["--json", "--table"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_cannot_be_written(name, option, refused, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("nowhere/r.json", "dangling")
    os.symlink("loop", "loop")
    reading = os.open(os.devnull, os.O_RDONLY)
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert f"fastcheck: {OUTPUTS[name].format(os.path.realpath(tmp_path))}" in refused("conv", path, option, name)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reading)
    assert sorted(os.listdir()) == ["dangling", "layer.npz", "loop"]


def test_a_pipes_descriptor_is_written_to_and_stays_open(run, path):
    """What a shell makes of ``--json >(command)``."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as read, os.fdopen(writing, "w") as write:
        code, shown, _ = run("conv", path, "--json", f"/dev/fd/{writing}")
        write.close()
        assert (code, json.loads(read.read())["verdict"]) == (0, "pass")
    assert "PASS" in shown


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_may_be_named_as_a_file(kind, path, refused, tmp_path):
    command = [sys.executable, "-m", "fastcheck", "conv", str(path), "--json", "/dev/stdout"]
    with open(tmp_path / "out", "w+") as file:
        done = subprocess.run(command, stdout=file if kind == "file" else subprocess.PIPE, text=True, check=True)
        file.seek(0)
        told = done.stdout or file.read()
    report, end = json.JSONDecoder().raw_decode(told)
    assert report["verdict"] == "pass"
    assert "PASS" in told[end:]
    for table in ("/dev/stdout", "/dev/fd/1"):
        for taken in ("/dev/stdout", "-"):
            assert "/dev/stdout is named twice" in refused("conv", path, "--table", table, "--json", taken)


def test_links_modes_and_devices_survive_writing(tmp_path):
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe"
    real.write_text("before")
    real.chmod(0o600)
    link.symlink_to(real)
    writing.write_whole(link, lambda stream: stream.write("after"))
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert real.stat().st_mode & 0o777 == 0o600
    os.mkfifo(pipe)
    with processes.child(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        writing.write_whole(pipe, lambda stream: stream.write("through"))
        assert reader.communicate(timeout=processes.PATIENCE)[0] == "through"
    assert pipe.is_fifo()


def test_scalars_are_compared_and_tabled(run, tmp_path):
    np.save(tmp_path / "z.npy", np.array(1.5))
    assert run("compare", tmp_path / "z.npy", tmp_path / "z.npy", "--table", tmp_path / "t.csv")[0] == 0
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("gradient,,1.5,1.5,0.0,yes")


HEADERS = [
    "{'descr': '<f8', 'shape': (",
    "{1: 2, 'a': 3}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}",
    "{'descr': ('<f8',), 'fortran_order': False, 'shape': (3,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 10**26)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_damaged_headers(header, refused, tmp_path):
    text = header.ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(24)
    (tmp_path / "a.npy").write_bytes(data)
    refused("compare", tmp_path / "a.npy", tmp_path / "a.npy")
    _member(tmp_path / "a.npz", data)
    refused("conv", tmp_path / "a.npz")


LONG = 60_000 * "x"

LONG_ARGUMENTS = {
    "a file": ("conv", LONG),
    "an option": ("conv", f"--{LONG}"),
    "a command": (LONG,),
    "a stride": ("conv", "case.npz", "--stride", LONG),
    "escapes": ("conv", 60_000 * "\x1b"),
    "a network": ("zoo", LONG),
    "an output": ("compare", "a.npy", "b.npy", "--json", f"{LONG}/f"),
    "a report": ("show", LONG),
    "a folder": ("diff", LONG, LONG),
    "an address": ("run", "suite.toml", "--dask", LONG),
}


@pytest.mark.parametrize("name", LONG_ARGUMENTS)
def test_messages_are_short_and_keep_both_ends(name, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    most = 411 if name == "an output" else 240  # a path is told whole
    assert len(refused(*LONG_ARGUMENTS[name]).strip()) <= most


def test_a_short_message_is_whole_and_a_long_one_keeps_both_ends():
    assert str(fastcheck.FastcheckError("x" * 229)) == "x" * 229
    assert str(fastcheck.FastcheckError("a" + "x" * 60_000 + "b")) == "a" + "x" * 112 + "..." + "x" * 112 + "b"


def test_a_message_is_three_lines_beside_a_long_path():
    path = f"/tmp/{'folder/' * 20}layer.npz"
    assert str(fastcheck.FastcheckError(f"{path} has no key")) == f"{path} has no key"
    told = str(fastcheck.FastcheckError(f"{path} has no key: expected {'words ' * 100}"))
    assert told.startswith(f"{path} has")
    assert len(told) == 229 + len(path) - 20


def test_a_stride_beyond_64_bits(refused, tmp_path):
    huge = np.array(2**64 - 1, dtype=np.uint64)
    assert "stride is 18446744073709551615: expected" in refused("conv", saved(tmp_path / "h.npz", LAYER, stride=huge))
