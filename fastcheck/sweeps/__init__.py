"""Sweeps of the step, and the interpretation of their curves."""
