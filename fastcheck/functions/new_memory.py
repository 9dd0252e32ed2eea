"""New memory that holds nan: what was never written then shows in the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

BLOCKS = 8
"""Arrays of each shape that are filled and freed at first: what compiled code asks for is likely to lie there."""

_MAKERS = ("empty", "empty_like")


@contextmanager
def memory_of_nan(like: Iterable[np.ndarray]) -> Iterator[None]:
    """Fill with nan what ``empty`` and ``empty_like`` of NumPy and PyTorch return during a block.

    Parameters
    ----------
    like : iterable of array
        Arrays of the sizes that compiled code is expected to allocate.
    """
    for array in like:
        blocks = [np.full(array.shape, np.nan) for _ in range(BLOCKS)]
        del blocks
    with ExitStack() as stack:
        for module in filter(None, (np, sys.modules.get("torch"))):
            for name in _MAKERS:
                stack.enter_context(patch.object(module, name, _filled(getattr(module, name))))
        yield


def _filled(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes arrays as another one does, and fills those of real or complex numbers with nan."""

    def filled(*arguments: Any, **options: Any) -> Any:
        made = make(*arguments, **options)
        if isinstance(made, np.ndarray):
            if made.dtype.kind in "fc":
                made.fill(np.nan)
        elif made.is_floating_point() or made.is_complex():
            made.detach().fill_(np.nan)
        return made

    return filled
