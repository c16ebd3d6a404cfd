"""Recognisers that run on a server elsewhere, each spoken to in its own dialect."""
