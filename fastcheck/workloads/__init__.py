"""Published layers, seeded data, demonstrations, the benchmark."""
