"""Batch runs: a suite of cases from one file, their results in a ledger that survives being killed."""
