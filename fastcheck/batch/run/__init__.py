"""Runs: the plan, the schedulers, resuming."""
