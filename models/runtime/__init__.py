"""A bundle and what runs it, without torch."""
