"""The figure of where the digits are: the worst entry of every cell, in matplotlib."""

import io
import os
import subprocess
import sys

import network_examples
import numpy as np
import pytest
import torch_network
from layer_examples import case, layer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fastcheck
from fastcheck.common.drawing import require_matplotlib
from fastcheck.reports.axes import planes_of
from fastcheck.reports.digit_map import UNRESOLVED, WRONG, DigitMap
from fastcheck.reports.figure import MOST_CELLS, figure_of

LAYER = layer((2, 3, 9, 9), (5, 3, 3, 3), padding=1)


def _checked(keep=True, **factors):
    grads = {name: grad * factors.get(name, 1.0) for name, grad in case(LAYER).grads.items()}
    return fastcheck.check(case(LAYER, grads=grads), dims="all", keep=keep)


def _images(figure):
    """Return the pictures' arrays by title of their row and labels of their axes."""
    found, title = {}, ""
    for axes in figure.axes:
        title = axes.get_title(loc="left") or title
        for image in axes.get_images():
            found[title.partition(":")[0], axes.get_ylabel(), axes.get_xlabel()] = np.asarray(image.get_array())
    return found


def test_the_figure_has_the_pictures_of_every_tensor():
    columns = np.where(np.arange(9) % 2, 1.0, -1.0)
    taps = np.where(np.arange(3) == 0, -1.0, 1.0)[:, None]
    figure = _checked(input=columns, weight=taps).plot()
    assert isinstance(figure, Figure)
    images = _images(figure)
    assert set(images) == {
        ("weight", "filter", "channel"),
        ("weight", "tap row", "tap column"),
        ("bias", "", "filter"),
        ("input", "sample", "channel"),
        ("input", "row", "column"),
    }
    assert [name for name, _, _ in images][-1] == "bias"  # it passes
    assert (images["weight", "tap row", "tap column"][0] == WRONG).all()
    assert (images["weight", "tap row", "tap column"][1:] > 9).all()
    assert ((images["input", "row", "column"] == WRONG) == (columns < 0)).all()
    assert (images["bias", "", "filter"] > 9).all()


def test_a_wrong_entry_is_red_whatever_the_size():
    shape = (1500, 2000)
    dims = np.arange(0, 3_000_000, 7)
    levels = np.where(dims == 7 * 300_000, WRONG, 15.0)
    figure = figure_of([DigitMap("w", shape, planes_of("w", shape, None), dims, levels)])
    (image,) = _images(figure).values()
    assert max(image.shape) <= MOST_CELLS
    assert np.count_nonzero(image == WRONG) == 1
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    left, bottom, right, top = map(int, figure.axes[0].bbox.extents)
    pixels = np.asarray(canvas.buffer_rgba()).astype(int)[::-1][bottom:top, left:right]
    assert ((pixels[..., 0] > 200) & (pixels[..., 1] < 60)).any()


def test_every_kind_of_entry_has_its_colour():
    levels = np.array([WRONG, 0.0, 16.0, UNRESOLVED])
    figure = figure_of([DigitMap("$\\frac{w", (5,), planes_of("w", (5,), None), np.arange(4), levels)])
    image = figure.axes[0].get_images()[0]
    colours = image.to_rgba(image.get_array())[0]
    assert len({tuple(colour) for colour in colours.tolist()}) == 5
    assert figure.axes[0].get_title(loc="left").startswith("$\\frac{w: 1 of 4 wrong")
    stream = io.BytesIO()
    figure.savefig(stream)  # the name is no formula
    assert stream.getvalue().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_network_shows_its_last_phase():
    described, params, x, y, masks = network_examples.CASES["l2_l1_groups"](0)
    _, grads = torch_network.gradients(described, params, x, y, masks)
    grads["dense1.bias"] = grads["dense1.bias"] * 1.1
    arguments = (described, params, grads, x, y)
    images = _images(fastcheck.check_network(*arguments, masks=masks, dims="all", keep=True, threads=2).plot())
    assert (images["dense1.bias", "", "output"] == WRONG).all()
    assert (images["dense1.weight", "output", "input"] >= 0).all()
    with pytest.raises(fastcheck.FastcheckError, match="check with keep=True"):
        fastcheck.check_network(*arguments, masks=masks, dims="all", threads=2).plot()


def test_scalars_and_two_arrays_can_be_plotted():
    report = fastcheck.compare({"a": np.ones(()), "b": np.zeros(4)}, {"a": -np.ones(()), "b": np.zeros(4)}, keep=True)
    images = _images(report.plot())
    assert {name: image.tolist() for (name, _, _), image in images.items()} == {"a": [[0.0]], "b": [[UNRESOLVED] * 4]}


def test_what_cannot_be_plotted_is_told_in_a_line(monkeypatch):
    with pytest.raises(fastcheck.FastcheckError, match=r"^this report cannot .* check with keep=True$"):
        _checked(keep=False).plot()
    forward = fastcheck.check(case(LAYER, output=2 * case(LAYER).output), keep=True)
    with pytest.raises(fastcheck.FastcheckError, match="no tensor was checked"):
        forward.plot()
    kept = _checked()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(fastcheck.FastcheckError, match=r'^plot\(\) needs matplotlib: pip install ".*\[plot\]"'):
        kept.plot()


def test_matplotlib_that_does_not_start_is_told():
    require_matplotlib("this test")
    code = "from fastcheck.common.drawing import require_matplotlib; require_matplotlib('a figure')"
    environment = os.environ | {"MPLBACKEND": "bogus"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "a figure needs matplotlib, which cannot be loaded: " in done.stderr


def test_plot_alone_imports_matplotlib():
    code = (
        "import sys, fastcheck; report = fastcheck.compare([1.0], [2.0], keep=True)\n"
        "assert 'matplotlib' not in sys.modules; report.plot(); assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
