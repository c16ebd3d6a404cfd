"""Sockets, batches, the engine and its metrics."""
