"""How a stream's samples become the frames that a text is tagged with.

Two ways, after what the model can do. A streaming model encodes each sample once, in chunks, as
they come (:class:`ChunkBuffer`). A full-context model sees an utterance as a whole, so it encodes
the samples that an answer is about when the answer is due, and again when there are more of them
(:class:`UtteranceBuffer`): at a final, and before that only so often.

Positions are frames, numbered from the start of the stream. No I/O, no threads, no clock. Asking
for a window changes nothing; only :meth:`EncoderBuffer.take` gives something out.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME, sound_levels
from cnerta.models.runtime.buffers import joined
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.inference import AcousticState
from cnerta.streamer.session.frame_store import FrameStore
from cnerta.streamer.session.work import EncodedAudio, EncodeWork

__all__ = [
    "ChunkBuffer",
    "EncoderBuffer",
    "Sought",
    "UtteranceBuffer",
    "Window",
    "new_encoder_buffer",
]

Floats = npt.NDArray[np.float32]

_INTERIM_MS: Final = 1_000
"""So much new audio comes before a full-context model encodes for an interim answer again."""


@dataclass(frozen=True, slots=True)
class Sought:
    """Frames that an answer is to be made from.

    Attributes:
        utterance: Whose answer.
        is_final: Whether it is the final one.
        oldest: First frame that may be of the utterance.
        first: First frame wanted.
        end: One past the last.
    """

    utterance: str
    is_final: bool
    oldest: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Window:
    """Frames to make an answer from.

    Attributes:
        first: Number of the first.
        frames: shape: (time, width)
    """

    first: int
    frames: Floats

    @property
    def end(self) -> int:
        """One past the number of the last."""
        return self.first + len(self.frames)


class EncoderBuffer(Protocol):
    """What a session needs of either way."""

    @property
    def first(self) -> int:
        """The oldest frame that is kept."""
        ...

    @property
    def end(self) -> int:
        """One past the newest frame that an answer can be made from."""
        ...

    @property
    def waiting_samples(self) -> int:
        """Samples that wait to be encoded whatever comes."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether something is away, or has to be encoded although no answer is due."""
        ...

    def add(self, samples: Floats) -> None:
        """Take new samples."""
        ...

    def commit(self, end: int) -> None:
        """Have the frames before ``end`` ready as soon as can be."""
        ...

    def skip(self, most: int | None = None) -> int:
        """Give up the oldest of the samples that wait.

        Args:
            most: So many frames at most, also while others are being encoded; None: half of what
                waits, but nothing while others are being encoded.

        Returns:
            How many frames those were.
        """
        ...

    @property
    def waits_for_answers(self) -> bool:
        """Whether :meth:`take` gives nothing out but for an answer that is due."""
        ...

    @property
    def may_give(self) -> bool:
        """Whether :meth:`take` may have something; cheaper than to ask for it."""
        ...

    def take(self, due: Sought | None) -> EncodeWork | None:
        """The next samples to encode, unless there are none or the last are not back yet.

        Args:
            due: What an answer that is due is to be made from, where :meth:`window` has none.
        """
        ...

    def give(self, encoded: EncodedAudio) -> None:
        """Take back what :meth:`take` gave out."""
        ...

    def lose(self) -> int:
        """What :meth:`take` gave out cannot be encoded.

        Returns:
            How many frames are missing for good.
        """
        ...

    @property
    def held_bytes(self) -> int:
        """Memory of what is kept and of what waits, about."""
        ...

    @property
    def frame_bytes(self) -> int:
        """Memory of a frame that is kept."""
        ...

    def drop_before(self, number: int) -> None:
        """Forget older frames."""
        ...

    def levels(self, start: int, end: int) -> Floats:
        """How loud the frames are, as far as they are kept. shape: (time, LEVELS_PER_FRAME)."""
        ...

    def window(self, sought: Sought) -> Window | None:
        """Frames for an answer; None if they have to be encoded first."""
        ...


def new_encoder_buffer(geometry: FrameGeometry) -> EncoderBuffer:
    """The way that goes with a model."""
    return ChunkBuffer(geometry) if geometry.streaming else UtteranceBuffer(geometry)


class ChunkBuffer:
    """Encodes in chunks of the usual size, or shorter where an answer waits."""

    def __init__(self, geometry: FrameGeometry) -> None:
        self._geometry = geometry
        self._backlog: deque[Floats] = deque()
        self._backlog_samples = 0
        self._chunk_samples = geometry.chunk_frames * geometry.hop_samples
        self._committed = 0  # frame up to which even a short chunk is encoded at once
        self._away = 0  # frames of the chunk that is away
        self._away_levels = np.zeros((0, LEVELS_PER_FRAME), np.float32)
        self._gap: list[Floats] = []  # levels of what was given up, for which there are no frames
        self._state = AcousticState.initial(geometry)
        self._frames = FrameStore(geometry.width)
        self._levels = FrameStore(LEVELS_PER_FRAME)
        self._state_bytes = 4 * (math.prod(geometry.cache_shape) + geometry.carry_samples)

    @property
    def first(self) -> int:
        """See :class:`EncoderBuffer`."""
        return self._frames.first

    @property
    def end(self) -> int:
        """See :class:`EncoderBuffer`: what has been encoded."""
        return self._frames.end

    @property
    def waiting_samples(self) -> int:
        """See :class:`EncoderBuffer`."""
        return self._backlog_samples

    @property
    def is_busy(self) -> bool:
        """See :class:`EncoderBuffer`."""
        return self._away > 0 or self._committed > self._frames.end

    def add(self, samples: Floats) -> None:
        """See :class:`EncoderBuffer`."""
        self._backlog.append(samples)
        self._backlog_samples += len(samples)

    def commit(self, end: int) -> None:
        """See :class:`EncoderBuffer`: as a short chunk if need be."""
        self._committed = max(self._committed, end)

    def skip(self, most: int | None = None) -> int:
        """See :class:`EncoderBuffer`: better a gap than an endless delay."""
        if self._away and most is None:
            return 0
        waiting = self._backlog_samples // self._geometry.hop_samples
        count = waiting // 2 if most is None else min(most, waiting)
        skipped = self._take_samples(count * self._geometry.hop_samples)
        self._gap.append(sound_levels(skipped))
        self._leave_gap()
        return count

    @property
    def waits_for_answers(self) -> bool:
        """See :class:`EncoderBuffer`."""
        return False

    @property
    def may_give(self) -> bool:
        """See :class:`EncoderBuffer`."""
        if self._away:
            return False
        return self._has_chunk or self._committed > self._frames.end

    @property
    def _has_chunk(self) -> bool:
        return self._backlog_samples >= self._chunk_samples

    def take(self, due: Sought | None) -> EncodeWork | None:
        """See :class:`EncoderBuffer`."""
        if self._away:
            return None
        count = self._geometry.chunk_frames
        if not self._has_chunk:
            count = self._committed - self._frames.end
        if count <= 0:
            return None
        self._away = count
        samples = self._take_samples(count * self._geometry.hop_samples)
        self._away_levels = sound_levels(samples)
        return EncodeWork(samples, self._state)

    def give(self, encoded: EncodedAudio) -> None:
        """See :class:`EncoderBuffer`."""
        assert len(encoded.frames) == self._away, "expected a frame for each hop"
        assert encoded.state is not None, "a chunk leaves a state"
        self._away = 0
        self._state = encoded.state
        self._frames.append(encoded.frames)
        self._levels.append(self._away_levels)
        self._leave_gap()

    def lose(self) -> int:
        """See :class:`EncoderBuffer`: a gap, and what comes after it begins anew."""
        count, self._away = self._away, 0
        self._gap.insert(0, self._away_levels)
        self._leave_gap()
        return count

    @property
    def held_bytes(self) -> int:
        """See :class:`EncoderBuffer`."""
        kept = self._frames.held_bytes + self._levels.held_bytes
        return self._state_bytes + kept + 4 * self._backlog_samples

    @property
    def frame_bytes(self) -> int:
        """See :class:`EncoderBuffer`."""
        return 4 * (self._geometry.width + LEVELS_PER_FRAME)

    def drop_before(self, number: int) -> None:
        """See :class:`EncoderBuffer`."""
        self._frames.drop_before(number)
        self._levels.drop_before(number)

    def levels(self, start: int, end: int) -> Floats:
        """See :class:`EncoderBuffer`."""
        return self._levels.window(start, end)

    def window(self, sought: Sought) -> Window | None:
        """See :class:`EncoderBuffer`."""
        first = max(sought.first, self._frames.first)
        return Window(first, self._frames.window(first, sought.end))

    def _leave_gap(self) -> None:
        """Frames that fit no text, and no state that they would have left; after what is away."""
        if self._away or not self._gap:
            return
        for levels in self._gap:
            self._frames.append(np.zeros((len(levels), self._geometry.width), np.float32))
            self._levels.append(levels)
        self._gap.clear()
        self._state = AcousticState.initial(self._geometry)

    def _take_samples(self, count: int) -> Floats:
        """Take ``count`` samples from the front of the backlog."""
        taken: list[Floats] = []
        missing = count
        while missing:
            block = self._backlog.popleft()
            if len(block) > missing:
                self._backlog.appendleft(block[missing:])
                block = block[:missing]
            taken.append(block)
            missing -= len(block)
        self._backlog_samples -= count
        return joined(taken)


class UtteranceBuffer:
    """Encodes the audio of an answer as a whole.

    A final waits until exactly its audio is encoded. Interims have it encoded at most once in
    ``_INTERIM_MS`` of new audio, over all utterances of the stream; those in between are answered
    from what was encoded last for the same utterance, or from text alone if that was nothing.

    Samples are kept for as long as their frames may be asked for, 64 kB a second.
    """

    def __init__(self, geometry: FrameGeometry) -> None:
        self._none = np.zeros((0, geometry.width), np.float32)
        self._hop = geometry.hop_samples
        self._every = round(_INTERIM_MS / geometry.frame_ms)
        self._rest = np.zeros(0, np.float32)  # samples of a frame that is not whole yet
        self._samples = FrameStore(geometry.hop_samples)
        self._levels = FrameStore(LEVELS_PER_FRAME)
        self._away: Sought | None = None
        self._last: tuple[Sought, Window] | None = None
        self._interim_at = -self._every  # where the stream was when it last encoded for one
        self._failed: tuple[Sought, int] | None = None  # what failed last, and how often

    @property
    def first(self) -> int:
        """See :class:`EncoderBuffer`."""
        return self._samples.first

    @property
    def end(self) -> int:
        """See :class:`EncoderBuffer`: what has been received."""
        return self._samples.end

    @property
    def waiting_samples(self) -> int:
        """See :class:`EncoderBuffer`: none, only answers wait."""
        return 0

    @property
    def is_busy(self) -> bool:
        """See :class:`EncoderBuffer`."""
        return self._away is not None

    def add(self, samples: Floats) -> None:
        """See :class:`EncoderBuffer`."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) - len(joined) % self._hop
        self._rest = joined[whole:].copy()
        if whole:
            self._samples.append(joined[:whole].reshape(-1, self._hop))
            self._levels.append(sound_levels(joined[:whole]))

    def commit(self, end: int) -> None:
        """See :class:`EncoderBuffer`: nothing to do before the answer asks for its window."""

    def skip(self, most: int | None = None) -> int:
        """See :class:`EncoderBuffer`: nothing waits."""
        return 0

    @property
    def waits_for_answers(self) -> bool:
        """See :class:`EncoderBuffer`."""
        return True

    @property
    def may_give(self) -> bool:
        """See :class:`EncoderBuffer`."""
        return self._away is None

    def take(self, due: Sought | None) -> EncodeWork | None:
        """See :class:`EncoderBuffer`."""
        if self._away is not None or due is None:
            return None
        # What was forgotten in the meantime is asked for no more.
        first = max(due.first, self._samples.first)
        samples = self._samples.window(first, due.end)
        if not len(samples):
            return None
        self._away = replace(due, first=first)
        if not due.is_final:
            self._interim_at = self.end
        return EncodeWork(samples.reshape(-1), None)

    def give(self, encoded: EncodedAudio) -> None:
        """See :class:`EncoderBuffer`."""
        assert self._away is not None, "expected work to be outstanding"
        self._last = self._away, Window(self._away.first, encoded.frames)
        self._away = None

    def lose(self) -> int:
        """See :class:`EncoderBuffer`: a final asks once more, then there is no window for it."""
        assert self._away is not None, "expected work to be outstanding"
        lost, self._away = self._away, None
        if not lost.is_final:
            return 0
        before = self._failures(lost)
        self._failed = lost, before + 1
        return lost.end - lost.first if before else 0

    def _failures(self, sought: Sought) -> int:
        """How often the audio of a final could not be encoded."""
        if self._failed is None or not sought.is_final:
            return 0
        failed, count = self._failed
        return count if (failed.utterance, failed.end) == (sought.utterance, sought.end) else 0

    @property
    def held_bytes(self) -> int:
        """See :class:`EncoderBuffer`."""
        last = 0 if self._last is None else self._last[1].frames.nbytes
        return self._samples.held_bytes + self._levels.held_bytes + last

    @property
    def frame_bytes(self) -> int:
        """See :class:`EncoderBuffer`."""
        return 4 * (self._hop + LEVELS_PER_FRAME)

    def drop_before(self, number: int) -> None:
        """See :class:`EncoderBuffer`."""
        self._samples.drop_before(number)
        self._levels.drop_before(number)

    def levels(self, start: int, end: int) -> Floats:
        """See :class:`EncoderBuffer`."""
        return self._levels.window(start, end)

    def window(self, sought: Sought) -> Window | None:
        """See :class:`EncoderBuffer`."""
        last = self._last
        if last is not None and _covers(*last, sought):
            skipped = sought.first - last[1].first
            return Window(sought.first, last[1].frames[skipped:])
        if self._failures(sought) > 1:
            return Window(sought.first, self._none)
        if sought.is_final:
            return None
        if self._away is not None and self._away.utterance == sought.utterance:
            return None
        if self._away is None and self.end - self._interim_at >= self._every:
            return None
        # What was encoded last will not do if its beginning is another utterance's by now.
        is_own = last is not None and last[0].utterance == sought.utterance
        if last is None or not is_own or last[1].first < sought.oldest:
            return Window(sought.first, self._none)
        return last[1]


def _covers(encoded_for: Sought, window: Window, sought: Sought) -> bool:
    """Whether a window is what is sought.

    The beginning of what a final is about may be forgotten while it is encoded; then the rest of
    the window is what is left of it.
    """
    if window.end != sought.end:
        return False
    is_same_final = sought.is_final and encoded_for.utterance == sought.utterance
    return window.first == sought.first or (is_same_final and window.first < sought.first)
