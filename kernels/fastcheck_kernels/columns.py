"""Columns of the table of a network's layers, and of the results for a dimension.

Kernels know a network by arrays alone, so that a new network compiles nothing. ``net`` is the tuple of arrays that
`fastcheck.networks.program.Program` makes:

- ``table``: int64 (layers, `COLUMNS`), in order of evaluation; row 0 is the network's input,
- ``starts`` and ``spots``: the pixels that meet, see `fastcheck_kernels.layers`; ``lookup``: the input pixel for every
  tap and output pixel of a layer with weights, -1 for padding,
- ``reals``: numbers and factors of layers; ``params``: every parameter; ``packed``: weights in the order of tiles.

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
    OWNER,
) = range(20)
"""Columns of the table: kind; rows of both inputs; channels and pixels; offset of the cached lanes; first row of
``starts``; first entry of ``lookup``; taps (of a prelu: 1, or 0 where all channels have one slope); filters and input
channels of a group; first weight and bias (-1 for none);
offsets of packed weights and initial values; first of ``reals``; offset of the cached normalised input; the tables and
packed weights of the transposed layer (by input pixel); and the row of the layer whose parameters it uses, its own or
one that it shares (-1 without parameters)."""

COLUMNS = 20

NUMERIC, RIGHT, LEFT, KINKS, WIDENING, JUMP, HERE = range(7)
"""Columns of the results for a dimension. Summed over data points: the loss at +h minus that at -h, at +h minus the
cached one, and the cached one minus that at -h. Then the number of kinks crossed, a bound on their effect, the part of
that for kinks at the point itself, and the number of those that change any later result, whatever the cotangents."""

FOUND = 7

AT_POINT = 2.0**-20
"""A kink lies at the point itself if its distance is below this fraction of the perturbation."""
