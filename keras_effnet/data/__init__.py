"""Labelled photos, and batches of them."""
