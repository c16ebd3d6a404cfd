"""One stream, without I/O: the time is passed in, work is given out and taken back."""
