"""Which tensors code changed in place, and whether autograd knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastcheck.frameworks.torch_tensors import Tensor


class Watch:
    """Tensors that a function is given, and what shows that they were changed in place.

    Parameters
    ----------
    values : mapping of str to object
        By name. What is no tensor that requires a gradient is left out.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._tensors = {name: one for name, one in values.items() if isinstance(one, Tensor) and one.requires_grad}
        self._before = self._state()

    def changed(self) -> tuple[list[str], list[str]]:
        """Return which tensors were changed since the last call of this: all, and those that autograd does not know of.

        Autograd's own in-place operations, and functions that call ``ctx.mark_dirty``, give a tensor another node of
        the graph; any change counts up its version.
        """
        before, self._before = self._before, self._state()
        every = [name for name, (version, _) in self._before.items() if version != before[name][0]]
        return every, [name for name in every if self._before[name][1] is before[name][1]]

    def _state(self) -> dict[str, tuple[int, Any]]:
        return {name: (tensor._version, tensor.grad_fn) for name, tensor in self._tensors.items()}
