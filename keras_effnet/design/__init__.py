"""Designing networks: budget, grid, search, and the rival networks."""
