"""Processes that share a port: one accepts, and gives each connection to one of the others."""
