"""Reports, their JSON, and the comparison of two gradients."""
