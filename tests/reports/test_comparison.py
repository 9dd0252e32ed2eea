"""Two arrays that the user has: judged by their types, and by the size of what stands beside them."""

import io

import numpy as np
import pytest
import torch

import fastcheck
from fastcheck import FastcheckError
from fastcheck.metrics.verdict import MAX_RULE, NORM_RULE, norm_rule
from fastcheck.render.text import as_text
from fastcheck.reports.reader import from_json

RNG = np.random.default_rng(0)
W = RNG.normal(size=(40, 30))
CLOSE = W * (1 + 1e-11 * RNG.normal(size=W.shape))
NOISE = RNG.normal(size=50)


def judged(analytic, numeric, **options):
    """Compare a tensor alone."""
    return fastcheck.compare(analytic, numeric, **options).tensors["gradient"]


def beside(analytic, numeric, scale=1.0):
    """Compare a tensor beside one that agrees."""
    report = fastcheck.compare({"w": scale * W, "b": analytic}, {"w": scale * CLOSE, "b": numeric})
    assert report.tensors["w"].passed
    assert report.verdict == report.tensors["b"].verdict
    return report.tensors["b"]


# By the scale of other tensors


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize(
    ("analytic", "numeric"),
    [
        (0 * NOISE, 1e-12 * NOISE),
        (1e-12 * NOISE, 0 * NOISE),
        (1e-17 * NOISE, 3e-18 * NOISE[::-1]),
        (1e-17 * NOISE, 1e-12 * NOISE[::-1]),
        (1e-12 * NOISE, 1e-12 * NOISE[::-1]),
        (np.array([1e-17]), np.array([3e-12])),
        (np.array([1e-17, -3e-17]), np.array([3e-12, 2e-12])),
    ],
)
def test_noise_beside_the_scale_of_other_tensors_passes_and_is_said(analytic, numeric, scale):
    tensor = beside(scale * analytic, scale * numeric, scale)
    assert tensor.passed, tensor.reason
    assert "round-off compared with the typical value of another tensor" in tensor.reason


HALF_FLIPPED = np.where(np.arange(50) % 2, 1.0, -1.0)
ONE_WRONG = np.where(np.arange(50) == 7, 0.5, 1.0)
BLURRED = 1 + 0.05 * RNG.normal(size=50)


@pytest.mark.parametrize("size", [1e-10, 1e-15])
@pytest.mark.parametrize("wrong", [-1.0, 2.0, 1.05, 1000.0, -1e-5, HALF_FLIPPED, ONE_WRONG, BLURRED, -BLURRED])
def test_arrays_that_resemble_each_other_are_no_noise_however_small(size, wrong):
    numeric = size * NOISE / max(1.0, np.max(np.abs(wrong)))
    for pair in ((wrong * numeric, numeric), (numeric, wrong * numeric)):
        tensor = beside(*pair)
        assert tensor.verdict == "inconclusive", tensor.reason
        assert "resemble each other, as round-off would not" in tensor.reason
    assert beside(size * NOISE[::-1], numeric).passed
    report = fastcheck.compare({"w": 1e12 * W, "b": wrong * NOISE}, {"w": 1e12 * CLOSE, "b": NOISE})
    assert report.tensors["w"].passed
    assert not report.tensors["b"].passed


@pytest.mark.parametrize("wrong", [-1.0, 2.0, 1.05, 0.01])
def test_a_single_value_of_a_like_size_is_no_noise(wrong):
    numeric = np.array([1e-10])
    assert beside(wrong * numeric, numeric).verdict == "inconclusive"
    assert beside(1e-6 * numeric, numeric).passed


@pytest.mark.parametrize("other", [0.0, np.nan, np.inf, 1e-3])
def test_a_tensor_that_disagrees_gives_the_scale_of_its_smaller_array(other):
    report = fastcheck.compare({"w": 1.05 * W, "b": np.full(4, 1e12)}, {"w": W, "b": np.zeros(4)})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["fail", "fail"]
    report = fastcheck.compare({"w": 1.05 * W, "b": np.full(4, other)}, {"w": W, "b": np.full(4, 1e12)})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["fail", "fail"]
    report = fastcheck.compare({"w": 1.05 * W, "b": 1e-17 * NOISE}, {"w": W, "b": 1e-12 * NOISE[::-1]})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["fail", "pass"]


@pytest.mark.parametrize(("analytic", "numeric"), [(0.0, 1e-12), (1e-17, 1e-12), (1e-12, 0.0)])
def test_noise_gives_no_scale_to_noise(analytic, numeric):
    a, n = analytic * NOISE, numeric * NOISE[::-1]
    report = fastcheck.compare({"a": a, "b": a[:3]}, {"a": n, "b": -n[:3]})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["inconclusive", "inconclusive"]
    report = fastcheck.compare({"a": a, "b": 0 * W}, {"a": n, "b": W})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["inconclusive", "fail"]
    small = fastcheck.compare({"a": a, "b": 1e-12 * W}, {"a": n, "b": 1e-12 * CLOSE})
    assert [tensor.verdict for tensor in small.tensors.values()] == ["fail", "pass"]


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-7])
@pytest.mark.parametrize("wrong", [0.0, -1.0, 2.0])
def test_what_is_not_tiny_by_that_scale_fails(size, wrong):
    assert beside(wrong * size * NOISE, size * NOISE).verdict == "fail"
    assert beside(size * NOISE, wrong * size * NOISE).verdict == "fail"


def test_differences_that_may_be_round_off_are_inconclusive():
    """Of values that are not tiny a few digits are left."""
    small = 1e-10 * NOISE
    small[0] = 1e-8
    other = small.copy()
    other[1:] = 0
    tensor = beside(small, other)
    assert tensor.verdict == "inconclusive"
    assert "may be round-off" in tensor.reason
    assert judged(small * 1e9, other * 1e9).verdict == "fail"


@pytest.mark.parametrize(("analytic", "numeric"), [(0 * NOISE, 1e-12 * NOISE), (1e-17 * NOISE, 3e-18 * NOISE[::-1])])
def test_noise_alone_is_inconclusive(analytic, numeric):
    tensor = judged(analytic, numeric)
    assert tensor.verdict == "inconclusive"
    assert "round-off around zero" in tensor.reason
    zeros = np.zeros(3)
    report = fastcheck.compare({"b": analytic, "c": zeros}, {"b": numeric, "c": zeros})
    assert report.tensors["b"].verdict == "inconclusive"
    assert judged(np.sign(analytic) * 0, np.sign(numeric)).verdict == "fail"


@pytest.mark.parametrize("largest", [1e-320, 1e300, 1.7e308])
def test_any_scale_has_a_verdict(largest):
    array = np.array([1.0, 0.5, -0.25]) * largest
    assert judged(array, array).passed
    assert judged(array, -array).verdict == "fail"
    report = fastcheck.compare({"w": array, "b": 0 * array}, {"w": array, "b": array})
    assert report.tensors["b"].verdict == "fail"


def test_small_gradients_that_agree_need_no_scale():
    assert judged(1e-200 * CLOSE, 1e-200 * W).passed
    assert "both rules of thumb hold" in beside(1e-12 * CLOSE, 1e-12 * W).reason


def test_zeros_against_zeros_pass():
    assert judged(np.zeros(3), np.zeros(3)).passed
    assert judged(np.zeros(3), -np.zeros(3)).reason == "all values are zero in both"
    assert beside(np.zeros(3), np.zeros(3)).passed


@pytest.mark.parametrize("noise", [0.0, -1.0, 1.5])
def test_an_entry_of_noise_does_not_decide_and_is_said(noise):
    """Its neighbours show what differences leave: no digit of it is known."""
    numeric = W.copy()
    numeric[3, 4] = 1e-12
    analytic = CLOSE.copy()
    analytic[3, 4] = noise * 1e-12
    tensor = judged(analytic, numeric)
    assert tensor.passed
    assert tensor.max_ratio >= MAX_RULE
    assert "except for 1 of 1,200 entries" in tensor.reason
    analytic[3, 4] = 1e-6
    assert not judged(analytic, numeric).passed


# By their types


def test_rules_are_ordered_as_the_types_are():
    rules = [norm_rule(name) for name in ("float64", "float32", "tf32", "float16", "bfloat16")]
    assert rules[0] == NORM_RULE == 1e-9
    assert rules == sorted(rules)
    assert 2.0**-24 < rules[1] < 1e-5
    assert rules[-1] < 0.025  # the norm ratio of a gradient that is 5 % too large


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _gradients(kind, dtype):
    """Return gradients of a convolution or of a product that PyTorch computes in a type, in float64 arrays."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        made = torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return made.requires_grad_()

    if kind == "conv":
        x, w = normal(2, 6, 14, 14), normal(8, 6, 3, 3)
        z = torch.nn.functional.conv2d(x, w, padding=1)
    else:
        x, w = normal(300, 40), normal(40, 20)
        z = x @ w
    z.backward(normal(*z.shape).detach())
    return {"x": x.grad.double().numpy(), "w": w.grad.double().numpy()}


@pytest.mark.parametrize("kind", ["conv", "matmul"])
@pytest.mark.parametrize("precision", DTYPES)
def test_gradients_of_a_narrow_type_pass_and_wrong_ones_do_not(kind, precision):
    exact, narrow = _gradients(kind, torch.float64), _gradients(kind, DTYPES[precision])
    report = fastcheck.compare(narrow, exact, precision=precision)
    assert report.passed, report.summary()
    assert all(f"{precision})" in tensor.reason for tensor in report.tensors.values())
    assert fastcheck.compare(narrow, exact, precision="float64").verdict != "pass"
    assert fastcheck.compare({k: 1.05 * g for k, g in narrow.items()}, exact, precision=precision).verdict == "fail"
    assert fastcheck.compare({k: -g for k, g in narrow.items()}, exact, precision=precision).verdict == "fail"
    for factor in (-1.0, 0.9, 0.0):
        one = {name: array.copy() for name, array in narrow.items()}
        typical = np.argsort(np.abs(one["w"]), axis=None)[one["w"].size // 2]
        one["w"].flat[typical] *= factor
        found = fastcheck.compare(one, exact, precision=precision)
        assert found.tensors["x"].passed
        assert not found.tensors["w"].passed


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_array_is_judged_by_its_own_type(dtype):
    narrow = W.astype(dtype)
    for pair in ((narrow, W), (W, narrow), (narrow, np.nextafter(narrow, dtype(9)))):
        tensor = judged(*pair)
        assert tensor.passed, tensor.reason
        assert f"norm ratio at most {norm_rule(np.dtype(dtype).name):.2g} in {np.dtype(dtype).name}" in tensor.reason
        assert tensor.precision == np.dtype(dtype).name
    assert judged(narrow.astype(np.float64), W).verdict == "inconclusive"
    assert judged((1.05 * W).astype(dtype), W).verdict == "fail"
    assert judged((1.001 * W).astype(np.float32), W).verdict == "inconclusive"


def test_of_two_types_the_coarser_decides_and_the_byte_order_does_not():
    assert judged(W.astype(np.float32), W.astype(np.float16)).precision == "float16"
    assert judged(W.astype(np.float32), W.astype(np.float16), precision="float32").precision == "float16"
    assert judged(W.astype(">f4"), W).precision == "float32"
    assert judged(W, W, precision="bfloat16").precision == "bfloat16"
    report = fastcheck.compare({"w": W.astype(np.float16), "b": NOISE}, {"w": W, "b": NOISE * (1 + 1e-6)})
    assert [tensor.verdict for tensor in report.tensors.values()] == ["pass", "inconclusive"]


def _summed(x, v, dtype):
    """Sum outer products one after another, each sum rounded."""
    total = np.zeros((x.shape[1], v.shape[1]), dtype)
    for left, right in zip(x.astype(dtype), v.astype(dtype), strict=True):
        total += np.outer(left, right)
    return total


@pytest.mark.parametrize(("dtype", "verdict"), [(np.float32, "pass"), (np.float16, "inconclusive")])
def test_sums_in_two_orders(dtype, verdict):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2000, 12)), rng.normal(size=(2000, 10))
    one, other = _summed(x, v, dtype), _summed(x[::-1], v[::-1], dtype)
    assert judged(one, other).verdict == verdict
    assert judged(one, x.T @ v).verdict == verdict
    one.flat[np.argsort(np.abs(one), axis=None)[60]] *= -1
    assert judged(one, x.T @ v).verdict == "fail"


def _bfloat16(array):
    return torch.from_numpy(np.array(array)).to(torch.bfloat16).double().numpy()


@pytest.mark.parametrize(
    ("precision", "rounded", "size", "said"),
    [
        ("float16", lambda array: array.astype(np.float16), 1e-7, "6.1e-05"),
        ("float16", lambda array: array.astype(np.float16), 1e-5, "6.1e-05"),
        ("float16", lambda array: array.astype(np.float16), 1e-8, "6.1e-05"),
        ("float32", lambda array: array.astype(np.float32), 1e-44, "1.2e-38"),
        ("bfloat16", _bfloat16, 1e-39, "1.2e-38"),
    ],
)
def test_digits_lost_below_the_smallest_normal_number_are_no_bug(precision, rounded, size, said):
    exact = size * W
    for pair in ((rounded(exact), exact), (exact, rounded(exact))):
        tensor = judged(*pair, precision=precision)
        assert tensor.verdict == "inconclusive", tensor.reason
        assert f"smallest normal number ({said})" in tensor.reason
        assert "scale the loss up" in tensor.advice
    for wrong in (-1.0, 2.0):
        larger = max(1e-7, size) if precision == "float16" else size
        assert "smallest normal" not in judged(rounded(wrong * larger * W), larger * W, precision=precision).reason
    assert judged(rounded(-1e-5 * W), 1e-5 * W, precision=precision).verdict == "fail"
    assert judged(rounded(-W), W, precision=precision).verdict == "fail"


def test_one_spacing_parts_two_rounded_arrays_and_half_of_it_an_exact_one():
    spacing = 2.0**-24
    narrow = np.array([1, 2, 3], np.float16) * np.float16(spacing)
    assert judged(narrow, narrow + np.float16(spacing)).verdict == "inconclusive"
    assert judged(narrow, narrow + np.float16(2 * spacing)).verdict == "fail"
    assert judged(narrow, narrow.astype(np.float64) + spacing / 2).verdict == "inconclusive"
    assert judged(narrow, narrow.astype(np.float64) + 0.75 * spacing).verdict == "fail"


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(FastcheckError, match=r"precision is 'float31'.*did you mean 'float32'"):
        fastcheck.compare(W, W, precision="float31")


# As it is shown


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_has_advice(value):
    broken = W.copy()
    broken[1, 2] = value
    tensor = judged(broken, W)
    assert (tensor.verdict, tensor.reason) == ("fail", "1 of 1,200 analytic values are nan or infinite")
    assert "a division by zero" in tensor.advice
    assert judged(CLOSE, W).advice == ""


def test_advice_points_at_no_place_of_the_page():
    text = as_text(fastcheck.compare(-W, W), io.StringIO())
    assert "try: start with the worst dimensions\n" in text


def test_the_rule_that_was_used_is_shown_kept_and_read_back():
    report = fastcheck.compare({"w": W.astype(np.float16), "b": NOISE}, {"w": W, "b": NOISE}, precision=None)
    text = as_text(report, io.StringIO(), verbose=True)
    assert "norm ratio at most 1e-09 (met); norm ratio of float16 at most 0.0015 (met); max ratio" in text
    again = from_json(report.to_json())
    assert again.tensors["w"].precision == "float16"
    assert again.to_json() == report.to_json()
    assert as_text(again, io.StringIO(), verbose=True) == text
    with pytest.raises(FastcheckError, match="precision"):
        from_json(report.to_json().replace('"precision": "float16"', '"precision": "float17"'))


def test_nothing_was_differenced_and_no_speed_is_shown():
    assert "a second" not in str(fastcheck.compare(W, W))
    assert "a second" in str(fastcheck.check_gradient(lambda p: float(p @ p), 2 * NOISE, NOISE))


def test_the_command_line_takes_a_precision(run, refused, tmp_path):
    files = tmp_path / "a.npy", tmp_path / "n.npy"
    rounded = (W.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)  # bfloat16, cut off
    for file, array in zip(files, (rounded, W), strict=True):
        np.save(file, array)
    assert run("compare", *files)[0] == 3
    code, out, _ = run("compare", *files, "--precision", "bfloat16")
    assert code == 0
    assert "norm ratio at most 0.012 in bfloat16" in " ".join(out.split())
    assert "per second" not in out
    assert "float31" in refused("compare", *files, "--precision", "float31")
