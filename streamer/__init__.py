"""The streaming session, the server and its clients."""
