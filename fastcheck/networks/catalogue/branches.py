"""The mistakes of branches, of the order of entries, and of the softmax layer."""

from __future__ import annotations

from fastcheck.networks.catalogue.hypothesis import Hypothesis
from fastcheck.networks.catalogue.kinds import ANY, JOINS
from fastcheck.networks.mistakes import branches, learnt

_ADD = "a cotangent reaches every branch whole; where branches meet again on the way back, they add up"
_ORDER = "undo the reshape of the forward pass with the same shape and the same order of axes"
_SOFTMAX = "compare with s * (v - sum(s * v)), s the output and the sum over the classes"

BRANCHES: tuple[Hypothesis, ...] = (
    Hypothesis("the layer's first branch gets nothing back", JOINS, _ADD, branches.dropped(0)),
    Hypothesis(
        "the skip, or another later branch, gets nothing back",
        JOINS,
        f"look for a skip connection without its own gradient; {_ADD}",
        branches.dropped(1),
    ),
    Hypothesis("the first branch counts twice", JOINS, _ADD, branches.doubled(0)),
    Hypothesis("the skip, or another later branch, counts twice", JOINS, _ADD, branches.doubled(1)),
    Hypothesis("the cotangent is divided among the branches of a sum", ("add",), _ADD, branches.averaged),
    Hypothesis(
        "the branches of a concatenation get each other's part",
        ("concat",),
        "cut the cotangent at the number of channels of the first input, in the order of the forward pass",
        branches.exchanged,
    ),
    Hypothesis(
        "what it hands back is lost: its input is read by other layers too",
        ANY,
        f"look for = in place of += where an activation is used more than once; {_ADD}",
        branches.not_read,
    ),
    Hypothesis(
        "what it hands back is counted twice: its input is read by other layers too",
        ANY,
        f"look for an activation used more than once, whose cotangent is added again; {_ADD}",
        branches.read_twice,
    ),
    Hypothesis("the flat cotangent is taken for channels-last", ("flatten",), _ORDER, branches.channels_last),
    Hypothesis(
        "the flat cotangent is taken for one with all axes reversed",
        ("flatten",),
        f"look for order='F'; {_ORDER}",
        branches.axes_reversed,
    ),
    Hypothesis("rows and columns of the flat cotangent are exchanged", ("flatten",), _ORDER, branches.space_transposed),
    Hypothesis(
        "the cotangents of all data points are reshaped at once, with the data points along the wrong axis",
        ("flatten",),
        f"keep the axis of the data points first; {_ORDER}",
        branches.samples_last,
    ),
    Hypothesis("the diagonal alone is left of the Jacobian", ("softmax",), _SOFTMAX, branches.softmax_diagonal),
    Hypothesis("the sum is held constant", ("softmax",), _SOFTMAX, branches.softmax_without_sum),
    Hypothesis("the cotangent is passed on as it is", ("softmax",), _SOFTMAX, branches.softmax_passes),
    Hypothesis("the factor s is missing", ("softmax",), _SOFTMAX, branches.softmax_sum_only),
    Hypothesis("the gradient is that of a log-softmax", ("softmax",), _SOFTMAX, branches.log_softmax),
    Hypothesis("the softmax is taken over pixels", ("softmax",), _SOFTMAX, branches.softmax_over(1)),
    Hypothesis("the softmax is taken over data points", ("softmax",), _SOFTMAX, branches.softmax_over(2)),
    Hypothesis(
        "nothing is handed back to its input",
        ANY,
        "look for a detached value, an input gradient that is not returned, or one that is not assigned",
        learnt.nothing_back,
    ),
)
