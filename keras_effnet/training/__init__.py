"""Recipes, the training run, its checkpoints, and several devices."""
