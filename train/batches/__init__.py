"""From examples to tensors."""
