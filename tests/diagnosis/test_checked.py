"""Diagnoses in reports: a bug is named in JSON and in the text, and nothing is named that does not fit."""

import json

import numpy as np
import pytest

import fastcheck
from fastcheck.diagnosis import checked
from fastcheck.reports.reader import from_json
from fastcheck.reports.tensor_report import UNKNOWN

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(5, 3, 7, 7)), RNG.normal(size=(4, 3, 3, 3))
PATCHES = np.lib.stride_tricks.sliding_window_view(X, (3, 3), axis=(2, 3))
V = RNG.normal(size=(5, 4, 5, 5))
GRAD = np.einsum("nchwij,nfhw->fcij", PATCHES, V)


def _conv(grad, **options):
    case = fastcheck.ConvCase(X, W, grad_output=V, grads={"weight": grad})
    return fastcheck.check(case, **options)


def _input_gradient():
    grad = np.zeros_like(X)
    for i in range(3):
        for j in range(3):
            grad[:, :, i : i + 5, j : j + 5] += np.einsum("nfhw,fc->nchw", V, W[:, :, i, j])
    return grad


def _noisy(grad):
    return grad * (1 + 1e-3 * RNG.normal(size=grad.shape))


def test_a_right_gradient_has_no_diagnosis():
    assert _conv(GRAD).tensors["weight"].diagnosis is None


def test_a_mean_for_a_sum_is_named_in_the_report_its_json_and_its_text():
    report = _conv(GRAD / len(X))
    found = report.tensors["weight"].diagnosis
    assert "N" in found["bug"]
    assert found["evidence"]
    assert found["try"]
    assert json.loads(report.to_json())["tensors"]["weight"]["diagnosis"] == found
    assert from_json(report.to_json()).tensors["weight"].diagnosis == found
    text = " ".join(str(report).split())
    assert f"this is: {found['bug']}" in text
    assert f"try: {found['try']}" in text


def test_what_explains_where_entries_fail_comes_before_what_they_have_in_common():
    grad = _input_gradient()
    grad[:, :, -1] = 0
    case = fastcheck.ConvCase(X, W, grad_output=V, grads={"input": grad})
    found = fastcheck.check(case).tensors["input"].diagnosis
    assert "never written: the last position along height" in found["bug"]
    assert "where it fails, the gradient is zero" in found["evidence"]


def test_noise_has_no_name_but_a_shape():
    report = _conv(_noisy(GRAD))
    assert report.tensors["weight"].diagnosis["bug"] == UNKNOWN
    assert report.tensors["weight"].diagnosis["shape"]
    assert "this is" not in str(report)
    assert "try: " in str(report)


def test_one_wrong_filter_is_where_it_is():
    grad = GRAD.copy()
    grad[2] = _noisy(grad[2])
    assert "filter 2" in _conv(grad).tensors["weight"].diagnosis["shape"]


@pytest.mark.parametrize("keep", [True, False])
def test_arrays_are_kept_only_where_they_are_asked_for(keep):
    report = _conv(GRAD / 2, keep=keep)
    assert report.tensors["weight"].diagnosis
    assert (report.tensors["weight"].numeric is not None) == keep


def test_of_a_large_tensor_a_sample_is_differenced_again(monkeypatch):
    whole = _conv(GRAD / 2).tensors["weight"].diagnosis["bug"]
    monkeypatch.setattr(checked, "KEPT", 100)
    monkeypatch.setattr(checked, "SAMPLE", 50)
    assert _conv(GRAD / 2).tensors["weight"].diagnosis["bug"] == whole


def test_a_missing_regularisation_of_a_function_is_named():
    w = RNG.normal(size=(6, 4))
    data = RNG.normal(size=(10, 6))

    def loss(w):
        return float(np.sum(np.tanh(data @ w))) + 0.05 * float(np.sum(w * w))

    def grad(w):
        return data.T @ (1 - np.tanh(data @ w) ** 2)

    assert fastcheck.check_gradient(loss, lambda w: grad(w) + 0.1 * w, w).passed
    report = fastcheck.check_gradient(loss, grad, w)
    assert "0.1" in report.tensors["params"].diagnosis["bug"]
    assert report.tensors["params"].numeric is None


def test_a_backward_pass_of_arrays_is_diagnosed():
    report = fastcheck.check_vjp(np.tanh, lambda v, x: -v * (1 - np.tanh(x) ** 2), [RNG.normal(size=20)])
    assert "sign" in report.tensors["input 0"].diagnosis["bug"]
