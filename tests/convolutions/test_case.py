"""ConvCase: what it takes and what it refuses."""

import numpy as np
import pytest
from layer_examples import case, layer, operands

import fastcheck
from fastcheck import ConvCase, FastcheckError

LAYER = layer((2, 4, 9, 9), (6, 2, 3, 3), padding=1, groups=2)


def _read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def _unaligned(array):
    buffer = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    buffer[...] = array
    return buffer


FORMS = {
    "Fortran-ordered": np.asfortranarray,
    "non-contiguous": lambda array: np.repeat(array, 2, axis=0)[::2],
    "reversed": lambda array: array[::-1].copy()[::-1],
    "read-only": _read_only,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "unaligned": _unaligned,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_memory_layout_is_good_input_and_compiles_nothing_new(form, dtype):
    from fastcheck_kernels import difference

    plain = case(LAYER, dtype=dtype)
    fastcheck.check(plain, dims=12)
    compiled = len(getattr(difference.perturb, "signatures", ()))
    change = FORMS[form]
    arrays = {
        name: change(array.astype(dtype))
        for name, array in zip(("input", "weight", "bias"), operands(LAYER), strict=True)
    }
    arrays["grad_output"] = change(plain.grad_output.astype(dtype))
    arrays["grads"] = {name: change(array) for name, array in plain.grads.items()}
    changed = case(LAYER, dtype=dtype, **arrays)
    one, other = fastcheck.check(plain, dims=60, keep=True), fastcheck.check(changed, dims=60, keep=True)
    assert other.passed, other.summary()
    for name in plain.grads:
        assert np.array_equal(one.tensors[name].numeric, other.tensors[name].numeric)
    assert len(getattr(difference.perturb, "signatures", ())) == compiled


def test_lists_are_arrays():
    x, w, b = (array.tolist() for array in operands(LAYER))
    assert fastcheck.check(case(LAYER, input=x, weight=w, bias=b), dims=30).passed


def test_float16_operands():
    x, w, b = (array.astype(np.float16) for array in operands(LAYER))
    made = case(LAYER, input=x, weight=w, bias=b, grads={"bias": np.zeros(6)}, output=None)
    assert made.input.dtype == np.float64
    assert np.array_equal(made.input, x)


def test_a_layer_without_bias():
    made = case(LAYER)
    x, w, _ = operands(LAYER)
    grads = {name: made.grads[name] for name in ("input", "weight")}
    bare = ConvCase(x, w, grad_output=made.grad_output, grads=grads, **LAYER.arguments)
    assert set(fastcheck.check(bare, dims=40).tensors) == {"input", "weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input": np.zeros((2, 4, 9, 9), dtype=int)},
            "input has dtype int64: expected float64, float32, float16 or bfloat16",
        ),
        ({"weight": np.zeros((6, 2, 3, 3), dtype=complex)}, "weight has dtype complex128"),
        ({"weight": np.full((6, 2, 3, 3), None)}, "weight has dtype object"),
        ({"input": np.zeros((2, 4, 9, 9), dtype=np.longdouble)}, "input has dtype (float128|longdouble)"),
        ({"bias": np.zeros(5)}, r"bias has shape \(5,\): axis 0 \(filter\) is 5, expected 6"),
        ({"bias": np.zeros((6, 1))}, "bias has shape .*: expected 1 axes"),
        ({"grad_output": np.zeros((2, 6, 9, 8))}, r"grad_output has shape .*: axis 3 \(width\) is 8, expected 9"),
        ({"output": np.zeros((2, 6, 8, 9))}, r"output has shape .*: axis 2 \(height\) is 8, expected 9"),
        ({"grads": {"weight": np.zeros((6, 2, 3, 4))}}, r"grad_weight has shape .*: axis 3 \(width\) is 4, expected 3"),
        ({"grads": {"weight": np.zeros((6, 2, 9))}}, "grad_weight has shape .*: expected 4 axes"),
        ({"grads": {"wieght": np.zeros(6)}}, "grads has the key 'wieght' .did you mean 'weight'"),
        ({"grads": {}}, "grads is {}: expected a mapping with at least one"),
        ({"grads": np.zeros(3)}, "expected a mapping"),
        ({"bias": None}, "grads has a gradient for bias, and the case has no bias"),
        ({"precision": "float8"}, "precision is 'float8'.*did you mean 'float64'.*: expected one of float64"),
        ({"stride": 0}, "stride is 0"),
        ({"groups": 3}, "groups is 3: it must divide"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(FastcheckError, match=message):
        case(LAYER, **changes)


@pytest.mark.parametrize("name", ["input", "weight", "bias", "grad_output", "output"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_operand_is_named_with_its_first_index(name, value):
    good = case(LAYER)
    array = getattr(good, name).copy()
    array.flat[5] = array.flat[-1] = value
    index = list(map(int, np.unravel_index(5, array.shape)))
    with pytest.raises(FastcheckError, match=rf"{name} is {value} at index \[{', '.join(map(str, index))}\]"):
        case(LAYER, **{name: array})
