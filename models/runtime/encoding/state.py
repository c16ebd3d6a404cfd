"""What one stream carries from one acoustic call to the next, and what encodes its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import FrameGeometry

__all__ = ["AcousticState", "ChunkEncoder", "KeptCache"]

Floats = npt.NDArray[np.float32]


class KeptCache:
    """A cache that its encoder keeps, on a device or on another server.

    Whoever holds this may have the next chunk encoded with it. When nobody holds it any more, the
    encoder has its place back: a session that ends, however it ends, gives its place up by that.
    """

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True)
class AcousticState:
    """What one stream carries from one acoustic call to the next.

    Attributes:
        carry: Last samples. shape: (carry_samples,)
        cache: Keys of the first layer, its values, keys of the second, and so on, of the last
            frames, frame ``t`` in place ``t % left_frames``; raw memory, which
            :func:`cnerta.models.runtime.buffers.joined` joins. shape of each: (heads, left_frames,
            size). Or a sign for the cache, where the encoder keeps it.
        position: Number of the next frame.
    """

    carry: Floats
    cache: tuple[bytes, ...] | KeptCache
    position: int

    @classmethod
    def initial(cls, geometry: FrameGeometry) -> AcousticState:
        """The state before the first sample."""
        layers, kinds, *shape = geometry.cache_shape
        nothing = np.zeros(shape, np.float32).tobytes()
        return cls(np.zeros(geometry.carry_samples, np.float32), (nothing,) * (layers * kinds), 0)

    def without_cache(self, geometry: FrameGeometry) -> AcousticState:
        """The state where the cache is lost: the next frames are heard as at a stream's start."""
        return AcousticState(self.carry, AcousticState.initial(geometry).cache, 0)

    def next_carry(self, samples: Floats) -> Floats:
        """The last samples after a chunk. shape: (carry_samples,).

        Args:
            samples: The chunk. shape: (samples,)
        """
        size = len(self.carry)
        if len(samples) < size:
            samples = np.concatenate([self.carry, samples])
        return samples[len(samples) - size :].copy()


class ChunkEncoder(Protocol):
    """Encodes chunks of streams; may be used by several threads."""

    @property
    def faults(self) -> int:
        """Calls that failed where they were to be made, and were made otherwise, so far."""
        ...

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        """Encode one chunk of each stream.

        Whoever has the state of before the last chunk still may encode with it once more.

        Args:
            samples: New samples, 16 kHz, -1 to 1. shape: (batch, n * hop_samples)
            states: State of each stream before them.

        Returns:
            For each stream its n new frames, shape (n, width), and its next state.

        Raises:
            InferenceError: The graph gives frames that are no numbers, or absurd ones, or cannot
                be reached.
        """
        ...

    def reopen(self) -> None:
        """Begin anew where a call hangs.

        Raises:
            Exception: What the runtime raises.
        """
        ...
