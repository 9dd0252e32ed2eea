"""Checks of what other frameworks differentiate, imported only when used."""
