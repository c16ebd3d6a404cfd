"""Ways to run a streaming acoustic graph: with each stream's cache here, or kept on a device."""
