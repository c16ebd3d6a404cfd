"""Character times finer than frames: a boundary lies where the sound begins or ends.

An alignment is good at which character is where, and poor at where it begins and ends: a frame
stands for 40 ms, and CTC is sure of a character only around its vowel, so that voiceless initials
and fading ends count as blank, above all next to a pause. How loud it is says the rest. Between two
characters' best frames, the longest quiet stretch is the pause between them; before the first and
after the last it is the nearest, and it must be a long one to make the text reach further: sound
that goes on may be of another utterance. Where there is none, the frames' times stay.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.geometry import HOP_SAMPLES, SAMPLE_RATE, FrameGeometry
from cnerta.models.runtime.loudness import power_db

__all__ = ["LEVELS_PER_FRAME", "character_times", "sound_levels"]

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]

_BLOCK_MS = 10
_BLOCK_SAMPLES = SAMPLE_RATE * _BLOCK_MS // 1000
LEVELS_PER_FRAME = HOP_SAMPLES // _BLOCK_SAMPLES

# All set on one half of the words and on the synthesised voice's training sentences; the
# benchmark (tests/benchmarks/alignment.py) reports the other half and the held-out sentences.
_QUIET_SHARE = 0.15  # of the way from the background up to the loudest
_QUIET_DB = 6.0  # least height of that above the background
_RANGE_DB = 50.0  # what is further below the loudest is no background but nothing at all
_PAUSE_MS = 50.0  # between two characters; shorter stretches are the closures of stops
_DIP_MS = 30.0  # before the first and after the last character, shorter stretches are nothing
_SILENCE_MS = 150.0  # what goes on after a shorter one may well be another utterance
_REACH_MS = 300.0  # how far the first start and the last end are looked for
_CORE_MS = 10.0  # around the centre of its best frame, a character is never quiet


def sound_levels(samples: Floats) -> Floats:
    """How loud each 10 ms are, in dB.

    Args:
        samples: 16 kHz, whole frames. shape: (frames * HOP_SAMPLES,)

    Returns:
        shape: (frames, LEVELS_PER_FRAME)
    """
    blocks = samples.reshape(-1, LEVELS_PER_FRAME, _BLOCK_SAMPLES)
    power = np.einsum("tls,tls->tl", blocks, blocks) / _BLOCK_SAMPLES
    return power_db(power)


def character_times(
    alignment: Alignment, first_frame: int, levels: Floats, geometry: FrameGeometry
) -> Times:
    """Start and end of each character in ms on the clock of the received samples.

    Args:
        alignment: Its frames, counted from ``first_frame``.
        first_frame: Number of the alignment's first frame in the stream.
        levels: Of all the aligned frames, see :func:`sound_levels`; none at all leaves the frames'
            own times. shape: (frames, LEVELS_PER_FRAME)
        geometry: The frames' clock.

    Returns:
        Never falling; inside the aligned frames. shape: (length, 2)
    """
    clock = geometry.frame_ms
    offset = geometry.frame_ms * first_frame
    shift = 1000.0 * geometry.carry_samples / 2 / geometry.sample_rate
    starts = np.maximum(0.0, offset + clock * alignment.starts - shift)
    ends = np.maximum(0.0, offset + clock * alignment.ends - shift)
    if len(levels):
        centres = np.asarray(offset + clock * (alignment.peaks + 0.5) - shift, np.float64)
        last = offset + clock * len(levels)
        _to_the_sound(
            starts, ends, centres, _quiet_stretches(levels.ravel(), offset), (offset, last)
        )
    return np.stack([starts, ends], axis=1)


def _quiet_stretches(levels: Floats, offset_ms: float) -> list[tuple[float, float]]:
    """Stretches that are no louder than the background, in ms."""
    ordered = np.sort(levels)
    loudest = float(ordered[int(0.95 * (len(ordered) - 1))])
    background = max(float(ordered[int(0.1 * (len(ordered) - 1))]), loudest - _RANGE_DB)
    if loudest - background < 2 * _QUIET_DB:
        return []  # all speech or all noise
    bound = background + max(_QUIET_DB, _QUIET_SHARE * (loudest - background))
    quiet = np.zeros(len(levels) + 2, np.int8)
    quiet[1:-1] = levels < bound
    edges = np.flatnonzero(quiet[1:] != quiet[:-1])
    stretches = offset_ms + _BLOCK_MS * edges.reshape(-1, 2)
    long = stretches[:, 1] - stretches[:, 0] >= _DIP_MS
    return [(start, end) for start, end in stretches[long].tolist()]


def _to_the_sound(
    starts: Times,
    ends: Times,
    centres: Times,
    stretches: list[tuple[float, float]],
    window: tuple[float, float],
) -> None:
    """Move boundaries, in place, to where the sound is; ``window`` is the aligned audio."""
    length = len(centres)
    first_ms, last_ms = window
    # A pause lies between two characters' cores, or beyond the outermost ones within reach.
    walls = [
        float(starts[0]) - _REACH_MS,
        *centres.tolist(),
        float(ends[-1]) + _REACH_MS,
    ]
    pauses: dict[int, tuple[float, float]] = {}
    is_long: dict[int, bool] = {}
    for start, end in stretches:
        for gap in range(int(centres.searchsorted(start)), int(centres.searchsorted(end)) + 1):
            low = max(start, walls[gap] + _CORE_MS)
            high = min(end, walls[gap + 1] - _CORE_MS)
            if high - low < (_PAUSE_MS if 0 < gap < length else _DIP_MS):
                continue
            if gap == 0:
                is_better = True  # the last of them is the nearest to the first character
            elif gap == length:
                is_better = gap not in pauses  # the first of them is the nearest to the last
            else:
                known = pauses.get(gap)
                is_better = known is None or high - low > known[1] - known[0]
            if is_better:
                pauses[gap] = (low, high)
                is_long[gap] = end - start >= _SILENCE_MS or start <= first_ms or end >= last_ms
    for gap, (low, high) in pauses.items():
        inner = 0 < gap < length
        if gap < length and (inner or is_long[gap] or high > starts[gap]):
            starts[gap] = high
        if gap > 0 and (inner or is_long[gap] or low < ends[gap - 1]):
            ends[gap - 1] = low
