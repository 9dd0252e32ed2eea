"""The ledger: finished work on disk."""
