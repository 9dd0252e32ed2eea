"""Sweeps: readings of curves that are made by a formula, of black boxes and of real layers; the command line."""

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_examples import case, layer, operands, saved, torch_forward

import fastcheck
from fastcheck import FastcheckError, GradientMismatchError
from fastcheck.common import writing
from fastcheck.render import plot
from fastcheck.render.curves import decades, lines
from fastcheck.render.page import text_for
from fastcheck.render.sweep import write_sweep
from fastcheck.reports.reader import from_json
from fastcheck.sweeps.curve import analyse
from fastcheck.sweeps.sweep import STEPS

H = np.array(STEPS)
LAYER = layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, groups=2)
PHI = {"vjp": lambda z: z, "square": lambda z: z * z / 2, "relu": torch.relu, "tanh": torch.tanh}


def made(loss="vjp", dtype=np.float64, seed=0, offset=0.0, a_layer=LAYER, wrong=None):
    """A case with PyTorch's gradients under a loss; `wrong` changes them, `offset` is added to the bias."""
    x, w, b = operands(a_layer, seed, dtype)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w, b + dtype(offset))]
    z = torch_forward(a_layer, *tensors)
    v = np.random.default_rng(seed + 1).standard_normal(z.shape).astype(dtype)
    found = torch.autograd.grad(PHI[loss](z), tensors, torch.from_numpy(v))
    grads = {name: g.numpy().copy() for name, g in zip(("input", "weight", "bias"), found, strict=True)}
    if wrong is not None:
        wrong(grads)
    x, w, b = (tensor.detach().numpy() for tensor in tensors)
    return fastcheck.ConvCase(x, w, b, loss=loss, grad_output=v, grads=grads, **a_layer.arguments)


def noise(size, seed):
    return size / H * np.random.default_rng(seed).standard_normal(H.size)


def quotients(f, x, steps=H):
    """Two-sided quotients of a function of one number, each divided by the realised step."""
    return np.array([(f(x + h) - f(x - h)) / ((x + h) - (x - h)) for h in steps])


seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([1e-200, 1e-8, 1.0, 1e8, 1e200])


@given(seeds, st.floats(1e-3, 10), st.floats(1e-17, 1e-14), scales)
def test_truncation_falls_as_h_squared_until_round_off_takes_over(seed, bend, size, scale):
    curve = analyse(H, scale * (1.3 + bend * H**2 + noise(size, seed)), scale * 1.3)
    assert curve.reading == "truncation", curve.words
    assert abs(curve.order - 2) < 0.02
    assert abs(curve.slope + 1) < 0.25  # one curve of random errors; medians are within 0.1 below
    balance = (size / bend) ** (1 / 3)
    assert balance / 10 < curve.best_step < balance * 10
    assert "h^2.0" in curve.words


@given(seeds, st.floats(-1e2, 1e2), st.floats(1e-17, 1e-12), scales)
def test_round_off_alone_has_no_order(seed, value, size, scale):
    curve = analyse(H, scale * (value + noise(size, seed)), scale * value)
    assert (curve.reading, curve.order) == ("round-off", None), curve.words
    assert abs(curve.slope + 1) < 0.25


@given(seeds, st.floats(0.01, 10), st.sampled_from([0.0, 0.3]), st.sampled_from([-1.0, 0.0, 0.999, 2.0]))
def test_a_wrong_analytic_value_is_flat_and_hides_neither_order_nor_slope(seed, value, bend, factor):
    numeric = value + value * (bend * H**2 + noise(1e-16, seed))
    curve = analyse(H, numeric, factor * value)
    assert curve.reading == "coding mistake", curve.words
    assert (curve.order is None) == (bend == 0)
    assert abs(curve.slope + 1) < 0.25
    assert math.isclose(curve.best_error, abs(1 - factor) * value, rel_tol=1e-3)
    with_bars = analyse(H, numeric, factor * value, np.abs(value) * (bend * H**2 + 1e-15 / H))
    assert with_bars.reading == "coding mistake"


@given(seeds, st.integers(8, 35), st.floats(0.1, 0.9), st.sampled_from([0.0, 0.3]), st.booleans())
def test_a_kink_falls_suddenly_and_below_it_a_mistake_still_shows(seed, quarter, between, bend, wrong):
    place = -(quarter + between) / 4  # between two steps
    crossed = 0.4 * np.maximum(0, 1 - 10**place / H)
    numeric = 1.3 + crossed + bend * H**2 + noise(1e-16, seed)
    curve = analyse(H, numeric, 1.4 if wrong else 1.3)
    below = H[10**place > H]
    assert curve.best_step <= below[0]
    if place > -8:  # a plateau needs a decade without noise
        assert curve.reading == ("coding mistake" if wrong else "kink"), curve.words
    if not wrong:
        assert f"{below[0]:.2g}" in curve.words


@given(seeds)
def test_a_plateau_inside_the_error_bar_is_the_analytic_values_own_precision(seed):
    numeric = 1.3 + 0.3 * H**2 + noise(1e-16, seed)
    rounded = float(np.float32(1.3))
    curve = analyse(H, numeric, rounded, 1e-7 + H**2 + 1e-15 / H)
    assert curve.reading == "truncation"
    assert "float32? float64 shows more" in curve.words
    assert analyse(H, numeric, rounded, H**2 + 1e-15 / H).reading == "coding mistake"


@given(seeds, st.floats(1, 100), st.sampled_from([1e-6, 1e-3, 1e-2, 2.0]))
def test_a_bar_that_smaller_steps_contradict_shows_no_mistake(seed, bend, wrong):
    numeric = 1.3 + bend * (H**2 - 20 * H**4) + noise(1e-16, seed)
    bars = 0.1 * bend * H**2 * (H > 1e-3) + bend * H**2 * (H <= 1e-3) + 1e-15 / H  # too narrow at large steps
    assert analyse(H, numeric, 1.3, bars).reading in ("truncation", "kink")
    for sign in (-1, 1):
        curve = analyse(H, numeric, 1.3 + sign * wrong, bars)
        assert curve.reading == "coding mistake", curve.words


def test_smooth_terms_of_opposite_sign_are_no_kink():
    for every in (1, 2, 4):
        for ratio in np.geomspace(1.5, 1e4, 200):
            curve = analyse(H[::every], 1.3 + 0.3 * (H**2 - ratio * H**4)[::every], 1.3)
            assert curve.reading != "kink", (ratio, curve.words)
            assert every > 1 or curve.reading == "truncation"


def test_a_kink_at_the_point_itself_is_told_by_the_jump_or_by_the_crossings():
    half = np.full(H.size, 0.5)
    for told in ({"jumps": half}, {"kinks": np.ones(H.size, int)}):
        curve = analyse(H, half, 0.0, half + 1e-15 / H, **told)
        assert curve.reading == "kink"
        assert "this very point" in curve.words
        assert analyse(H, half, 0.0, **told).reading == "kink"
    assert analyse(H, half, 0.0).reading == "coding mistake"


def test_agreement_to_the_last_bit_and_values_that_are_not_finite():
    assert analyse(H, np.ones(H.size), 1.0).reading == "exact"
    curve = analyse(H, np.ones(H.size), math.nan)
    assert curve.reading == "coding mistake"
    assert "nan" in curve.words


def test_steps_of_any_order_are_kept_exactly():
    steps = [0.3, 1e-5, 0.007, 2.0**-20, 1e-9]
    curve = analyse(steps, quotients(np.tanh, 0.5, steps), 1 - math.tanh(0.5) ** 2)
    assert curve.steps == tuple(sorted(steps, reverse=True))
    few = analyse(H[:9], quotients(np.tanh, 0.5, H[:9]), 1 - math.tanh(0.5) ** 2)
    assert few.reading in ("truncation", "round-off")


def test_damaged_arrays_are_refused():
    for steps, numeric in (([1e-1, 1e-2], [1, 1]), ([1, 2, 3, 3], [1] * 4), ([1, 2, 3, 4], [1] * 3)):
        with pytest.raises(FastcheckError, match="expected at least 4 different steps"):
            analyse(steps, numeric, 1.0)
    with pytest.raises(FastcheckError, match=r"steps hold -1\.0"):
        analyse([1, 2, 3, -1], [1] * 4, 1.0)
    with pytest.raises(FastcheckError, match="numeric is inf"):
        analyse([1, 2, 3, 4], [1, 1, 1, math.inf], 1.0)


def logsumexp(x):
    return math.log(np.exp(x).sum())


def test_a_black_box_log_sum_exp_has_order_two_and_slope_minus_one():
    x = np.random.default_rng(3).standard_normal(12)
    softmax = np.exp(x) / np.exp(x).sum()
    for factor, reading in ((1.0, "truncation"), (1.01, "coding mistake")):
        curves = []
        for i in range(x.size):
            others = np.where(np.arange(x.size) == i, 0.0, x)
            numeric = quotients(lambda value, o=others, i=i: logsumexp(o + value * np.eye(12)[i]), x[i])
            curves.append(analyse(H, numeric, factor * softmax[i], index=(i,)))
        assert {curve.reading for curve in curves} == {reading}
        assert all(abs(curve.order - 2) <= 0.1 for curve in curves)
        assert abs(np.median([curve.slope for curve in curves]) + 1) <= 0.1


@pytest.mark.jit
@pytest.mark.parametrize("evaluator", ["local", "full", "delta"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", ["vjp", "square", "tanh"])
def test_losses_are_read_from_their_numbers(loss, dtype, evaluator):
    found = fastcheck.sweep(made(loss, dtype), dims=10, evaluator=evaluator)
    assert (found.passed, found.exit_code, bool(found)) == (True, 0, True)
    assert [len(found.of(name)) for name in ("input", "weight", "bias")] == [10, 10, 6]
    for curve in found.curves:
        assert curve.reading == ("truncation" if loss == "tanh" else "round-off"), curve.words
    for order, slope in zip(found.order.values(), found.slope.values(), strict=True):
        assert (order is None) == (loss != "tanh")
        assert order is None or abs(order - 2) <= 0.1
        assert abs(slope + 1) <= 0.1


@pytest.mark.jit
def test_relu_near_a_kink_reads_kink_and_far_from_one_round_off():
    found = fastcheck.sweep(made("relu"), dims=10)
    kinks = [curve for curve in found.curves if curve.reading == "kink"]
    assert kinks
    assert {curve.reading for curve in found.curves} <= {"kink", "round-off"}
    for curve in kinks:
        bars = dict(zip(curve.steps, curve.error_bars, strict=True))
        assert bars[curve.best_step] < 1e-3 * max(curve.errors)
    far = fastcheck.sweep(made("relu", offset=100.0), dims=3)
    assert {curve.reading for curve in far.curves} == {"round-off"}


@pytest.mark.jit
@pytest.mark.parametrize("slope", [0.0, 4.0])
def test_relu_at_exactly_zero_reads_kink_whichever_slope_is_taken(slope):
    ones = np.ones((1, 1, 4))
    flat = fastcheck.ConvCase(
        0 * ones, ones[..., :1], [0.0], loss="relu", grad_output=ones, grads={"bias": np.array([slope])}
    )
    curve = fastcheck.sweep(flat, dims=1).curves[0]
    assert curve.reading == "kink"
    assert "this very point" in curve.words
    assert set(curve.numeric) == {2.0}


@pytest.mark.jit
@pytest.mark.parametrize("loss", PHI)
@pytest.mark.parametrize("factor", [-1, 0, 2, 1 + 1e-6])
def test_a_wrong_weight_reads_as_a_coding_mistake_and_its_neighbours_do_not(loss, factor):
    def wrong(grads):
        grads["weight"].flat[5] *= factor

    found = fastcheck.sweep(made(loss, wrong=wrong), tensor="weight")
    assert found.curves[0].index == (0, 0, 1, 2)
    assert [curve.reading == "coding mistake" for curve in found.curves] == [True, False, False]
    assert found.exit_code == 1
    assert not found
    assert (found.curves[0].order is None) == (loss != "tanh")


def test_dims_and_steps_are_taken_as_given():
    given_case = made()
    steps = [1e-1, 3e-3, 7e-5, 2.0**-20, 1e-8]
    found = fastcheck.sweep(given_case, tensor="weight", dims=[17, 3, (0, 0, 1, 2)], steps=steps)
    assert [curve.index for curve in found.curves] == [(0, 1, 2, 2), (0, 0, 1, 0), (0, 0, 1, 2)]
    assert all(curve.steps == tuple(sorted(steps, reverse=True)) for curve in found.curves)
    alone = fastcheck.sweep(given_case, tensor="weight", dims=[17], steps=steps)
    assert alone.curves == found.curves[:1]
    default = fastcheck.sweep(given_case, tensor="bias", dims=[0]).curves[0].steps
    assert set(STEPS) < set(default)
    assert len(default) == len(STEPS) + 1  # a check's own step


def test_steps_that_are_lost_in_large_entries_are_left_out():
    x, w, b = operands(LAYER)
    found = case(LAYER)
    large = fastcheck.ConvCase(
        1e8 * x, w, b, grad_output=found.grad_output, grads={"input": found.grads["input"]}, **LAYER.arguments
    )
    curve = fastcheck.sweep(large, dims=1).curves[0]
    assert 1e-8 < min(curve.steps) < 1e-6
    assert curve.reading == "round-off"


BAD = {
    "a case that is none": (lambda c: fastcheck.sweep(3), "case is int"),
    "an unknown tensor": (lambda c: fastcheck.sweep(c, tensor="wieght"), "tensor is 'wieght' (did you mean 'weight'?)"),
    "an unknown evaluator": (lambda c: fastcheck.sweep(c, evaluator="locl"), "evaluator is 'locl' (did you mean"),
    "no dims": (lambda c: fastcheck.sweep(c, dims=0), "dims is 0: expected a number of worst dimensions, 1 to 10"),
    "a flag": (lambda c: fastcheck.sweep(c, dims=True), "dims is True: expected a number of worst dimensions, 1 to 10"),
    "indices of no tensor": (lambda c: fastcheck.sweep(c, dims=[1]), "give tensor=, one of input, weight, bias"),
    "no indices": (lambda c: fastcheck.sweep(c, tensor="bias", dims=[]), "expected at least one index"),
    "a fraction": (lambda c: fastcheck.sweep(c, tensor="bias", dims=2.5), "dims is 2.5: expected a number"),
    "an index too large": (lambda c: fastcheck.sweep(c, tensor="bias", dims=[6]), "dims has 6: expected flat indices"),
    "a multi-index too long": (lambda c: fastcheck.sweep(c, tensor="bias", dims=[(0, 1)]), "dims has (0, 1): expected"),
    "a step": (lambda c: fastcheck.sweep(c, steps=1e-5), "steps is 1e-05: expected at least 4"),
    "few steps": (lambda c: fastcheck.sweep(c, steps=[1e-5, 1e-6]), "steps are [1e-05, 1e-06]: expected at least 4"),
    "a negative step": (lambda c: fastcheck.sweep(c, steps=[1, 2, 3, -4]), "steps is -4: expected a positive finite"),
    "a step too small": (lambda c: fastcheck.sweep(c, steps=[1, 2, 3, 1e-40]), "the smallest usable step is"),
    "no threads": (lambda c: fastcheck.sweep(c, threads=0), "threads is 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    call, message = BAD[name]
    with pytest.raises(FastcheckError) as refused:
        call(made())
    assert message in str(refused.value)


def test_a_wrong_forward_is_told_first():
    wrong = case(LAYER, output=case(LAYER).output * 2)
    for options in ({}, {"tensor": "bias", "dims": [0]}):
        with pytest.raises(GradientMismatchError, match="the output is twice what it should be") as told:
            fastcheck.sweep(wrong, **options)
        assert told.value.report.forward.verdict == "fail"


def test_json_by_contract():
    def wrong(grads):
        grads["weight"].flat[5] = np.nan

    found = fastcheck.sweep(made(wrong=wrong), tensor="weight", dims=[5, 6])
    data = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert data["schema"] == 1
    assert set(data) == {"schema", "evaluator", "seed", "order", "slope", "operands", "curves", "run"}
    curve = data["curves"][0]
    assert (curve["tensor"], curve["index"], curve["analytic"]) == ("weight", [0, 0, 1, 2], "nan")
    assert len(curve["steps"]) == len(curve["numeric"]) == len(curve["errors"]) == len(curve["error_bars"])
    assert set(curve) >= {"order", "slope", "best_step", "best_error", "reading", "words"}
    assert found.summary() == "weight: 1 coding mistake, 1 round-off (order none, round-off slope " + (
        f"{found.slope['weight']:.2f})"
    )


def test_the_sweep_does_not_depend_on_the_number_of_threads():
    assert len({fastcheck.sweep(made("tanh"), threads=threads).curves for threads in (1, 2)}) == 1


@pytest.mark.jit
def test_a_failing_report_explains_itself_where_asked():
    def wrong(grads):
        grads["weight"].flat[[5, 60]] *= -1

    given_case = made(wrong=wrong)
    report = fastcheck.check(given_case, explain=True)
    assert {entry["index"] for entry in report.tensors["weight"].sweep} == {(0, 0, 1, 2), (3, 0, 2, 0)}
    assert {entry["reading"] for entry in report.tensors["weight"].sweep} == {"coding mistake"}
    assert report.tensors["input"].sweep == ()
    plain = fastcheck.check(given_case)
    assert plain.tensors["weight"].sweep == ()
    assert plain.tensors["weight"].worst == report.tensors["weight"].worst
    read = from_json(report.to_json())
    assert read.tensors["weight"].sweep == report.tensors["weight"].sweep
    damaged = report.to_dict()
    damaged["tensors"]["weight"]["sweep"][0]["order"] = "two"
    with pytest.raises(FastcheckError, match="order"):
        from_json(json.dumps(damaged))
    assert fastcheck.check(made(), explain=True).tensors["weight"].sweep == ()


def test_an_explanation_costs_no_verdict():
    x, w, b = operands(LAYER)
    found = case(LAYER)
    far = fastcheck.ConvCase(
        1e20 * x, w, b, grad_output=found.grad_output, grads={"input": -found.grads["input"]}, **LAYER.arguments
    )
    report = fastcheck.check(far, explain=True)
    assert report.verdict == "fail"
    assert report.tensors["input"].sweep == ()


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "layer.npz", LAYER)


def flipped(tmp_path):
    weight = case(LAYER).grads["weight"].copy()
    weight.flat[5] *= -1
    return saved(tmp_path / "bad.npz", LAYER, grad_weight=weight)


@pytest.mark.jit
def test_the_command_prints_table_plot_and_words(run, path, tmp_path):
    code, out, err = run("sweep", path)
    assert (code, err) == (0, "")
    assert out.count("round-off") >= 9
    assert "guides h^2 and 1/h" in out
    assert "1e-3┤" in out or "1e-2┤" in out
    assert "weight: 3 round-off (order none, round-off slope -" in out
    code, out, _ = run("sweep", flipped(tmp_path), "--tensor", "weight", "--dims", "5,7")
    assert code == 1
    assert "weight [0, 0, 1, 2] coding mistake: The error stays near" in out
    assert "numeric / analytic is -1" in out.replace("\n", " ")
    code, out, _ = run("sweep", path, "--tensor", "bias", "--dims", "2,", "--loss", "tanh")
    assert code == 1  # the gradients are the linear loss's
    assert "bias [2]" in out


@pytest.mark.jit
def test_json_alone_and_pictures(run, path, tmp_path):
    arguments = ("sweep", path, "--tensor", "weight", "--dims", "3,17", "--steps", "1e-1,1e-2,1e-3,1e-4")
    code, out, err = run(*arguments, "--json", "-", "--plot", tmp_path / "s.svg")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert [curve["index"] for curve in data["curves"]] == [[0, 0, 1, 0], [0, 1, 2, 2]]
    assert data["curves"][0]["steps"] == [1e-1, 1e-2, 1e-3, 1e-4]
    svg = (tmp_path / "s.svg").read_bytes()
    assert svg.startswith(b"<?xml")
    assert run(*arguments, "--json", tmp_path / "s.json", "--plot", tmp_path / "again.svg")[0] == 0
    assert (tmp_path / "again.svg").read_bytes() == svg
    assert json.loads((tmp_path / "s.json").read_text())["curves"] == data["curves"]
    assert run(*arguments, "--plot", tmp_path / "s.PNG")[0] == 0
    assert (tmp_path / "s.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_picture_where_every_error_is_zero():
    ones = np.ones((1, 1, 4))
    exact = fastcheck.ConvCase(ones, ones[..., :1], grad_output=ones, grads={"weight": np.full((1, 1, 1), 4.0)})
    found = fastcheck.sweep(exact, dims=1, steps=[1.0, 0.5, 0.25, 0.125])
    assert found.curves[0].reading == "exact"
    assert plot.picture(found, "svg").startswith(b"<?xml")


def test_guides_of_a_curve_that_overflows():
    curve = replace(analyse(H, np.ones(H.size), 1.0), best_step=float(H[H.size // 2]))
    huge = np.where(np.arange(H.size) % 2, 1.7e308, -1.7e308)
    for order in (None, 2.0):
        for line in lines(replace(curve, numeric=tuple(huge.tolist()), order=order)):
            assert all(np.isfinite(numbers).all() for numbers in decades(line))


def test_what_cannot_be_drawn_or_swept_is_told_in_a_line(refused, path, tmp_path, monkeypatch):
    assert "expected a name that ends in .svg or .png" in refused("sweep", path, "--plot", tmp_path / "s.pdf")
    assert "--plot is '-'" in refused("sweep", path, "--plot", "-")
    assert "is not a folder" in refused("sweep", path, "--plot", tmp_path / "no" / "s.svg")
    assert "named twice" in refused("sweep", path, "--plot", tmp_path / "s.svg", "--json", tmp_path / "s.svg")
    assert "'a,b': expected a number, or flat indices" in refused("sweep", path, "--dims", "a,b")
    assert "give tensor=, one of" in refused("sweep", path, "--dims", "3,17")
    assert "tensor is 'wait'" in refused("sweep", path, "--tensor", "wait")
    assert "'small': expected comma-separated numbers" in refused("sweep", path, "--steps", "small")
    assert "expected at least 4 different" in refused("sweep", path, "--steps", "1e-3,1e-4")
    assert "cannot be read" in refused("sweep", tmp_path / "absent.npz")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert 'pip install ".[plot]" in a clone of fastcheck' in refused("sweep", path, "--plot", tmp_path / "s.svg")


def test_a_picture_where_matplotlib_does_not_start(path, tmp_path):
    command = [sys.executable, "-m", "fastcheck", "sweep", str(path), "--plot", str(tmp_path / "s.svg")]
    environment = os.environ | {"MPLBACKEND": "bogus"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("fastcheck: saving a plot needs matplotlib, which cannot be loaded: ")
    assert "'bogus'" in done.stderr
    assert not (tmp_path / "s.svg").exists()


def test_names_of_tensors_are_no_formulas_and_no_escapes():
    names = ("$\\frac", "\x1b[31m")
    case = fastcheck.FunctionCase(
        lambda p: sum(float((p[name] ** 2).sum()) for name in names),
        {name: np.full(2, 2.0) for name in names},
        {name: np.ones(2) for name in names},
    )
    found = fastcheck.sweep(case, dims=1)
    drawn = ElementTree.fromstring(plot.picture(found, "svg"))  # XML holds no escapes
    assert drawn.tag.endswith("svg")
    assert plot.picture(found, "png").startswith(b"\x89PNG")
    text = text_for(io.StringIO(), lambda out: write_sweep(found, out, "title\x1b"))
    assert text.replace("\n", "").isprintable()
    assert "\\x1b[31m" in text


def test_a_wrong_forward_ends_the_command(run, tmp_path):
    wrong = saved(tmp_path / "wrong.npz", LAYER, output=case(LAYER).output * 2)
    code, out, _ = run("sweep", wrong)
    assert code == 1
    assert "no gradient was judged" in out


@pytest.mark.jit
def test_conv_explains(run, tmp_path):
    code, out, _ = run("conv", flipped(tmp_path), "--explain", "--json", tmp_path / "r.json")
    assert code == 1
    assert "sweep of weight [0, 0, 1, 2]: coding mistake. The error stays near" in out
    assert "coding mistake" in run("show", tmp_path / "r.json")[1]


def test_bytes_are_written_whole(tmp_path):
    writing.write_bytes(tmp_path / "a.png", b"\x89\r\n")
    assert (tmp_path / "a.png").read_bytes() == b"\x89\r\n"
    with pytest.raises(FastcheckError, match="cannot be written"):
        writing.write_bytes(tmp_path / "no" / "a.png", b"")


def _log_sum_exp(factor=1.0):
    matrix = np.random.default_rng(0).standard_normal((7, 5))

    def loss(p):
        z = matrix @ p
        return z.max() + np.log(np.exp(z - z.max()).sum())

    def grad(p):
        e = np.exp(matrix @ p - (matrix @ p).max())
        return factor * matrix.T @ (e / e.sum())

    return fastcheck.FunctionCase(loss, grad, np.random.default_rng(1).standard_normal(5))


def test_a_function_is_swept_as_a_layer_is():
    found = fastcheck.sweep(_log_sum_exp(), dims=5)
    assert found.order["params"] == pytest.approx(2.0, abs=0.1)
    assert found.slope["params"] == pytest.approx(-1.0, abs=0.1)
    assert {curve.reading for curve in found.curves} == {"truncation"}
    assert found.evaluator == "full"
    wrong = fastcheck.sweep(_log_sum_exp(1.01), dims=5)
    assert {curve.reading for curve in wrong.curves} == {"coding mistake"}
    with pytest.raises(fastcheck.FastcheckError, match="evaluator is 'delta': expected one of auto, full"):
        fastcheck.sweep(_log_sum_exp(), evaluator="delta")


def test_default_steps_that_leave_a_functions_domain_are_missed():
    case = fastcheck.FunctionCase(lambda p: float(np.log(p).sum()), lambda p: 1 / p, np.array([0.05, 1.0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        (curve, _) = fastcheck.sweep(case, dims=[0, 1], tensor="params").curves
        assert curve.reading == "truncation"
        assert max(curve.steps) < 0.05
        with pytest.raises(fastcheck.FastcheckError, match=r"step is 0\.1: the loss is not finite"):
            fastcheck.sweep(case, dims=[0], tensor="params", steps=[0.1, 1e-2, 1e-3, 1e-4])


MATRIX = np.random.default_rng(5).standard_normal((9, 5)).astype(np.float32)
ROUNDED = {
    "linear": (lambda z: z, lambda z: np.ones_like(z)),
    "quadratic": (lambda z: z * z, lambda z: 2 * z),
    "curved": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}
"""Functions of each entry of the product of a matrix and the parameters, and their slopes."""


@pytest.mark.parametrize("steps", [None, [2.0**-k for k in range(1, 40)]], ids=["default", "powers of two"])
@pytest.mark.parametrize("name", ROUNDED)
@pytest.mark.parametrize("rounded", ["loss", "argument"])
def test_steps_too_small_to_move_a_loss_in_float32_are_never_the_steadiest(rounded, name, steps):
    phi, slope = ROUNDED[name]
    matrix = MATRIX if rounded == "loss" else MATRIX.astype(np.float64)

    def loss(p):
        return float(phi(matrix @ p.astype(np.float32).astype(matrix.dtype)).sum(dtype=matrix.dtype))

    def grad(p, factor=1.0):
        exact = MATRIX.astype(np.float64)
        return factor * exact.T @ slope(exact @ p)

    point = np.random.default_rng(6).standard_normal(5).astype(np.float32).astype(np.float64)
    for factor in (1.0, 1.02, -1.0, 0.0):
        case = fastcheck.FunctionCase(loss, lambda p, factor=factor: grad(p, factor), point)
        for curve in fastcheck.sweep(case, dims=5, steps=steps).curves:
            assert (curve.reading == "coding mistake") == (factor != 1), curve.words
            assert 0 in curve.numeric
            assert curve.best_step > 1e-4
            assert curve.best_numeric == pytest.approx(grad(point)[curve.index], rel=1e-3)


def test_a_bar_as_wide_as_the_value_is_no_clean_bill():
    """A constant hides the gradient, and its opposite lies inside the bar as well."""
    x = np.random.default_rng(0).normal(size=4)

    def loss(x):
        return 1e10 + 1e-5 * float(np.sin(x).sum())

    for factor in (1, -1):
        case = fastcheck.FunctionCase(loss, lambda x, factor=factor: factor * 1e-5 * np.cos(x), x)
        words = fastcheck.sweep(case).curves[0].words
        assert "no bug" not in words
        assert "too wide to show a bug" in words


def test_an_order_is_no_clean_bill_where_the_bar_is_as_wide_as_the_value():
    n = quotients(np.tanh, 0.5)
    right = 1 - math.tanh(0.5) ** 2
    for factor, bar, words in (
        (1, 1e-9, "a correct gradient"),
        (1, 0.1, "is too wide to show a bug: a loss or a gradient that rounds less, or a larger step"),
        (1, 1.0, "either the derivative is zero, or the bar is too wide to show a bug"),
        (0.5, 1.0, "either the derivative is zero, or the bar is too wide to show a bug"),
    ):
        curve = analyse(H, n, factor * right, bar + H**2 + 1e-14 / H)
        assert curve.reading == "truncation"
        assert words in curve.words
        assert ("a correct gradient" in curve.words) == (bar < 0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_smooth_loss_of_small_scale_is_no_kink(dtype):
    """All of the larger steps span many periods, where n(h) is nearly 0 and hardly wavers."""
    x = 1e-6 * np.random.default_rng(0).normal(size=8)[4:]

    def loss(x):
        return float(np.sin(x.astype(dtype) * dtype(1e6)).sum(dtype=dtype))

    for factor, reading in ((1, "round-off"), (1.01, "coding mistake"), (0, "coding mistake"), (-1, "coding mistake")):
        case = fastcheck.FunctionCase(loss, lambda x, factor=factor: factor * 1e6 * np.cos(1e6 * x), x)
        for curve in fastcheck.sweep(case).curves:
            assert curve.reading == reading, curve.words
            assert curve.best_numeric == pytest.approx(1e6 * math.cos(1e6 * x[curve.index]), rel=1e-3)


def test_a_slope_of_zero_below_a_kink_is_no_step_too_small():
    for slope, reading in ((0.0, "kink"), (0.3, "coding mistake")):
        case = fastcheck.FunctionCase(lambda p: float(np.maximum(p - 0.01, 0).sum()), np.full(1, slope), np.zeros(1))
        curve = fastcheck.sweep(case, dims=1).curves[0]
        assert curve.reading == reading
        assert curve.best_numeric == 0
        assert curve.best_step < 0.01
