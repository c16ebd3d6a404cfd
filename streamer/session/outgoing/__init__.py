"""Messages on their way to the client, and once more after a resume."""
