"""fastcheck.jax.check: rules of custom_vjp, pytrees, types, both conventions, and what it refuses."""

import collections
import functools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcheck
from fastcheck import FastcheckError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

X = np.linspace(0.2, 1.7, 6).reshape(2, 3)


def _complex(*shape, seed=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _with_rule(function, backward):
    """Return a function whose gradient is backward(cotangent, its arguments)."""
    made = jax.custom_vjp(lambda *args: function(*args))
    made.defvjp(lambda *args: (function(*args), args), lambda args, v: backward(v, *args))
    return made


def _softmax_backward(v, x):
    y = jax.nn.softmax(x)
    return (y * (v - (v * y).sum(-1, keepdims=True)),)


def _gelu_backward(v, x, k=0.044715):
    c = (2 / np.pi) ** 0.5
    t = jnp.tanh(c * (x + k * x**3))
    return (v * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * k * x**2)),)


def _scale(x):
    return jax.lax.rsqrt((x**2).mean(-1, keepdims=True))


def _norm_backward(v, x, g):
    n = x * _scale(x)
    return _scale(x) * (v * g - n * (v * g * n).mean(-1, keepdims=True)), (v * n).sum(0)


RULES = {
    "softmax": (
        jax.nn.softmax,
        [X],
        _softmax_backward,
        {
            "without the sum": lambda v, x: (v * jax.nn.softmax(x),),
            "sum over the wrong axis": lambda v, x: (
                jax.nn.softmax(x) * (v - (v * jax.nn.softmax(x)).sum(0, keepdims=True)),
            ),
        },
    ),
    "gelu": (jax.nn.gelu, [X], _gelu_backward, {"0.04471": functools.partial(_gelu_backward, k=0.04471)}),
    "rms norm": (
        lambda x, g: x * _scale(x) * g,
        [X, X[0]],
        _norm_backward,
        {"scale held constant": lambda v, x, g: (_scale(x) * v * g, _norm_backward(v, x, g)[1])},
    ),
    "clipped cotangent": (
        jnp.sin,
        [X],
        lambda v, x: (v * jnp.cos(x),),
        {"clipped": lambda v, x: (jnp.clip(v, -1, 1) * jnp.cos(x),)},
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_of_custom_vjp(name):
    function, args, right, mistakes = RULES[name]
    for wrap in (lambda one: one, jax.jit):
        assert fastcheck.jax.check(wrap(_with_rule(function, right)), *args).passed
    for mistake in mistakes.values():
        assert fastcheck.jax.check(_with_rule(function, mistake), *args).verdict == "fail"


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.sampled_from(["a sign", "a missing term", "a missing sum"]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_layers_of_any_shape(batch, shape, mistake, vectorized, seed):
    rng = np.random.default_rng(seed)
    x, w, c = (rng.normal(size=size) for size in ((*batch, shape[0]), shape, shape[1:]))

    def forward(x, w, c):
        return jnp.tanh(x @ w) + c

    def backward(v, x, w, c, wrong=""):
        u = v * (1 - (wrong != "a missing term") * jnp.tanh(x @ w) ** 2)
        rows, many = x.reshape(-1, shape[0]), u.reshape(-1, shape[1])
        sums = v.reshape(-1, shape[1]).sum(0)
        return u @ w.T * (-1 if wrong == "a sign" else 1), rows.T @ many, sums / (2 if wrong == "a missing sum" else 1)

    options = {"vectorized": vectorized}
    assert fastcheck.jax.check(_with_rule(forward, backward), x, w, c, **options).passed
    wrong = _with_rule(forward, functools.partial(backward, wrong=mistake))
    assert fastcheck.jax.check(wrong, x, w, c, **options).verdict == "fail"


# Pytrees and names


Pair = collections.namedtuple("Pair", "mean scale")


def test_leaves_are_named_by_their_paths():
    params = {"w": np.ones((3, 2)) / 3, "layers": [np.ones(2), {"b": 0.5}], "name": "tanh", "steps": 2, "none": None}

    def function(params, pair, keys):
        assert params["name"] == "tanh"
        z = X @ params["w"] * params["layers"][0] + params["layers"][1]["b"] * params["steps"]
        noise = jax.random.normal(keys, z.shape)
        return {"y": [z * pair.mean + noise], "n": jnp.arange(3)}, jnp.exp(pair.scale)

    args = (params, Pair(np.array(0.3), jnp.ones(2)), jax.random.key(0))
    names = ["input 0['w']", "input 0['layers'][0]", "input 0['layers'][1]['b']", "input 1.mean", "input 1.scale"]
    report = fastcheck.jax.check(function, *args)
    assert report.passed
    assert sorted(report.tensors) == sorted(names)

    wrong = _with_rule(lambda b: b + 0.0, lambda v, b: (v * 1.0001,))

    def with_wrong_bias(params, *others):
        layers = [params["layers"][0], {"b": wrong(params["layers"][1]["b"])}]
        return function({**params, "layers": layers}, *others)

    report = fastcheck.jax.check(with_wrong_bias, *args)
    failed = [name for name, tensor in report.tensors.items() if tensor.verdict == "fail"]
    assert failed == ["input 0['layers'][1]['b']"]


def test_cotangents_of_pytrees():
    def function(x):
        return {"y": jnp.sin(x), "n": jnp.arange(2)}, (x**2).sum()

    cotangent = {"y": np.full(X.shape, 1e-3), "n": None}, 5.0
    report = fastcheck.jax.check(function, X, grad_output=cotangent, keep=True)
    assert report.passed
    np.testing.assert_allclose(report.tensors["input 0"].kept.analytic, (1e-3 * np.cos(X) + 10 * X).ravel(), rtol=1e-14)
    for wrong, message in (
        (X, r"grad_output is array.*: expected arrays like the outputs, with grad_output\[0\]\['y'\]"),
        (
            ({"y": X[0]}, 5.0),
            r"grad_output\[0\]\['y'\] has shape \(3,\): expected \(2, 3\), that of output\[0\]\['y'\]",
        ),
    ):
        with pytest.raises(FastcheckError, match=message):
            fastcheck.jax.check(function, X, grad_output=wrong)


def test_one_array_twice_and_python_numbers():
    x = jnp.asarray(X)
    assert fastcheck.jax.check(lambda a, b, c: a * b * c, x, x, 2.0).passed
    assert list(fastcheck.jax.check(jnp.sin, 0.5).tensors) == ["input 0"]


# Types


def _ran(report):
    return [finding.name for finding in report.health]


def test_float64_is_stated():
    seen = []

    def function(x):
        seen.append(x.dtype)
        return jnp.sin(x) * jnp.ones(3)

    report = fastcheck.jax.check(function, jnp.asarray(X, jnp.float32))
    assert report.passed
    assert report.tensors["input 0"].norm_ratio < 1e-9
    assert {*seen} == {np.dtype(np.float64)}
    assert "inputs in float32 were converted to float64" in str(report)
    assert "jax.enable_x64" in str(report)
    assert not jax.config.jax_enable_x64
    assert jnp.asarray(X).dtype == np.float32


def test_a_user_with_float64_gets_no_remark():
    from fastcheck.frameworks.jax_trees import x64

    with x64():
        assert _ran(fastcheck.jax.check(jnp.sin, jnp.asarray(X))) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_a_reference_in_float64(dtype):
    x = jnp.asarray(_complex(4, 5) if dtype == "complex64" else X, dtype)

    def function(x):
        assert x.dtype == dtype
        return jnp.sin(x)

    report = fastcheck.jax.check(function, x, reference=jnp.sin)
    assert report.passed
    assert _ran(report) == ["reference"]
    wrong = _with_rule(function, lambda v, x: (v * jnp.cos(x) * jnp.asarray(1.2, dtype),))
    assert fastcheck.jax.check(wrong, x, reference=jnp.sin).verdict == "fail"


@pytest.mark.parametrize(("dtype", "mistake"), [("float32", 1e-3), ("bfloat16", 1.0)])
def test_rounding_to_a_narrower_type_widens_bars(dtype, mistake):
    """Steps below the spacing of such a type would show another slope."""

    def function(x):
        return jnp.sin(x.astype(dtype)).astype(x.dtype) * x

    report = fastcheck.jax.check(function, X)
    assert report.verdict == ("pass" if dtype == "float32" else "inconclusive"), report.summary()
    assert _ran(report) == ["accuracy of forward", "double precision", "narrower types"]
    assert f"converts numbers to {dtype}" in " ".join(str(report).split())
    wrong = _with_rule(function, lambda v, x: (v * (jnp.sin(x) + x * jnp.cos(x)) * (1 + mistake),))
    assert fastcheck.jax.check(wrong, X).verdict == "fail"
    report = fastcheck.jax.check(function, X, reference=function)
    assert report.verdict != "fail", report.summary()
    assert _ran(report) == ["accuracy of forward", "narrower types", "reference"]


def test_narrower_types_that_round_nothing_are_noted_alone():
    def function(x):
        return jnp.sin(x) * (x > 1).astype(jnp.float32)

    report = fastcheck.jax.check(function, X)
    assert report.passed
    assert _ran(report) == ["double precision", "narrower types"]
    assert report.tensors["input 0"].norm_ratio < 1e-9


# Complex numbers


HOLOMORPHIC = ["product", "fft", "exp"]
COMPLEX = {
    "product": (jnp.matmul, [_complex(3, 4), _complex(4, 2)]),
    "fft": (jnp.fft.fft, [_complex(3, 5)]),
    "exp": (jnp.exp, [_complex(4)]),
    "abs": (jnp.abs, [_complex(3, 4)]),
    "angle": (jnp.angle, [_complex(3, 4)]),
    "conj": (lambda z: jnp.conj(z) * z * z, [_complex(4)]),
    "real and imag": (lambda z: (jnp.real(z * z), jnp.imag(z * z)), [_complex(4)]),
    "fft of real numbers": (jnp.fft.rfft, [np.random.default_rng(7).normal(size=(3, 6))]),
    "real times complex": (jnp.multiply, [np.linspace(1, 2, 4), _complex(3, 4)]),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients_have_jax_s_convention(name):
    function, args = COMPLEX[name]
    assert fastcheck.jax.check(function, *args).passed

    def conjugated(v, *args):
        """Return the gradient by PyTorch's convention."""
        gradients = jax.vjp(function, *args)[1](jax.tree.map(jnp.conj, v))
        return tuple(map(jnp.conj, gradients))

    report = fastcheck.jax.check(_with_rule(function, conjugated), *args)
    assert report.verdict == "fail"
    assert "PyTorch's convention" in _ran(report)


def test_check_vjp_takes_jax_s_gradients_by_either_convention():
    z = _complex(3)

    def backward(v, z):
        with jax.experimental.enable_x64() if not hasattr(jax, "enable_x64") else jax.enable_x64(True):
            return np.asarray(jax.vjp(jnp.square, jnp.asarray(z))[1](jnp.asarray(v))[0])

    assert fastcheck.check_vjp(np.square, backward, z, complex_convention="jax").passed
    report = fastcheck.check_vjp(np.square, backward, z)
    assert report.verdict == "fail"
    assert _ran(report) == ["JAX's convention"]


# Ways to call


def test_control_flow_that_depends_on_values():
    def function(x):
        return jnp.sin(x) if x.sum() > 0 else x

    assert fastcheck.jax.check(function, X).passed
    assert fastcheck.jax.check(lambda x: jax.lax.stop_gradient(function(x)), X).verdict == "fail"


def test_donated_memory_static_arguments_and_threads():
    assert fastcheck.jax.check(jax.jit(lambda x: 2 * x, donate_argnums=0), X).passed
    assert fastcheck.jax.check(functools.partial(jax.nn.gelu, approximate=False), X).passed
    assert fastcheck.jax.check(jnp.sin, X, threads=3).passed
    reports = []
    thread = threading.Thread(target=lambda: reports.append(fastcheck.jax.check(jnp.sin, X)))
    thread.start()
    thread.join()
    assert reports[0].passed


def test_reports_are_the_same_for_any_number_of_threads():
    wrong = _with_rule(jnp.sin, lambda v, x: (v * jnp.cos(x) * (1 + 1e-6),))
    one, other = (fastcheck.jax.check(wrong, X, threads=threads, keep=True) for threads in (1, 2))
    assert one.verdict == other.verdict == "fail"
    for kind in ("numeric", "error_bar"):
        assert np.array_equal(getattr(one.tensors["input 0"].kept, kind), getattr(other.tensors["input 0"].kept, kind))


def test_what_is_compiled_is_called_no_more():
    calls = []

    def function(x):
        calls.append(x)
        return jnp.sin(x)

    assert fastcheck.jax.check(function, np.linspace(0, 1, 50)).passed
    assert len(calls) < 10


def _counter():
    calls = []

    def function(x):
        calls.append(1)
        return x * len(calls)

    return function


def _leaking(box):
    def function(x):
        y = jnp.sin(x) + sum(box[1:])
        box.append(y)
        return y

    return function


@pytest.mark.parametrize(
    ("function", "args", "options", "message"),
    [
        (3, [X], {}, "function is 3: expected a function of arrays, then its arguments"),
        (jnp.sin, [X], {"reference": 3}, "reference is 3: expected a function of arrays"),
        (jnp.sin, [X], {"vectorized": 3}, "vectorized is 3: expected True or False"),
        (jnp.sin, [X], {"eps": 3}, "check has no argument 'eps'"),
        (lambda: X, [], {}, "inputs are nothing: expected an array of floating-point numbers among them"),
        (lambda x, s: x, [np.arange(3), "relu"], {}, "inputs are int64, str: expected an array of floating-point"),
        (jnp.sin, [X[:0]], {}, r"input 0 is empty: it has shape \(0, 3\)"),
        (
            lambda p: p["x"],
            [{"x": X * np.nan}],
            {},
            r"input 0\['x'\] is nan at index \[0, 0\]: expected finite numbers",
        ),
        (jnp.sin, [jnp.ones(2, jnp.float8_e4m3fn)], {}, "input 0 has dtype float8_e4m3fn: expected float64"),
        (lambda x: None, [X], {}, "function returns None: expected an array of floating-point numbers, or a pytree"),
        (lambda x: "a", [X], {}, "function returns 'a': expected an array of floating-point numbers"),
        (lambda x: x > 0, [X], {}, r"function returns Array\(.*: expected an array of floating-point numbers"),
        (jnp.log, [-X], {}, r"output of forward is nan at index \[0, 0\]: expected finite numbers"),
        (lambda x: x @ x, [X], {}, "function raises TypeError at the start point: "),
        (lambda a, b: a * b, [(X, X)], {}, r"with one argument, a tuple \(several are given one by one\)"),
        (
            lambda x: np.sin(x),
            [X],
            {},
            "raises TracerArrayConversionError: NumPy cannot take what JAX traces",
        ),
        (_leaking([]), [X], {}, "raises UnexpectedTracerError: it keeps a value from an earlier call: expected a func"),
        (_counter(), [X], {}, "forward returns other outputs when it is called again"),
        (jnp.sin, [X], {"reference": lambda x: (x, x)}, r"reference returns output\[0\], output\[1\]: expected output"),
        (jnp.sin, [X], {"grad_output": X[0]}, r"grad_output has shape \(3,\): expected \(2, 3\), that of output"),
    ],
)
def test_bad_input_gets_one_line(function, args, options, message):
    with pytest.raises(FastcheckError, match=message) as told:
        fastcheck.jax.check(function, *args, **options)
    assert "\n" not in str(told.value)


def test_tracers_are_refused():
    with pytest.raises(FastcheckError, match=r"input 0 is a tracer, without values: call fastcheck.jax.check outside"):
        jax.jit(lambda x: fastcheck.jax.check(jnp.sin, x).passed)(X)


def test_what_is_no_module_of_fastcheck():
    with pytest.raises(AttributeError, match="has no attribute 'jaxx'"):
        fastcheck.jaxx  # noqa: B018
