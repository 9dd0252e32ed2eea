"""Convolutions: geometry, evaluators, error bars and audit."""
