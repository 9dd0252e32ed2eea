"""Convolutions: geometry, evaluators, error bars, audit."""
