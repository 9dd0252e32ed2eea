"""Conv geometry: what arguments mean, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcheck import FastcheckError
from fastcheck.common.arguments import index_of
from fastcheck.convolutions.geometry import ConvGeometry


@given(shape=st.lists(st.integers(1, 9), max_size=5).map(tuple), data=st.data())
def test_index_of_is_numpys(shape, data):
    place = data.draw(st.integers(0, math.prod(shape) - 1))
    assert index_of(place, shape) == tuple(int(i) for i in np.unravel_index(place, shape))


def test_forms_of_the_arguments():
    one = ConvGeometry.of((1, 4, 9, 9), (4, 2, 3, 3), stride=2, padding=1, dilation=1, groups=2)
    many = ConvGeometry.of(
        (1, 4, 9, 9),
        (4, 2, 3, 3),
        stride=np.array([2, 2]),
        padding=np.array([[1, 1], [1, 1]]),
        dilation=[1, 1],
        groups=np.array(2),
    )
    assert one == many
    assert one.output_shape == (1, 4, 5, 5)
    assert ConvGeometry.of((1, 1, 9), (1, 1, 3), padding=np.array("valid")).padding == ((0, 0),)
    assert ConvGeometry.of((1, 1, 9, 8), (1, 1, 3, 3), padding=((0, 1), 2)).padding == ((0, 1), (2, 2))


@pytest.mark.parametrize(
    ("shapes", "arguments", "message"),
    [
        (((1, 2), (1, 2)), {}, r"input has shape \(1, 2\): expected 3, 4 or 5 axes"),
        (((1, 2, 3, 3, 3, 3), (1, 2, 1, 1, 1, 1)), {}, "input has shape .*: expected 3, 4 or 5 axes"),
        (((1, 2, 5, 5), (1, 2, 3)), {}, r"weight has shape \(1, 2, 3\): expected 4 axes"),
        (((0, 2, 5), (1, 2, 3)), {}, r"input is empty: it has shape \(0, 2, 5\)"),
        (((1, 2, 5), (0, 2, 3)), {}, "weight is empty"),
        (((1, 2, 5), (1, 2, 3)), {"stride": 0}, "stride is 0: expected an integer of at least 1"),
        (((1, 2, 5), (1, 2, 3)), {"stride": 1.5}, "stride is 1.5: expected an integer"),
        (((1, 2, 5), (1, 2, 3)), {"stride": True}, "stride is True: expected an integer"),
        (((1, 2, 5, 5), (1, 2, 3, 3)), {"stride": (1, 2, 3)}, "stride is .*: expected one integer, or 2"),
        (((1, 2, 5), (1, 2, 3)), {"dilation": -1}, "dilation is -1"),
        (((1, 2, 5), (1, 2, 3)), {"padding": -1}, "padding is -1: expected an integer of at least 0"),
        (((1, 2, 5), (1, 2, 3)), {"padding": "full"}, "padding is 'full': expected integers, 'same' or 'valid'"),
        (((1, 2, 5), (1, 2, 3)), {"padding": ((1, 2, 3),)}, "padding has the entry"),
        (((1, 2, 5, 5), (1, 2, 3, 3)), {"padding": (1, 2, 3)}, "padding is .*: expected one integer, 2 integers"),
        (((1, 2, 5), (1, 2, 3)), {"padding": "same", "stride": 2}, "padding is 'same' with stride"),
        (((1, 3, 5), (2, 1, 3)), {"groups": 2}, "groups is 2: it must divide the 3 input channels"),
        (((1, 4, 5), (3, 2, 3)), {"groups": 2}, "groups is 2: it must divide the 3 filters"),
        (((1, 4, 5), (2, 3, 3)), {}, "weight has shape .*: axis 1 is 3, expected 4"),
        (((1, 2, 5), (1, 2, 7)), {"padding": 0}, "weight is larger than the padded input along length"),
        (((1, 2, 9, 5), (1, 2, 3, 3)), {"dilation": 3}, "along width .axis 3.: the dilated kernel spans 7"),
    ],
)
def test_refused(shapes, arguments, message):
    with pytest.raises(FastcheckError, match=message):
        ConvGeometry.of(*shapes, **arguments)


def test_work_of_a_dimension_counts_products():
    geometry = ConvGeometry.of((2, 4, 10, 10), (6, 2, 3, 3), padding=1, groups=2)
    assert geometry.products_per_dimension("weight") == 2 * 10 * 10 * 18
    assert geometry.products_per_dimension("input") == 3 * 9 * 18
