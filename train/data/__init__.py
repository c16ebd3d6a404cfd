"""Corpora in: texts, recordings, pronunciations, word lists."""
