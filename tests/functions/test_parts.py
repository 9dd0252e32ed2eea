"""Complex arrays: both conventions of their gradients, in two real parts, against PyTorch's autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck import FastcheckError, check_gradient, check_vjp

torch.set_num_threads(1)  # more are slower for arrays this small


def _complex(*shape, seed=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _real(*shape, seed=7):
    return np.random.default_rng(seed).normal(size=shape)


FUNCTIONS = {
    "abs": (torch.abs, (_complex(3, 4),)),
    "angle": (torch.angle, (_complex(3, 4),)),
    "matmul": (torch.matmul, (_complex(3, 4), _complex(4, 2))),
    "real times complex": (torch.mul, (_real(3, 4), _complex(4))),
    "fft": (torch.fft.fft, (_complex(3, 5),)),
    "fft of real numbers": (torch.fft.rfft, (_real(3, 6),)),
    "fft to real numbers": (torch.fft.irfft, (_complex(3, 4),)),
    "real": (lambda z: torch.real(z * z), (_complex(5),)),
    "imag": (lambda z: torch.imag(z * z), (_complex(5),)),
    "conj": (lambda z: torch.conj(z) * z * z, (_complex(5),)),
    "view_as_real": (lambda z: torch.view_as_real(z * z), (_complex(5),)),
    "view_as_complex": (lambda x: torch.view_as_complex(x.contiguous()).exp(), (_real(5, 2),)),
    "inverse": (torch.linalg.inv, (_complex(3, 3),)),
    "two outputs": (lambda z: (torch.abs(z), z.sin()), (_complex(2, 3),)),
    "one number": (lambda z: z * z, (np.array(0.3 - 1.2j),)),
}


class Autograd:
    """A function of tensors, and autograd's gradient of it in either convention."""

    def __init__(self, function):
        self._function = function

    def forward(self, *arrays):
        return self._unpacked(self._function(*map(torch.as_tensor, arrays)))

    def torch(self, v, *arrays):
        leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
        outputs = self._function(*leaves)
        outputs, sent = (outputs, v) if isinstance(outputs, tuple) else ((outputs,), (v,))
        grads = torch.autograd.grad(outputs, leaves, [torch.tensor(np.array(one)) for one in sent])
        return tuple(grad.resolve_conj().numpy() for grad in grads)

    def jax(self, v, *arrays):
        """JAX's is its conjugate, for the conjugate cotangent: tests/frameworks compares with JAX itself."""
        conjugate = tuple(map(np.conj, v)) if isinstance(v, tuple) else np.conj(v)
        return tuple(np.asarray(np.conj(grad)) for grad in self.torch(conjugate, *arrays))

    def _unpacked(self, outputs):
        if isinstance(outputs, tuple):
            return tuple(map(self._unpacked, outputs))
        return outputs.detach().resolve_conj().numpy()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_convention_passes_where_it_is_asked_for_and_names_the_other(name):
    function, inputs = FUNCTIONS[name]
    made = Autograd(function)
    for backward, own, other in ((made.torch, "torch", "jax"), (made.jax, "jax", "torch")):
        right = check_vjp(made.forward, backward, inputs, complex_convention=own)
        assert right.passed, right.summary()
        assert right.health == ()
        wrong = check_vjp(made.forward, backward, inputs, complex_convention=other)
        assert wrong.verdict == "fail"
        assert [finding.name for finding in wrong.health] == [f"{'PyTorch' if own == 'torch' else 'JAX'}'s convention"]
        assert f"complex_convention='{own}'" in str(wrong)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_wrong_part_of_one_entry_is_found(name):
    function, inputs = FUNCTIONS[name]
    made = Autograd(function)

    def backward(v, *arrays):
        grads = [grad.copy() for grad in made.torch(v, *arrays)]
        flat = grads[-1].reshape(-1)
        flat[-1] += 1e-7j * np.abs(flat).max() if np.iscomplexobj(flat) else 1e-7 * np.abs(flat).max()
        return grads

    report = check_vjp(made.forward, backward, inputs)
    last = f"input {len(inputs) - 1}" + ".imag" * np.iscomplexobj(inputs[-1])
    wrong = {name: tensor.beyond_error_bar for name, tensor in report.tensors.items() if tensor.beyond_error_bar}
    assert wrong == {last: 1}
    assert report.tensors[last].worst[0].index == tuple(size - 1 for size in inputs[-1].shape)


def _product(a, b):
    return a @ b


def _product_backward(v, a, b):
    return v @ b.conj().T, a.conj().T @ v


MISTAKES = {
    "a missing conjugate": lambda v, a, b: (v @ b.T, a.T @ v),
    "one missing conjugate": lambda v, a, b: (v @ b.conj().T, a.T @ v),
    "the conjugate of the result": lambda v, a, b: tuple(map(np.conj, _product_backward(v, a, b))),
    "the conjugate of the cotangent": lambda v, a, b: _product_backward(v.conj(), a, b),
    "the real part alone": lambda v, a, b: tuple(grad.real + 0j for grad in _product_backward(v, a, b)),
}


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.sampled_from(list(MISTAKES)), st.booleans(), st.integers(0, 1000))
def test_products_of_any_shape(shape, mistake, is_dict, seed):
    rows, inner, columns = shape
    a, b = _complex(rows, inner, seed=seed), _complex(inner, columns, seed=seed + 1)
    inputs = {"a": a, "b": b} if is_dict else (a, b)
    for backward, verdict in ((_product_backward, "pass"), (MISTAKES[mistake], "fail")):

        def called(v, a, b, backward=backward):
            return dict(zip("ab", backward(v, a, b), strict=True)) if is_dict else backward(v, a, b)

        report = check_vjp(_product, called, inputs)
        assert report.verdict == verdict, report.summary()
        ends = [f"{name}.{part}" for name in ("ab" if is_dict else "01") for part in ("real", "imag")]
        assert list(report.tensors) == [end if is_dict else f"input {end}" for end in ends]


def test_real_cotangents_and_gradients_of_complex_arrays_are_taken():
    z = _complex(4)
    seen = []

    def backward(v, z):
        seen.append(v)
        return 2 * z.real * v.real  # of the real part's square, a real array

    report = check_vjp(lambda z: z.real**2 + 0j, backward, z, grad_output=np.arange(1.0, 5.0))
    assert report.passed
    assert seen[0].dtype == np.complex128
    np.testing.assert_array_equal(seen[0], np.arange(1.0, 5.0))
    assert check_vjp(lambda z: z.imag**2 + 0j, lambda v, z: 2 * z.imag * v.real, z).verdict == "fail"


def test_a_given_cotangent_follows_the_convention():
    z, given, seen = _complex(4), _complex(4, seed=8), []

    def backward(v, z):
        seen.append(v.copy())
        return v * z.conj()

    check_vjp(lambda z: z**2 / 2, backward, z, grad_output=given)
    check_vjp(lambda z: z**2 / 2, lambda v, z: backward(v, z.conj()), z, grad_output=given, complex_convention="jax")
    first = [v for v in seen if np.array_equal(v, given)]
    assert len(first) > 2
    assert np.array_equal(seen[0], given)


@pytest.mark.parametrize("own", ["torch", "numpy"])
def test_complex64_with_a_reference(own):
    a, b = (_complex(5, 4).astype(np.complex64), _complex(4, 3).astype(np.complex64))
    make = torch.as_tensor if own == "torch" else np.asarray
    made = tuple(map(make, (a, b)))

    def backward(v, a, b):
        assert str(v.dtype).endswith("complex64")
        return v @ b.conj().T, a.conj().T @ v

    report = check_vjp(_product, backward, made, reference=_product)
    assert report.passed
    assert [finding.name for finding in report.health] == ["reference"]
    assert report.tensors["input 0.real"].norm_ratio < 1e-6
    wrong = check_vjp(_product, lambda v, a, b: (v @ b.conj().T, 1.0001 * (a.conj().T @ v)), made, reference=_product)
    assert [name for name, tensor in wrong.tensors.items() if tensor.verdict == "fail"] == [
        "input 1.real",
        "input 1.imag",
    ]


def test_a_reference_is_compared_as_a_whole():
    """The imaginary parts of these outputs are rounding alone, in which the two differ in every digit."""
    z = _complex(40).astype(np.complex64)

    def forward(z):
        return (z * z.conj() * np.exp(1j * np.float32(1e-9))).astype(z.dtype)

    def backward(v, z):
        return 2 * z * v.real

    assert check_vjp(forward, backward, z, reference=lambda z: z * z.conj()).forward.verdict == "pass"
    other = check_vjp(forward, backward, z, reference=lambda z: 1.1j * z * z.conj())
    assert other.forward.verdict == "fail"


def test_findings_about_backward():
    z = _complex(3, 4)

    def names(backward, **options):
        report = check_vjp(lambda z: z * z, backward, z, **options)
        return [finding.name for finding in report.health]

    def right(v, z):
        return 2 * v * z.conj()

    assert names(right) == []
    assert names(lambda v, z: right(v, z) * np.sign(v.real)) == ["not linear in the cotangent"]
    assert names(lambda v, z: right(v, z) + 1e-3j) == ["a zero cotangent", "not linear in the cotangent"]

    def changing(v, z):
        made = right(v, z)
        z += 1
        return made

    assert names(changing) == ["backward changes its arguments"]

    def unwritten(v, z):
        made = np.empty_like(z)
        made.reshape(-1)[1:] = right(v, z).reshape(-1)[1:]
        return made

    assert "unwritten memory" in names(unwritten)

    def as_if_contiguous(v, z):
        flat = v.base if v.base is not None and not v.flags.c_contiguous else v
        return right(np.resize(flat.reshape(-1), v.shape), z)

    assert any("cotangent" in name for name in names(as_if_contiguous))


def test_linear_over_the_reals_is_enough():
    """The gradient of conj(z) z is not linear over the complex numbers, and right."""

    def backward(v, z):
        return 2 * v.real * z

    assert check_vjp(lambda z: z.conj() * z, backward, _complex(5)).passed
    assert check_vjp(lambda z: z.conj() * z, lambda v, z: 2 * v * z, _complex(5)).verdict == "fail"


def test_a_cache_and_an_input_without_a_gradient():
    a, b = _complex(3), _complex(3, seed=8)

    def forward(a, b):
        return a * b, (a, b)

    def backward(v, cache):
        return v * cache[1].conj(), None

    report = check_vjp(forward, backward, (a, b), has_cache=True)
    assert report.passed
    assert list(report.tensors) == ["input 0.real", "input 0.imag"]
    (finding,) = report.health
    assert "returns None for input 1:" in finding.words
    assert "depend on input 1" in finding.words


@pytest.mark.parametrize("structure", ["elementwise", "per_sample", "detect", {"input 0": "elementwise"}])
def test_structure(structure):
    z, w = _complex(12, 5), _complex(12, 5, seed=8)

    def check(backward, **options):
        return check_vjp(lambda z, w: z.conj() * w**2, backward, (z, w), **options)

    def right(v, z, w):
        return v.conj() * w**2, v * z * 2 * w.conj()

    report = check(right, structure=structure)
    assert report.passed, report.summary()
    assert report.tensors["input 0.imag"].evaluator == "coloured"
    assert check(lambda v, z, w: (v * w**2, right(v, z, w)[1]), structure=structure).verdict == "fail"


def test_a_convolution_of_complex_numbers():
    x, w = (torch.as_tensor(_complex(*shape)) for shape in ((2, 3, 7), (4, 3, 3)))
    conv = torch.nn.functional.conv1d

    def backward(v, x, w):
        leaves = [one.detach().requires_grad_() for one in (x, w)]
        return torch.autograd.grad(conv(*leaves, padding=1), leaves, v)

    def forward(x, w):
        return conv(x, w, padding=1)

    report = check_vjp(forward, backward, (x, w), structure="conv(padding=1)")
    assert report.passed
    assert report.health == ()
    wrong = check_vjp(forward, lambda v, x, w: tuple(map(torch.conj, backward(v, x, w))), (x, w))
    assert wrong.verdict == "fail"


def test_directions_cover_what_a_sample_leaves_out():
    z = _complex(40, 25)

    def wrong(v, z):
        made = v * np.exp(z).conj()
        made[17, 3] *= 1 + 1e-4j
        return made

    assert check_vjp(np.exp, lambda v, z: v * np.exp(z).conj(), z, dims=8, directions=24).passed
    report = check_vjp(np.exp, wrong, z, dims=8, directions=24)
    assert report.verdict == "fail"
    assert "[17, 3]" in str(report)


@pytest.mark.parametrize("options", [{"vectorized": True}, {"threads": 2}])
def test_ways_to_call(options):
    z = _complex(6, 4)
    assert check_vjp(_squares, _squares_backward, z, **options).passed
    assert check_vjp(_squares, lambda v, z: _squares_backward(v, z).conj(), z, **options).verdict == "fail"


def _squares(z):
    return np.cumsum(z**2, axis=-1)


def _squares_backward(v, z):
    return 2 * z.conj() * np.cumsum(v[..., ::-1], axis=-1)[..., ::-1]


def test_refusals():
    z = _complex(3)
    for options, message in (
        ({"complex_convention": "Jax"}, "complex_convention is 'Jax'"),
        ({"grad_output": z[:2]}, r"grad_output has shape \(2,\): expected \(3,\), that of output"),
        ({"grad_output": z * [1, np.nan, 1]}, "grad_output.real has entries that are nan"),
    ):
        with pytest.raises(FastcheckError, match=message):
            check_vjp(np.exp, lambda v, z: v * np.exp(z).conj(), z, **options)
    with pytest.raises(FastcheckError, match=r"'z\.imag' is the real or imaginary part of 'z': expected another name"):
        check_vjp(lambda **inputs: inputs["z"], lambda v, **inputs: {"z": v}, {"z": z, "z.imag": z.real.copy()})
    with pytest.raises(FastcheckError, match="grad_output is complex: expected real numbers"):
        check_vjp(np.abs, lambda v, z: v * z / np.abs(z), z, grad_output=z)
    with pytest.raises(FastcheckError, match="backward's gradient of input 0 is complex: expected real numbers"):
        check_vjp(np.exp, lambda v, x: v * np.exp(x) + 0j, z.real.copy())
    with pytest.raises(FastcheckError, match=r"input 0.imag is nan at index \[1\]"):
        check_vjp(np.exp, lambda v, z: v, np.array([1, complex(0, np.nan)]))
    with pytest.raises(FastcheckError, match=r"params has dtype complex128: .*; fastcheck.check_vjp takes complex arr"):
        check_gradient(lambda z: float(np.abs(z).sum()), z, z)


def test_reports_keep_the_convention():
    z = _complex(3)
    report = check_vjp(np.exp, lambda v, z: v * np.exp(z), z, complex_convention="jax")
    assert report.requested["complex_convention"] == "jax"
    assert "complex_convention" not in check_vjp(np.exp, lambda v, z: v * np.exp(z).conj(), z).requested
