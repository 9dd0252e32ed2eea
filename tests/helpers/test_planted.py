"""Planted mistakes differ from the right gradient exactly where they say, whichever backward they begin with.

That fastcheck catches each is tested in `tests/convolutions/test_reevaluation.py`.
"""

import naive
import numpy as np
import planted
import pytest
from layer_examples import layer, operands, torch_backward

RICH = layer((2, 4, 9, 9), (6, 2, 3, 3), stride=2, padding=1, dilation=2, groups=2)


@pytest.fixture
def arrays():
    x, w, _ = operands(RICH)
    shape = naive.output_shape(x, w, RICH.stride, RICH.padding, RICH.dilation)
    return x, w, np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("mistake", planted.MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_one_where_it_says(arrays, mistake):
    right, wrong = planted.nothing(RICH, *arrays), mistake(RICH, *arrays)
    assert {name for name in right if not np.array_equal(right[name], wrong[name])} == planted.MISTAKES[mistake]


@pytest.mark.parametrize("mistake", [planted.nothing, *planted.MISTAKES], ids=lambda mistake: mistake.__name__)
def test_mistakes_begin_with_any_backward(monkeypatch, arrays, mistake):
    plain = mistake(RICH, *arrays)
    monkeypatch.setattr(planted, "backward", torch_backward)
    for name, grad in mistake(RICH, *arrays).items():
        np.testing.assert_allclose(grad, plain[name], rtol=1e-12, atol=1e-12, err_msg=name)
