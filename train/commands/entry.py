"""Where ``cnerta-train`` and ``cnerta-evaluate`` start: what they need may not be installed."""

from __future__ import annotations

from cnerta.models.command_line import TRAINING_EXTRAS, needs_extra

__all__ = ["evaluate", "train"]


def train() -> None:
    """Run ``cnerta-train``."""
    with needs_extra("cnerta-train", TRAINING_EXTRAS):
        from cnerta.train.commands.train import main

        main()


def evaluate() -> None:
    """Run ``cnerta-evaluate``."""
    with needs_extra("cnerta-evaluate", TRAINING_EXTRAS):
        from cnerta.train.commands.evaluate import main

        main()
