"""What the program that made a wrong gradient did: hypotheses that are replayed or fitted, and the failure's shape."""
