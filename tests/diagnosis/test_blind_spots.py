"""What a case cannot show is listed with its reason; each planted mistake that is listed does leave it as it is."""

import broken_layers
import layer_examples
import numpy as np
import planted_backward
import pytest
from planted_backward import PLANTS

import fastcheck
from fastcheck.cli.main import status
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.diagnosis.blind_spots import blind_spots, suggested
from fastcheck.diagnosis.catalogue import CATALOGUE

BUGS = {hypothesis.name: hypothesis.bug for hypothesis in CATALOGUE}


def case_of(geometry, **changes):
    """A case of random arrays, whose gradients have the right shapes: blind spots depend on no more."""
    rng = np.random.default_rng(0)
    shapes = {
        "input": geometry.input_shape,
        "weight": geometry.weight_shape,
        "bias": (geometry.filters,),
        "grad_output": geometry.output_shape,
    }
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()} | changes
    arguments = ("stride", "padding", "dilation", "groups", "transposed", "output_padding", "padding_mode")
    given = {name: getattr(geometry, name) for name in arguments}
    grads = {name: np.zeros(shapes[name]) for name in ("input", "weight", "bias")}
    return fastcheck.ConvCase(**{"grads": grads, **arrays, **given})


def reasons(case):
    return {spot.bug: spot.reason for spot in fastcheck.blind_spots(case)}


WIDE = {"input_shape": (2, 4, 11, 6), "weight_shape": (6, 2, 4, 3), "stride": (3, 2), "dilation": (2, 1), "groups": 2}
WIDE |= {"padding": ((2, 1), (1, 0))}

HIDDEN = {
    "one sample": ({"input_shape": (1, 4, 11, 6)}, "there is one sample (N = 1)"),
    "samples mixed": ({"input_shape": (1, 4, 11, 6)}, "there is one sample (N = 1)"),
    "stride missing": ({"stride": 1}, "the stride is 1"),
    "remainder misplaced": ({"stride": 1}, "the stride is 1"),
    "dilation missing": ({"dilation": 1}, "the dilation is 1"),
    "stride and dilation exchanged": ({"stride": 2, "dilation": 2}, "stride and dilation are the same"),
    "padding missing": ({"padding": 0, "dilation": 1}, "there is no padding before the input"),
    "kernel flipped": ({"weight_shape": (6, 2, 1, 1)}, "the kernel has one tap"),
    "weight gradient turned": ({"weight_shape": (6, 2, 1, 1)}, "the kernel has one tap"),
    "groups mixed": ({"groups": 1, "input_shape": (2, 2, 9, 6)}, "there is one group"),
    "channels not swapped": ({"groups": 4, "weight_shape": (8, 1, 3, 2)}, "depthwise"),
    "one filter": ({"groups": 2, "weight_shape": (2, 2, 3, 2)}, "a group has one filter"),
    "windows overwritten": ({"weight_shape": (6, 2, 3, 2)}, "windows share no entry"),
    "axes mixed": ({"stride": 2, "dilation": 1, "padding": 1}, "the same along all axes"),
    "cotangent flipped": ({"input_shape": (2, 4, 7, 3), "padding": 0}, "there is one output position"),
    "layouts mixed": ({"groups": 1, "input_shape": (2, 1, 9, 6), "weight_shape": (1, 1, 3, 2)}, "there is one channel"),
}
"""What hides a mistake: arguments of a layer in which it shows, and words of the reason."""


@pytest.mark.parametrize("name", HIDDEN)
def test_a_blind_spot_is_listed_with_its_reason(name):
    changes, words = HIDDEN[name]
    assert BUGS[name] not in reasons(case_of(ConvGeometry.of(**WIDE)))
    assert words in reasons(case_of(ConvGeometry.of(**WIDE | changes)))[BUGS[name]]


@pytest.mark.parametrize(
    ("changes", "names", "reason"),
    [
        (
            {"grad_output": np.ones((2, 6, 3, 3))},
            ["cotangent flipped", "cotangent rolled"],
            "the cotangent is constant",
        ),
        ({"input": np.ones((2, 4, 11, 6))}, ["input flipped"], "the input is constant"),
        ({"weight": np.ones((6, 2, 4, 3))}, ["kernel flipped", "kernel memory"], "the weight is constant"),
    ],
)
def test_constant_arrays_hide_mistakes(changes, names, reason):
    found = reasons(case_of(ConvGeometry.of(**WIDE), **changes))
    of_one_tensor = [name for name in names if name != "cotangent rolled"]
    assert [found[BUGS[name]] for name in of_one_tensor] == [reason] * len(of_one_tensor)


@pytest.mark.parametrize("seed", range(12))
def test_planted_mistakes_that_are_listed_change_nothing(seed):
    rng = np.random.default_rng(seed)
    layer = broken_layers.random_layer(rng)
    x, w, v = broken_layers.operands(layer, rng)
    right = planted_backward.backward(x, w, v, **layer.arguments)
    grads = {name: right[name] for name in ("input", "weight", "bias")}
    found = reasons(fastcheck.ConvCase(x, w, np.zeros(len(w)), **layer.arguments, grad_output=v, grads=grads))
    for name in PLANTS:
        for plant in PLANTS[name] if BUGS[name] in found else ():
            wrong = plant(layer, x, w, v, right) or right
            for tensor in grads:
                np.testing.assert_allclose(wrong[tensor], right[tensor], rtol=0, atol=1e-9, err_msg=plant.__name__)


def test_gradients_that_a_case_lacks_are_not_spoken_of():
    geometry = ConvGeometry.of((1, 2, 5, 5), (2, 2, 1, 1))
    found = reasons(case_of(geometry, grads={"weight": np.zeros((2, 2, 1, 1))}))
    assert BUGS["kernel flipped"] not in found
    assert BUGS["one sample"] in found


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_suggested_case_has_no_blind_spot(rank, transposed):
    case = case_of(ConvGeometry.of((1, 1, *(3,) * rank), (1, 1, *(1,) * rank), transposed=transposed))
    assert len(blind_spots(case)) > 10
    geometry = suggested(case)
    assert (geometry.rank, geometry.transposed) == (rank, transposed)
    assert blind_spots(case_of(geometry)) == []


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_suggested_case_keeps_the_padding_mode(mode):
    case = case_of(ConvGeometry.of((1, 1, 5, 5), (1, 1, 3, 3), padding=1, padding_mode=mode))
    assert suggested(case).padding_mode == mode
    assert blind_spots(case_of(suggested(case))) == []


def test_the_suggested_case_fails_with_every_mistake():
    """A plant that can be made in the suggested layer makes it fail."""
    geometry = suggested(case_of(ConvGeometry.of((1, 1, 5, 5), (1, 1, 3, 3))))
    layer = broken_layers.Layer(
        geometry.input_shape, geometry.weight_shape, geometry.stride, geometry.padding, geometry.dilation, 2
    )
    x, w, v = broken_layers.operands(layer, np.random.default_rng(1))
    right = planted_backward.backward(x, w, v, **layer.arguments)
    made = {plant: plant(layer, x, w, v, right) for plants in PLANTS.values() for plant in plants}
    wrong = {plant: grads for plant, grads in made.items() if grads is not None}
    assert len(wrong) > 40
    for plant, grads in wrong.items():
        given = {name: grads[name] for name in ("input", "weight", "bias")}
        case = fastcheck.ConvCase(x, w, np.zeros(6), **layer.arguments, grad_output=v, grads=given)
        assert fastcheck.check(case, dims="all").verdict == "fail", plant.__name__


def test_the_command_prints_what_is_hidden_and_a_case(tmp_path, capsys):
    path = layer_examples.saved(tmp_path / "layer.npz", layer_examples.layer((1, 2, 5, 5), (3, 2, 3, 3), padding=1))
    assert status(["conv", str(path), "--suggest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    case = fastcheck.load_case(path)
    assert lines[0] == f"This case cannot show {len(blind_spots(case))} known mistakes:"
    assert "  there is one sample (N = 1), which hides:" in lines
    assert f"    - {BUGS['one sample']}" in lines
    assert "  stride = (3, 2)" in lines
    assert "  grad_output = (2, 6, 3, 3)" in lines


def test_a_case_that_shows_all_is_said_to(tmp_path, capsys):
    geometry = ConvGeometry.of(**WIDE)
    layer = layer_examples.Layer(
        geometry.input_shape, geometry.weight_shape, geometry.stride, geometry.padding, geometry.dilation, 2
    )
    assert status(["conv", str(layer_examples.saved(tmp_path / "layer.npz", layer)), "--suggest"]) == 0
    assert capsys.readouterr().out.startswith("This case would show every known mistake.\n")


def test_files_of_results_are_refused_where_nothing_is_checked(tmp_path, capsys):
    path = layer_examples.saved(tmp_path / "layer.npz", layer_examples.layer((1, 2, 5, 5), (3, 2, 3, 3)))
    assert status(["conv", str(path), "--suggest", "--json", str(tmp_path / "out.json")]) == 2
    assert "--suggest checks nothing: expected neither --json nor --table" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def _checked(**changes):
    """A passing report, and its line on blind spots."""
    rng = np.random.default_rng(1)
    arrays = {"input": (3, 4, 7, 6), "weight": (6, 4, 3, 3), "bias": (6,), "grad_output": (3, 6, 5, 4)}
    arrays = {name: rng.standard_normal(shape) for name, shape in arrays.items()} | changes
    x, w, v = (arrays[name] for name in ("input", "weight", "grad_output"))
    still = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    right = planted_backward.backward(x, w, v, **still)
    grads = {name: right[name] for name in ("input", "weight", "bias")}
    report = fastcheck.check(fastcheck.ConvCase(**arrays, grads=grads), dims=9)
    assert report.passed
    return "; ".join(one.words for one in report.health if one.name == "blind spots")


def test_an_ordinary_case_has_no_line():
    """Whatever its layer hides: stride, dilation and groups are 1, and there is no padding."""
    assert _checked() == ""
    assert _checked(bias=np.zeros(6)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "input": np.random.default_rng(0).normal(size=(1, 4, 7, 6)),
                "grad_output": np.sin(np.arange(120.0)).reshape(1, 6, 5, 4),
            },
            "there is one sample (N = 1): 3 known mistakes",
        ),
        ({"grad_output": np.ones((3, 6, 5, 4))}, "the cotangent is constant: known mistakes"),
        (
            {"grad_output": np.ones((3, 6, 5, 4)) * np.arange(6.0).reshape(1, 6, 1, 1)},
            "the cotangent is constant in space",
        ),
        ({"input": np.ones((3, 4, 7, 6))}, "the input is constant: known mistakes"),
        ({"weight": np.ones((6, 4, 3, 3))}, "the weight is constant: known mistakes"),
    ],
)
def test_a_passing_report_says_what_hides_mistakes(changes, words):
    assert words in _checked(**changes)


def test_a_zero_bias_hides_mistakes_of_the_output_alone():
    rng = np.random.default_rng(1)
    x, w, v = rng.standard_normal((2, 2, 6)), rng.standard_normal((3, 2, 3)), rng.standard_normal((2, 3, 4))
    output = sum(np.einsum("fc,nco->nfo", w[..., t], x[..., t : t + 4]) for t in range(3))
    given = {"input": x, "weight": w, "grad_output": v, "grads": {"bias": v.sum((0, 2))}, "output": output}
    case = fastcheck.ConvCase(bias=np.zeros(3), **given)
    assert "the bias is zero" in fastcheck.check(case).health[-1].words
    assert reasons(case)["the forward pass leaves the bias out, or adds it several times"] == "the bias is zero"
    assert "the bias is zero" not in str(
        fastcheck.check(fastcheck.ConvCase(bias=np.zeros(3), **given | {"output": None}))
    )


SQUARE = "the size of one spatial axis is used for another, in a loop or a reshape"


def test_square_arrays_are_listed_and_not_noted():
    square = ConvGeometry.of((2, 3, 7, 7), (4, 3, 3, 3), padding=1)
    assert "square" in reasons(case_of(square))[SQUARE]
    oblong = ConvGeometry.of((2, 3, 7, 6), (4, 3, 3, 3), padding=1)
    assert SQUARE not in reasons(case_of(oblong))
