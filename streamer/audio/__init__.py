"""Samples in: microphone, files, and the decoding of what clients send."""
