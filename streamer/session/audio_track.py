"""A stream's audio: decoded, encoded, and kept for as long as an answer may need it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.streamer.audio.decoder import AudioInput
from cnerta.streamer.session.encoder_buffer import Sought, Window, new_encoder_buffer
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.work import EncodedAudio, EncodeWork
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import WarningName
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["AudioTrack"]

Floats = npt.NDArray[np.float32]

_ACK_EVERY_MS: Final = 1_000
_FLOAT_BYTES: Final = 4


class AudioTrack:
    """The audio of one stream.

    Positions are frames, numbered from the start of the stream.

    Attributes:
        unassigned: First frame that was not assigned to an answered final.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        geometry: FrameGeometry,
        limits: SessionLimits,
        warn: Callable[[WarningName, str], None],
    ) -> None:
        """Begin a stream.

        Args:
            audio_format: Of what comes in.
            geometry: The model's frames.
            limits: How much is kept.
            warn: Tells the client.
        """
        self.unassigned = 0
        self._geometry = geometry
        self._limits = limits
        self._warn = warn
        self._decoder = AudioInput(audio_format)
        self._buffer = new_encoder_buffer(geometry)
        self._received_samples = 0
        self._acked_ms = 0
        self._lost_frames = 0
        self._told_lost_frames = 0

    # --- what the client sends --------------------------------------------------------------------

    def add(self, data: bytes) -> int:
        """Take one binary frame.

        Returns:
            Milliseconds of audio it held.

        Raises:
            ProtocolError: A float sample is NaN or infinite, or the engine is far behind.
        """
        before_ms, was_clipped = self._decoder.received_ms, self._decoder.clipped
        self._add_samples(self._decoder.add(data))
        if self._decoder.clipped and not was_clipped:
            self._warn("audio_clipped", "expected samples between -1 and 1; others are cut")
        return self._decoder.received_ms - before_ms

    def change(self, audio_format: AudioFormat) -> None:
        """Go on in another format."""
        self._warn_partial_sample()
        self._add_samples(self._decoder.change(audio_format))

    def finish(self) -> None:
        """No more will come: have everything encoded."""
        self._warn_partial_sample()
        self._add_samples(self._decoder.finish())
        self._buffer.commit(self.received_frames)

    def next_ack_ms(self) -> int | None:
        """What is to be acknowledged now, if anything: audio received, in milliseconds."""
        if self._decoder.received_ms - self._acked_ms < _ACK_EVERY_MS:
            return None
        self._acked_ms = self._decoder.received_ms
        return self._acked_ms

    # --- time -------------------------------------------------------------------------------------

    @property
    def received_ms(self) -> int:
        """Audio received so far, in whole milliseconds of the client's format."""
        return self._decoder.received_ms

    @property
    def received_samples(self) -> int:
        """The same in samples of each channel, exactly."""
        return self._decoder.received_samples

    def expect_again(self) -> None:
        """The client goes on from what was received: an incomplete sample comes once more."""
        self._decoder.drop_partial()

    @property
    def decoded_ms(self) -> float:
        """Audio that has been decoded so far."""
        return 1000 * self._received_samples / self._geometry.sample_rate

    @property
    def received_frames(self) -> int:
        """Whole frames received so far."""
        return self._received_samples // self._geometry.hop_samples

    def frame_at(self, milliseconds: float) -> int:
        """Number of the frame that a time falls into: all before it are complete by then."""
        return self._samples(milliseconds) // self._geometry.hop_samples

    def frames_around(
        self, start_ms: int | None, end_ms: int | None, *, start: int, end: int
    ) -> tuple[int, int]:
        """Frames between two times, give or take the slack; ``start`` and ``end`` for no time."""
        frame_ms, slack_ms = self._geometry.frame_ms, self._limits.slack_ms
        if start_ms is not None:
            start = max(0, math.floor((start_ms - slack_ms) / frame_ms))
        if end_ms is not None:
            end = min(end, math.ceil((end_ms + slack_ms) / frame_ms))
        return start, end

    # --- encoding ---------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The oldest frame that is kept."""
        return self._buffer.first

    @property
    def end(self) -> int:
        """One past the newest frame that an answer can be made from."""
        return self._buffer.end

    @property
    def is_busy(self) -> bool:
        """Whether something is away or has to be encoded."""
        return self._buffer.is_busy

    @property
    def waits_for_answers(self) -> bool:
        """Whether audio is encoded only for answers that are due."""
        return self._buffer.waits_for_answers

    @property
    def backlog_ms(self) -> float:
        """Audio that waits to be encoded."""
        return 1000 * self._buffer.waiting_samples / self._geometry.sample_rate

    def commit(self, milliseconds: float) -> None:
        """Have the audio up to a time encoded at once, as a short chunk if need be."""
        self._buffer.commit(self.frame_at(milliseconds))

    @property
    def may_have_work(self) -> bool:
        """Whether :meth:`next_work` may have some."""
        return self._buffer.may_give

    def next_work(self, due: Sought | None) -> EncodeWork | None:
        """See :meth:`EncoderBuffer.take`."""
        return self._buffer.take(due)

    def encoded(self, encoded: EncodedAudio) -> None:
        """Take back what :meth:`next_work` gave out."""
        self._buffer.give(encoded)
        self._skip_backlog()

    def lose(self) -> None:
        """What :meth:`next_work` gave out cannot be encoded: that audio is missing."""
        count = self._buffer.lose()
        if not count:
            return
        self._lost_frames += count
        # However much it is, the client reads a few lines of it.
        if self._lost_frames >= 2 * self._told_lost_frames:
            self._told_lost_frames = self._lost_frames
            self._warn(
                "audio_lost",
                "expected all audio to be encoded, got a failure inside: "
                f"{round(self._lost_frames * self._geometry.frame_ms)} ms so far are missing",
            )
        self._skip_backlog()

    def levels(self, start: int, end: int) -> Floats:
        """How loud the frames are, as far as they are kept. shape: (time, LEVELS_PER_FRAME)."""
        return self._buffer.levels(start, end)

    def window(self, sought: Sought) -> Window | None:
        """Frames for an answer; None if they have to be encoded first."""
        return self._buffer.window(sought)

    # --- what is kept -----------------------------------------------------------------------------

    def assign(self, end: int) -> None:
        """The audio before ``end`` is that of an answered final."""
        self.unassigned = max(self.unassigned, min(end, self._buffer.end))

    def forget_old(self) -> int | None:
        """Forget the frames that are too old to be asked for.

        Returns:
            The oldest frame that is kept, if audio was forgotten that had not been assigned.
        """
        oldest = self._buffer.end - int(self._limits.retained_ms / self._geometry.frame_ms)
        is_lost = oldest > self.unassigned
        if is_lost:
            self.unassigned = oldest
        late = int(self._limits.late_ms / self._geometry.frame_ms)
        self._buffer.drop_before(max(oldest, self.unassigned - late))
        return oldest if is_lost else None

    @property
    def held_bytes(self) -> int:
        """Memory of all audio that is kept or waits, about."""
        return self._buffer.held_bytes

    def release(self, wanted_bytes: int) -> int:
        """Forget the oldest audio: what was encoded, then what waits.

        Returns:
            Bytes that were given up.
        """
        before = self._buffer.held_bytes
        frames = math.ceil(wanted_bytes / self._buffer.frame_bytes)
        oldest = min(self._buffer.first + frames, self._buffer.end)
        self.unassigned = max(self.unassigned, oldest)
        self._buffer.drop_before(oldest)
        missing = wanted_bytes - (before - self._buffer.held_bytes)
        if missing > 0:
            self._buffer.skip(math.ceil(missing / (4 * self._geometry.hop_samples)))
            self._buffer.drop_before(self._buffer.end)
            self.unassigned = max(self.unassigned, self._buffer.end)
        return before - self._buffer.held_bytes

    # --- inside -----------------------------------------------------------------------------------

    def _samples(self, milliseconds: float) -> int:
        return round(milliseconds * self._geometry.sample_rate / 1000)

    def _add_samples(self, samples: Floats) -> None:
        if not len(samples):
            return
        self._buffer.add(samples)
        self._received_samples += len(samples)
        self._skip_backlog()
        if self._buffer.waiting_samples > 2 * self._samples(self._limits.backlog_ms):
            raise ProtocolError(
                ErrorName.TRY_AGAIN_LATER,
                f"expected the engine to be at most {2 * self._limits.backlog_ms} ms behind, got "
                "more: the server is overloaded",
            )

    def _skip_backlog(self) -> None:
        """Give up audio that has waited for too long: better a gap than an endless delay."""
        if self._buffer.waiting_samples <= self._samples(self._limits.backlog_ms):
            return
        count = self._buffer.skip()
        if count:
            self._warn(
                "audio_skipped",
                f"expected at most {self._limits.backlog_ms} ms of audio to wait, got more: "
                f"{round(count * self._geometry.frame_ms)} ms were skipped",
            )

    def _warn_partial_sample(self) -> None:
        if self._decoder.partial_bytes:
            self._warn(
                "partial_sample_dropped",
                f"expected whole samples at the end, got {self._decoder.partial_bytes} bytes more",
            )
