"""Where the digits are, in a terminal and in pipes: what is seen, never wider than the console."""

import io
import json
import re
import sys
from itertools import pairwise

import network_examples
import numpy as np
import processes
import pytest
import torch_network
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer, saved

import fastcheck
from fastcheck.render.map import write_maps
from fastcheck.render.page import text_for
from fastcheck.render.text import as_text
from fastcheck.reports.axes import planes_of
from fastcheck.reports.digit_map import UNRESOLVED, WRONG, DigitMap

LAYER = layer((2, 3, 9, 9), (5, 3, 3, 3), padding=1)
CONV = {"groups": 1}


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class _Ascii(io.StringIO):
    encoding = "ascii"


def _plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def _changed(**changes):
    """Return gradients of the layer, changed in place by a function for each tensor."""
    grads = {name: grad.copy() for name, grad in case(LAYER).grads.items()}
    for name, change in changes.items():
        change(grads[name])
    return grads


def _first_row_of_taps(grad):
    grad[:, :, 0] *= -1


def _filter_3(grad):
    grad[3] *= -1


def _every_second_column(grad):
    grad[..., ::2] *= -1


@pytest.fixture(scope="module")
def report():
    grads = _changed(weight=_first_row_of_taps, bias=_filter_3, input=_every_second_column)
    return fastcheck.check(case(LAYER, grads=grads), dims="all", keep=True)


def _pictures(text, tensor):
    """Return the lines of a tensor's pictures."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{tensor}: ") and " wrong" in line)
    return [line for line in lines[start + 1 : start + 15] if line.startswith("  ")]


def test_a_person_sees_where_they_are(report):
    text = as_text(report, io.StringIO(), mapped=True)
    weight = "\n".join(_pictures(text, "weight"))
    assert "  0 ██████           0 ██████\n  1 ██████           1 9 9 9\n  2 ██████           2 9 9 9\n" in weight
    assert "  0 1 2 3 4\n  9 9 9 ██9" in text
    assert _pictures(text, "input")[2].endswith("0 ██9 ██9 ██9 ██9 ██")
    for words in ("weight: 45 of 135 wrong, all in tap row 0", "bias: 1 of 5 wrong, all in filter 3"):
        assert f"\n{words}\n" in text
    assert "\ninput: 270 of 486 wrong, all in columns 0, 2, ... 8\n" in text


@pytest.mark.parametrize("verbose", [False, True])
def test_the_map_stands_above_the_verdict_that_ends_the_report(report, verbose):
    mapped = as_text(report, io.StringIO(), verbose=verbose, mapped=True).splitlines()
    usual = as_text(report, io.StringIO(), verbose=verbose).splitlines()
    start = mapped.index("where the digits are: a cell shows the worst of its entries")
    end = next(number for number, line in enumerate(mapped) if line.startswith("██ wrong")) + 1
    assert mapped[:start] + mapped[end:] == usual
    assert mapped[-1].startswith("FAIL: ")
    assert len(mapped[end:]) == len(report.outline().foot) + 1


def test_without_kept_arrays_there_is_no_map():
    report = fastcheck.check(case(LAYER))
    assert as_text(report, io.StringIO(), mapped=True) == as_text(report, io.StringIO())


# Consoles


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("stream", [io.StringIO, _Ascii, _Terminal])
def test_it_is_never_wider_than_the_console(columns, stream, report, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = _plain(as_text(report, stream(), mapped=True))
    lines = text[text.index("where the") :].splitlines()
    assert max(map(len, lines)) <= columns
    assert sum(line.count("#" if stream is _Ascii else "█") for line in lines) >= 15 + 3 + 1 + 6 + 45


def test_colours_on_terminals_alone(report, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    coloured, plain = (as_text(report, stream, mapped=True) for stream in (_Terminal(), io.StringIO()))
    lines = [[line.rstrip() for line in text.splitlines()] for text in (_plain(coloured), plain)]
    assert lines[0] == lines[1]
    assert "\x1b" not in plain
    assert re.search(r"\x1b\[31;41m██\x1b\[0m\x1b\[30;4[\d;]+m9 \x1b\[0m\x1b\[31;41m██", coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = as_text(report, _Terminal(), mapped=True)
    assert not re.search(r"\x1b\[[\d;]*[34][0-8][;m]", quiet)
    assert [line.rstrip() for line in _plain(quiet).splitlines()] == lines[1]


def test_characters_where_the_encoding_has_no_blocks(report):
    text = as_text(report, _Ascii(), mapped=True)
    start = text.index("where the digits are")
    assert text[start:].isascii()
    assert "  0 ######           0 ######\n  1 ######           1 9 9 9\n" in text
    assert "## wrong   0123456789 digits agree (9: 9+)   . unresolved" in text


def _drawn(levels, shape, columns, operands=CONV, dims=None):
    """Return the map of a weight with these levels, in a pipe of so many columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        dims = np.arange(len(levels)) if dims is None else dims
        one = DigitMap("weight", shape, planes_of("weight", shape, operands), dims, np.array(levels))
        return text_for(io.StringIO(), lambda out: write_maps([one], out))


def test_every_mark():
    text = _drawn([WRONG, 0.9, 5.0, 9.99, 16.0, UNRESOLVED, np.nan, 3.2], (2, 4), 80, None)
    picture = "  axis 0 x axis 1\n    0 1 2 3\n  0 ██0 5 9\n  1 9 ·   3\n"
    assert picture in text
    assert text.endswith("\n██ wrong   0123456789 digits agree (9: 9+)   · unresolved   blank: not checked\n")


def test_a_number_alone_and_an_empty_map():
    assert "\nweight: at least 7.0 digits\n  0\n  7\n" in _drawn([7.0], (), 80)
    assert text_for(io.StringIO(), lambda out: write_maps([], out)) == ""


def test_bins_are_told_with_the_first_index_of_each():
    levels = np.full((100, 200), 12.0)
    levels[37, 151] = WRONG
    text = _drawn(levels.ravel(), (100, 200), 60, None)
    assert "axis 0 x axis 1, bins of 4 x 4" in text
    lines = text.splitlines()
    ruler = next(line for line in lines if line.split()[:2] == ["0", "20"])
    row = next(line for line in lines if "█" in line)
    assert row.split()[0] == "36"
    assert row.count("█") == 1
    assert row.index("█") - ruler.index("140") == (151 // 4 - 140 // 4)
    assert "1 of 20,000 wrong, all in axis 0 at 37, axis 1 at 151" in text.replace("\n  ", " ")


@given(st.lists(st.integers(1, 400), min_size=1, max_size=4).map(tuple), st.integers(20, 150), st.data())
def test_a_planted_wrong_entry_is_seen_at_any_width(shape, columns, data):
    size = int(np.prod(shape, dtype=np.int64))
    place = data.draw(st.integers(0, size - 1))
    others = np.arange(0, size, max(size // 300, 1))
    dims = np.unique(np.append(others, place))
    text = _drawn(np.where(dims == place, WRONG, 9.0), shape, columns, CONV, dims)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    planes = planes_of("weight", shape, CONV)
    runs = re.findall("█+", "\n".join(line for line in lines if "█ wrong" not in line))
    assert len(runs) == len(planes)
    assert {len(run) for run in runs} <= {1, 2}


@given(st.integers(2, 3000), st.integers(24, 150))
def test_the_ruler_names_the_cell_below_it(size, columns):
    lines = _drawn(np.full(size, 9.0), (size,), columns, None).splitlines()
    title = next(number for number, line in enumerate(lines) if line.startswith("  axis 0"))
    each = int((re.search(r"bins\s+of\s+1\s+x\s+(\d+)", " ".join(lines)) or [0, 1])[1])
    ruler, cells = next(pair for pair in pairwise(lines[title:]) if pair[1].strip("9 ") == "")
    across = 2 if cells.startswith("  9 ") else 1
    for label in re.finditer(r"\d+", ruler):
        assert int(label[0]) == (label.start() - 2) // across * each
        assert cells[label.start()] == "9"


# The command line


def test_conv_map(run, tmp_path, monkeypatch):
    path = saved(tmp_path / "layer.npz", LAYER, grad_weight=_changed(weight=_first_row_of_taps)["weight"])
    code, out, _ = run("conv", path, "--map")
    assert code == 1
    assert "weight: 45 of 135 wrong, all in tap row 0\n" in out
    assert out.index("bias: at least 1") > out.index("input: at least 1") > out.index("weight: 45 of 135 wrong")
    code, plain, _ = run("conv", path, "--json", "-")
    code, mapped, _ = run("conv", path, "--json", "-", "--map")
    plain, mapped = json.loads(plain), json.loads(mapped)
    assert {**plain, "run": None} == {**mapped, "run": None}
    assert plain["run"].keys() == mapped["run"].keys()


def test_a_wrong_forward_has_no_map(run, tmp_path):
    code, out, _ = run("conv", saved(tmp_path / "f.npz", LAYER, output=2 * case(LAYER).output), "--map")
    assert code == 1
    assert "where the digits are" not in out


def test_compare_map(run, tmp_path):
    a = np.arange(1.0, 7.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "n.npy", a * np.array([[1, 1, 1 + 1e-4], [1, -1, 1]]))
    code, out, _ = run("compare", tmp_path / "a.npy", tmp_path / "n.npy", "--map")
    assert code == 1
    assert "  axis 0 x axis 1\n    0 1 2\n  0 9 9 4\n  1 9 0 9\n" in out


def test_a_networks_map_is_that_of_its_last_phase():
    described, params, x, y, masks = network_examples.CASES["l2_l1_groups"](0)
    _, grads = torch_network.gradients(described, params, x, y, masks)
    report = fastcheck.check_network(described, params, grads, x, y, masks=masks, dims="all", threads=2, keep=True)
    assert len(report.phases) == 2
    text = as_text(report, io.StringIO(), mapped=True)
    assert "where the digits are (with regularisation): a cell shows" in text
    assert all(f"\n{name}: " in text for name in report.tensors)


def test_names_cannot_move_the_cursor():
    names = {"\x1b[31mred": np.ones(3)}
    report = fastcheck.compare(names, names, keep=True)
    text = as_text(report, io.StringIO(), mapped=True)
    assert "\\x1b[31mred: at least 16.0 digits" in text
    assert text.replace("\n", "").isprintable()


def test_in_a_real_process(tmp_path):
    path = saved(tmp_path / "layer.npz", LAYER, grad_bias=_changed(bias=_filter_3)["bias"])
    environment = processes.environment() | {"COLUMNS": "40", "PYTHONIOENCODING": "latin-1"}
    done = processes.run([sys.executable, "-m", "fastcheck", "conv", str(path), "--map"], env=environment)
    assert done.returncode == 1
    assert "  0 1 2 3 4\n  9 9 9 ##9\n" in done.stdout
