"""Numba kernels of fastcheck: arrays in, arrays out, no decisions."""
