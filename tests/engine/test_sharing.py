"""How work is cut into parts for threads."""

from hypothesis import given
from hypothesis import strategies as st

from fastcheck.engine import sharing


@given(count=st.integers(0, 300), pieces=st.integers(1, 40))
def test_ranges_are_alike_and_leave_nothing_out(count, pieces):
    parts = sharing.ranges(count, pieces)
    assert [entry for lo, hi in parts for entry in range(lo, hi)] == list(range(count))
    sizes = [hi - lo for lo, hi in parts]
    assert len(sizes) == min(count, pieces)
    assert not sizes or (min(sizes) >= 1 and max(sizes) - min(sizes) <= 1)
