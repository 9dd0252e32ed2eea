"""A tensor's figures, and the verdict that follows from them."""
