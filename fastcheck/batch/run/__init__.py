"""Runs: planning, scheduling and resuming."""
