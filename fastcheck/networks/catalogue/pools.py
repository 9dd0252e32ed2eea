"""The mistakes of pools."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.kinds import AVERAGE, MAX
from fastcheck.networks.mistakes import pooling

_WINNER = "keep the position of each window's largest entry in the forward pass, and add the cotangent there"
_SHARE = "divide the cotangent by the number of entries that the forward pass divides by, and add it to each of them"

POOLS: tuple[Hypothesis, ...] = (
    Hypothesis(
        "every one of several largest entries of a window gets the whole cotangent",
        MAX,
        f"look for input == output as the mask; {_WINNER}",
        pooling.all_ties,
    ),
    Hypothesis(
        "several largest entries of a window share the cotangent",
        MAX,
        f"the check gives it to the first of them, as PyTorch does; {_WINNER}",
        pooling.split_ties,
    ),
    Hypothesis(
        "the last of several largest entries of a window gets the cotangent",
        MAX,
        "the check gives it to the first of them, as PyTorch does: compare with >, not >=",
        pooling.last_tie,
    ),
    Hypothesis("the smallest entry of a window gets the cotangent", MAX, _WINNER, pooling.smallest),
    Hypothesis("the entry largest in size gets the cotangent", MAX, _WINNER, pooling.largest_in_size),
    Hypothesis("the second largest entry of a window gets the cotangent", MAX, _WINNER, pooling.second),
    Hypothesis("the first entry of a window gets the cotangent", MAX, _WINNER, pooling.first_entry),
    Hypothesis("the last entry of a window gets the cotangent", MAX, _WINNER, pooling.last_entry),
    Hypothesis("every entry of a window gets the whole cotangent", MAX, _WINNER, pooling.everywhere),
    Hypothesis("the cotangent is divided among a window, as that of an average", MAX, _WINNER, pooling.averaged),
    Hypothesis(
        "where windows overlap, the last one's cotangent replaces the others'",
        MAX,
        f"use += (np.add.at) in place of =; {_WINNER}",
        pooling.overwritten(pooling.winners),
    ),
    Hypothesis(
        "where windows overlap, the first one's cotangent alone counts",
        MAX,
        f"use += (np.add.at) in place of =; {_WINNER}",
        pooling.overwritten(pooling.winners, last=False),
    ),
    Hypothesis("the average's cotangent is not divided by the size of the window", AVERAGE, _SHARE, pooling.everywhere),
    Hypothesis(
        "the average's cotangent is divided by the size of the window twice", AVERAGE, _SHARE, pooling.averaged_twice
    ),
    Hypothesis(
        "padding is counted in the average's division, or left out, unlike in the forward pass",
        ("avg_pool",),
        f"see count_include_pad; {_SHARE}",
        pooling.averaged_with_padding,
    ),
    Hypothesis(
        "the average's cotangent is divided by the whole window, even where that reaches beyond the padding",
        ("avg_pool",),
        f"see ceil_mode; {_SHARE}",
        pooling.averaged_beyond,
    ),
    Hypothesis("the first entry of a window gets the average's cotangent", AVERAGE, _SHARE, pooling.first_entry),
    Hypothesis(
        "where windows of the average overlap, the last one's part replaces the others'",
        ("avg_pool",),
        f"use += in place of =; {_SHARE}",
        pooling.overwritten(pooling.shares),
    ),
    Hypothesis(
        "windows that reach beyond the map hand nothing back",
        ("max_pool", "avg_pool"),
        "with ceil_mode, the last windows are smaller; go over all outputs, and clip the windows to the map",
        pooling.without_windows_beyond,
    ),
)
