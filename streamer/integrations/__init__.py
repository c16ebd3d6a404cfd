"""Entities inside other people's frameworks, beside the recogniser that they run already."""
