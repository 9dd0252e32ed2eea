"""What can be checked."""
