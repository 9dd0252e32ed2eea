"""Mistakes of a network's backward pass, layer by layer, that can be replayed."""
