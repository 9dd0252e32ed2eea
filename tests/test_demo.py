"""The demo's data are what it says, and its verdicts come from the checker."""

import numpy as np
import pytest

import fastcheck
from fastcheck import FastcheckError, demo


@pytest.fixture(scope="module")
def scenes():
    return list(demo.scenes())


@pytest.mark.jit
def test_a_real_photograph_goes_through_the_published_shapes(scenes):
    vgg, stem, wrong = (scene.case for scene in scenes)
    assert vgg.geometry.output_shape == (1, 64, 224, 224)
    assert stem.geometry.output_shape == wrong.geometry.output_shape == (1, 64, 112, 112)
    assert np.array_equal(vgg.input, demo.photograph())
    # A photograph, not noise: neighbours are alike, and bytes make at most 256 levels a channel.
    pixels = vgg.input[0, 0]
    assert np.corrcoef(pixels[:, 1:].ravel(), pixels[:, :-1].ravel())[0, 1] > 0.9
    assert len(np.unique(pixels)) <= 256
    assert scenes[0].dims["weight"] == scenes[1].dims["bias"] == "all"


@pytest.mark.jit
def test_each_scene_gets_its_verdict(scenes):
    assert [scene.expected for scene in scenes] == ["pass", "pass", "fail"]
    for scene in scenes:
        report = fastcheck.check(scene.case, dims=24, evaluator="local")
        assert report.verdict == scene.expected
    assert report.tensors["bias"].verdict == "pass"
    assert report.tensors["weight"].beyond_error_bar == report.tensors["weight"].dims_checked


def test_a_missing_extra_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(FastcheckError, match=r'pip install "fastcheck\[demo\]"'):
        demo.photograph()
