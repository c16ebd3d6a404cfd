"""Silences of the length a script asks for, in speech whose model chose its own pauses.

Pauses are made twice: the model gets a break, so that it lengthens the syllable before, as
speakers do; then the silence found there is stretched or cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.synthesis.voices import (
    HOP_MS,
    QUIET_DB,
    Samples,
    Script,
    Speech,
    audible_span,
    loudness,
    room_noise,
)

__all__ = ["with_pauses"]

_SEARCH_MS = 25.0  # a pause is looked for this far beyond the break's own time
_REACH_MS = 300.0  # and followed this far from its quietest moment
_FADE_MS = 6.0  # at the edges of a cut


@dataclass(frozen=True, slots=True)
class _Cut:
    """Samples [start, end) are replaced by `length` quiet ones."""

    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class _Shift:
    """What starts at or after `at_ms`, and what ends after it, comes `by_ms` later."""

    at_ms: float
    by_ms: float


def with_pauses(
    script: Script,
    starts: Sequence[float],
    ends: Sequence[float],
    audio: Samples,
    spoken: tuple[str, ...],
) -> Speech:
    """Puts the pauses in, trims the ends and gives every character its time.

    Args:
        script: What was asked.
        starts: Of the syllables, in ms, as the model says; where it gives a boundary time of its
            own, the end before and the start after differ.
        ends: Of the syllables.
        audio: float32 (samples,), 16 kHz, as the model gave it.
        spoken: Readings after sandhi.
    """
    levels = loudness(audio)
    starts, ends = list(starts), list(ends)
    # The model pads both ends with silence that it counts to the outer tokens.
    audible_from, audible_to = audible_span(levels)
    starts[0] = min(max(audible_from, starts[0] - 100.0), ends[0] - HOP_MS)
    ends[-1] = max(audible_to, starts[-1] + HOP_MS)

    cuts: list[_Cut] = []
    shifts: list[_Shift] = []
    syllable = 0
    for word in script.words[:-1]:
        syllable += len(word.syllables)
        before, after = ends[syllable - 1], starts[syllable]
        if word.pause_ms <= 0:
            # The boundary's own token is spoken through: its time is shared.
            ends[syllable - 1] = starts[syllable] = (before + after) / 2
            continue
        quiet_from, quiet_to = _quiet_run(levels, before - _SEARCH_MS, after + _SEARCH_MS)
        # Neither neighbour may lose all of its time.
        quiet_from = max(quiet_from, starts[syllable - 1] + HOP_MS)
        quiet_to = max(min(quiet_to, ends[syllable] - HOP_MS), quiet_from)
        ends[syllable - 1], starts[syllable] = quiet_from, quiet_to
        # Too long a silence loses its middle, too short a one is opened there.
        change = word.pause_ms - (quiet_to - quiet_from)
        middle, half = (quiet_from + quiet_to) / 2, max(-change, 0.0) / 2
        cuts.append(
            _Cut(_samples(middle - half), _samples(middle + half), _samples(max(change, 0.0)))
        )
        shifts.append(_Shift(quiet_to, change))

    origin = max(starts[0] - script.lead_ms, 0.0)
    noise = np.random.default_rng(zlib.crc32(script.text.encode()))
    stop = min(_samples(ends[-1] + script.tail_ms), len(audio))
    samples = _joined(audio, _samples(origin), stop, cuts, noise)
    times = _moved(starts, ends, shifts, origin, len(samples) * 1000 / SAMPLE_RATE)
    return Speech(samples, times, spoken)


def _quiet_run(
    levels: npt.NDArray[np.float64], low_ms: float, high_ms: float
) -> tuple[float, float]:
    """The silence around the quietest moment of [low, high), as [start, end) in ms.

    Empty, at the quietest moment, where nothing is quiet.
    """
    low = min(max(int(low_ms / HOP_MS), 0), len(levels) - 1)
    high = min(max(int(np.ceil(high_ms / HOP_MS)), low + 1), len(levels))
    deepest = low + int(np.argmin(levels[low:high]))
    if levels[deepest] >= QUIET_DB:
        return deepest * HOP_MS, deepest * HOP_MS
    reach = int(_REACH_MS / HOP_MS)
    start = end = deepest
    while start > max(deepest - reach, 0) and levels[start - 1] < QUIET_DB:
        start -= 1
    while end < min(deepest + reach, len(levels)) and levels[end] < QUIET_DB:
        end += 1
    # A level is of 10 ms around the middle of its 5: the windows themselves are quiet throughout.
    return start * HOP_MS - HOP_MS / 2, end * HOP_MS + HOP_MS / 2


def _samples(ms: float) -> int:
    return round(ms * SAMPLE_RATE / 1000)


def _joined(
    audio: Samples, begin: int, stop: int, cuts: Sequence[_Cut], noise: np.random.Generator
) -> Samples:
    """audio[begin:stop] with the cuts made, each edge faded."""
    fade = _samples(_FADE_MS)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    pieces: list[Samples] = []
    for cut in [*cuts, _Cut(stop, stop, 0)]:
        piece = audio[begin : cut.start].copy()
        if len(piece) >= fade:
            if pieces:
                piece[:fade] *= ramp
            if cut.start < stop:
                piece[-fade:] *= ramp[::-1]
        pieces += [piece, room_noise(cut.length, noise)]
        begin = cut.end
    joined: Samples = np.clip(np.concatenate(pieces), -1.0, 1.0)
    return joined


def _moved(
    starts: Sequence[float],
    ends: Sequence[float],
    shifts: Sequence[_Shift],
    origin: float,
    length_ms: float,
) -> tuple[tuple[float, float], ...]:
    """Times in the finished recording: in order and inside it."""
    times: list[tuple[float, float]] = []
    reached = 0.0
    for start, end in zip(starts, ends, strict=True):
        opening = start - origin + sum(s.by_ms for s in shifts if start >= s.at_ms)
        closing = end - origin + sum(s.by_ms for s in shifts if end > s.at_ms)
        opening = min(max(opening, reached), length_ms)
        reached = min(max(closing, opening), length_ms)
        times.append((opening, reached))
    return tuple(times)
