"""How a connection is read from: no more than its share at once, and what becomes of the bytes."""
