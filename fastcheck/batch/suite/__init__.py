"""Suites: reading a SUITE.toml into cases."""
