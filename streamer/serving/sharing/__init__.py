"""What a server needs that shares its port with others, each in a process of its own."""
