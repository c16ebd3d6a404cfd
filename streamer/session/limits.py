"""How much one connection, and its session, may hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from cnerta.streamer.wire.messages import MAX_TEXT_CHARACTERS
from cnerta.streamer.wire.parts import Limits

__all__ = ["ConnectionLimits", "SessionLimits"]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How much one session may hold.

    Attributes:
        retained_ms: Audio without a final transcript that is remembered.
        late_ms: Audio before the newest final that is kept for late transcripts with times.
        slack_ms: How far a transcript's times may be off.
        backlog_ms: Audio that may wait for the engine before some is skipped.
        interim_patience_ms: An interim that has waited longer than this is dropped.
        open_utterances: Utterances without a final transcript.
        pending_finals: Final transcripts that wait for their answer.
        remembered_finals: Ids of answered utterances, to know a repeated one.
        characters_per_s: Text that is tagged for one session in the long run; None: any.
        character_burst: Text that may be tagged at once before that holds.
    """

    retained_ms: int = 60_000
    late_ms: int = 10_000
    slack_ms: int = 200
    backlog_ms: int = 90_000
    interim_patience_ms: int = 2_000
    open_utterances: int = 64
    pending_finals: int = 256
    remembered_finals: int = 4_096
    characters_per_s: float | None = 1_000.0
    character_burst: int = 8_192


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What the server takes from one connection.

    Attributes:
        max_frame_bytes: Longest frame.
        start_timeout_s: How long session.start may take; None: for ever.
        idle_timeout_s: Silence after which the connection is closed; None: never.
        max_audio_ahead_ms: How far audio may run ahead of real time; None: any.
        audio_rate: How much faster than real time audio may come in the long run.
        warn_audio_ahead_ms: From where on the client is warned.
        waiting_bytes: Memory of the messages that wait for a slow reader, about.
        history_bytes: Events that left and are kept for a client that comes back, if it may.
        session: What the session may hold.
    """

    max_frame_bytes: int = 2**20
    start_timeout_s: float | None = 10.0
    idle_timeout_s: float | None = 30.0
    max_audio_ahead_ms: int | None = 60_000
    audio_rate: float = 1.0
    warn_audio_ahead_ms: int = 5_000
    waiting_bytes: int = 4 * 2**20
    history_bytes: int = 2**19
    session: SessionLimits = field(default_factory=SessionLimits)

    def message(self) -> Limits:
        """What the client is told of them."""
        idle_s = self.idle_timeout_s
        return Limits(
            max_frame_bytes=self.max_frame_bytes,
            max_text_characters=MAX_TEXT_CHARACTERS,
            max_open_utterances=self.session.open_utterances,
            max_audio_ahead_ms=self.max_audio_ahead_ms,
            idle_timeout_ms=None if idle_s is None else round(1000 * idle_s),
            retained_audio_ms=self.session.retained_ms,
        )
