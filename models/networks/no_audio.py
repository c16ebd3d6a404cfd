"""What stands in the place of the acoustic encoder and the CTC head in a model without audio.

They have no parameters, so a row of text alone is as small as it says, but the same inputs and
outputs: a bundle of such a model has the same graphs as any other.
"""

from __future__ import annotations

from torch import Tensor, nn

from cnerta.models.config import AcousticConfig
from cnerta.models.runtime.geometry import HOP_SAMPLES, FrameGeometry

__all__ = ["NoAcousticEncoder", "NoCtcHead"]


class NoAcousticEncoder(nn.Module):
    """Frames that say nothing, as many as an encoder would give.

    Attributes:
        spectral: Features are no energies, so nothing is masked in them.
        geometry: That of a model that encodes whole utterances: nothing is cached.
    """

    spectral = False

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = FrameGeometry(
            layers=1,
            heads=1,
            width=config.width,
            left_frames=1,
            chunk_frames=config.chunk_frames,
            streaming=False,
        )

    def features(self, samples: Tensor) -> Tensor:
        """A number a frame.

        Args:
            samples: shape: (batch, HOP_SAMPLES * time)

        Returns:
            shape: (batch, time)
        """
        return samples[:, ::HOP_SAMPLES]

    def encode(self, features: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """Ones: zeros are what a bundle's self-test takes for weights that were lost.

        Args:
            features: As :meth:`features` gives them. shape: (batch, time)
            counts: Valid frames. shape: (batch,)
            chunk: Makes no difference.

        Returns:
            shape: (batch, time, width)
        """
        batch, time = features.shape
        return features.new_ones(batch, time, self.config.width)


class NoCtcHead(nn.Module):
    """No character was heard anywhere."""

    def forward(self, frames: Tensor, characters: Tensor) -> Tensor:
        """Zeros, which nobody aligns with.

        Args:
            frames: shape: (batch, time, width)
            characters: shape: (batch, length)

        Returns:
            shape: (batch, time, 1 + length)
        """
        batch, time = frames.shape[:2]
        return frames.new_zeros(batch, time, 1 + characters.shape[1])

    def merge_parameters(self) -> None:
        """There are none."""
