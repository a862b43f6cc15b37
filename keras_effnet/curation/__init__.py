"""Vectors that describe photos, and what they show about a collection: similar photos, duplicates, wrong labels."""
