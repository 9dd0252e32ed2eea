"""Reports in notebooks: a small table and a figure, in a notebook that runs without a screen."""

import base64
import re
from xml.etree import ElementTree

import nbclient
import nbformat
import numpy as np
import pytest
from layer_examples import case, layer

import fastcheck
from fastcheck.reports.suite_report import SuiteReport

LAYER = layer((1, 2, 6, 6), (3, 2, 3, 3), padding=1)

CELLS = (
    "import numpy as np, fastcheck\n"
    "p = {'w': np.arange(1.0, 4.0), 'b': np.ones(2)}\n"
    "loss = lambda p: float(p['w'] @ p['w'] + p['b'].sum())\n"
    "grad = {'w': np.array([2.0, 4.0, -6.0]), 'b': np.ones(2)}\n"
    "report = fastcheck.check_gradient(loss, grad, p, keep=True)\n"
    "report",
    "print(report)",
    "report.plot()",
)


def _table(html, number):
    """Return the rows of a table as texts."""
    table = ElementTree.fromstring(html).findall(".//table")[number]
    return [["".join(cell.itertext()) for cell in row] for row in table.findall("tr")]


@pytest.mark.jit
def test_a_notebook_shows_a_table_and_a_figure_and_prints_the_text(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown, printed, figure = (cell.outputs[-1] for cell in notebook.cells)
    assert shown.data["text/plain"] == "<Report FAIL: w 1 of 3 wrong; b passes>"
    assert _table(shown.data["text/html"], 0)[1][:4] == ["w", "fail", "3 of 3", "1"]
    assert _table(shown.data["text/html"], 1)[1] == ["[2]", "-6", "6", "12", "opposite sign"]
    assert printed.text.startswith("FAIL: w is wrong in 1 of 3 entries (b passes)\n")
    assert base64.b64decode(figure.data["image/png"]).startswith(b"\x89PNG")


def test_every_report_has_a_table():
    made = case(LAYER)
    right = fastcheck.check(made)
    wrong = fastcheck.check(case(LAYER, grads={"bias": -made.grads["bias"]}))
    assert [row[0] for row in _table(right._repr_html_(), 0)] == ["tensor", "input", "weight", "bias"]
    assert "PASS" in right._repr_html_()
    suite = SuiteReport.of({"good": right, "bad": wrong}, threads=1)
    assert _table(suite._repr_html_(), 0)[1:] == [
        ["bad", "fail", "bias 3 of 3 wrong"],
        ["good", "pass", "input, weight, bias pass"],
    ]
    swept = fastcheck.sweep(made, tensor="weight", dims=2)
    assert len(_table(swept._repr_html_(), 0)) == 3


def test_names_cannot_break_out_of_the_table():
    report = fastcheck.compare({"<script>&\x1b": np.ones(2)}, {"<script>&\x1b": -np.ones(2)})
    html = report._repr_html_()
    assert "<script" not in html
    assert re.search(r"&lt;script&gt;&amp;\\x1b", html)
