"""Gradients judged by what a program wrote: right ones pass, wrong ones fail by name, and limits are kept."""

import os

import numpy as np
import pytest
from probed import Program, perceptron, relu, tanh

from fastcheck.reports.reader import from_json

TYPES = [np.float64, np.float32]


def _made(folder, bend=tanh, dtype=np.float64, seed=0, **sizes):
    return Program(folder, *perceptron(bend, np.random.default_rng(seed), **sizes), dtype)


def _off(name, index, size):
    """A change of one entry, by a fraction of the tensor's typical size."""

    def change(grads):
        grads[name][index] += size * np.sqrt(np.mean(grads[name] ** 2))

    return change


def _scaled(names, factor):
    def change(grads):
        for name in names:
            grads[name] *= factor

    return change


def _judged(program, change=lambda grads: None, *options, spoil=lambda outputs: None):
    assert program.probe(*options) == 0
    program.run(change, spoil)
    return program.judge()


@pytest.mark.parametrize(("bend", "dtype", "limit"), [(tanh, np.float64, 1e-7), (relu, np.float64, 1e-4)])
def test_a_right_gradient_passes_and_says_what_would_have_been_seen(tmp_path, bend, dtype, limit):
    code, report = _judged(_made(tmp_path, bend, dtype))
    assert code == 0
    directions = report["directions"]
    assert (directions["count"], directions["failing"], directions["chance_of_missing"]) == (20, 0, 2.0**-20)
    assert directions["dims"] == 12 * 9 + 9 * 8 + 8 + 8 * 5
    assert all(0 < one < limit for one in directions["relative_limit"].values())
    assert {one["verdict"] for one in directions["along"]} == {"pass"}
    assert len(directions["along"]) == 24 + 2 * 4


def test_float32_passes_with_a_limit_of_its_own(tmp_path):
    code, report = _judged(_made(tmp_path, tanh, np.float32))
    assert code == 0
    assert all(1e-5 < one < 0.25 for one in report["directions"]["relative_limit"].values())


@pytest.mark.parametrize(("bend", "dtype", "size"), [(tanh, np.float64, 1e-6), (relu, np.float64, 1e-2)])
@pytest.mark.parametrize(("name", "index"), [("x", (3, 4)), ("w", (0, 7)), ("b", (2,)), ("v", (7, 4))])
def test_one_wrong_entry_is_named_with_its_right_value(tmp_path, bend, dtype, size, name, index):
    program = _made(tmp_path, bend, dtype)
    code, report = _judged(program, _off(name, index, size))
    assert code == 1
    (worst,) = report["tensors"][name]["worst"]
    right = program.backward(program.params, np.fromfile(program.probes / "grad_y.bin").reshape(program.shape))
    assert tuple(worst["index"]) == index
    assert worst["numeric"] == pytest.approx(right[name][index], abs=worst["error_bar"])
    assert {key: one["verdict"] for key, one in report["tensors"].items() if key != name} == dict.fromkeys(
        {"x", "w", "b", "v"} - {name}, "pass"
    )


def test_one_wrong_entry_of_float32_is_named(tmp_path):
    code, report = _judged(_made(tmp_path, tanh, np.float32), _off("w", (3, 4), 1.0))
    assert code == 1
    assert report["directions"]["named"] == {"w": [3 * 8 + 4]}


@pytest.mark.parametrize(
    ("change", "tensors", "words"),
    [
        (_scaled("w", -1), {"w"}, "a factor of -1 on the gradient of w explains it"),
        (_scaled("v", 1.001), {"v"}, "a factor of 0.999 on the gradient of v explains it"),
        (_scaled("xwbv", 0.5), {"x", "w", "b", "v"}, "a factor of 2 on the gradient explains it"),
        (lambda grads: grads["w"].sort(), {"w"}, "moved alone, w does too"),
        (lambda grads: [grad.sort() for grad in grads.values()], {*"xwbv"}, "moved alone, every array does too"),
    ],
    ids=["sign", "factor", "all", "order", "every"],
)
def test_a_wrong_tensor_is_named(tmp_path, change, tensors, words):
    code, report = _judged(_made(tmp_path), change)
    assert code == 1
    assert words in report["health"][-1]["words"]
    assert {name for name, one in report["tensors"].items() if one["verdict"] == "fail"} == tensors


def test_an_entry_that_is_not_finite_fails_with_its_index(tmp_path):
    def change(grads):
        grads["w"][1, 2] = np.nan

    code, report = _judged(_made(tmp_path), change)
    assert code == 1
    assert report["tensors"]["w"]["first_beyond"] == [1, 2]
    assert report["tensors"]["v"]["verdict"] == "inconclusive"


@pytest.mark.parametrize("value", [1e30, 1.7e308])
def test_a_value_that_overflows_fails(tmp_path, value):
    def change(grads):
        grads["w"][1, 2] = value

    assert _judged(_made(tmp_path), change)[0] == 1


@pytest.mark.parametrize("dtype", TYPES)
def test_wrong_entries_above_the_limit_are_never_missed_and_right_gradients_never_fail(tmp_path, dtype):
    rng = np.random.default_rng(5)
    for seed in range(4):
        program = _made(tmp_path, tanh, dtype, seed, samples=6, inputs=5, hidden=4, outputs=3)
        assert program.probe("--force", "--seed", seed) == 0
        program.run()
        code, report = program.judge()
        assert code == 0
        relative = report["directions"]["relative_limit"]
        for name, array in program.params.items():
            index = tuple(int(rng.integers(size)) for size in array.shape)
            program.run(_off(name, index, 1.5 * rng.choice([-1, 1]) * relative[name]))
            assert program.judge()[0] == 1


def test_a_pair_of_opposite_errors_is_found(tmp_path):
    def change(grads):
        _off("w", (3, 4), 0.1)(grads)
        _off("w", (3, 5), -0.1)(grads)

    assert _judged(_made(tmp_path), change)[0] == 1


@pytest.mark.parametrize(("wrong", "code"), [(False, 0), (True, 1)])
def test_a_gradient_balances_the_moves(tmp_path, wrong, code):
    """Of a program with a loss of one number, whose tensors have very different slopes."""

    def forward(p):
        return np.sum(np.tanh(p["a"]) * 1e3) + np.sum(np.sin(p["b"]))

    def backward(p, dy):
        return {"a": 1e3 * (1 - np.tanh(p["a"]) ** 2) * dy, "b": np.cos(p["b"]) * dy}

    rng = np.random.default_rng(0)
    program = Program(tmp_path, forward, backward, {"a": rng.normal(size=30), "b": rng.normal(size=30)})
    plain = _judged(program)[1]["directions"]["relative_limit"]["b"]
    balanced = [f"--grads={name}={program.probes / f'grad_{name}.bin'}" for name in "ab"]
    assert program.probe("--force", "--out", tmp_path / "other", *balanced) == 0
    program.probes = tmp_path / "other"
    program.run(_off("b", 7, 1e-4) if wrong else lambda grads: None)
    status, report = program.judge()
    assert status == code
    assert report["directions"]["relative_limit"]["b"] < plain / 3
    assert report["directions"]["named"] == ({"b": [7]} if wrong else {})


@pytest.mark.parametrize(("factor", "code"), [(1, 0), (0, 1)])
def test_tensors_that_do_not_move_are_left_alone(tmp_path, factor, code):
    """Their gradient may be anything; a tensor that moves may not."""
    program = _made(tmp_path)
    assert program.probe("--only", "w,b") == 0
    program.run(lambda grads: (_scaled("xv", 7)(grads), _scaled("b", factor)(grads)))
    status, report = program.judge()
    assert status == code
    assert set(report["tensors"]) == {"w", "b"}


@pytest.mark.parametrize(("factor", "code"), [(1, 0), (-1, 1)])
@pytest.mark.parametrize("option", [("--relative-noise", 1e-8), ("--noise", 3e-8)])
def test_a_declared_accuracy_widens_the_bars(tmp_path, option, factor, code):
    """Outputs that are off by a factor everywhere show no noise."""
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run(_scaled("w", factor), lambda outputs: np.multiply(outputs, 1 + 1e-8, out=outputs))
    assert program.judge()[0] == 1
    status, report = program.judge(*option)
    assert (status, report["health"][0]["name"]) == (code, "accuracy of the outputs")


# What is no verdict


@pytest.mark.parametrize("scale", [1e-7, 1e-9])
def test_a_program_that_varies_on_a_scale_far_below_its_inputs_is_no_failure(tmp_path, scale):
    def forward(p):
        return np.sum(p["a"] ** 2 + scale * np.sin(p["a"] / scale))

    def backward(p, dy):
        return {"a": (2 * p["a"] + np.cos(p["a"] / scale)) * dy}

    program = Program(tmp_path, forward, backward, {"a": np.random.default_rng(0).normal(size=20)})
    assert _judged(program)[0] == 3


@pytest.mark.parametrize(("factor", "code"), [(1, 3), (2, 3)])
def test_a_steep_entry_that_every_step_exceeds_is_inconclusive(tmp_path, factor, code):
    """Its gradient is right or wrong: directions cannot tell."""

    def forward(p):
        return np.sum(np.sin(p["a"])) + np.arctan(p["a"][2] * 1e15)

    def backward(p, dy):
        grad = np.cos(p["a"])
        grad[2] += 1e15 / (1 + (p["a"][2] * 1e15) ** 2)
        return {"a": grad * dy}

    program = Program(tmp_path, forward, backward, {"a": np.array([1.0, 1.5, 1e-15, 0.7])})
    assert _judged(program, _scaled("a", factor))[0] == code


@pytest.mark.parametrize("small", [1e-15, 0.1])
def test_an_entry_that_is_small_by_chance_is_judged_like_others(tmp_path, small):
    def change(grads):
        grads["a"][2] *= 2

    forward, backward = lambda p: np.sum(np.sin(p["a"])), lambda p, dy: {"a": np.cos(p["a"]) * dy}
    program = Program(tmp_path, forward, backward, {"a": np.array([1.0, 1.5, small, 0.7])})
    code, report = _judged(program, change)
    assert (code, report["directions"]["named"]) == (1, {"a": [2]})


def test_a_point_at_a_kink_is_inconclusive(tmp_path):
    forward, backward, params = perceptron(relu, np.random.default_rng(0))
    code, report = _judged(Program(tmp_path, forward, backward, params | {"x": 0 * params["x"], "b": np.zeros(8)}))
    assert code == 3
    assert "kink" in report["tensors"]["w"]["reason"]
    assert "random numbers" in report["tensors"]["w"]["advice"]


def test_a_step_that_is_too_small_leads_to_a_larger_one(tmp_path, capsys):
    program = _made(tmp_path)
    code, report = _judged(program, lambda grads: None, "--step", "2^-47")
    assert code == 3
    assert "PASS" not in capsys.readouterr().out
    step, why = report["tensors"]["w"]["advice"].removeprefix("probe again with --step ").split(": ")
    assert why == "now the round-off of the outputs hides the rest"
    assert _judged(program, lambda grads: None, "--force", "--step", step)[0] == 0


@pytest.mark.parametrize(("power", "wrong", "code"), [(-4, False, 3), (-4, True, 1), (-12, False, 0)])
def test_a_step_that_is_too_large_leads_to_a_smaller_one(tmp_path, power, wrong, code):
    """Also with it, a gradient of the wrong sign fails."""
    program = _made(tmp_path, lambda z: (np.sin(9 * z), 9 * np.cos(9 * z)))
    status, report = _judged(program, _scaled("xwbv", -1 if wrong else 1), "--step", 2.0**power)
    assert status == code
    if code == 3:
        suggested = report["tensors"]["w"]["advice"].split("--step ")[1].split(":")[0]
        assert _judged(program, lambda grads: None, "--force", "--step", suggested)[0] == 0


def test_outputs_that_do_not_repeat_widen_the_bars_and_are_told(tmp_path):
    def spoil(outputs):
        outputs += 1e-9 * np.random.default_rng(1).normal(size=outputs.shape)

    code, report = _judged(_made(tmp_path), spoil=spoil)
    assert code == 0
    assert report["health"][0]["name"] == "the program does not repeat itself"
    assert min(report["directions"]["relative_limit"].values()) > 1e-6

    def more(outputs):
        outputs += 0.1 * np.random.default_rng(1).normal(size=outputs.shape)

    assert _judged(_made(tmp_path), lambda grads: None, "--force", spoil=more)[0] == 3


def test_nan_along_some_directions_is_left_out_and_along_most_is_inconclusive(tmp_path):
    program = _made(tmp_path)
    points = 0

    def spoil(outputs):
        outputs[5 : 5 + points] = np.nan

    code, report = _judged(program, spoil=spoil)
    assert (code, report["directions"]["count"]) == (0, 20)
    points = 40
    code, report = _judged(program, lambda grads: None, "--force", spoil=spoil)
    assert (code, report["directions"]["count"]) == (0, 20)
    assert sum(one["verdict"] == "inconclusive" for one in report["directions"]["along"]) >= 3


def test_a_report_is_read_back_and_verbose_text_lists_the_directions(tmp_path, capsys):
    program = _made(tmp_path)
    _judged(program, _off("w", (3, 4), 1e-3))
    text = (tmp_path / "report.json").read_text()
    assert from_json(text).to_json() == text
    capsys.readouterr()
    program.judge("--verbose")
    printed = capsys.readouterr().out
    assert "along every direction" in printed
    assert printed.rstrip().endswith("FAIL: w[3, 4] is wrong")


# Bad input


def _refused(capsys, code):
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "y.bin").unlink(), "output y is missing: expected"),
        (lambda p: (p / "grad_w.bin").unlink(), "the gradient of w is missing: expected"),
        (lambda p: _cut(p / "y.bin", 100 * 60 * 8), "y.bin has 48,000 bytes (100 points in float64 or 200 points"),
        (lambda p: _cut(p / "y.bin", 1001), "y.bin has 1,001 bytes ("),
        (lambda p: _cut(p / "y.bin", 0), "y.bin has no bytes: expected output y at 489 points, 60 numbers each"),
        (lambda p: _cut(p / "grad_w.bin", 100), "grad_w.bin has 100 bytes: expected 72 numbers like w"),
        (lambda p: _cut(p / "w.bin", 800), "w.bin has 800 bytes"),
        (lambda p: _overwrite(p / "w.bin"), "w.bin has changed since it was written"),
        (lambda p: _overwrite(p / "y.bin", np.nan), "y.bin at the start point is nan at index [0]: expected finite"),
        (lambda p: (p / "grad_y.bin").unlink(), "grad_y.bin is missing: expected the cotangent"),
        (lambda p: (p / "x.bin").unlink(), "x.bin is missing: expected the points"),
        (lambda p: (p / "probes.json").unlink(), "has no probes.json: expected a folder that `fastcheck probe` wrote"),
        (lambda p: (p / "probes.json").write_text("{"), "probes.json is damaged"),
        (lambda p: (p / "probes.json").write_text("{}"), "probes.json is damaged: schema: Field required"),
    ],
)
def test_what_is_wrong_with_files_is_one_line(tmp_path, capsys, spoil, message):
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run()
    capsys.readouterr()
    spoil(program.probes)
    assert message in _refused(capsys, program.judge()[0])


def _cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def _overwrite(path, value=1.0):
    values = np.fromfile(path)
    values[0] = value
    values.tofile(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 12, 5)), "y.npy has shape (7, 12, 5): expected output y at all points, 489 points of 60 numbers"),
        (np.zeros((489, 60), int), "y.npy has dtype int64: expected float64, float32 or float16"),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(tmp_path, capsys, array, message):
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run()
    np.save(tmp_path / "y.npy", array)
    capsys.readouterr()
    assert message in _refused(capsys, program.judge("--outputs", tmp_path / "y.npy")[0])


def test_outputs_and_gradients_may_be_npy_and_npz_and_lie_elsewhere(tmp_path):
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run()
    outputs = np.fromfile(program.probes / "y.bin").reshape(-1, 12, 5)
    params = program.params.items()
    grads = {name: np.fromfile(program.probes / f"grad_{name}.bin").reshape(array.shape) for name, array in params}
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "y.npy", np.asfortranarray(outputs))
    np.savez(tmp_path / "mine" / "grads.npz", **{f"grad_{name}": grad for name, grad in grads.items()})
    for path in program.probes.glob("grad_[xwbv].bin"):
        path.unlink()
    (program.probes / "y.bin").unlink()
    options = ["--outputs", tmp_path / "mine" / "y.npy", "--grads", tmp_path / "mine" / "grads.npz"]
    assert program.judge(*options)[0] == 0
    np.savez(tmp_path / "mine" / "grads.npz", **grads | {"w": 2 * grads["w"]})
    assert program.judge(*options)[0] == 1
    assert program.judge("--outputs", tmp_path / "mine", "--grads", tmp_path / "mine" / "grads.npz")[0] == 1


@pytest.mark.parametrize(("factor", "code"), [(2, 0), (3, 1)])
def test_a_cotangent_of_the_users_own(tmp_path, factor, code):
    """A gradient for twice the cotangent is right for twice the cotangent alone."""
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run(_scaled("xwbv", 2))
    (factor * np.fromfile(program.probes / "grad_y.bin")).tofile(tmp_path / "v.bin")
    assert program.judge("--grad-output", tmp_path / "v.bin")[0] == code


def test_outputs_older_than_the_points_are_told(tmp_path):
    program = _made(tmp_path)
    assert program.probe() == 0
    program.run()
    outputs = (program.probes / "y.bin").rename(tmp_path / "y.bin")
    os.utime(outputs, (0, 0))
    code, report = program.judge("--outputs", outputs)
    assert (code, report["health"][0]["name"]) == (0, "older outputs")
