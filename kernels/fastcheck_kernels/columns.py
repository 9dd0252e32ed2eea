"""A network as a table of layers, and what is found for a dimension: what their columns hold.

Nothing depends on a network but arrays, so that a new network compiles nothing. ``net`` is the tuple of arrays
that `fastcheck.program.Program` makes:

- ``table``: int64 (layers, `COLUMNS`), in order of evaluation; row 0 is the network's input,
- ``starts`` and ``spots``: which pixels meet, see `fastcheck_kernels.layers`; ``lookup``: for every tap and output
  pixel of a layer with weights the input pixel, -1 for padding,
- ``reals``: numbers and factors of layers, ``params``: every parameter, ``packed``: weights as tiles read them.

``size`` is (data points, period, lanes, half of the lanes that copies fill).
"""

from __future__ import annotations

(
    KIND,
    A,
    B,
    CHANNELS,
    PIXELS,
    CACHED,
    STARTS,
    LOOKUP,
    TAPS,
    FILTERS,
    PER_GROUP,
    WEIGHT,
    BIAS,
    PACKED,
    INIT,
    REAL,
    EXTRA,
    BACK,
    BACK_PACKED,
) = range(19)
"""Columns of the table: kind, rows of both inputs, channels and pixels, where cached lanes are, first row of
``starts``, first entry of ``lookup``, taps, filters and input channels of a group, first weight and bias (-1 for
none), packed weights and initial values, first of ``reals``, cached normalised input, and the tables and packed
weights of the transposed layer (after all output's pixels)."""

COLUMNS = 19

NUMERIC, RIGHT, LEFT, KINKS, WIDENING, JUMP, HERE = range(7)
"""Columns of what is found for a dimension: sums over data points of the loss at +h less that at -h, at +h less the
cached one, the cached one less that at -h; kinks crossed; what they change at most, and the part of kinks at the point
itself; how many of those there are that change what follows, whatever the cotangents say."""

FOUND = 7

AT_POINT = 2.0**-20
"""A kink lies at the point itself if it is nearer to it than this part of the move."""
