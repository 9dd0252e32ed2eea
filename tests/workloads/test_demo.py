"""The demo's data are what it says, and its verdicts come from the checker."""

import numpy as np
import pytest

import fastcheck
from fastcheck import FastcheckError
from fastcheck.workloads import demo


@pytest.fixture(scope="module")
def cases():
    return [scene.case() for scene in demo.SCENES]


@pytest.mark.jit
def test_a_real_photograph_goes_through_the_published_shapes(cases):
    vgg, stem, wrong = cases
    assert vgg.geometry.output_shape == (1, 64, 224, 224)
    assert stem.geometry.output_shape == wrong.geometry.output_shape == (1, 64, 112, 112)
    assert np.array_equal(vgg.input, demo.photograph())
    # A photograph, not noise: neighbours are alike, and bytes make at most 256 levels a channel.
    pixels = vgg.input[0, 0]
    assert np.corrcoef(pixels[:, 1:].ravel(), pixels[:, :-1].ravel())[0, 1] > 0.9
    assert len(np.unique(pixels)) <= 256
    assert demo.SCENES[0].dims["weight"] == demo.SCENES[1].dims["bias"] == "all"


@pytest.mark.jit
def test_each_scene_gets_its_verdict(cases):
    assert [scene.expected for scene in demo.SCENES] == ["pass", "pass", "fail"]
    for scene, case in zip(demo.SCENES, cases, strict=True):
        report = fastcheck.check(case, dims=24, evaluator="local")
        assert report.verdict == scene.expected
    assert report.tensors["bias"].verdict == "pass"
    assert report.tensors["weight"].beyond_error_bar == report.tensors["weight"].dims_checked


def test_a_missing_extra_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(FastcheckError, match=r'pip install "\.\[demo\]" in a clone of fastcheck'):
        demo.photograph()
