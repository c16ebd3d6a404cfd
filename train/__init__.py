"""Data, recipes, the training loop, metrics and reports."""
