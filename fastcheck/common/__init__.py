"""What every room uses: errors, names, arguments, files, the machine."""
