"""``fastcheck network`` as a user meets it: verdicts, files, exit codes, training, and one clear line for bad input."""

import csv
import io
import json
import os

import network_examples
import numpy as np
import pytest
import torch_network

from fastcheck.cli import main as cli
from fastcheck.common import array_file, machine
from fastcheck.networks import partial, passes
from fastcheck.networks.case import Point
from fastcheck.workloads import demo_network

pytestmark = pytest.mark.jit

DENSE = '[[layer]]\nkind = "dense"\nout_features = '

NETS = {
    "cnn": """
l2 = 0.01

[[layer]]
kind = "conv"
out_channels = 3
kernel_size = 3
padding = 1

[[layer]]
kind = "relu"

[[layer]]
kind = "max_pool"
kernel_size = 2

[[layer]]
kind = "conv"
out_channels = 4
kernel_size = 2
padding = 1

[[layer]]
kind = "relu"

[[layer]]
kind = "max_pool"
kernel_size = 2
stride = 1

[[layer]]
kind = "flatten"

[[layer]]
kind = "dense"
out_features = 5

[[layer]]
kind = "relu"

[[layer]]
kind = "dense"
out_features = 3
""",
    "relu": f'{DENSE}4\n[[layer]]\nkind = "relu"\n{DENSE}3\n',
    "squared_error": f'loss = "squared_error"\n{DENSE}4\n[[layer]]\nkind = "tanh"\n{DENSE}3\n',
    "dropout_features": f'{DENSE}4\n[[layer]]\nkind = "dropout"\np = 0.3\n{DENSE}3\n',
    "batch_norm_frozen_features": f'{DENSE}4\n[[layer]]\nkind = "batch_norm"\nfrozen = true\n{DENSE}3\n',
}


class Saved:
    """A network and what belongs to it, in files."""

    def __init__(self, folder, name, seed=0):
        self.folder = folder
        self.network, self.params, self.x, self.y, self.masks = network_examples.CASES[name](seed)
        self.loss, self.grads = self.gradients()
        self.net = folder / "net.toml"
        self.net.write_text(NETS[name])
        self.data = {"x": self.x, "y": self.y} | {f"mask.{layer}": mask for layer, mask in self.masks.items()}

    def gradients(self, **options):
        return torch_network.gradients(self.network, self.params, self.x, self.y, self.masks, **options)

    def file(self, name, arrays):
        path = self.folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    def arguments(self, *options, params=None, grads=None, **data):
        """The command line, with some arrays replaced, or left out where they are None."""
        arrays = {key: array for key, array in (self.data | data).items() if array is not None}
        return (
            *("network", self.net, "--params", self.file("params", self.params if params is None else params)),
            *("--grads", self.file("grads", self.grads if grads is None else grads)),
            *("--data", self.file("data", arrays), *options),
        )

    def training(self, *options):
        files = ("--params", self.file("params", self.params), "--data", self.file("data", self.data))
        return ("network", self.net, *files, *options)


@pytest.fixture
def cnn(tmp_path):
    return Saved(tmp_path, "cnn")


@pytest.fixture
def small(tmp_path):
    return Saved(tmp_path, "relu")


def words(text):
    """The text without what tables and lines break it with."""
    return " ".join(text.split())


@pytest.mark.parametrize("name", NETS)
def test_right_gradients_pass(name, run, tmp_path):
    saved = Saved(tmp_path, name)
    code, out, err = run(*saved.arguments("--loss", repr(saved.loss), "--verbose"))
    assert (code, err) == (0, ""), out
    assert "forward: pass" in out
    assert "right in all " in words(out)
    assert out.splitlines()[-1].startswith("PASS: ")
    assert ("with regularisation" in out) == (name == "cnn")
    for tensor in saved.grads:
        assert f" {tensor} " in out
    assert "all agree" in out


def test_a_network_that_does_not_fit_is_refused_from_headers(cnn, run, refused, monkeypatch):
    arguments = cnn.arguments("--threads", "1")
    point = Point.of(cnn.network, cnn.params, cnn.x, cnn.y, cnn.masks)
    needed = partial.needed_bytes(passes.lowered(point), point, 1)
    read = []
    with monkeypatch.context() as patched:
        patched.setattr(array_file, "read_array", lambda *told: read.append(told))
        patched.setattr(machine, "available_bytes", lambda: needed - 1)
        told = refused(*arguments)
    assert f"the network at {len(cnn.x)} data points needs {needed:,} bytes, and {needed - 1:,} are available" in told
    assert not read
    monkeypatch.setattr(machine, "available_bytes", lambda: needed)
    assert run(*arguments)[0] == 0


def test_a_flipped_sign_fails_with_its_index(cnn, run):
    cnn.grads["conv2.weight"][1, 2, 0, 1] *= -1
    code, out, _ = run(*cnn.arguments("--dims", "all"))
    assert code == 1
    assert "FAIL: conv2.weight is wrong in 1 of 48 entries (conv1.weight, conv1.bias, conv2.bias" in words(out)
    assert "\n  [1, 2, 0, 1] " in out
    assert "this is: where it fails, the gradient has the opposite sign" in words(out)
    assert "look first: at conv2's" in words(out)
    assert out.splitlines()[-1] == "FAIL: conv2.weight 1 of 48 wrong; 7 tensors pass"
    whole = run(*cnn.arguments("--dims", "all", "-v"))[1]
    assert whole.count("worst by difference / error bar") == 1
    assert "conv2.weight (data loss): worst" in whole


def test_missing_regularisation_fails_the_second_phase_alone(cnn, run):
    bare = cnn.gradients(regularised=False)[1]
    code, out, _ = run(*cnn.arguments(grads=bare))
    assert code == 1
    assert "conv1.weight (with regularisation) " in words(out)
    assert "contain no regularisation" in words(out)


def test_gradients_without_regularisation_are_taken_for_the_first_phase(cnn, run):
    bare = cnn.gradients(regularised=False)[1]
    assert run(*cnn.arguments("--data-grads", cnn.file("bare", bare)))[0] == 0
    bare["conv1.bias"] = -bare["conv1.bias"]
    code, out, _ = run(*cnn.arguments("--data-grads", cnn.file("bare", bare)))
    assert code == 1
    assert "FAIL: conv1.bias (data loss) is wrong in all " in words(out)


def test_a_wrong_declared_loss_is_told_before_any_gradient_is_judged(cnn, run):
    points = len(cnn.x)
    code, out, _ = run(*cnn.arguments("-v", loss=np.array(points * cnn.loss)))
    assert code == 1
    assert "against the declared loss" in out
    assert "no gradient was judged" in out
    assert "conv1.weight " not in out.split("hygiene")[0]
    assert run(*cnn.arguments("--loss", repr(cnn.loss), loss=np.array(points * cnn.loss)))[0] == 0
    assert run(*cnn.arguments(loss=np.array([cnn.loss])))[0] == 0
    assert run(*cnn.arguments("--loss", "nan", loss=np.array(cnn.loss)))[0] == 1


def test_a_step_across_kinks_is_inconclusive_and_explained(cnn, run):
    code, out, _ = run(*cnn.arguments("--step", "0.2", "--dims", "all", "--explain", "-v"))
    assert code == 3
    assert "INCONCLUSIVE: " in words(out)
    assert "Why the worst dimensions agree as they do" in out
    assert "conv1.weight[" in out
    assert "relu1 sign data point" in words(out)
    assert " more\n" in out
    assert "0.2\n" in out.replace(" ", "")


def test_options_reach_the_check(cnn, run):
    options = ("--only", "conv1,dense2.bias", "--dims", 40, "--step", "1e-5", "--evaluator", "full", "--seed", 5)
    options += ("--directions", 6)
    code, out, err = run(*cnn.arguments(*options, "--kinks", "exclude", "--threads", 2, "--json", "-"))
    data = json.loads(out)
    assert (code, err) == (0, "")
    for phase in data["cases"]:
        assert phase["seed"] == 5
        requested = {"step": 1e-5, "evaluator": "full", "dims": 40, "kinks": "exclude", "directions": 6}
        assert phase["requested"] == requested
        assert (phase["directions"]["count"], phase["directions"]["failing"]) == (6, 0)
        assert list(phase["tensors"]) == ["conv1.weight", "conv1.bias", "dense2.bias"]
        assert sum(tensor["dims_checked"] for tensor in phase["tensors"].values()) == 40
    assert data["run"]["threads"] == 2
    assert [phase["name"] for phase in data["cases"]] == ["data loss", "with regularisation"]


def test_precision_is_believed(small, run):
    narrow = {name: array.astype(np.float32).astype(np.float64) for name, array in small.grads.items()}
    assert run(*small.arguments(grads=narrow))[0] == 1
    assert run(*small.arguments("--precision", "float32", grads=narrow))[0] == 0
    single = {name: array.astype(np.float32) for name, array in small.grads.items()}
    assert run(*small.arguments(grads=single))[0] == 0


def test_json_and_table_files(cnn, run):
    json_path, table_path = cnn.folder / "r.json", cnn.folder / "t.csv"
    code, shown, _ = run(*cnn.arguments("--dims", "all", "--explain", "--json", json_path, "--table", table_path))
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(table_path.read_text())))
    assert len(rows) == sum(array.size for array in cnn.grads.values())
    for row in rows:
        assert float(row["analytic"]) == cnn.grads[row["tensor"]][tuple(map(int, row["index"].split()))]
        assert abs(float(row["difference"])) <= float(row["error_bar"])
        assert row["verdict"] == "pass"
    code, again, _ = run("show", json_path)
    assert code == 0
    assert again.splitlines()[1:] == shown.splitlines()[1:]  # the first line names the file
    assert run("show", json_path, "--json", "-")[1] == json_path.read_text()
    assert sorted(os.listdir(cnn.folder)) == ["data.npz", "grads.npz", "net.toml", "params.npz", "r.json", "t.csv"]


@pytest.mark.parametrize(("factor", "step", "code"), [(1, "auto", 0), (-1, "auto", 1), (1, "0.2", 3)])
def test_a_saved_report_has_the_exit_status_of_its_check(factor, step, code, small, run):
    grads = {name: factor * array for name, array in small.grads.items()}
    path = small.folder / "r.json"
    assert run(*small.arguments("--step", step, "--dims", "all", "--json", path, grads=grads))[0] == code
    assert run("show", path)[0] == code


def test_a_short_training_leaves_parameters_to_check_at(cnn, run):
    target = cnn.folder / "trained.npz"
    code, out, err = run(*cnn.training("--burn-in", 3, "--learning-rate", 0.1, "--save-params", target, "--seed", 1))
    assert (code, err) == (0, "")
    assert "after 3 steps of SGD" in out
    assert f"--params {target} --grads G.npz" in out
    assert "--loss" not in out
    before, cnn.params = cnn.params, dict(np.load(target))
    assert list(cnn.params) == list(before)
    assert not any(np.array_equal(array, before[name]) for name, array in cnn.params.items())
    loss, grads = cnn.gradients()
    assert loss < cnn.loss
    assert run(*cnn.arguments(params=cnn.params, grads=grads, loss=np.array(loss)))[0] == 0
    again = cnn.folder / "again.npz"
    cnn.params = before
    run(*cnn.training("--burn-in", 3, "--learning-rate", 0.1, "--save-params", again, "--seed", 1))
    assert again.read_bytes() == target.read_bytes()


def test_training_keeps_running_statistics_and_tells_that_a_loss_is_old(run, tmp_path):
    saved = Saved(tmp_path, "batch_norm_frozen_features")
    saved.data["loss"] = np.array(saved.loss)
    target = tmp_path / "with a space.npz"
    code, out, _ = run(*saved.training("--burn-in", 1, "--save-params", target))
    assert code == 0
    assert f"'{target}'" in out
    assert "1 step of SGD" in out
    assert "give the new one with --loss" in out
    trained = dict(np.load(target))
    assert set(trained) == set(saved.params)
    for name in ("batch_norm1.running_mean", "batch_norm1.running_var"):
        assert np.array_equal(trained[name], saved.params[name])


def test_training_that_diverges_writes_nothing(refused, run, small):
    target = small.folder / "trained.npz"
    target.write_text("before")
    told = refused(*small.training("--burn-in", 50, "--learning-rate", 1e6, "--save-params", target))
    assert "learning_rate is 1000000.0: the loss is" in told
    assert target.read_text() == "before"


BAD_TRAINING = {
    "gradients as well": (
        ["--burn-in", 2, "--save-params", "p.npz", "--grads", "g.npz"],
        "--burn-in and --grads cannot be combined",
    ),
    "nowhere to save": (["--burn-in", 2], "--burn-in needs --save-params"),
    "neither": ([], "--grads is missing: expected"),
    "no steps": (["--save-params", "p.npz"], "--save-params is valid only with --burn-in"),
    "a learning rate alone": (["--learning-rate", 0.1], "--learning-rate is valid only with --burn-in"),
    "a table": (
        ["--burn-in", 2, "--save-params", "p.npz", "--table", "t.csv"],
        "--table is valid only with --grads, not",
    ),
    "a report": (["--burn-in", 2, "--save-params", "p.npz", "--json", "-"], "--json is valid only with --grads, not"),
    "0 steps": (["--burn-in", 0, "--save-params", "p.npz"], "0 is not in the range x>=1"),
    "no rate": (["--burn-in", 2, "--save-params", "p.npz", "--learning-rate", 0], "learning_rate is 0.0: expected"),
    "standard output": (["--burn-in", 2, "--save-params", "-"], "--save-params is '-': expected a file"),
    "an absent folder": (["--burn-in", 2, "--save-params", "no/such/p.npz"], "no/such/p.npz cannot be written"),
}


@pytest.mark.parametrize("name", BAD_TRAINING)
def test_training_refuses(name, refused, small):
    options, message = BAD_TRAINING[name]
    assert message in refused(*small.training(*options))
    assert not os.path.exists("p.npz")


def test_training_does_not_overwrite_what_it_reads(refused, small):
    told = refused(*small.training("--burn-in", 2, "--save-params", small.folder / "params.npz"))
    assert "named twice" in told


BAD_DATA = {
    "no x": ({"x": None}, "data.npz has no key 'x': expected x and y"),
    "no y": ({"y": None}, "data.npz has no key 'y'"),
    "an upper-case key": ({"X": np.ones(3)}, "unknown key 'X' (did you mean 'x'?): expected x, y, loss, mask.LAYER"),
    "a misspelt key": ({"los": np.ones(1)}, "unknown key 'los' (did you mean 'loss'?)"),
    "a misspelt mask": ({"masks.relu1": np.ones(1)}, "unknown key 'masks.relu1' (did you mean 'mask.relu1'?)"),
    "a mask of no dropout": ({"mask.relu1": np.ones(1)}, "masks has the name 'relu1': expected none"),
    "several losses": ({"loss": np.ones(2)}, "loss has dtype float64 and shape (2,): expected one number"),
    "a loss in words": ({"loss": np.array("1.5")}, "loss has dtype <U3 and shape (): expected one number"),
    "a wrong width": ({"x": np.ones((4, 6))}, "params['dense1.weight'] has shape (4, 5): expected (4, 6)"),
    "too few labels": ({"y": np.zeros(3, dtype=int)}, "y has shape (3,): expected (4,)"),
    "a label out of range": ({"y": np.array([0, 1, 3, 2])}, "y is 3 at index 2: expected classes from 0 to 2"),
    "labels that are floats": ({"y": np.zeros(4)}, "y has dtype float64: expected integers"),
    "nan": ({"x": np.full((4, 5), np.nan)}, "x is nan at index [0, 0]"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name, refused, small):
    changes, message = BAD_DATA[name]
    assert message in refused(*small.arguments(**changes))


def _without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


def test_bad_parameters_and_gradients(refused, small):
    params, grads = small.params, small.grads
    assert "params has no 'dense2.bias'" in refused(*small.arguments(params=_without(params, "dense2.bias")))
    assert "grads has no 'dense2.bias'" in refused(*small.arguments(grads=_without(grads, "dense2.bias")))
    wrong = _without(params, "dense2.bias") | {"dense2.bais": params["dense2.bias"]}
    assert "'dense2.bais' (did you mean 'dense2.bias'?)" in refused(*small.arguments(params=wrong))
    turned = grads | {"dense1.weight": grads["dense1.weight"].T}
    told = refused(*small.arguments(grads=turned))
    assert "grads['dense1.weight'] has shape (5, 4): expected (out, in) = (4, 5): give its transpose\n" in told
    whole = grads | {"dense1.bias": np.zeros(4, dtype=int)}
    assert "grads['dense1.bias'] has dtype int64" in refused(*small.arguments(grads=whole))


BAD_OPTIONS = {
    "an unknown layer": (["--only", "conv1"], "only names 'conv1'"),
    "a misspelt layer": (["--only", "dens1"], "only names 'dens1' (did you mean 'dense1'?)"),
    "an unknown evaluator": (["--evaluator", "delta"], "'delta' is not one of 'auto', 'network', 'full'"),
    "dims of 0": (["--dims", 0], "dims is 0: expected"),
    "directions in words": (["--directions", "few"], "'few': expected auto or a number of at least 0"),
    "fewer than no directions": (["--directions", -1], "'-1': expected auto or a number of at least 0"),
    "a step in words": (["--step", "small"], "'small': expected auto or a number"),
    "a step too small": (["--step", "1e-40"], "the smallest usable step is"),
    "a loss in words": (["--loss", "small"], "'small' is not a valid float"),
    "an unknown precision": (["--precision", "half"], "'half' is not one of"),
    "a table on standard output": (["--table", "-"], "--table is '-'"),
    "an absent output folder": (["--json", "no/such/folder/r.json"], "no/such/folder/r.json cannot be written"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name, refused, small):
    options, message = BAD_OPTIONS[name]
    assert message in refused(*small.arguments(*options))


def test_files_that_cannot_be_read(refused, small):
    good = small.arguments()
    for place in (1, 3, 5, 7):  # the network, parameters, gradients, data
        absent = [*good[:place], small.folder / "absent", *good[place + 1 :]]
        assert "absent cannot be read: No such file" in refused(*absent)
        broken = small.folder / "broken"
        broken.write_text("layer")
        told = refused(*good[:place], broken, *good[place + 1 :])
        assert ("broken, line 1" if place == 1 else "broken is not an .npz file") in told
    assert "absent cannot be read" in refused(*good, "--data-grads", small.folder / "absent")
    assert "Missing option '--params'" in refused("network", small.net)


def test_outputs_do_not_overwrite_each_other_or_what_is_read(refused, small):
    same = small.folder / "r"
    assert "named twice" in refused(*small.arguments("--json", same, "--table", same))
    for name in ("net.toml", "params.npz", "grads.npz", "data.npz"):
        assert "named twice" in refused(*small.arguments("--json", small.folder / name))
    bare = small.file("bare", small.grads)
    assert "named twice" in refused(*small.arguments("--data-grads", bare, "--table", bare))


def test_help_has_an_example(run):
    code, out, _ = run("network", "--help")
    assert code == 0
    assert "fastcheck network net.toml" in out.split("Example:")[1]
    assert "network" in run("--help")[1]


def test_the_networks_demo_is_told_its_options_and_prints_reports(run, small, monkeypatch):
    import fastcheck

    asked = {}

    def story(*, threads, seed, say, progress):
        asked.update(threads=threads, seed=seed, progress=progress)
        say("once upon a time\n")
        say(fastcheck.check_network(small.network, small.params, small.grads, small.x, small.y))
        return cli.INTERRUPTED

    monkeypatch.setattr(demo_network, "run", story)
    code, out, _ = run("demo", "network", "--threads", 1, "--seed", 7)
    assert code == cli.INTERRUPTED
    assert out.startswith("once upon a time\n")
    assert "hygiene" in out
    assert asked == {"threads": 1, "seed": 7, "progress": None}
    assert run("demo", "netwrok")[0] == 2
