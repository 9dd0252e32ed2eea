"""Shared basics: errors, names, arguments, files, the machine."""
