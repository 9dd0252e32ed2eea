"""Published layers, seeded data, demos and the benchmark."""
