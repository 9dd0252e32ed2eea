"""The tables of the mistakes that a network's backward pass can make."""
