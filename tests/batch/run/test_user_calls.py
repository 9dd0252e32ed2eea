"""Backward passes and gradients of the user's in a suite: called as documented, wrong ones fail, all else is a line."""

import json
import os
import sys

import numpy as np
import processes
import pytest

from fastcheck.batch.ledger.ledger import Ledger
from fastcheck.batch.results import read_results
from fastcheck.batch.run import user_code
from fastcheck.batch.run.sources import read_sources
from fastcheck.batch.suite.entries import UserFunction
from fastcheck.batch.suite.file import read_suite
from fastcheck.common.errors import FastcheckError

MINE = """
import numpy as np

from factors import FACTOR


def backward(input, weight, bias, grad_output, stride, padding, dilation, groups):
    assert groups == 1 and (bias is None or bias.shape == weight.shape[:1])
    rank, (n, f, *out), taps = weight.ndim - 2, grad_output.shape, weight.shape[2:]
    sides = [side if isinstance(side, tuple) else (side, side) for side in padding]
    x = np.pad(input, ((0, 0), (0, 0), *sides))
    dx, dw = np.zeros_like(x), np.zeros_like(weight)
    for tap in np.ndindex(*taps):
        window = tuple(
            slice(t * d, t * d + s * (o - 1) + 1, s) for t, d, s, o in zip(tap, dilation, stride, out)
        )
        part = x[(slice(None), slice(None), *window)].reshape(n, -1, np.prod(out))
        dw[(slice(None), slice(None), *tap)] = np.einsum("nco,nfo->fc", part, grad_output.reshape(n, f, -1))
        dz = np.tensordot(grad_output, weight[(slice(None), slice(None), *tap)], (1, 0))
        dx[(slice(None), slice(None), *window)] += np.moveaxis(dz, -1, 1)
    crop = tuple(slice(low, size - high) for (low, high), size in zip(sides, x.shape[2:]))
    dw[0, 0] *= FACTOR
    input[...] = weight[...] = grad_output[...] = np.nan  # these are copies
    return {"input": dx[(slice(None), slice(None), *crop)], "grad_weight": dw, "bias": np.full(f, np.nan)}


class Layer:
    @staticmethod
    def backward(grad_output):
        return {"bias": grad_output.sum((0, *range(2, grad_output.ndim)))}
"""

SUITE = """
[defaults]
dims = "all"
backward = "mine:backward"
tensors = ["input", "weight"]
[[case]]
name = "own"
conv = {in = 2, out = 3, kernel = 3}
input = [2, 2, 7, 8]
grid = {stride = [1, [2, 1]], padding = [0, [[1, 0], [0, 2]]], dilation = [1, 2]}
[[case]]
name = "narrow"
conv = {in = 2, out = 3, kernel = 2, padding = 1, bias = false}
input = [2, 2, 9]
dtype = "float32"
loss = "tanh"
[[case]]
name = "bias"
conv = {in = 2, out = 3, kernel = 1}
input = [1, 2, 3, 3, 3]
backward = "mine:Layer.backward"
tensors = ["input", "weight", "bias"]
[[case]]
name = "reference"
conv = {in = 2, out = 3, kernel = 2}
input = [1, 2, 5]
backward = "reference"
"""

CONV = '[[case]]\nname = "{}"\nconv = {{in = 2, out = 3, kernel = 2}}\ninput = [1, 2, 5]\n'
ONE = CONV.format("own") + 'backward = "mine:backward"\n'


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """Forget what a test imports."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    for name in user_code._FINDER.files:
        sys.modules.pop(name, None)
    user_code._FINDER.files.clear()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "factors.py").write_text("FACTOR = 1.00000\n")
    (folder / "night.toml").write_text(SUITE)
    return folder


def verdicts(out):
    return {name: case.verdict for name, case in read_results(out).suite.cases.items()}


@pytest.mark.jit
@pytest.mark.parametrize("options", [(), ("--isolate",), ("--dask", "local:1")])
def test_a_right_backward_passes_and_a_wrong_one_fails_by_its_tensor(folder, tmp_path, run, options):
    code, out, err = run("run", folder / "night.toml", "--out", tmp_path / "out", *options)
    assert (code, err) == (0, "")
    assert "night: 11 of 11 pass" in out
    # The function is the same, and what it imports is not: its cases run again, and fail.
    (folder / "factors.py").write_text("FACTOR = 1.00001\n")
    code, out, _ = run("run", folder / "night.toml", "--out", tmp_path / "out", *options)
    assert code == 1
    assert "1 of 11 cases are finished; 10 to go" in out
    assert "9 fail (" in out
    assert ": weight; " in out
    found = verdicts(tmp_path / "out")
    assert {name for name, verdict in found.items() if verdict == "pass"} == {"bias", "reference"}
    (folder / "factors.py").write_text("FACTOR = 1.00000\n")
    assert run("run", folder / "night.toml", "--out", tmp_path / "out", *options)[0] == 0


@pytest.mark.jit
def test_only_tensors_that_are_returned_and_asked_for_are_checked(folder, tmp_path, run):
    run("run", folder / "night.toml", "--out", tmp_path / "out")
    cases = read_results(tmp_path / "out").suite.cases
    assert list(cases["narrow"].tensors) == ["input", "weight"]
    assert list(cases["bias"].tensors) == ["bias"]


RETURNED = {
    "return None": " returns None: expected a dict of gradients: input, weight, bias",
    "return weight": " returns an array of shape (3, 2, 2): expected a dict",
    "return [weight, bias]": " returns a list of 2: expected a dict",
    "return {}": " returns an empty dict: expected a gradient of input or weight or bias",
    "return {'wieght': weight}": " returns 'wieght' (did you mean 'weight'?): expected input, weight, bias",
    "return {'weight': weight, 'grad_weight': weight}": " returns 'weight' and 'grad_weight': expected one of them",
    "return {'weight': None, 'bias': bias}": " returns None for 'weight': expected an array, or no 'weight' at all",
    "return {'grad_weight': weight[0]}": ": grad_weight has shape (2, 2): expected 3 axes, (3, 2, 2)",
    "return {'weight': weight[:, :1]}": ": grad_weight has shape (3, 1, 2): axis 1 (channel) is 1, expected 2",
    "return {'weight': weight.astype(int)}": ": grad_weight has dtype int64: expected float64, float32, float16 or",
    "raise RuntimeError('no\\n luck')": " raises RuntimeError: no luck",
    "raise SystemExit(3)": " raises SystemExit: 3",
    "import absent_module": " raises ModuleNotFoundError: No module named 'absent_module'",
}


@pytest.mark.jit
@pytest.mark.parametrize("body", RETURNED)
def test_what_else_a_backward_does_is_an_error_of_its_cases_in_one_line(folder, tmp_path, run, body):
    (folder / "mine.py").write_text(f"def backward(weight, bias):\n    {body}\n")
    (folder / "night.toml").write_text(ONE + CONV.format("other"))
    assert run("run", folder / "night.toml", "--out", tmp_path / "out")[0] == 3
    own, other = read_results(tmp_path / "out").suite.cases.values()
    assert other.verdict == "pass"
    assert own.verdict == "error"
    assert own.error.startswith(f"mine:backward{RETURNED[body]}")
    assert own.error.isprintable()


MODULES = {
    "x = 1": "mine:backward: mine has no 'backward': expected a function",
    "backward = 3": "mine:backward is int: expected a function",
    "1 / 0": "mine:backward cannot be imported: mine raises ZeroDivisionError: division by zero",
    "def backward(": "mine:backward cannot be imported: mine raises SyntaxError: '(' was never closed",
    "import sys; sys.exit(2)": "mine:backward cannot be imported: mine raises SystemExit: 2",
    "def backward(*a): pass": "mine:backward takes *a, and arguments are passed by name: expected some of",
    "def backward(x, dout): pass": "mine:backward has the parameter 'x' (did you mean 'input'?): expected some",
    "def backward(wieght): pass": "mine:backward has the parameter 'wieght' (did you mean 'weight'?): expected some of",
    "def backward(weight, /): pass": "mine:backward has the parameter 'weight' (did you mean 'weight'?): expected some",
}


@pytest.mark.jit
@pytest.mark.parametrize("source", MODULES)
def test_modules_and_functions_that_cannot_be_used(folder, tmp_path, run, source):
    (folder / "mine.py").write_text(source)
    assert run("run", folder / "night.toml", "--out", tmp_path / "out")[0] == 3
    found = read_results(tmp_path / "out").suite.cases["narrow"]
    assert found.error.startswith(MODULES[source])
    assert found.error.isprintable()


@pytest.mark.jit
@pytest.mark.parametrize(
    "declared", ["grad_output, scale=1", "grad_output, **others", "*others, grad_output", "*, grad_output"]
)
def test_a_backward_gets_the_arguments_that_it_declares(folder, tmp_path, run, declared):
    body = "return {'bias': grad_output.sum((0, 2))}"
    (folder / "mine.py").write_text(f"def backward({declared}):\n    {body}\n")
    text = (
        '[[case]]\nname = "own"\nconv = {in = 2, out = 3, kernel = 2}\ninput = [1, 2, 5]\nbackward = "mine:backward"\n'
    )
    (folder / "night.toml").write_text(text)
    assert run("run", folder / "night.toml", "--out", tmp_path / "out")[0] == 0


def test_a_dry_run_imports_nothing(folder, tmp_path, run):
    for name in ("mine", "factors"):
        (folder / f"{name}.py").write_text("raise SystemError('imported')\n")
    (folder / "night.toml").write_text(SUITE + '[[case]]\ngradient = "mine:logistic"\n')
    code, out, err = run("run", folder / "night.toml", "--dry-run")
    assert (code, err) == (0, "")
    assert "night: 12 cases" in out
    assert not {"mine", "factors"} & set(sys.modules)
    (folder / "mine.py").unlink()
    code, out, _ = run("run", folder / "night.toml", "--dry-run")
    assert code == 2
    assert f"mine:logistic: there is no module mine in {folder}, nor on sys.path" in " ".join(out.split())


def test_the_help_says_that_code_runs(run):
    told = " ".join(run("run", "--help")[1].split())
    assert "running it imports their modules, from the suite's folder or from sys.path, and runs their code" in told
    assert "--dry-run imports none" in told


@pytest.mark.jit
@pytest.mark.parametrize("options", [(), ("--isolate",), ("--dask", "local:1")])
def test_what_a_function_prints_stays_out_of_the_json(folder, tmp_path, options):
    body = "print('from mine'); return {'bias': grad_output.sum((0, 2))}"
    (folder / "mine.py").write_text(f"print('imported')\ndef backward(grad_output):\n    {body}\n")
    (folder / "night.toml").write_text(ONE)
    command = [sys.executable, "-m", "fastcheck", "run", folder / "night.toml", "--out", tmp_path / "out"]
    done = processes.run([*command, "--json", "-", *options])
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "pass")
    assert "imported\nfrom mine\n" in done.stderr


# Gradients of functions

GRADIENTS = """
import numpy as np

rng = np.random.default_rng(0)
X, Y, W = rng.normal(size=(20, 3)), rng.integers(0, 2, 20), rng.normal(size=3)


def loss(w):
    z = X @ w
    return np.sum(np.logaddexp(0, z) - Y * z)


def grad(w):
    return X.T @ (1 / (1 + np.exp(-X @ w)) - Y)


def right():
    return loss, grad, W


def wrong():
    return {"loss": lambda p: loss(p["w"]), "grad": lambda p: {"w": 2 * grad(p["w"])}, "params": {"w": W}}


def declared():
    return {"loss": loss, "grad": grad(W), "params": W, "dims": 2, "seed": 7, "relative_noise": 1e-6, "stencil": 3}
"""


@pytest.fixture
def gradients(folder):
    names = ("right", "wrong", "declared")
    (folder / "mine.py").write_text(GRADIENTS)
    cases = "".join(f'[[case]]\nname = "{name}"\ngradient = "mine:{name}"\n' for name in names)
    (folder / "night.toml").write_text('[defaults]\ndims = "all"\nseed = 3\n' + cases)
    return folder


@pytest.mark.jit
@pytest.mark.parametrize("options", [(), ("--isolate",), ("--dask", "local:1")])
def test_gradients_of_functions_are_cases_like_any_other(gradients, tmp_path, run, options):
    out, junit = tmp_path / "out", tmp_path / "night.xml"
    code, told, err = run("run", gradients / "night.toml", "--out", out, "--junit", junit, *options)
    assert (code, err) == (1, "")
    assert "night: 2 of 3 pass, 1 fail (wrong: w, the gradient is twice what it should be" in told
    assert verdicts(out) == {"right": "pass", "wrong": "fail", "declared": "pass"}
    cases = read_results(out).suite.cases
    assert (cases["right"].seed, cases["right"].requested["dims"]) == (3, "all")
    assert "twice what it should be" in cases["wrong"].tensors["w"].diagnosis["bug"]
    requested = cases["declared"].requested
    assert (cases["declared"].seed, requested["dims"], requested["relative_noise"]) == (7, 2, 1e-6)
    assert cases["declared"].tensors["params"].dims_checked == 2
    assert 'failures="1"' in junit.read_text()
    assert run("show", out)[0] == 1
    assert run("diff", out, out)[0] == 0
    assert run("run", gradients / "night.toml", "--out", out, *options)[1].startswith("3 of 3 cases are finished")


NO_GRADIENTS = {
    "return 3": ": it returns 3: expected (loss, grad, params), or a dict of these",
    "return loss, grad": ": it returns a tuple of 2: expected (loss, grad, params)",
    "return {'loss': loss, 'grad': grad}": ": it returns no 'params': expected loss, grad, params",
    "return {'loss': loss, 'grad': grad, 'param': W}": ": it returns 'param' (did you mean 'params'?): expected loss",
    "return {'loss': loss, 'grad': grad, 'params': W, 'stencil': 4}": ": stencil is 4: expected 'auto', 3 or 5",
    "return {'loss': loss, 'grad': grad, 'params': W, 'step': 'aut'}": ": step is 'aut': expected 'auto'",
    "return loss, grad, W.astype(int)": ": params has dtype int64: expected float64, float32, float16 or bfloat16",
    "return loss, W[:2], W": ": grad has shape (2,): expected (3,), that of params",
    "return lambda w: w[5], grad, W": ": loss raises IndexError at the start point: index 5 is out of bounds",
    "raise KeyError('x')": " raises KeyError: 'x'",
}


@pytest.mark.jit
@pytest.mark.parametrize("body", NO_GRADIENTS)
def test_what_describes_no_gradient_is_an_error_in_one_line(gradients, tmp_path, run, body):
    (gradients / "mine.py").write_text(f"{GRADIENTS}\n\ndef right():\n    {body}\n")
    assert run("run", gradients / "night.toml", "--out", tmp_path / "out")[0] == 1
    found = read_results(tmp_path / "out").suite.cases
    assert found["right"].error.startswith(f"mine:right{NO_GRADIENTS[body]}")
    assert found["right"].error.isprintable()
    assert found["declared"].passed


# Functions, and functions of PyTorch

FUNCTIONS = """
import numpy as np
import fastcheck

rng = np.random.default_rng(0)
X, W = rng.normal(size=(6, 5)), rng.normal(size=(5, 4))


def forward(x, w):
    return np.tanh(x @ w), (x, w)


def backward(dout, cache):
    x, w = cache
    d = dout * (1 - np.tanh(x @ w) ** 2)
    return d @ w.T, x.T @ d


def layer():
    return {"forward": forward, "backward": backward, "inputs": {"x": X, "w": W}, "has_cache": True}


def wrong_layer():
    return layer() | {"backward": lambda dout, cache: [1.00001 * one for one in backward(dout, cache)]}


def some():
    return layer() | {"dims": 3, "seed": 7, "structure": {"x": "per_sample"}}


def loss():
    return lambda w: np.tanh(X @ w).sum(), lambda w: X.T @ (1 - np.tanh(X @ w) ** 2), W


def wrong_loss():
    return dict(zip(("loss", "grad", "params"), loss())) | {"grad": np.zeros_like(W)}


def case():
    return fastcheck.FunctionCase(*loss(), noise=1e-9)


def wrong_case():
    return fastcheck.FunctionCase(lambda w: 2 * loss()[0](w), *loss()[1:])
"""

TORCH = """
import torch


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, factor):
        ctx.save_for_backward(x, w)
        ctx.factor = factor
        return x * w

    @staticmethod
    def backward(ctx, grad_output):
        x, w = ctx.saved_tensors
        return grad_output * w, ctx.factor * grad_output * x, None


x, w = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4), torch.linspace(1, 3, 4, dtype=torch.float64)
w = w.expand(3, 4).clone()


def right():
    return lambda x, w: Scaled.apply(x, w, 1.0), (x, w)


def wrong():
    return {"function": lambda x, w: Scaled.apply(x, w, 1.0001), "inputs": [x, w], "seed": 5}


def module():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2).double(), x


def convolution():
    torch.manual_seed(0)
    return {"function": torch.nn.Conv1d(3, 2, 2).double(), "inputs": x[None], "dims": "all"}
"""


def suite_of(folder, source, key, *names):
    cases = "".join(f'[[case]]\nname = "{name}"\n{key} = "mine:{name}"\n' for name in names)
    (folder / "mine.py").write_text(source)
    (folder / "night.toml").write_text(f"[defaults]\nseed = 3\n{cases}")


@pytest.mark.jit
@pytest.mark.parametrize("options", [(), ("--isolate",), ("--dask", "local:1")])
def test_functions_describe_a_forward_a_loss_or_a_case(folder, tmp_path, run, options):
    names = ("layer", "wrong_layer", "some", "loss", "wrong_loss", "case", "wrong_case")
    suite_of(folder, FUNCTIONS, "function", *names)
    out = tmp_path / "out"
    code, told, err = run("run", folder / "night.toml", "--out", out, *options)
    assert (code, err) == (1, "")
    assert "night: 4 of 7 pass, 3 fail (wrong_layer: x, w; wrong_loss: params; wrong_case: params)" in told
    assert verdicts(out) == {name: "fail" if "wrong" in name else "pass" for name in names}
    cases = read_results(out).suite.cases
    assert {name: case.seed for name, case in cases.items()} == {**dict.fromkeys(names, 3), "some": 7}
    assert {name: one.dims_checked for name, one in cases["layer"].tensors.items()} == {"x": 30, "w": 20}
    assert sum(one.dims_checked for one in cases["some"].tensors.values()) == 3
    assert cases["some"].structure["x"]["structure"] == "per_sample"
    assert cases["case"].requested["noise"] == 1e-9
    for name, tensor in (("wrong_layer", "w"), ("wrong_loss", "params"), ("wrong_case", "params")):
        assert cases[name].tensors[tensor].diagnosis["shape"]
    (folder / "mine.py").write_text(FUNCTIONS.replace("1.00001", "1.0"))
    code, told, _ = run("run", folder / "night.toml", "--out", out, *options)
    assert "night: 5 of 7 pass, 2 fail (wrong_loss: params" in told


@pytest.mark.jit
@pytest.mark.parametrize("options", [(), ("--isolate",)])
def test_functions_and_modules_of_pytorch_are_cases(folder, tmp_path, run, options):
    names = ("right", "wrong", "module", "convolution")
    suite_of(folder, TORCH, "torch", *names)
    out = tmp_path / "out"
    code, told, err = run("run", folder / "night.toml", "--out", out, *options)
    assert (code, err) == (1, "")
    assert "night: 3 of 4 pass, 1 fail (wrong: input 1, the gradient has a factor of 1.0001 everywhere)" in told
    cases = read_results(out).suite.cases
    assert {name: case.seed for name, case in cases.items()} == {**dict.fromkeys(names, 3), "wrong": 5}
    assert list(cases["module"].tensors) == ["weight", "bias"]
    assert cases["convolution"].tensors["weight"].evaluator == "delta"
    assert run("run", folder / "night.toml", "--out", out, *options)[1].startswith("4 of 4 cases are finished")


@pytest.mark.jit
def test_numeric_gradients_of_a_module_are_those_of_the_check_that_differences_it(folder, tmp_path, run):
    suite_of(folder, TORCH, "torch", "convolution")
    out = tmp_path / "out"
    assert run("run", folder / "night.toml", "--out", out, "--keep-numeric")[0] == 0
    (path,) = out.rglob("weight.npy")
    (case,) = read_results(out).suite.cases.values()
    numeric = np.load(path)
    assert numeric.shape == (2, 3, 2)
    for entry in case.tensors["weight"].worst:
        assert numeric[entry.index] == entry.numeric
    assert np.isfinite(numeric).all()


COUNTED = """
CALLS = []


def counted(x, w):
    CALLS.append(1)
    return forward(x, w)


def own():
    return layer() | {"forward": counted}
"""


@pytest.mark.jit
def test_finished_shards_of_a_function_are_not_differenced_again(folder, tmp_path, run, monkeypatch):
    suite_of(folder, FUNCTIONS + COUNTED, "function", "own")

    def full(*arguments):
        raise FastcheckError("the disk is full")

    with monkeypatch.context() as context:
        context.setattr(Ledger, "finish", full)
        assert run("run", folder / "night.toml", "--out", tmp_path / "out")[::2] == (2, "fastcheck: the disk is full\n")
    first = len(sys.modules["mine"].CALLS)
    assert run("run", folder / "night.toml", "--out", tmp_path / "out")[0] == 0
    again = len(sys.modules["mine"].CALLS) - first
    assert first - again >= 6 * 50  # an entry takes six calls at least; the preparation is repeated


UNDESCRIBED = {
    "return 3": ": it returns 3: expected (loss, grad, params), or a dict of these",
    "return forward, backward": ": it returns a tuple of 2: expected (loss, grad, params), or a dict of these",
    "return {'forward': forward, 'backward': backward}": ": it returns no 'inputs': expected forward, backward, inputs",
    "return layer() | {'cache': True}": ": it returns 'cache' (did you mean 'has_cache'?): expected forward, backward,",
    "return layer() | {'threads': 2}": ": it returns 'threads': expected forward, backward, inputs, has_cache,",
    "return layer() | {'structure': 'line'}": ": structure is 'line'",
    "return layer() | {'inputs': {'x': X}}": ": forward raises TypeError at the start point: forward() missing 1",
    "return {}": ": it returns no 'loss': expected loss, grad, params",
    "return fastcheck.FunctionCase(forward, W, X)": " raises FastcheckError: ",
}


@pytest.mark.jit
@pytest.mark.parametrize("body", UNDESCRIBED)
def test_what_describes_no_check_is_an_error_in_one_line(folder, tmp_path, run, body):
    suite_of(folder, f"{FUNCTIONS}\n\ndef own():\n    {body}\n", "function", "own", "layer")
    assert run("run", folder / "night.toml", "--out", tmp_path / "out")[0] == 3
    found = read_results(tmp_path / "out").suite.cases
    assert found["own"].error.startswith(f"mine:own{UNDESCRIBED[body]}")
    assert found["own"].error.isprintable()
    assert found["layer"].passed


# Sources


def digest(folder, name="mine:f"):
    return read_sources(UserFunction(name, folder)).digest


@pytest.fixture
def package(tmp_path):
    """A package with everything that an import may look like."""
    files = {
        "own/__init__.py": "from . import constants",
        "own/constants.py": "",
        "own/mine.py": "import os\nfrom .. import nothing\nfrom .deep.below import f as g\nfrom own import sibling",
        "own/deep/__init__.py": "",
        "own/deep/below.py": "def f():\n    import lazily.inside\n",
        "own/sibling.py": "try:\n    import absent\nexcept ImportError:\n    from beside import *",
        "lazily/inside.py": "",
        "beside.py": "",
        "unrelated.py": "",
        "own/unrelated.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path, files


def test_every_file_of_the_users_that_is_imported_counts_and_no_other(package):
    folder, files = package
    sources = read_sources(UserFunction("own.mine:f", folder))
    modules = {
        "own",
        "own.constants",
        "own.mine",
        "own.deep",
        "own.deep.below",
        "own.sibling",
        "lazily.inside",
        "beside",
    }
    assert set(sources.files) == modules
    for path, text in files.items():
        (folder / path).write_text(text + "\n# changed")
        assert (digest(folder, "own.mine:f") != sources.digest) == ("unrelated" not in path), path
        (folder / path).write_text(text)
    assert digest(folder, "own.mine:f") == sources.digest


def test_where_a_suite_lies_does_not_count(package, tmp_path):
    folder, _ = package
    before = digest(folder, "own.mine:f")
    os.rename(folder / "own", folder / "moved")
    (folder / "elsewhere").mkdir()
    for name in ("lazily", "beside.py"):
        os.rename(folder / name, folder / "elsewhere" / name)
    os.rename(folder / "moved", folder / "elsewhere" / "own")
    assert digest(folder / "elsewhere", "own.mine:f") == before


def test_installed_packages_are_not_followed(tmp_path):
    (tmp_path / "mine.py").write_text("import numpy, json, click, fastcheck\n")
    assert set(read_sources(UserFunction("mine:f", tmp_path)).files) == {"mine"}
    sources = read_sources(UserFunction("numpy.linalg:norm", tmp_path))
    assert sources.files == {}
    assert sources.digest != digest(tmp_path)
    assert user_code.imported(sources.function, sources.files).__name__ == "norm"


def test_a_module_beside_the_suite_goes_before_one_elsewhere(tmp_path, monkeypatch):
    for name, value in (("beside", 1), ("path", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"f = lambda: {value}")
    (tmp_path / "path" / "other.py").write_text("f = lambda: 3")
    monkeypatch.syspath_prepend(tmp_path / "path")
    for name, value in (("mine:f", 1), ("other:f", 3)):
        sources = read_sources(UserFunction(name, tmp_path / "beside"))
        assert user_code.imported(sources.function, sources.files)() == value


def test_what_runs_is_what_was_read_whatever_the_files_hold_by_now(tmp_path):
    (tmp_path / "mine.py").write_text("import other\nf = lambda: other.value + 1")
    (tmp_path / "other.py").write_text("value = 1")
    before = read_sources(UserFunction("mine:f", tmp_path))
    times = os.stat(tmp_path / "other.py")
    (tmp_path / "other.py").write_text("value = 5")
    os.utime(tmp_path / "other.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = read_sources(UserFunction("mine:f", tmp_path))
    for sources, value in ((before, 2), (after, 6), (before, 2)):
        assert user_code.imported(sources.function, sources.files)() == value


@pytest.mark.jit
def test_a_killed_check_of_a_function_begins_anew(gradients, tmp_path, run):
    """Its findings need all dimensions."""
    out = tmp_path / "out"
    run("run", gradients / "night.toml", "--out", out)
    entries = read_suite(gradients / "night.toml").entries
    with Ledger.open(out, "night", "", read_results(out).suite.run["target"]) as ledger:
        ledger._connection.execute("UPDATE cases SET verdict = NULL")
        ledger._connection.execute("DELETE FROM reports")
    assert run("run", gradients / "night.toml", "--out", out)[0] == 1
    assert len(verdicts(out)) == len(entries)
