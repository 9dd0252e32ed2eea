"""Figures of a tensor, and the verdict that they make."""
