"""SciPy's own derivatives and adjoints: special functions, filters, transforms, solvers, splines."""

import numpy as np
import pytest
from foreign import Foreign, normals
from scipy import fft, interpolate, linalg, ndimage, optimize, signal, sparse, special, stats
from scipy.sparse import linalg as sparse_linalg

import fastcheck

POSITIVE = np.abs(normals((3, 4))[0]) + 0.5


def _of_slope(function, slope, point, **mistakes):
    """A function of numbers and its derivative; mistakes are other derivatives."""
    return Foreign(
        function,
        lambda v, x: v * slope(x),
        (point,),
        {name: lambda v, x, wrong=wrong: v * wrong(x) for name, wrong in mistakes.items()},
    )


def _linear(forward, adjoint, point, **mistakes):
    """A linear function of one array and its adjoint; mistakes are other linear functions."""
    return Foreign(
        forward,
        lambda v, x: adjoint(v),
        (point,),
        {name: lambda v, x, wrong=wrong: wrong(v) for name, wrong in mistakes.items()},
    )


def _filters(**options):
    """Correlation of an image with a kernel; its adjoint is convolution, and the correlation with the cotangent."""
    (kernel,) = normals((3, 3))

    def slope(x, v):
        padded = np.pad(x, 1, mode="wrap" if options["mode"] == "wrap" else "constant")
        return signal.correlate(padded, v, mode="valid", method="direct")

    return Foreign(
        lambda x, w: ndimage.correlate(x, w, **options),
        lambda v, x, w: (ndimage.convolve(v, w, **options), slope(x, v)),
        (*normals((5, 6)), kernel),
        {
            "kernel not flipped": lambda v, x, w: (ndimage.correlate(v, w, **options), slope(x, v)),
            "another edge": lambda v, x, w: (ndimage.convolve(v, w, mode="nearest"), slope(x, v)),
            "kernel's gradient flipped": lambda v, x, w: (ndimage.convolve(v, w, **options), slope(x, v)[::-1, ::-1]),
        },
    )


def _signals():
    """Full convolution: both gradients are valid correlations."""

    def backward(v, x, w):
        return signal.correlate(v, w, "valid"), signal.correlate(v, x, "valid")

    return Foreign(
        lambda x, w: signal.convolve(x, w, "full"),
        backward,
        normals((8,), (3,)),
        {
            "convolved again": lambda v, x, w: (signal.convolve(v, w, "valid"), backward(v, x, w)[1]),
            "exchanged ends": lambda v, x, w: (backward(v, x, w)[0], backward(v, x, w)[1][::-1]),
        },
    )


def _recursive():
    b, a = [0.5, 0.2], [1.0, -0.6, 0.1]

    def adjoint(v):
        return signal.lfilter(b, a, v[::-1])[::-1]

    return _linear(
        lambda x: signal.lfilter(b, a, x),
        adjoint,
        *normals((9,)),
        forward_in_time=lambda v: signal.lfilter(b, a, v),
        both_ways=lambda v: signal.filtfilt(b, a, v, padlen=0),
    )


def _operator():
    matrix = sparse.random(6, 6, density=0.5, random_state=1) + sparse.eye(6)
    operator = sparse_linalg.aslinearoperator(sparse.csr_array(matrix))
    return _linear(operator.matvec, operator.rmatvec, *normals((6,)), not_transposed=operator.matvec)


def _fourier():
    """The real transform as two rows of numbers; its adjoint is the inverse one, in which 0 counts once."""

    def adjoint(v, doubled=1.0):
        return (7 * fft.irfft(v[0] + 1j * v[1], 7) + doubled * v[0, 0]) / 2

    return _linear(
        lambda x: np.stack([fft.rfft(x).real, fft.rfft(x).imag]),
        adjoint,
        *normals((7,)),
        inverse=lambda v: fft.irfft(v[0] + 1j * v[1], 7),
        zero_counted_like_others=lambda v: adjoint(v, 0.0),
        conjugate=lambda v: adjoint(v * [[1], [-1]]),
    )


def _factored():
    """A sparse system, solved by its factors, and by the transposed ones backwards."""
    (b,) = normals((5,))
    base = sparse.diags_array([np.arange(3.0, 8.0), np.ones(4), -np.ones(3)], offsets=[0, 1, -2]).tocsc()
    rows, columns = base.nonzero()

    def factors(entries):
        return sparse_linalg.splu(sparse.csc_array((entries, (rows, columns)), shape=(5, 5)))

    def backward(v, entries, b, transposed="T"):
        back = factors(entries).solve(v, transposed)
        return -back[rows] * factors(entries).solve(b)[columns], back

    return Foreign(
        lambda entries, b: factors(entries).solve(b),
        backward,
        (np.asarray(base[rows, columns]).ravel(), b),
        {
            "not transposed": lambda v, entries, b: backward(v, entries, b, "N"),
            "sign of the matrix": lambda v, entries, b: [abs(one) for one in backward(v, entries, b)],
        },
    )


def _exponential():
    return Foreign(
        linalg.expm,
        lambda v, a: linalg.expm_frechet(a.T, v, compute_expm=False),
        normals((3, 3)),
        {
            "not transposed": lambda v, a: linalg.expm_frechet(a, v, compute_expm=False),
            "as if they commuted": lambda v, a: linalg.expm(a.T) @ v,
        },
    )


def _sylvester():
    """The solution x of a x + x b = q."""

    def backward(v, a, b, q):
        x, back = linalg.solve_sylvester(a, b, q), linalg.solve_sylvester(a.T, b.T, v)
        return -back @ x.T, -x.T @ back, back

    a, b, q = normals((3, 3), (4, 4), (3, 4))
    return Foreign(
        linalg.solve_sylvester,
        backward,
        (a + 4 * np.eye(3), b + 4 * np.eye(4), q),
        {
            "first sign": lambda v, *arrays: (-backward(v, *arrays)[0], *backward(v, *arrays)[1:]),
            "not transposed": lambda v, a, b, q: (*backward(v, a, b, q)[:2], linalg.solve_sylvester(a, b, v)),
        },
    )


def _spline(kind):
    knots, (values,) = np.arange(8.0), normals((8,))
    curve = kind(knots, values)
    slope = curve.derivative()
    return _of_slope(
        curve, slope, np.linspace(0.3, 6.7, 5), integral=curve.antiderivative(), second=slope.derivative(), itself=curve
    )


FUNCTIONS = {
    "airy": _of_slope(
        lambda x: special.airy(x)[0],
        lambda x: special.airy(x)[1],
        *normals((3, 4)),
        second_kind=lambda x: special.airy(x)[3],
        itself=lambda x: special.airy(x)[0],
    ),
    "bessel": _of_slope(
        lambda x: special.jv(1.5, x),
        lambda x: special.jvp(1.5, x),
        3 * POSITIVE,
        another_order=lambda x: special.jvp(1.4999, x),
        second=lambda x: special.jvp(1.5, x, 2),
    ),
    "modified bessel": _of_slope(
        lambda x: special.kv(2, x), lambda x: special.kvp(2, x), POSITIVE, sign=lambda x: -special.kvp(2, x)
    ),
    "log gamma": _of_slope(
        special.gammaln, special.psi, POSITIVE, trigamma=lambda x: special.polygamma(1, x), log=np.log
    ),
    "digamma": _of_slope(
        special.psi,
        lambda x: special.polygamma(1, x),
        POSITIVE,
        tetragamma=lambda x: special.polygamma(2, x),
        first_terms=lambda x: 1 / x + 1 / (2 * x**2),
    ),
    "normal distribution": _of_slope(
        stats.norm.cdf, stats.norm.pdf, *normals((3, 4)), of_logarithm=lambda x: stats.norm.pdf(x) / stats.norm.cdf(x)
    ),
    "jacobi elliptic": _of_slope(
        lambda x: special.ellipj(x, 0.7)[0],
        lambda x: special.ellipj(x, 0.7)[1] * special.ellipj(x, 0.7)[2],
        *normals((3, 4)),
        as_sine=lambda x: special.ellipj(x, 0.7)[1],
    ),
    "cubic spline": _spline(interpolate.CubicSpline),
    "pchip": _spline(interpolate.PchipInterpolator),
    "akima": _spline(interpolate.Akima1DInterpolator),
    "b-spline": _spline(lambda x, y: interpolate.make_interp_spline(x, y, k=4)),
    "filter, zeros outside": _filters(mode="constant"),
    "filter, periodic": _filters(mode="wrap"),
    "gaussian filter": _linear(
        lambda x: ndimage.gaussian_filter(x, 1.5, mode="wrap"),
        lambda v: ndimage.gaussian_filter(v, 1.5, mode="wrap"),
        *normals((6, 7)),
        another_width=lambda v: ndimage.gaussian_filter(v, 1.5001, mode="wrap"),
        another_edge=lambda v: ndimage.gaussian_filter(v, 1.5, mode="reflect"),
    ),
    "convolution": _signals(),
    "recursive filter": _recursive(),
    "fourier": _fourier(),
    "cosine transform": _linear(
        lambda x: fft.dctn(x, norm="ortho"),
        lambda v: fft.idctn(v, norm="ortho"),
        *normals((4, 5)),
        same_again=lambda v: fft.dctn(v, norm="ortho"),
        not_normalised=fft.idctn,
        one_axis=lambda v: fft.idctn(v, norm="ortho", axes=[0]),
    ),
    "sparse operator": _operator(),
    "sparse factors": _factored(),
    "matrix exponential": _exponential(),
    "sylvester": _sylvester(),
    "rosenbrock's gradient": Foreign(  # a Hessian is its own transpose
        optimize.rosen_der,
        lambda v, x: optimize.rosen_hess_prod(x, v),
        normals((6,)),
        {"diagonal alone": lambda v, x: np.diag(optimize.rosen_hess(x)) * v},
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scipys_derivatives_pass_and_their_mistakes_fail(name):
    FUNCTIONS[name].judge()


def _last_entry_forgotten(x):
    grad = optimize.rosen_der(x)
    grad[-1] = 0
    return grad


def _first_neighbour_forgotten(x):
    grad = optimize.rosen_der(x)
    grad[1:-1] -= 200 * (x[1:-1] - x[:-2] ** 2)
    return grad


@pytest.mark.parametrize("wrong", [_last_entry_forgotten, _first_neighbour_forgotten])
def test_rosenbrocks_function(wrong):
    (x,) = normals((8,))
    assert fastcheck.check_gradient(optimize.rosen, optimize.rosen_der, x)
    assert fastcheck.check_gradient(optimize.rosen, wrong, x).verdict == "fail"
