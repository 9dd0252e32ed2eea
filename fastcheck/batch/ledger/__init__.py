"""The ledger: every finished shard and report, on disk."""
