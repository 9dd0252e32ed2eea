"""Patterns that programs leave in gradients, fitted to a gradient, its derivatives and the arrays around them."""
