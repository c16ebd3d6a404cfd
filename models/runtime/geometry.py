"""The audio front end's sizes: how samples become frames and what a stream has to carry along.

One acoustic frame is made from a window of samples that ends where the frame ends:

    frame t  sees samples  [hop * t - carry, hop * (t + 1))

The filter bank takes 25 ms windows every 10 ms; two 3×3 convolutions of stride 2 without padding
(section 4.3 of M3T) see 7 of them, 85 ms, and move by 4, 40 ms. So ``carry`` = 45 ms of earlier
samples are needed, zeros at the start of a stream; n hops of new samples give exactly n frames.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CARRY_SAMPLES",
    "HOP_SAMPLES",
    "SAMPLE_RATE",
    "SHIFT_SAMPLES",
    "WINDOW_SAMPLES",
    "FrameGeometry",
    "cache_inputs",
]

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = SAMPLE_RATE * 25 // 1000
SHIFT_SAMPLES = SAMPLE_RATE * 10 // 1000
# What two convolutions of size 3 and stride 2 see, and move by, in windows of the filter bank.
_SEEN_WINDOWS = 3 + 2 * (3 - 1)
_STRIDE_WINDOWS = 2 * 2
HOP_SAMPLES = _STRIDE_WINDOWS * SHIFT_SAMPLES
CARRY_SAMPLES = WINDOW_SAMPLES + (_SEEN_WINDOWS - 1) * SHIFT_SAMPLES - HOP_SAMPLES


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Sizes that a streaming caller of the acoustic graph needs.

    Attributes:
        layers: Transformer layers, each with its own cache.
        heads: Attention heads of each.
        width: Size of a frame.
        left_frames: Frames of left context that the cache holds.
        chunk_frames: Usual frames a call; any number from 1 is allowed.
        sample_rate: In Hz.
        hop_samples: New samples a frame.
        carry_samples: Earlier samples that the next call needs.
        streaming: Whether the graph takes chunks. If not, it takes whole utterances, and what is
            said here of caches and calls does not apply.
        head_size: Numbers that the cache holds of a frame in each head; 0: ``width / heads``.
    """

    layers: int
    heads: int
    width: int
    left_frames: int
    chunk_frames: int
    sample_rate: int = SAMPLE_RATE
    hop_samples: int = HOP_SAMPLES
    carry_samples: int = CARRY_SAMPLES
    streaming: bool = True
    head_size: int = 0

    @property
    def frame_ms(self) -> float:
        """Milliseconds a frame."""
        return 1000.0 * self.hop_samples / self.sample_rate

    @property
    def cache_shape(self) -> tuple[int, int, int, int, int]:
        """Layers, keys or values, heads, frames, size: what a stream keeps between calls."""
        size = self.head_size or self.width // self.heads
        return (self.layers, 2, self.heads, self.left_frames, size)

    def frame_start_ms(self, frame: float) -> float:
        """Where on the audio clock ``frame`` begins and ``frame - 1`` ends.

        Half way between the centres of their windows, ``hop * frame - carry / 2`` in samples: a
        frame speaks for the 40 ms around the centre of the 85 ms it sees. Never negative.
        """
        sample = self.hop_samples * frame - self.carry_samples / 2
        return max(0.0, 1000.0 * sample / self.sample_rate)

    @property
    def chunk_samples(self) -> int:
        """New samples of a usual call."""
        return self.chunk_frames * self.hop_samples


def cache_inputs(layers: int) -> list[str]:
    """Names of the acoustic graph's cache inputs, in order."""
    return [f"{kind}_{layer}" for layer in range(layers) for kind in ("keys", "values")]
