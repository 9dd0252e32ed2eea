"""PyTorch without oneDNN, which is no oracle in half precision."""

from contextlib import contextmanager

import torch


@contextmanager
def without_onednn():
    """Run PyTorch's own code: on processors with AMX, oneDNN returns bfloat16 gradients of biases that it never wrote.

    Seen with PyTorch 2.13, in three spatial axes with groups: two calls return different numbers, of 1e13 for 0.1.
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
