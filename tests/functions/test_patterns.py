"""Patterns: the outputs that an entry can move are exactly those of PyTorch, and entries of one colour share none."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastcheck import FastcheckError
from fastcheck.convolutions.geometry import ConvGeometry
from fastcheck.functions.patterns import Axes, OfOutput, Relation, Sparse
from fastcheck.functions.structure import Structure


def _moved(function, inputs, which):
    """Return which outputs each entry of an input moves: rows are outputs. Inputs are positive, so nothing cancels."""
    tensors = [torch.as_tensor(np.abs(one) + 0.1) for one in inputs]
    jacobian = torch.autograd.functional.jacobian(
        lambda one: function(*tensors[:which], one, *tensors[which + 1 :]), tensors[which]
    )
    return jacobian.reshape(-1, tensors[which].numel()).numpy() != 0


def _pattern_of(pattern, entries):
    """Return a pattern as an array, entry by entry."""
    return np.stack([pattern.owners(np.array([dim])) == 0 for dim in range(entries)], axis=1)


def _refuse_shared(pattern, entries):
    """Check that colours share no output, and that the owners of a whole colour are those of its entries."""
    dims = np.arange(entries)
    colours = pattern.colours(dims)
    assert len(np.unique(colours)) <= pattern.count
    for colour in np.unique(colours):
        group = dims[colours == colour]
        expected = np.full(len(pattern.owners(group)), -1)
        for position, dim in enumerate(group):
            mine = pattern.owners(np.array([dim])) == 0
            assert (expected[mine] == -1).all()
            expected[mine] = position
        assert np.array_equal(pattern.owners(group), expected)


@st.composite
def geometries(draw):
    rank = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 2))
    image = (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)), *(draw(st.integers(3, 7)) for _ in range(rank)))
    weight = (groups * draw(st.integers(1, 2)), image[1] // groups, *(draw(st.integers(1, 3)) for _ in range(rank)))
    options = {
        name: tuple(draw(st.integers(low, high)) for _ in range(rank))
        for name, low, high in (("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2))
    }
    return image, weight, options | {"groups": groups}


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(0, 1000))
def test_a_convolution_has_pytorchs_dependence(geometry, seed):
    image, weight, options = geometry
    try:
        output = ConvGeometry.of(image, weight, **options).output_shape
    except FastcheckError:
        assume(False)
    shapes = {"x": image, "w": weight, "b": weight[:1]}
    assume(image != weight)
    structure = Structure(None, ConvGeometry.of)
    words = f"conv({', '.join(f'{name}={value}' for name, value in options.items())})"
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in shapes.values()]
    function = {1: F.conv1d, 2: F.conv2d}[len(image) - 2]
    for which, name in enumerate(shapes):
        try:
            pattern = structure.pattern(name, words, shapes, {"output": output})
        except FastcheckError:  # the shapes fit either way around
            assume(False)
        moved = _moved(lambda x, w, b: function(x, w, b, **options), arrays, which)
        assert np.array_equal(_pattern_of(pattern, arrays[which].size), moved)
        _refuse_shared(pattern, arrays[which].size)


def test_colours_of_a_convolution():
    geometry = {"x": (4, 6, 28, 28), "w": (64, 3, 3, 3), "b": (64,)}
    structure = Structure(None, ConvGeometry.of)
    words = "conv(padding=2, dilation=2, groups=2)"
    outputs = {"output": (4, 64, 28, 28)}
    counts = [structure.pattern(name, words, geometry, outputs).count for name in geometry]
    # Inputs of one colour lie three apart: their taps, two apart, fall between each other's.
    assert counts == [3 * 3 * 3, 3 * 3 * 3, 1]


@pytest.mark.parametrize(
    ("shape", "output"),
    [((3, 4), (3, 4)), ((4,), (3, 4)), ((3, 1), (3, 4)), ((), (3, 4)), ((1,), (1,)), ((2, 3, 4), (2, 3, 4))],
)
def test_elementwise(shape, output):
    pattern = Structure(None, ConvGeometry.of).pattern("x", "elementwise", {"x": shape}, {"output": output})
    moved = _moved(lambda x, y: x * y, (np.ones(shape), np.ones(output)), 0)
    assert np.array_equal(_pattern_of(pattern, math.prod(shape)), moved)
    assert pattern.count == 1
    _refuse_shared(pattern, math.prod(shape))


def test_per_sample_of_several_outputs():
    outputs = {"output 0": (5, 2), "output 1": (5,)}
    pattern = Structure(None, ConvGeometry.of).pattern("x", "per_sample", {"x": (5, 3)}, outputs)
    _refuse_shared(pattern, 15)
    assert pattern.count == 3
    expected = [*np.repeat(np.arange(5), 2), *range(5)]
    assert pattern.owners(np.arange(1, 15, 3)).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000), st.booleans())
def test_sparse_patterns_are_coloured(outputs, entries, density, seed, as_scipy):
    wanted = np.random.default_rng(seed).random((outputs, entries)) < density
    given_ = scipy.sparse.coo_array(wanted.astype(float)) if as_scipy else wanted
    shapes = {"x": (entries,)}
    pattern = Structure(None, ConvGeometry.of).pattern("x", given_, shapes, {"output": (outputs,)})
    assert np.array_equal(_pattern_of(pattern, entries), wanted)
    _refuse_shared(pattern, entries)
    assert pattern.count >= wanted.sum(1).max()
    some = np.flatnonzero(np.random.default_rng(seed).random(entries) < 0.5)
    assert len(pattern.colours(some)) == len(some)


def test_a_band_has_as_many_colours_as_its_width():
    band = scipy.sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(200, 200))
    pattern = Structure(None, ConvGeometry.of).pattern("x", band, {"x": (200,)}, {"output": (200,)})
    assert isinstance(pattern, Sparse)
    assert pattern.count == 3


def test_an_output_that_nothing_moves():
    pattern = Axes("", (4,), (OfOutput((4,), (Relation(0),)), OfOutput((2, 2), None)))
    assert pattern.count == 1
    assert pattern.owners(np.arange(4)).tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
