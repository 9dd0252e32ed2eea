"""How far searches go: short by default, and all the way where FASTCHECK_TESTS is "whole"."""

import os

MOST = {"short": 15, "whole": None}
SIZE = os.environ.get("FASTCHECK_TESTS", "short")
if SIZE not in MOST:
    raise ValueError(f"FASTCHECK_TESTS is {SIZE!r}: expected {' or '.join(MOST)}")


def examples(whole):
    """Return how many examples a search tries that is whole with this many."""
    return min(whole, MOST[SIZE] or whole)


def part(cases):
    """Return the cases of a search, evenly thinned where it is short."""
    return cases[:: -(-len(cases) // examples(len(cases)))]
