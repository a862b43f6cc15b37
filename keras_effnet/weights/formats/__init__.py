"""Readers and writers for the weight files of every library; NumPy only."""
