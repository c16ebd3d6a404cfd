"""The protocol's messages and its AsyncAPI document."""
