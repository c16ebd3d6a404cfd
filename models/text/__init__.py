"""Text and words, without torch."""
