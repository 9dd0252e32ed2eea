"""Suites: what a SUITE.toml says."""
