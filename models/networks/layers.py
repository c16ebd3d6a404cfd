"""What the ways of fusion have in common."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from cnerta.models.config import FusionConfig
from cnerta.models.errors import ConfigError

__all__ = ["NEVER", "attend", "feed_forward", "fused_width"]

NEVER: Final = -1e4
"""Among scores before a soft-max: no weight at all, and within half precision."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    *,
    heads: int,
    dropout: nn.Module,
    guidance: Tensor | None = None,
) -> Tensor:
    """Scaled dot-product attention of several heads.

    Args:
        query: shape: (batch, rows, width)
        key: shape: (batch, columns, width)
        value: shape: (batch, columns, width)
        valid: Columns that may be attended to. shape: (batch, columns)
        heads: How many there are; they share the width.
        dropout: Of the weights.
        guidance: What is added to the scores. shape: (batch, heads, rows, columns)

    Returns:
        The heads' results beside one another. shape: (batch, rows, width)
    """
    queries, keys, values = (_split(x, heads) for x in (query, key, value))
    scores = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
    if guidance is not None:
        scores = scores + guidance
    scores = scores.masked_fill(~valid[:, None, None, :], NEVER)
    attended: Tensor = dropout(scores.softmax(dim=-1)) @ values
    return attended.transpose(1, 2).flatten(2)


def fused_width(config: FusionConfig, text_width: int) -> int:
    """Size of the fused representation, where 0 stands for that of the text's.

    Raises:
        ConfigError: The heads cannot share it.
    """
    width = config.width or text_width
    if config.kind in ("cma", "mmi") and width % config.heads:
        raise ConfigError(f"expected a width of {config.heads} equal heads, got {width}")
    return width


def _split(x: Tensor, heads: int) -> Tensor:
    """shape: (batch, heads, rows, size of a head)."""
    batch, rows, width = x.shape
    return x.view(batch, rows, heads, width // heads).transpose(1, 2)


def feed_forward(config: FusionConfig, width: int) -> nn.Sequential:
    """The feed-forward layer of a transformer layer, of the fused width in and out."""
    return nn.Sequential(
        nn.Linear(width, config.feed_forward),
        nn.ReLU() if config.activation == "relu" else nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.feed_forward, width),
    )
