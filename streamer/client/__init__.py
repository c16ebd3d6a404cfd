"""A connection to whatever answers: a server, or the engine in this process."""
