"""What a person types: ``cnerta-train`` and ``cnerta-evaluate``."""
