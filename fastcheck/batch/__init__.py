"""Batch runs: a suite of cases from one file, with results kept in a ledger that survives a kill."""
