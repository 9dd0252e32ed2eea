"""The index of every dimension of a block, and bounds on the sums of its error bar.

In NumPy that took some fifteen operations a block, each of which gives up the interpreter, so that threads which check
small layers waited for each other (bench/test_batch.py).
"""

from __future__ import annotations

from ._jit import kernel
from .error_bars import ABSOLUTE, ABSORBED, ABSORBED_TERMS, ROUNDING, SQUARES, TERMS

NORM, FOURTHS, NONZERO = range(3)
"""Rows of norms: 2-norm, root of the sum of fourth powers, number of non-zeros."""

PRODUCTS = 3
"""The row after them, of what inputs meet: the sum of the sizes of the products with the outputs."""


@kernel()
def rectangle(lo, hi, left, right, width, dims):
    """Write the flat indices of rows lo <= r < hi and columns left <= c < right of a table of this width."""
    place = 0
    for row in range(lo, hi):
        for column in range(left, right):
            dims[place] = row * width + column
            place += 1


@kernel()
def gather(quotients, columns, inputs, lo, plane, dims, numeric):
    """Take what belongs to inputs from the quotients of a rectangle of positions, some of which are gaps.

    Parameters
    ----------
    quotients : float64 array, shape (channels, positions)
    columns : int64 array
        Positions of the rectangle that are inputs.
    inputs : int64 array, of the same shape
        Their flat indices in channel 0.
    lo, plane : int
        The rectangle's first channel, and inputs in a channel.
    dims, numeric : int64 and float64 arrays, shape (channels * inputs,)
        Flat indices and quotients to fill.
    """
    place = 0
    for row in range(quotients.shape[0]):
        for j in range(columns.size):
            dims[place] = (lo + row) * plane + inputs[j]
            numeric[place] = quotients[row, columns[j]]
            place += 1


@kernel()
def of_inputs(met, weights, positions, lo, rounding, sums):
    """Bound the sums of the inputs of some channels of one group, at some positions.

    Parameters
    ----------
    met : float64 array, shape (4, all positions)
        Norms of what is met at every position, and the sum of its products.
    weights : float64 array, shape (3, all channels)
        Norms of what every channel is multiplied with.
    positions : int64 array
    lo : int
        The first channel; ``sums`` tells how many there are.
    rounding : float
        What products are multiplied by.
    sums : float64 array, shape (6, channels, positions)
        To be filled with the rows that `error_bars.bars` takes.
    """
    for row in range(sums.shape[1]):
        norm, fourths, nonzero = weights[NORM, lo + row], weights[FOURTHS, lo + row], weights[NONZERO, lo + row]
        for j in range(positions.size):
            p = positions[j]
            sums[ABSOLUTE, row, j] = norm * met[NORM, p]
            sums[SQUARES, row, j] = fourths * met[FOURTHS, p]
            sums[TERMS, row, j] = min(nonzero, met[NONZERO, p])
            sums[ABSORBED, row, j] = 0.0
            sums[ABSORBED_TERMS, row, j] = 0.0
            sums[ROUNDING, row, j] = met[PRODUCTS, p] * rounding


@kernel()
def of_weights(v, x, magnitude, pairs, layout, rounding, tiny, sums):
    """Bound the sums of pairs of a filter and a channel, which all taps of the pair have in common.

    Parameters
    ----------
    v, x : float64 arrays, shapes (3, samples, filters) and (3, samples, all channels)
        Norms of the cotangent and of the input.
    magnitude : float64 array, shape (filters,)
        Sums of the sizes of the products of cotangent and outputs.
    pairs : int64 array
        Their flat indices in a table of all filters and the channels of a group.
    layout : int64 array, shape (3,)
        Channels and filters of a group, and the number of channels from one group's first to the next group's.
    rounding : float
        What the products are multiplied by.
    tiny : float
        An accumulator absorbs a term that is so small a part of the sum.
    sums : float64 array, shape (6, pairs)
        To be filled with the rows that `error_bars.bars` takes.
    """
    channels, group, step = layout[0], layout[1], layout[2]
    samples = v.shape[1]
    for k in range(pairs.size):
        f = pairs[k] // channels
        c = pairs[k] - f * channels + f // group * step
        total, squares, left, right = 0.0, 0.0, 0.0, 0.0
        for n in range(samples):
            total += v[NORM, n, f] * x[NORM, n, c]
            squares += v[FOURTHS, n, f] * x[FOURTHS, n, c]
            left += v[NONZERO, n, f]
            right += x[NONZERO, n, c]
        absorbed, terms = 0.0, 0.0
        if samples > 1:
            for n in range(samples):
                size, count = v[NORM, n, f] * x[NORM, n, c], min(v[NONZERO, n, f], x[NONZERO, n, c])
                if size < tiny * total * count:
                    absorbed += size
                    terms += count
        sums[ABSOLUTE, k], sums[SQUARES, k], sums[TERMS, k] = total, squares, min(left, right)
        sums[ABSORBED, k], sums[ABSORBED_TERMS, k] = absorbed, terms
        sums[ROUNDING, k] = magnitude[f] * rounding
