"""The short benchmark: what it measures and writes. Seconds belong to bench/ and are not asserted."""

import json
import sys

import numpy as np
import pytest

from fastcheck import FastcheckError, adapters
from fastcheck.convolutions import passes
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.convolutions.lowering import WeightLowering
from fastcheck.workloads import benchmark, roofline, zoo
from fastcheck.workloads.published import NETWORKS, ConvLayer, PublishedNetwork
from fastcheck_kernels import limit as kernels

STEM = ConvLayer("stem", (2, 7, 7), (4, 2, 3, 3), 2, 1, 1, 1, True)
CAUSAL = ConvLayer("causal", (3, 16), (2, 3, 2), 1, ((4, 0),), 4, 1, False)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", PublishedNetwork("made for tests", (STEM, CAUSAL)))
    monkeypatch.setattr(benchmark, "LAYERS", (("tiny", "stem"), ("tiny", "causal")))
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    monkeypatch.setattr(benchmark, "PAUSE", 0.0)
    monkeypatch.setattr(roofline, "REPEATS", 8)


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fastcheck.adapters.torch", raising=False)
    monkeypatch.delattr(adapters, "torch", raising=False)


def test_figures_of_every_layer_and_tensor(run):
    code, out, err = run("bench", "--threads", 3, "--json", "-")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["schema", "machine", "threads", "limit", "scaling", "layers"]
    assert found["threads"] == 3
    assert found["machine"]["versions"]["torch"]
    assert found["limit"]["elements_per_second"] > 0
    assert [row["threads"] for row in found["scaling"]["rows"]] == [1, 2, 3]
    assert found["scaling"]["rows"][0]["speedup"] == 1
    rows = found["layers"]
    assert [(row["layer"], row["tensor"]) for row in rows] == [
        (name, tensor) for name in ("stem", "causal") for tensor in ("weight", "input")
    ]
    assert [row["dims"] for row in rows] == [72, 98, 12, 48]
    assert [row["elements"] for row in rows] == [72 * 16] * 2 + [12 * 16] * 2
    for row in rows:
        assert row["ratio_to_torch"] == row["seconds"] / row["torch_seconds"]
        assert row["share_of_limit"] == row["elements"] / row["seconds"] / row["limit"]
        assert min(row[name] for name in ("seconds", "forward_seconds", "audit_seconds")) > 0


def test_a_table_and_a_file(run, tmp_path):
    path = tmp_path / "bench.json"
    code, out, err = run("bench", "--json", path)
    assert (code, err) == (0, "")
    found = json.loads(path.read_text())
    lines = [line.split() for line in out.splitlines()]
    for row in found["layers"]:
        assert any(line[:4] == ["tiny", row["layer"], row["tensor"], str(row["dims"])] for line in lines)
    assert f"limit of this machine: {found['limit']['elements_per_second'] / 1e9:.1f} G elements per second" in out
    assert "tiny stem, weight: 1 thread " in out


def test_without_pytorch_its_columns_are_empty(run, no_torch):
    code, out, _ = run("bench", "--threads", 1, "--json", "-")
    assert code == 0
    assert {row["torch_seconds"] for row in json.loads(out)["layers"]} == {None}
    code, out, _ = run("bench", "--threads", 1)
    assert code == 0
    assert 'pip install ".[torch]" in a clone of fastcheck' in out


def test_a_folder_that_is_missing_is_refused_before_anything_is_measured(refused, monkeypatch):
    monkeypatch.setattr(benchmark, "run", None)
    assert "cannot be written" in refused("bench", "--json", "no/such/folder/b.json")


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"rounds": 0}, {"threads": 1.5}])
def test_bad_arguments(arguments):
    with pytest.raises(FastcheckError, match="expected an integer"):
        benchmark.run(**arguments)


def test_a_check_that_fails_is_not_timed(monkeypatch):
    make = zoo.make_case

    def wrong(*arguments, **options):
        case = make(*arguments, **options)
        case.grads["weight"][0] *= 1.001
        return case

    monkeypatch.setattr(zoo, "make_case", wrong)
    with pytest.raises(FastcheckError, match="ended as: fail"):
        benchmark.layer_row("tiny", STEM, "weight", threads=1, rounds=1)


def test_pytorch_computes_the_gradient_and_nothing_else():
    for layer in (STEM, CAUSAL):
        case = zoo.make_case("tiny", layer, ("weight", "input"))
        arrays = (case.input, case.weight, case.grad_output)
        for place, tensor in enumerate(("input", "weight")):
            with adapters.torch.backward_pass(case.geometry, *arrays, 1, tensor) as call:
                found = call()
            assert [gradient is not None for gradient in found] == [i == place for i in range(3)]
            gradient = found[place].numpy()
            if layer is CAUSAL and tensor == "input":  # of the padded input
                gradient = gradient[:, :, 4:]
            np.testing.assert_allclose(gradient, case.grads[tensor], rtol=0, atol=1e-12)


def test_sides_take_turns_after_a_warm_up():
    order = []

    def side(name, values):
        values = iter(values)

        def call():
            order.append(name)
            return {name: next(values)}

        return call

    found = benchmark.in_turns({"a": side("a", [99, 3, 1, 2]), "b": side("b", [99, 5, 5, 8])}, rounds=3)
    assert order == ["a", "b"] * 4
    assert found == {"a": 2, "b": 5}


def test_thread_counts():
    assert [benchmark.counts(n) for n in (1, 2, 3, 16, 24)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8, 16],
        [1, 2, 4, 8, 16, 24],
    ]


def test_the_limits_kernel_differences():
    """Its sum is that of plain loops, and moves far below an ulp of z give zero: the difference is not folded."""
    z, v, d, offsets = roofline._data(0)
    repeats = 3
    expected = sum(
        v @ ((z + moved) - (z - moved))
        for r in range(repeats)
        for moved in (d[int(o) + r : int(o) + r + len(z)] for o in offsets)
    )
    assert kernels.move(z, v, d, offsets, repeats) == pytest.approx(expected, rel=1e-10)
    assert kernels.move(np.ones_like(z), v, d * 1e-30, offsets, repeats) == 0


@pytest.mark.jit
def test_the_width_of_vectors_is_told():
    assert roofline.simd_bits() in (128, 256, 512)


def test_a_weight_moves_as_many_outputs_whatever_the_number_of_channels():
    def positions(channels):
        geometry = ConvGeometry.of((1, channels, 14, 14), (channels, channels, 3, 3), padding=1)
        return WeightLowering.of(geometry).planes.positions

    assert positions(16) == positions(1024) < 14 * 16


def test_the_audit_evaluates_all_outputs_twice_for_a_tensor(monkeypatch):
    """Of its other half, 32 dimensions by `local`, each costs a weight's filter: at most 2 * 32 / filters passes."""
    convolve, calls = passes.convolve, []
    monkeypatch.setattr(passes, "convolve", lambda *a: calls.append(1) or convolve(*a))
    zoo.run("tiny", layers=["stem"], tensors=("weight", "input", "bias"))
    assert len(calls) == 1 + 2 * 3
