"""What a network's check proves: audits, kinks, dropout, regularisation, precision, and what each of them refuses."""

import re
import sys
import tracemalloc

import naive_network
import network_examples
import numpy as np
import pytest
import torch
import torch_network

import fastcheck
from fastcheck import FastcheckError, Network
from fastcheck.engine import coordinator
from fastcheck.engine.settings import Settings
from fastcheck.networks import partial, passes
from fastcheck.networks.case import NetworkCase
from fastcheck.networks.error_bars import Baseline
from fastcheck.networks.evaluator import NetworkEvaluator
from fastcheck.networks.layers import (
    GELU,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    Tanh,
)
from fastcheck.networks.network import Penalty
from fastcheck.networks.partial import PartialEvaluation
from fastcheck.networks.passes import Passes
from fastcheck.networks.pipeline import NetworkPipeline

pytestmark = pytest.mark.jit


def _case(name="cnn", seed=0, **options):
    network, params, x, y, masks = network_examples.CASES[name](seed)
    return network, params, torch_network.gradients(network, params, x, y, masks, **options)[1], x, y


def _check(network, params, grads, x, y, **options):
    return fastcheck.check_network(network, params, grads, x, y, **({"dims": "all"} | options))


def _line(report, topic):
    return next(line for line in report.hygiene if line.topic == topic)


def test_a_corrupted_prefix_is_found_by_the_audit():
    network, params, grads, x, y = _case("conv_2d")
    settings = Settings(dims="all")
    case = NetworkCase.of(network, params, grads, x, y)
    for corrupt in (False, True):
        baseline = Baseline.of(Passes(case.point), 0)
        if corrupt:
            chunk = baseline.passes.chunks[0]
            at = baseline.passes.program.slots()[0][1] * chunk.period
            chunk.cached[at : at + chunk.period] += 0.5
        report = coordinator.run(NetworkPipeline(case, settings, baseline), settings)
        assert report.verdict == ("error" if corrupt else "pass")
        assert any(tensor.audit["disagreements"] for tensor in report.tensors.values()) == corrupt


def test_what_a_phase_remembers_is_that_of_the_same_dimensions():
    network, params, grads, x, y = _case("conv_2d")
    case = NetworkCase.of(network, params, grads, x, y)
    first, second = np.array([0, 2, 4]), np.array([0, 1, 5])  # of one first entry, one length and one sum

    def differences(phases, *sets):
        baseline = Baseline.of(Passes(case.point), 0, phases=phases)
        evaluator = NetworkEvaluator(
            case, baseline, PartialEvaluation(baseline.passes, "conv1.weight"), "conv1.weight", 1e-5, 0
        )
        return [evaluator(dims).numeric.tolist() for dims in sets]

    alone = [differences(1, dims)[0] for dims in (first, second)]
    assert alone[0] != alone[1]
    assert differences(2, first, second, first) == [*alone, alone[0]]


@pytest.mark.parametrize("evaluator", ["network", "full"])
def test_a_constant_image_ties_everywhere_and_is_told_as_kinks(evaluator):
    network = Network([Conv(2, 3), MaxPool(2), Flatten(), Dense(3)])
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in network.parameter_shapes((1, 8, 8)).items()}
    x, y = np.ones((2, 1, 8, 8)), np.array([0, 2])
    grads = torch_network.gradients(network, params, x, y)[1]
    report = _check(network, params, grads, x, y, evaluator=evaluator)
    assert report.passed, report.summary()
    assert report.tensors["conv1.weight"].kinks == 18
    assert report.tensors["dense1.weight"].kinks == 0
    assert "20 of" in _line(report, "kinks").text
    excluded = _check(network, params, grads, x, y, kinks="exclude")
    assert excluded.tensors["conv1.weight"].excluded == 18


def test_the_frozen_mask_passes_and_a_redrawn_one_fails():
    network, params, x, y, masks = network_examples.CASES["dropout_maps"](0)
    grads = torch_network.gradients(network, params, x, y, masks)[1]
    assert _check(network, params, grads, x, y, masks=masks).passed
    redrawn = {name: 1 - mask for name, mask in masks.items()}
    assert _check(network, params, grads, x, y, masks=redrawn).verdict == "fail"
    assert _line(_check(network, params, grads, x, y, masks=masks), "dropout").status == "done"
    report = _check(network, params, grads, x, y)
    assert report.verdict == "fail"
    line = _line(report, "dropout")
    assert line.status == "warn"
    assert "off in dropout1" in line.text
    assert "pass the mask as masks=" in line.text
    off = torch_network.gradients(network, params, x, y)[1]
    report = _check(network, params, off, x, y)
    assert report.passed
    assert _line(report, "dropout").status == "note"


def _dropping(mask, p=0.4, **options):
    """Return the line of a network with dropout, whose gradient is that of a mask and lacks regularisation."""
    network, rng = Network([Dense(7), Tanh(), Dropout(p), Dense(3)], **options), np.random.default_rng(0)
    params = network_examples.parameters(network, (8,), rng)
    x, y = rng.normal(size=(6, 8)), rng.integers(0, 3, 6)
    masks = {} if mask is None else {"dropout1": mask}
    grads = torch_network.gradients(network, params, x, y, masks, regularised=False)[1]
    return _check(network, params, grads, x, y, masks=masks), lambda given: _check(
        network, params, grads, x, y, **given
    )


def test_dropout_is_blamed_by_the_data_loss_alone():
    report, _ = _dropping(None, l2=0.1)
    assert [phase.verdict for phase in report.phases.values()] == ["pass", "fail"]
    assert _line(report, "dropout").status == "note"
    _, again = _dropping((np.random.default_rng(1).random((6, 7)) > 0.4).astype(float), l2=0.1)
    report = again({})
    assert [phase.verdict for phase in report.phases.values()] == ["fail", "fail"]
    assert _line(report, "dropout").status == "warn"


def test_dropout_that_drops_nothing_is_the_same_function():
    line = _line(_dropping(None, p=0.0)[0], "dropout")
    assert line.status == "done"
    assert "p is 0 in dropout1" in line.text
    assert "mask frozen in dropout1" in _line(_dropping(np.ones((6, 7)), p=0.0)[0], "dropout").text


@pytest.mark.parametrize("open_units", [0, 1, 7])
def test_a_mask_that_lets_little_through_is_why_nothing_was_shown(open_units):
    mask = np.zeros((6, 7))
    mask[:, :open_units] = 1
    report, _ = _dropping(mask)
    assert report.passed
    lines = [line.text for line in report.hygiene if line.topic == "what was shown"]
    if open_units == 7:
        assert not lines
    else:
        assert f"The mask lets only {6 * open_units} of 42 entries of dropout1 through" in lines[0]


@pytest.mark.parametrize("given", [False, True])
def test_missing_regularisation_fails_in_the_second_phase_alone(given):
    network, params, whole, x, y = _case("l2")
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]
    right = _check(network, params, whole, x, y, data_grads=data if given else None)
    assert right.passed
    report = _check(network, params, data, x, y, data_grads=data if given else None)
    assert [phase.verdict for phase in report.phases.values()] == ["pass", "fail"]
    line = _line(report, "regularisation")
    assert line.status == "warn"
    assert "contain no regularisation" in line.text


PENALTIES = {
    "l2": Penalty(0.3, 0.0),
    "l1": Penalty(0.0, 0.2),
    "both": Penalty(0.3, 0.2),
    "tiny": Penalty(1e-9, 0.0),
    "huge": Penalty(1e6, 0.0),
}
IN_WORDS = {
    0.0: "contain no regularisation",
    0.5: "contain half of the regularisation",
    2.0: "contain the regularisation twice",
    -1.0: "contain the regularisation with the opposite sign",
}


def _regularised(penalty, share, dtype=np.float64, wrong=1.0, zero=False, seed=0):
    """Check with a share of a penalty in the gradient of one tensor, and the whole of it in another's.

    The data loss's gradient is ``wrong`` times the right one. With ``zero`` the first tensor has zeros, whose sign
    the code takes for one.
    """
    network, params, _, x, y = _case("l2", seed)
    network = Network(network.layers, l2=penalty.l2, l1=penalty.l1)
    if zero:
        params["dense1.weight"][0] = 0.0
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]
    grads = {name: wrong * array for name, array in data.items()}
    for name, (l2, l1) in {"dense1.weight": share, "dense2.weight": (1.0, 1.0)}.items():
        sign = np.where(params[name] >= 0, 1.0, -1.0)
        grads[name] += l2 * penalty.l2 * params[name] + l1 * penalty.l1 * sign
    report = _check(network, params, {name: array.astype(dtype) for name, array in grads.items()}, x, y)
    return [phase.verdict for phase in report.phases.values()], _line(report, "regularisation")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("factor", [*IN_WORDS, 1.0, 1.37])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_share_of_the_regularisation_is_told_and_judged(penalty, factor, dtype):
    verdicts, line = _regularised(PENALTIES[penalty], (factor, factor), dtype)
    if (penalty, dtype) == ("tiny", np.float32):  # whose rounding hides it
        assert (verdicts, line.status) == (["pass", "pass"], "done")
        return
    seen = ["inconclusive"] if (penalty, dtype) == ("huge", np.float32) else ["pass"]  # rounding hides the data loss
    assert verdicts == [*(["fail"] if factor == 1.37 else seen), "pass" if factor == 1 else "fail"]
    named = [words for words in IN_WORDS.values() if words in line.text]
    assert named == [words for known, words in IN_WORDS.items() if known == factor]
    assert line.status == ("warn" if named else "done")
    assert not named or f"The gradients of dense1.weight {named[0]}" in line.text


@pytest.mark.parametrize("seed", [10, 11, 12, 13])
@pytest.mark.parametrize("factor", [*IN_WORDS, 1.0])
def test_a_share_that_rounding_half_hides_is_no_mistake_of_the_data_loss(factor, seed):
    verdicts, line = _regularised(Penalty(1e-3, 1e-3), (factor, factor), np.float16, seed=seed)
    assert verdicts[0] != "fail"
    assert [words for words in IN_WORDS.values() if words in line.text] in ([], [IN_WORDS.get(factor)])


@pytest.mark.parametrize("share", [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (1.0, 0.0), (2.0, 1.0), (1.37, 1.37)])
def test_a_phase_that_fails_alone_is_never_done(share):
    """Where |w| is l1 / l2 either term is as good as the other, so that several shares explain what is there."""
    network, params, _, x, y = _case("l2")
    params["dense1.weight"] = 0.2 * np.sign(params["dense1.weight"])
    network = Network(network.layers, l2=0.1, l1={"dense1": 0.02})
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]
    for given in ({}, {"data_grads": data}):
        grads = dict(data)
        for name, (l2, l1) in {"dense1.weight": share, "dense2.weight": (1.0, 1.0)}.items():
            l1_of = 0.02 if name == "dense1.weight" else 0.0
            grads[name] = data[name] + l2 * 0.1 * params[name] + l1 * l1_of * np.sign(params[name])
        report = _check(network, params, grads, x, y, **given)
        line = _line(report, "regularisation")
        verdicts = [phase.verdict for phase in report.phases.values()]
        right = sum(share) == 2
        assert verdicts[1] == ("pass" if right else "fail")
        assert verdicts[0] == ("fail" if share[0] == 1.37 and not given else "pass")
        assert (line.status == "warn") == (verdicts == ["pass", "fail"])
        assert ("gradients of dense1.weight contain" in line.text) == (verdicts == ["pass", "fail"])


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_data_gradients_that_contain_the_regularisation_are_named(factor):
    network, params, whole, x, y = _case("l2")
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]
    mixed = {name: data[name] + factor * (whole[name] - data[name]) for name in data}
    report = _check(network, params, whole, x, y, data_grads=mixed)
    assert [phase.verdict for phase in report.phases.values()] == ["fail" if factor else "pass", "pass"]
    line = _line(report, "regularisation")
    assert line.status == ("warn" if factor else "done")
    assert ("data_grads of dense1.weight, dense2.weight contain regularisation" in line.text) == bool(factor)
    wrong = {name: 1.01 * array for name, array in mixed.items()}
    report = _check(network, params, whole, x, y, data_grads=wrong)
    assert report.phases["data loss"].verdict == "fail"
    assert _line(report, "regularisation").status == "done"


def test_l2_and_l1_are_told_apart():
    verdicts, line = _regularised(PENALTIES["both"], (0.5, 1.0))
    assert verdicts == ["pass", "fail"]
    assert "of dense1.weight contain half of the l2 term and all of the l1 term" in line.text
    verdicts, line = _regularised(PENALTIES["both"], (0.5, 1.37))
    assert verdicts == ["fail", "fail"]
    assert line.status == "done"


@pytest.mark.parametrize("wrong", [1.01, 1 + 1e-6, 2.0, -1.0])
@pytest.mark.parametrize("factor", [*IN_WORDS, 1.0])
def test_a_wrong_data_gradient_is_not_explained_by_a_share_of_the_regularisation(wrong, factor):
    verdicts, line = _regularised(PENALTIES["both"], (factor, factor), wrong=wrong)
    assert verdicts == ["fail", "fail"]
    assert line.status == "done"


@pytest.mark.parametrize(("factor", "verdicts"), [(1.0, ["pass", "pass"]), (2.0, ["pass", "fail"])])
def test_l1_at_zero_is_taken_off_with_the_sign_it_was_given(factor, verdicts):
    found, line = _regularised(PENALTIES["l1"], (factor, factor), zero=True)
    assert found == verdicts
    assert (line.status == "warn") == (factor == 2)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0, 1.5])
def test_l1_at_zero_weights_hides_no_wrong_data_gradient(factor):
    """Any subgradient of a large l1 would explain it: the sign of 0 is -1, 0 or 1."""
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(6, 5)), np.array([0, 1, 2, 0, 1, 1]), np.zeros((3, 5))
    data = (np.full((6, 3), 1 / 3) - np.eye(3)[y]).T @ x / 6
    for sign in (0.0, 1.0, -1.0):
        grads = {"dense1.weight": factor * data + sign}
        report = _check(Network([Dense(3, bias=False)], l1=1.0), {"dense1.weight": weight}, grads, x, y)
        assert report.phases["data loss"].verdict == ("pass" if factor == 1 else "fail")


@pytest.mark.parametrize("zeros", ["one", "some", "all"])
@pytest.mark.parametrize("sign", [0.0, 1.0, -1.0, np.copysign], ids=["0", "+1", "-1", "copysign"])
@pytest.mark.parametrize(("dtype", "l2"), [(np.float64, 0.0), (np.float64, 0.3), (np.float32, 0.0), (np.float32, 0.3)])
def test_l1_at_zero_has_one_sign_and_a_zero_hides_nothing(dtype, l2, sign, zeros):
    """What a wrong data gradient has more at one zero is no sign of it, nor half of the regularisation."""
    network, rng = Network([Dense(4), Tanh(), Dense(3)], l1=0.2, l2=l2), np.random.default_rng(0)
    params = network_examples.parameters(network, (5,), rng)
    weight = params["dense1.weight"]
    weight[{"one": (0, 0), "some": (slice(None), slice(0, 5, 2)), "all": ...}[zeros]] = 0.0
    weight[:, 2] = np.copysign(weight[:, 2], -1)  # zeros of either sign, where there are several
    params = {name: array.astype(dtype).astype(np.float64) for name, array in params.items()}
    x, y = rng.normal(size=(4, 5)), np.array([0, 1, 2, 1])
    data = torch_network.gradients(network, params, x, y, regularised=False)[1]

    def verdicts(wrong):
        grads = {name: array + l2 * params[name] * name.endswith("weight") for name, array in data.items()}
        for name in ("dense1.weight", "dense2.weight"):
            w = params[name]
            at_zero = np.copysign(1.0, w) if sign is np.copysign else sign
            grads[name] = grads[name] + 0.2 * np.where(w == 0, at_zero, np.sign(w))
        grads["dense1.weight"][0, 0] += wrong * 0.2
        report = _check(network, params, {name: array.astype(dtype) for name, array in grads.items()}, x, y)
        return [phase.verdict for phase in report.phases.values()], _line(report, "regularisation").status

    assert verdicts(0.0) == (["pass", "pass"], "done")
    for wrong in (0.5, -0.5, 0.25) + (1.0, -1.0) * (zeros != "one"):
        assert verdicts(wrong)[0][0] == "fail", wrong


def test_a_wrong_data_gradient_fails_in_both_phases():
    network, params, whole, x, y = _case("l2")
    wrong = {name: array * (1 + 1e-6) for name, array in whole.items()}
    assert [phase.verdict for phase in _check(network, params, wrong, x, y).phases.values()] == ["fail", "fail"]


def test_swamping_regularisation_is_named():
    network, params, _, x, y = _case("l2")
    heavy = Network(network.layers, l2=1e4)
    grads = torch_network.gradients(heavy, params, x, y)[1]
    assert "swamps the data loss" in _line(_check(heavy, params, grads, x, y), "regularisation's size").text


@pytest.mark.parametrize("wrong", [1e-6, 1e-8])
def test_one_weight_that_is_a_little_wrong(wrong):
    network, params, grads, x, y = _case("resnet")
    name = max(grads, key=lambda name: np.abs(grads[name]).max())
    place = np.unravel_index(np.abs(grads[name]).argmax(), grads[name].shape)
    grads[name][place] *= 1 + wrong
    report = _check(network, params, grads, x, y)
    assert report.verdict == "fail"
    assert report.tensors[name].beyond_error_bar == 1
    assert report.tensors[name].worst[0].index == tuple(place)
    assert all(tensor.verdict == "pass" for other, tensor in report.tensors.items() if other != name)


@pytest.mark.parametrize("name", ["conv_2d", "max_pool", "softmax_cross_entropy", "batch_norm_maps"])
def test_gradients_in_float32_pass_and_may_not_be_far_off(name):
    network, params, grads, x, y = _case(name, dtype=torch.float32)
    assert grads[next(iter(grads))].dtype == np.float32
    report = _check(network, params, grads, x, y)
    assert report.passed, report.summary()
    assert _line(report, "double precision").status == "note"
    wrong = {key: (array * (1 + 1e-3)).astype(np.float32) for key, array in grads.items()}
    assert _check(network, params, wrong, x, y).verdict == "fail"


@pytest.mark.parametrize("name", ["conv_2d", "max_pool", "multiclass_hinge", "batch_norm_maps", "l1", "add"])
@pytest.mark.parametrize("step", ["auto", 1e-3])
def test_full_and_network_find_the_same(name, step):
    network, params, grads, x, y = _case(name, seed=3)
    fast, full = (
        _check(network, params, grads, x, y, evaluator=way, step=step, keep=True) for way in ("network", "full")
    )
    for tensor, there in full.tensors.items():
        here = fast.tensors[tensor]
        assert there.evaluator == "full"
        assert here.kinks == there.kinks
        # Where a kink moved a dimension to a smaller step, the two may have taken different ones.
        apart = np.abs(here.numeric - there.numeric)
        assert (apart <= here.error_bar + there.error_bar).all()


@pytest.mark.parametrize(
    ("name", "seed"), [("conv_2d", 0), ("add", 3), ("batch_norm_features", 3), ("squared_error", 3), ("add_itself", 0)]
)
def test_truncation_of_a_step_far_too_large_is_no_mistake(name, seed):
    """Terms of h^4 cancel those of h^2 in some dimensions at the larger step that truncation is told by."""
    network, params, grads, x, y = _case(name, seed)
    assert _check(network, params, grads, x, y, step=0.05).verdict != "fail"
    name = list(grads)[-1]
    grads[name] = 1.05 * grads[name]
    assert _check(network, params, grads, x, y, step=0.05).verdict == "fail"


def test_reports_are_the_same_for_any_number_of_threads():
    network, params, grads, x, y = _case("cnn")
    one, two = (_check(network, params, grads, x, y, threads=threads).to_dict() for threads in (1, 2))
    for report in (one, two):
        report.pop("run")
        for case in report["cases"]:
            case.pop("run")
    assert one == two


def _relu_at_zero():
    """A unit that is exactly zero, and its slope's interval [0, right] for the first weight."""
    network = Network([Dense(2), ReLU(), Dense(2)], loss="squared_error")
    params = {
        "dense1.weight": np.array([[1.0, -1.0], [0.5, 0.25]]),
        "dense1.bias": np.array([0.0, 0.1]),
        "dense2.weight": np.array([[1.0, 0.5], [-0.5, 1.0]]),
        "dense2.bias": np.array([0.3, -0.2]),
    }
    return network, params, np.array([[2.0, 2.0]]), np.array([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("part", "verdict"), [(0.0, "pass"), (0.4, "pass"), (1.0, "pass"), (1.1, "fail"), (-0.1, "fail")]
)
def test_at_a_kink_any_subgradient_passes_and_is_told(part, verdict):
    network, params, x, y = _relu_at_zero()
    grads = torch_network.gradients(network, params, x, y)[1]
    right = (
        naive_network.objective(network, {**params, "dense1.bias": np.array([1e-7, 0.1])}, x, y)
        - naive_network.objective(network, params, x, y)
    ) / 1e-7
    grads["dense1.bias"][0] = part * right
    report = _check(network, params, grads, x, y, only=["dense1.bias"])
    tensor = report.tensors["dense1.bias"]
    assert tensor.verdict == verdict, tensor.reason
    if verdict == "pass":
        assert tensor.subgradients == 1
        assert "as subgradients at a kink" in tensor.reason


def test_a_kink_beside_the_point_is_left_by_a_smaller_step():
    network, params, x, y = _relu_at_zero()
    params["dense1.bias"][0] = 1e-6
    grads = torch_network.gradients(network, params, x, y)[1]
    fixed = _check(network, params, grads, x, y, step=1e-5).tensors["dense1.bias"]
    assert (fixed.kinks, fixed.verdict) == (1, "inconclusive")
    tried = _check(network, params, grads, x, y).tensors["dense1.bias"]
    assert (tried.kinks, tried.verdict) == (0, "pass")
    assert tried.digits["min"] > fixed.digits["min"] + 4


def test_a_new_network_compiles_nothing():
    for case in ("cnn", "multiclass_hinge", "l1"):
        _check(*_case(case), explain=True)
    compiled = _signatures()
    assert compiled
    for name in ("resnet", "conv_3d", "concat", "layer_norm_maps", "batch_norm_frozen", "logistic", "conv_1d", "elu"):
        assert _check(*_case(name)).passed
    # One that was compiled as a part of others is loaded when it is first called by itself.
    assert all(count <= max(1, compiled[name]) for name, count in _signatures().items())


def _signatures():
    """Every kernel that was compiled, with how many types of arguments it was compiled for."""
    modules = [module for name, module in sys.modules.items() if name.startswith("fastcheck_kernels")]
    kernels = {kernel for module in modules for kernel in vars(module).values() if hasattr(kernel, "signatures")}
    return {f"{kernel.py_func.__module__}.{kernel.py_func.__name__}": len(kernel.signatures) for kernel in kernels}


def test_burn_in_leaves_the_initialisation():
    network = Network([Conv(4, 3), ReLU(), Flatten(), Dense(3)], l2=1e-3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 1, 6, 6)), np.arange(40) % 3
    x[:, 0, :, 0] += 3 * y[:, None]
    seen = []

    def grads(params, x, y):
        seen.append((params, x, y))
        return torch_network.gradients(network, params, x, y)[1]

    initial = network.initial((1, 6, 6))
    report = _check(network, initial, grads, x, y)
    assert report.passed
    assert _line(report, "not at initialisation").status == "warn"
    assert _line(report, "data points").text.startswith("a seeded 8 of 40")
    report = _check(network, initial, grads, x, y, burn_in=30, learning_rate=0.1, points=5)
    assert report.passed
    assert _line(report, "not at initialisation").status == "done"
    params, used, labels = seen[-1]
    assert used.shape == (5, 1, 6, 6)
    assert labels.shape == (5,)
    assert not np.array_equal(params["conv1.weight"], initial["conv1.weight"])
    before, after = (naive_network.objective(network, where, x, y) for where in (initial, params))
    assert after < before


def test_a_saturated_softmax_is_told():
    network = Network([Dense(3, bias=False)])
    params = {"dense1.weight": 1e3 * np.eye(3)}
    x, y = np.eye(3), np.arange(3)
    report = _check(network, params, torch_network.gradients(network, params, x, y)[1], x, y)
    assert "all gradients vanish here" in _line(report, "vanishing gradients").text


def _dead(units, name="dense1.bias"):
    return lambda params: params[name].__setitem__(slice(units), -50.0)


def _blank(name):
    return lambda params: params[name].fill(0.0)


NOTHING_SHOWN = {
    "dead relus": (
        [Dense(7), ReLU(), Dense(3)],
        _dead(7),
        {},
        "all of dense1.weight, .*7 of 7 units of relu1 are dead",
    ),
    "most relus dead": (
        [Dense(7), ReLU(), Dense(3)],
        _dead(6),
        {},
        "72 of 87 .* error bars: correct.*6 of 7 units of relu1",
    ),
    "dead relus regularised": ([Dense(7), ReLU(), Dense(3)], _dead(7), {"l2": 0.1}, "7 of 7 units of relu1"),
    "gelu": ([Dense(7), GELU(), Dense(3)], _dead(7), {}, "7 of 7 units of gelu1"),
    "saturated tanh": ([Dense(7), Tanh(), Dense(3)], _dead(7), {}, "7 of 7 units of tanh1"),
    "a last layer of zeros": ([Dense(7), Tanh(), Dense(3)], _blank("dense2.weight"), {}, "dense2.weight is zero"),
    "a normalised sum": (
        [Dense(4), BatchNorm(eps=1e-13)],
        lambda params: None,
        {"loss": "squared_error"},
        "normalisation cancels .* targets that differ",
    ),
}


def _alike(network, points):
    """Targets of which no data point has its own."""
    return np.zeros(points, int) if network.loss == "softmax_cross_entropy" else np.ones((points, 4))


@pytest.mark.parametrize("name", NOTHING_SHOWN)
def test_zeros_that_any_code_gives_are_told(name):
    layers, change, options, told = NOTHING_SHOWN[name]
    network, rng = Network(layers, **options), np.random.default_rng(0)
    params = network_examples.parameters(network, (8,), rng)
    change(params)
    x = rng.normal(size=(6, 8))
    y = _alike(network, len(x))
    report = _check(network, params, torch_network.gradients(network, params, x, y)[1], x, y)
    assert report.verdict != "fail"  # rounding is as large as the cotangents that cancel in a normalised sum
    line = _line(report, "what was shown")
    assert line.status == "warn"
    assert re.search(told, line.text), line.text


@pytest.mark.parametrize("believed", [0.0, 0.5, 1.0])
def test_slopes_at_a_kink_are_no_zeros(believed):
    """Bars at a kink are as large as its slopes, and values inside them may be anything but zero."""
    network, rng = Network([Conv(1, 1), ReLU(), Flatten(), Dense(2)], loss="squared_error"), np.random.default_rng(0)
    params = network_examples.parameters(network, (1, 1, 1), rng)
    params["conv1.weight"][:] = params["conv1.bias"][:] = 0.0
    x, y = np.full((1, 1, 1, 1), 30.0), rng.normal(size=(1, 2))
    grads = torch_network.gradients(network, params, x, y)[1]
    slope = float((params["dense1.bias"] - y[0]) @ params["dense1.weight"][:, 0])
    grads |= {"conv1.weight": np.full((1, 1, 1, 1), 30 * believed * slope), "conv1.bias": np.array([believed * slope])}
    report = _check(network, params, grads, x, y)
    assert report.passed, report.summary()
    for name in ("conv1.weight", "conv1.bias"):
        tensor = report.tensors[name]
        assert (tensor.dims_checked, tensor.at_kink) == (1, tensor.unresolved)
        assert believed == 1 or "every dimension lies at a kink" in tensor.regime
    # Only dense1.weight, whose input is zero, shows none.
    assert _line(report, "what was shown").text.startswith(
        "2 of 6 dimensions are zero within their error bars, all of dense1.weight:"
    )


@pytest.mark.parametrize("layer", [ReLU(), BatchNorm(), LayerNorm(), Tanh()])
@pytest.mark.parametrize("units", [0, 3])
def test_some_zeros_are_normal(layer, units):
    network, rng = Network([Dense(7), layer, ReLU(), Dense(3)]), np.random.default_rng(0)
    params = network_examples.parameters(network, (8,), rng)
    _dead(units)(params)  # and a bias before a batch normalisation has no gradient
    x, y = rng.normal(size=(6, 8)), rng.integers(0, 3, 6)
    grads = torch_network.gradients(network, params, x, y)[1]
    report = _check(network, params, grads, x, y)
    assert "what was shown" not in [line.topic for line in report.hygiene]
    assert report.passed
    alone = _check(network, params, grads, x, y, only=["dense1.bias"])
    assert ("what was shown" in [line.topic for line in alone.hygiene]) == (layer.kind == "batch_norm")


def test_zeros_of_wrong_code_fail_and_are_not_told_as_normal():
    network, rng = Network([Dense(7), ReLU(), Dense(3)]), np.random.default_rng(0)
    params = network_examples.parameters(network, (8,), rng)
    _dead(7)(params)
    x, y = rng.normal(size=(6, 8)), rng.integers(0, 3, 6)
    grads = torch_network.gradients(network, params, x, y)[1]
    grads = {name: array + 0.1 * (name != "dense2.bias") for name, array in grads.items()}
    report = _check(network, params, grads, x, y)
    assert report.verdict == "fail"
    assert "what was shown" not in [line.topic for line in report.hygiene]


def test_a_declared_loss_is_compared_first():
    network, params, grads, x, y = _case("l2")
    data = torch_network.gradients(network, params, x, y, regularised=False)[0]
    whole = torch_network.gradients(network, params, x, y)[0]
    for loss in (data, whole, np.float32(whole)):
        assert _check(network, params, grads, x, y, loss=loss).passed
    report = _check(network, params, grads, x, y, loss=data * len(x))
    assert report.verdict == "fail"
    assert not report.tensors
    assert "the sum over data points" in report.forward.diagnosis["bug"]
    twice = _check(network, params, grads, x, y, loss=2 * whole - data)
    assert "without its factor of a half" in twice.forward.diagnosis["bug"]
    assert "another function" in _check(network, params, grads, x, y, loss=whole + 1e-6).forward.diagnosis["bug"]


def _small(**changes):
    """Arguments of a good check, with some of them replaced."""
    network = Network([Dense(4), Sigmoid(), Dense(3)])
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in network.parameter_shapes((5,)).items()}
    x, y = rng.normal(size=(4, 5)), np.array([0, 1, 2, 1])
    good = {"network": network, "params": params, "grads": dict(params), "x": x, "y": y}
    return good | changes


def _without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


GOOD = _small()
REFUSALS = {
    "not a network": ({"network": [Dense(3)]}, r"network is list: expected a fastcheck.Network"),
    "missing parameter": ({"params": _without(GOOD["params"], "dense2.bias")}, r"params has no 'dense2.bias'"),
    "extra parameter": (
        {"params": {**GOOD["params"], "dense2.bais": np.zeros(3)}},
        r"params has the name 'dense2.bais' \(did you mean 'dense2.bias'\?\)",
    ),
    "missing gradient": ({"grads": _without(GOOD["grads"], "dense1.bias")}, r"grads has no 'dense1.bias'"),
    "extra gradient": ({"grads": {**GOOD["grads"], "dense3.bias": np.zeros(3)}}, r"grads has the name 'dense3.bias'"),
    "wrong shape": (
        {"params": {**GOOD["params"], "dense1.weight": np.zeros((5, 4))}},
        r"params\['dense1.weight'\] has shape \(5, 4\): expected \(out, in\) = \(4, 5\): give its transpose",
    ),
    "label out of range": ({"y": np.array([0, 1, 2, 3])}, r"y is 3 at index 3: expected classes from 0 to 2"),
    "float labels": ({"y": np.array([0.0, 1, 2, 1])}, r"y has dtype float64: expected integers"),
    "labels of another number": ({"y": np.array([0, 1])}, r"y has shape \(2,\): expected \(4,\)"),
    "nan in x": ({"x": np.full((4, 5), np.nan)}, r"x is nan at index \[0, 0\]"),
    "no data points": ({"x": np.zeros((0, 5))}, r"x is empty"),
    "points of fixed gradients": ({"points": 2}, r"points is 2: the given gradients are those of all 4"),
    "burn-in of fixed gradients": ({"burn_in": 3}, r"burn_in is 3: it changes the parameters"),
    "unknown only": ({"only": ["dense9"]}, r"only names 'dense9' \(did you mean"),
    "mask of nothing": ({"masks": {"drop": np.ones((4, 4))}}, r"masks has the name 'drop'"),
    "unknown evaluator": ({"evaluator": "delta"}, r"evaluator is 'delta'"),
    "a gradient that raises": ({"grads": lambda *_: 1 / 0}, r"grads raises ZeroDivisionError: division by zero"),
    "a gradient without names": ({"grads": lambda *_: np.zeros(3)}, r"grads is ndarray: expected a mapping"),
    "a loss that is none": ({"loss": "low"}, r"loss is 'low': expected the number"),
    "a lost step": ({"step": 1e-20}, r"step is 1e-20: adding it does not change the largest entry"),
}


@pytest.mark.parametrize(("changes", "told"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_one_clear_line(changes, told):
    arguments = _small(**changes)
    first = [arguments.pop(name) for name in ("network", "params", "grads", "x", "y")]
    with pytest.raises(FastcheckError, match=told) as refused:
        _check(*first, **arguments)
    assert "\n" not in str(refused.value)


DESCRIPTIONS = {
    "an embedding of results": (
        lambda: Network([Dense(3), Embedding(4, 2)]),
        r"layer 'embedding1' is an embedding: expected its input to be 'x', integers",
    ),
    "shapes that do not chain": (
        lambda: Network([Conv(4, 3), Dense(3)]).shapes((1, 8, 8)),
        r"layer 'dense1' \(dense\): it got \(4, 6, 6\): expected features without spatial axes",
    ),
    "channels that do not chain": (
        lambda: Network([Conv(4, 3), Conv(2, 3, in_channels=8)]).shapes((1, 8, 8)),
        r"layer 'conv2' \(conv\): it got 4 channels: expected 8, its in_channels",
    ),
    "a kernel larger than its map": (
        lambda: Network([Conv(4, 9)]).shapes((1, 8, 8)),
        r"layer 'conv1' \(conv\): weight",
    ),
    "a residual that does not exist": (
        lambda: Network([Dense(3), fastcheck.networks.layers.Add("dense9")]),
        r"layer 'add1' takes 'dense9' \(did you mean 'dense1'\?\), which does not exist",
    ),
    "a cycle": (
        lambda: Network([Dense(3), fastcheck.networks.layers.Add("tanh1"), Tanh()]),
        r"layer 'add1' takes 'tanh1', which does not come before it: that would be a cycle",
    ),
    "residuals of another shape": (
        lambda: Network([Dense(3), Dense(4), fastcheck.networks.layers.Add("dense1")]).shapes((2,)),
        r"layer 'add1' \(add\): it got \(3,\) from 'dense1': expected \(4,\)",
    ),
    "a layer that leads nowhere": (
        lambda: Network([Dense(3), Dense(4, input="x")]),
        r"layer 'dense1' leads nowhere",
    ),
    "names that stand twice": (lambda: Network([Dense(3, name="a"), Dense(4, name="a")]), r"name 'a'"),
    "an unknown loss": (lambda: Network([Dense(3)], loss="softmax"), r"did you mean 'softmax_cross_entropy'"),
    "regularisation of nothing": (
        lambda: Network([Dense(3), ReLU()], l2={"relu1": 1.0}),
        r"a relu layer has no parameters",
    ),
    "negative regularisation": (lambda: Network([Dense(3)], l2=-1.0), r"l2 is -1.0"),
    "a dropout of everything": (lambda: Network([Dropout(1.0)]).shapes((2,)), r"p is 1.0"),
    "rounding up that is no flag": (
        lambda: Network([AvgPool(2, ceil_mode=1)]).shapes((1, 4, 4)),
        r"layer 'avg_pool1' \(avg_pool\): ceil_mode is 1: expected True or False",
    ),
    "padding beyond half of the kernel": (
        lambda: Network([MaxPool(3, padding=2, dilation=2)]).shapes((1, 6, 6)),
        r"padding is 2: expected at most half of kernel_size \(3, 3\)",
    ),
    "windows of padding": (
        lambda: Network([MaxPool(2, stride=1, padding=1, dilation=3)]).shapes((1, 2, 2)),
        r"a window sees nothing but padding",
    ),
}


@pytest.mark.parametrize(("describe", "told"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_networks_that_make_no_sense_are_refused(describe, told):
    with pytest.raises(FastcheckError, match=told):
        describe()


@pytest.mark.parametrize(("number", "told"), [(4, "x is 4"), (-1, "x is -1"), (0.5, "x is 0.5")])
def test_integers_that_name_no_row_are_refused(number, told):
    network = Network([Embedding(4, 2), Flatten(), Dense(2)])
    params, x = network.initial((3,)), np.zeros((2, 3))
    x[1, 2] = number
    with pytest.raises(FastcheckError, match=rf"{told} at index \[1, 2\]: expected integers from 0 to 3, the rows of"):
        _check(network, params, params, x, np.array([0, 1]))


def test_batch_statistics_of_one_entry_are_refused():
    network = Network([Dense(3), BatchNorm(), Dense(2)])
    params = network.initial((4,))
    with pytest.raises(FastcheckError, match=r"layer 'batch_norm1' \(batch_norm\): it got one entry per channel"):
        _check(network, params, params, np.ones((1, 4)), np.array([0]))


def test_a_loss_that_is_not_finite_names_the_layer():
    network = Network([Dense(3, name="big"), Dense(2)])
    params = network.initial((4,))
    params["big.weight"][:] = 1e200
    params["dense1.weight"][:] = 1e200
    with pytest.raises(
        FastcheckError, match=r"loss is nan at the given parameters: the first values .* layer 'dense1'"
    ):
        _check(network, params, params, np.ones((2, 4)), np.array([0, 1]))


def test_memory_is_bounded_and_stated(monkeypatch):
    network = Network([Conv(8, 3, padding=1), ReLU(), Conv(8, 3, padding=1), ReLU(), MaxPool(2), Flatten(), Dense(10)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 3, 32, 32)), rng.integers(0, 10, 32)
    params = network.initial((3, 32, 32))
    grads = torch_network.gradients(network, params, x, y)[1]
    _check(network, params, grads, x, y, dims=10)
    point = NetworkCase.of(network, params, grads, x, y).point
    stated = partial.needed_bytes(passes.lowered(point), point, 2)
    tracemalloc.start()
    report = _check(network, params, grads, x, y, dims=200, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.passed
    assert stated / 10 < peak < stated
    operands = next(iter(report.phases.values())).operands
    assert operands["cache_bytes"] + operands["thread_bytes"] < stated
    monkeypatch.setattr("fastcheck.common.machine.available_bytes", lambda: stated - 1)
    with pytest.raises(FastcheckError, match=r"the network at 32 data points needs .* bytes, and .* are available"):
        _check(network, params, grads, x, y, threads=2)


def test_a_gradient_that_is_not_finite_fails():
    network, params, grads, x, y = _case("dense")
    grads["dense1.bias"][1] = np.nan
    report = _check(network, params, grads, x, y)
    assert report.verdict == "fail"
    assert report.tensors["dense1.bias"].first_beyond == (1,)
