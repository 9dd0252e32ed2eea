"""The compiled loop around a user's compiled loss."""

import numba
import numpy as np
import pytest

from fastcheck_kernels.calls import is_compiled, loop

pytestmark = pytest.mark.jit

X = np.arange(4.0)
DIMS, POINTS = np.array([0, 3]), np.array([[1.0, 2.0], [6.0, 7.0]])


def test_values_are_those_of_single_calls():
    loss = numba.njit(lambda p: (p**2).sum())
    params = X.copy()
    values = loop(loss)(params, params, DIMS, POINTS)
    expected = [[15.0, 9.0], [50.0, 54.0]]
    assert np.array_equal(values, expected)
    assert np.array_equal(params, X)


def test_a_tuple_of_arrays_is_moved_in_place():
    loss = numba.njit(lambda p: p[0][1, 1] * p[1].sum())
    weight, bias = np.eye(2), X.copy()
    values = loop(loss)((weight, bias), weight.reshape(-1), DIMS, POINTS)
    assert np.array_equal(values, [[6.0, 12.0], [6.0, 42.0]])
    assert np.array_equal(weight, np.eye(2))


def test_a_loss_that_raises_gives_nan():
    @numba.njit
    def loss(p):
        if p[0] > 5:
            raise ValueError("outside")
        return p.sum()

    params = X.copy()
    values = loop(loss)(params, params, DIMS, POINTS)
    assert np.array_equal(values, [[7.0, 5.0], [np.nan, 10.0]], equal_nan=True)
    assert np.array_equal(params, X)


def test_it_is_compiled_once_for_a_loss():
    loss = numba.njit(lambda p: p.sum())
    first = loop(loss)
    for _ in range(2):
        loop(loss)(X.copy(), X.copy(), DIMS, POINTS)
    assert loop(loss) is first
    assert len(first.signatures) == 1


@pytest.mark.parametrize(("options", "released"), [({}, False), ({"nogil": True}, True)])
def test_it_releases_the_gil_where_the_loss_does(options, released):
    loss = numba.njit(**options)(lambda p: p.sum())
    assert loop(loss).targetoptions["nogil"] is released


def test_a_loss_on_several_threads_is_called_from_one():
    """Numba's threads may not be started from several."""
    loss = numba.njit(nogil=True, parallel=True)(lambda p: p.sum())
    assert not loop(loss).targetoptions["nogil"]


def test_only_what_is_compiled_without_objects_counts():
    assert is_compiled(numba.njit(lambda p: p.sum()))
    assert not is_compiled(numba.jit(forceobj=True)(lambda p: p.sum()))
    assert not is_compiled(np.sum)
