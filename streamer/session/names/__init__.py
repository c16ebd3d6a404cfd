"""Names that are expected: found in a text, and written as they should be."""
