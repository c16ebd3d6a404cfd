"""How a stream's samples become the frames that a text is tagged with.

Two ways, after what the model can do. A streaming model encodes each sample once, in chunks, as
they come (:class:`ChunkHearing`). A full-context model sees an utterance as a whole, so it encodes
the samples that an answer is about when the answer is due, and again when there are more of them
(:class:`UtteranceHearing`): at a final, and before that only so often.

Positions are frames, numbered from the start of the stream. No I/O, no threads, no clock.
"""

from __future__ import annotations

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
from cnerta.streamer.session.work import EncodeWork

__all__ = [
    "ChunkHearing",
    "Hearing",
    "Sought",
    "UtteranceHearing",
    "Window",
    "new_hearing",
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


class Hearing(Protocol):
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
        """Whether something is away or has to be encoded."""
        ...

    def add(self, samples: Floats) -> None:
        """Take new samples."""
        ...

    def commit(self, end: int) -> None:
        """Have the frames before ``end`` ready as soon as can be."""
        ...

    def skip(self) -> int:
        """Give up the older half of the samples that wait, unless some are away.

        Returns:
            How many frames those were.
        """
        ...

    def take(self) -> EncodeWork | None:
        """The next samples to encode, unless there are none or the last are not back yet."""
        ...

    def give(self, frames: Floats, state: AcousticState | None) -> None:
        """Take back what :meth:`take` gave out."""
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


def new_hearing(geometry: FrameGeometry) -> Hearing:
    """The way that goes with a model."""
    return ChunkHearing(geometry) if geometry.streaming else UtteranceHearing(geometry)


class ChunkHearing:
    """Encodes in chunks of the usual size, or shorter where an answer waits."""

    def __init__(self, geometry: FrameGeometry) -> None:
        self._geometry = geometry
        self._backlog: deque[Floats] = deque()
        self._backlog_samples = 0
        self._committed = 0  # frame up to which even a short chunk is encoded at once
        self._away = 0  # frames of the chunk that is away
        self._away_levels = np.zeros((0, LEVELS_PER_FRAME), np.float32)
        self._state = AcousticState.initial(geometry)
        self._frames = FrameStore(geometry.width)
        self._levels = FrameStore(LEVELS_PER_FRAME)

    @property
    def first(self) -> int:
        """See :class:`Hearing`."""
        return self._frames.first

    @property
    def end(self) -> int:
        """See :class:`Hearing`: what has been encoded."""
        return self._frames.end

    @property
    def waiting_samples(self) -> int:
        """See :class:`Hearing`."""
        return self._backlog_samples

    @property
    def is_busy(self) -> bool:
        """See :class:`Hearing`."""
        return self._away > 0 or self._committed > self._frames.end

    def add(self, samples: Floats) -> None:
        """See :class:`Hearing`."""
        self._backlog.append(samples)
        self._backlog_samples += len(samples)

    def commit(self, end: int) -> None:
        """See :class:`Hearing`: as a short chunk if need be."""
        self._committed = max(self._committed, end)

    def skip(self) -> int:
        """See :class:`Hearing`: better a gap than an endless delay."""
        if self._away:
            return 0
        count = self._backlog_samples // (2 * self._geometry.hop_samples)
        skipped = self._take_samples(count * self._geometry.hop_samples)
        self._frames.append(np.zeros((count, self._geometry.width), np.float32))
        self._levels.append(sound_levels(skipped))
        self._state = AcousticState.initial(self._geometry)
        return count

    def take(self) -> EncodeWork | None:
        """See :class:`Hearing`."""
        if self._away:
            return None
        count = self._geometry.chunk_frames
        if self._backlog_samples < count * self._geometry.hop_samples:
            count = self._committed - self._frames.end
        if count <= 0:
            return None
        self._away = count
        samples = self._take_samples(count * self._geometry.hop_samples)
        self._away_levels = sound_levels(samples)
        return EncodeWork(samples, self._state)

    def give(self, frames: Floats, state: AcousticState | None) -> None:
        """See :class:`Hearing`."""
        assert len(frames) == self._away, "expected a frame for each hop"
        assert state is not None, "a chunk leaves a state"
        self._away = 0
        self._state = state
        self._frames.append(frames)
        self._levels.append(self._away_levels)

    def drop_before(self, number: int) -> None:
        """See :class:`Hearing`."""
        self._frames.drop_before(number)
        self._levels.drop_before(number)

    def levels(self, start: int, end: int) -> Floats:
        """See :class:`Hearing`."""
        return self._levels.window(start, end)

    def window(self, sought: Sought) -> Window | None:
        """See :class:`Hearing`."""
        first = max(sought.first, self._frames.first)
        return Window(first, self._frames.window(first, sought.end))

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


class UtteranceHearing:
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
        self._wanted: Sought | None = None
        self._away: Sought | None = None
        self._last: tuple[Sought, Window] | None = None
        self._interim_at = -self._every  # where the stream was when it last encoded for one

    @property
    def first(self) -> int:
        """See :class:`Hearing`."""
        return self._samples.first

    @property
    def end(self) -> int:
        """See :class:`Hearing`: what has been received."""
        return self._samples.end

    @property
    def waiting_samples(self) -> int:
        """See :class:`Hearing`: none, only answers wait."""
        return 0

    @property
    def is_busy(self) -> bool:
        """See :class:`Hearing`."""
        return self._away is not None or self._wanted is not None

    def add(self, samples: Floats) -> None:
        """See :class:`Hearing`."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) - len(joined) % self._hop
        self._rest = joined[whole:].copy()
        if whole:
            self._samples.append(joined[:whole].reshape(-1, self._hop))
            self._levels.append(sound_levels(joined[:whole]))

    def commit(self, end: int) -> None:
        """See :class:`Hearing`: nothing to do before the answer asks for its window."""

    def skip(self) -> int:
        """See :class:`Hearing`: nothing waits."""
        return 0

    def take(self) -> EncodeWork | None:
        """See :class:`Hearing`."""
        if self._away is not None or self._wanted is None:
            return None
        wanted, self._wanted = self._wanted, None
        # What was forgotten in the meantime is asked for no more.
        first = max(wanted.first, self._samples.first)
        samples = self._samples.window(first, wanted.end)
        if not len(samples):
            return None
        self._away = replace(wanted, first=first)
        return EncodeWork(samples.reshape(-1), None)

    def give(self, frames: Floats, state: AcousticState | None) -> None:
        """See :class:`Hearing`."""
        assert self._away is not None, "expected work to be outstanding"
        self._last = self._away, Window(self._away.first, frames)
        self._away = None

    def drop_before(self, number: int) -> None:
        """See :class:`Hearing`."""
        self._samples.drop_before(number)
        self._levels.drop_before(number)

    def levels(self, start: int, end: int) -> Floats:
        """See :class:`Hearing`."""
        return self._levels.window(start, end)

    def window(self, sought: Sought) -> Window | None:
        """See :class:`Hearing`."""
        last = self._last
        if last is not None and (last[1].first, last[1].end) == (sought.first, sought.end):
            return last[1]
        if sought.is_final:
            away = self._away
            if away is None or (away.first, away.end) != (sought.first, sought.end):
                self._wanted = sought
            return None
        coming = [w.utterance for w in (self._away, self._wanted) if w is not None]
        if sought.utterance in coming:
            return None
        if not coming and self.end - self._interim_at >= self._every:
            self._wanted, self._interim_at = sought, self.end
            return None
        # What was encoded last will not do if its beginning is another utterance's by now.
        is_own = last is not None and last[0].utterance == sought.utterance
        if last is None or not is_own or last[1].first < sought.oldest:
            return Window(sought.first, self._none)
        return last[1]
