"""Python functions of arrays: their noise, steps, error bars and kinks."""
