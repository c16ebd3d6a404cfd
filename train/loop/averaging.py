"""The mean of several models' weights.

Models that were trained further from one start lie close enough for their mean to be a model too,
often a better one than each of them (Izmailov et al. 2018; Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cnerta.models.errors import CheckpointError
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint
from cnerta.models.networks.tagger import SpeechTagger

__all__ = ["average_checkpoints"]


@torch.no_grad()
def average_checkpoints(paths: Sequence[Path]) -> Checkpoint:
    """Average checkpoints.

    Args:
        paths: Their folders, at least two.

    Returns:
        A model with the mean of their weights. It has no scores until it is evaluated.

    Raises:
        CheckpointError: There are fewer than two, one cannot be read, or they are not of the same
            composition, characters, units and labels.
    """
    if len(paths) < 2:
        raise CheckpointError(f"expected at least two checkpoints, got {len(paths)}")
    first = load_checkpoint(paths[0])
    weights = {n: w.double() for n, w in first.model.state_dict().items()}
    for path in paths[1:]:
        other = load_checkpoint(path).model
        if _composition(other) != _composition(first.model):
            raise CheckpointError(
                f"expected a model of the same composition, characters, units and labels as "
                f"{paths[0]}, got another in {path}"
            )
        for name, weight in other.state_dict().items():
            weights[name] += weight
    for name, weight in first.model.state_dict().items():
        mean = weights[name] / len(paths)
        weight.copy_(mean if weight.is_floating_point() else mean.round())
    # The paths on this machine are left out.
    names = ("/".join(path.resolve().parts[-2:]) for path in paths)
    provenance = {**first.provenance, "average": ", ".join(names)}
    return Checkpoint(first.name, first.model, provenance, {})


def _composition(model: SpeechTagger) -> tuple[object, ...]:
    vocabulary = model.vocabulary
    tags = (model.scheme.kind, model.scheme.tags)
    architectures = (model.text_architecture, model.acoustic_architecture)
    return (model.config, vocabulary.sha256, tags, architectures)
