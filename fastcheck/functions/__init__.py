"""Functions of arrays: noise, steps, kinks."""
