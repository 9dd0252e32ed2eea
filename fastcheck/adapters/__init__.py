"""Other frameworks, one a file, imported only when used."""
