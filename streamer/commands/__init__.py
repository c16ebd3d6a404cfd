"""What a person types: ``cnerta-stream``, ``cnerta-serve`` and the demo."""
