"""Sweeps of the step, and what a curve says."""
