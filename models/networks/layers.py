"""What the ways of fusion have in common."""

from __future__ import annotations

from typing import Final

from torch import nn

from cnerta.models.config import FusionConfig

__all__ = ["NEVER", "feed_forward"]

NEVER: Final = -1e4
"""Among scores before a soft-max: no weight at all, and within half precision."""


def feed_forward(config: FusionConfig) -> nn.Sequential:
    """The feed-forward layer of a transformer layer, of the fused width in and out."""
    return nn.Sequential(
        nn.Linear(config.width, config.feed_forward),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.feed_forward, config.width),
    )
