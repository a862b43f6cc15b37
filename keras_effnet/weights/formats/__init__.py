"""Readers and writers for the weight files of every library, in NumPy alone."""
