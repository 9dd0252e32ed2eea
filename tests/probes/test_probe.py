"""The points that are written: what they are, in which files, and one line for what cannot be probed."""

import json

import numpy as np
import pytest
from probed import Program, perceptron, tanh

from fastcheck.cli.main import status
from fastcheck.probes.manifest import Plan, read


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "inputs.npz"
    np.savez(path, w=rng.normal(size=(4, 3)), b=np.zeros(3, np.float32), labels=np.arange(5))
    return path


def _probe(*arguments):
    return status(["probe", *map(str, arguments)])


def test_points_are_the_start_and_moves_of_random_signs(tmp_path):
    program = Program(tmp_path, *perceptron(tanh, np.random.default_rng(0)))
    assert program.probe() == 0
    manifest, points = read(program.probes), program.points()
    plan = list(manifest.plan.points())
    assert len(plan) == manifest.count == 489
    assert plan.count((0, 0.0)) == 5
    signs = set()
    for number, (direction, by) in enumerate(plan):
        for position, (name, start) in enumerate(program.params.items()):
            change = points[name][number] - start
            if not by or (direction >= 0 and not manifest.plan.moves(direction, position)):
                assert not change.any()
            elif direction >= 0:
                size = np.sqrt(np.mean(start**2))
                np.testing.assert_allclose(np.abs(change), abs(by) * size, rtol=1e-3)
                signs |= {(name, direction, (np.sign(change * by) > 0).tobytes())}
    assert len(signs) == 4 * 24 + 4 * 2  # the same signs at all steps, others in each direction


def test_float32_is_moved_by_what_is_stored(tmp_path):
    program = Program(tmp_path, *perceptron(tanh, np.random.default_rng(0)), np.float32)
    assert program.probe() == 0
    assert {array.dtype for array in program.points().values()} == {np.dtype(np.float32)}


def test_files_in_both_formats_and_of_what_does_not_move(tmp_path, inputs, capsys):
    assert _probe(inputs, "--out", tmp_path / "raw", "--only", "w", "--output", "y=2x2") == 0
    assert "let your program write there y.bin (at all" in capsys.readouterr().out
    assert _probe(inputs, "--out", tmp_path / "npy", "--only", "w", "--output", "y=2x2", "--format", "npy") == 0
    count = read(tmp_path / "raw").count
    names = {"w": (count, 4, 3), "b": (3,), "labels": (5,), "grad_y": (2, 2)}
    for name, shape in names.items():
        array = np.load(tmp_path / "npy" / f"{name}.npy")
        assert array.shape == shape
        assert (tmp_path / "raw" / f"{name}.bin").read_bytes() == array.tobytes()
    assert np.load(tmp_path / "npy" / "labels.npy").tolist() == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "npy").iterdir()) == sorted(
        ["probes.json", *(f"{name}.npy" for name in names)]
    )


def test_the_same_seed_gives_the_same_points_and_another_gives_others(tmp_path, inputs):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        assert _probe(inputs, "--out", tmp_path / name, "--seed", seed) == 0
    one, two, three = ((tmp_path / name / "w.bin").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_inputs_may_be_npy_or_raw_and_named(tmp_path):
    np.save(tmp_path / "w.npy", np.ones((2, 3)))
    np.full(4, 2.0, np.float32).tofile(tmp_path / "b.bin")
    arguments = [
        f"weight={tmp_path / 'w.npy'}",
        f"{tmp_path / 'b.bin'}:float32:4",
        f"c={tmp_path / 'b.bin'}:float32:2x2",
    ]
    assert _probe(*arguments, "--out", tmp_path / "p") == 0
    tensors = {one.name: (one.dtype, one.shape) for one in read(tmp_path / "p").tensors}
    assert tensors == {"weight": ("float64", (2, 3)), "b": ("float32", (4,)), "c": ("float32", (2, 2))}


def test_a_folder_is_replaced_only_by_force_and_only_if_it_is_one_of_probes(tmp_path, inputs, capsys):
    place = tmp_path / "p"
    assert _probe(inputs, "--out", place) == 0
    (place / "y.bin").write_text("of the points before")
    assert _probe(inputs, "--out", place) == 2
    assert "has probes already: expected a new folder, or --force" in capsys.readouterr().err
    assert _probe(inputs, "--out", place, "--force", "--directions", "2") == 0
    assert not (place / "y.bin").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("mine")
    assert _probe(inputs, "--out", tmp_path / "home", "--force") == 2
    assert (tmp_path / "home" / "letter").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "inputs.npz", "p"]


def test_a_full_disk_leaves_nothing(tmp_path, inputs, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert _probe(inputs, "--out", tmp_path / "p") == 2
    assert "and 1,000 are free: expected fewer --directions" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.npz"]


def test_the_size_of_a_large_folder_is_told_before_it_is_written(tmp_path, inputs, capsys, monkeypatch):
    monkeypatch.setattr("fastcheck.cli.probe.LARGE", 1000)
    assert _probe(inputs, "--out", tmp_path / "p") == 0
    assert "fastcheck: writing 46.8 kB to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "v"], "--only is 'v': expected one of w, b, labels"),
        (["--only", "labels"], "labels has dtype int64"),
        (["--output", "y"], "expected a name and a shape, such as y=8x16"),
        (["--output", "y=8x0"], "output y has shape '8x0': expected positive sizes"),
        (["--output", "w=8"], "output 'w' has the name of an input"),
        (["--output", "y=8", "--output", "y=9"], "--output is given twice for one name"),
        (["--step", "2^-60"], "step is 8.67362e-19: it is lost in the rounding of the largest entry of w"),
        (["--step", "1e308"], "overflow with it; expected a smaller step"),
        (["--step", "-1"], "step is -1.0: expected a positive finite number"),
        (["--step", "2^^3"], "expected auto or a number such as 1e-5 or 2^-17"),
        (["--grads", "nowhere.bin"], "nowhere.bin cannot be read"),
    ],
)
def test_what_cannot_be_probed_is_one_line(tmp_path, inputs, capsys, arguments, message):
    assert _probe(inputs, "--out", tmp_path / "p", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, np.inf]), "is inf at index [1]: expected finite numbers"),
        (np.zeros((0, 3)), "is empty"),
        (np.ones(3, np.float16), "has dtype float16: expected float64 or float32"),
        (np.ones(3, np.int32), "is of floating point: nothing could be moved"),
        (np.ones(3, complex), "has dtype complex128"),
    ],
)
def test_inputs_that_cannot_move_are_one_line(tmp_path, capsys, array, message):
    np.save(tmp_path / "x.npy", array)
    assert _probe(tmp_path / "x.npy", "--out", tmp_path / "p") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_raw_inputs_need_a_type_and_the_right_size(tmp_path, capsys):
    np.ones(4).tofile(tmp_path / "x.bin")
    for argument, message in (
        ("x.bin", "a raw file needs its type and shape, such as"),
        ("x.bin:float64:5", "x.bin has 32 bytes: expected 40, 5 numbers of float64"),
        ("x.bin:double:4", "x.bin has type 'double': expected one of float64"),
        ("absent.npy", "absent.npy cannot be read"),
    ):
        assert _probe(tmp_path / argument, "--out", tmp_path / "p") == 2
        assert message in capsys.readouterr().err


def test_a_plan_of_another_number_of_points_is_damaged(tmp_path, inputs, capsys):
    assert _probe(inputs, "--out", tmp_path / "p") == 0
    path = tmp_path / "p" / "probes.json"
    data = json.loads(path.read_text())
    data["plan"]["directions"] += 1
    path.write_text(json.dumps(data))
    assert status(["judge", str(tmp_path / "p")]) == 2
    assert "its plan is not that of its" in capsys.readouterr().err


def test_directions_in_which_the_same_tensors_move():
    plan = Plan(4, 2, 3, (0.5,), 0.0, ())
    assert [plan.moves(5, tensor) for tensor in range(3)] == [True, False, False]
    assert (plan.alike(2), plan.alike(7), plan.total) == (range(4), range(6, 8), 10)
