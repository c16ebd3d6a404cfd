"""A session on disk: written, read, replayed, inspected."""
