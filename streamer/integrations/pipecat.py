"""Pipecat: a processor that puts entities beside the transcripts of a pipeline.

`EntityProcessor` stands behind the recogniser. It passes every frame on, and pushes an
`EntitiesFrame` whenever the entities of what is being said have changed::

    Pipeline([transport.input(), recogniser, EntityProcessor(connect), …])

with ``connect`` such as ``lambda: WebSocketConnection.open("ws://127.0.0.1:8765")``.
docs/how-to/agents.md has a pipeline that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pipecat.frames.frames import (
    CancelFrame,
    DataFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from cnerta.streamer.client.stream import StreamOptions
from cnerta.streamer.integrations.entity_session import (
    DEFAULT_OPTIONS,
    Connect,
    EntitySession,
    Found,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity

__all__ = ["EntitiesFrame", "EntityProcessor"]

_LAST_ANSWERS_S: Final = 5.0
"""How long the end of the pipeline waits for what is still owed."""


@dataclass
class EntitiesFrame(DataFrame):
    """The entities of one utterance as they stand; a later one takes the place of this.

    Parameters:
        utterance: Name of the utterance, unique in the pipeline.
        text: Its text; the offsets of the entities are code points of it.
        entities: In the order of the text. ``start_ms`` and ``end_ms`` count from the first audio
            frame.
        final: Whether this is the complete answer to a `TranscriptionFrame`; exactly one such
            frame follows each, unless there is no connection.
        audio_used: Whether the final answer rests on audio too.
        interruptible: An interruption drops none of these: what was said stays said.
    """

    utterance: str
    text: str
    entities: tuple[Entity, ...]
    final: bool
    audio_used: bool
    interruptible: bool = field(default=False, init=False)


class EntityProcessor(FrameProcessor):
    """Passes all frames on, and pushes an `EntitiesFrame` after each change.

    No frame waits for an answer, except for the end of the pipeline.

    Args:
        connect: Opens a connection.
        options: What is wanted of the model.
        user_id: Where several people are heard on channels of their own: only this one is listened
            to. None: all audio and transcripts are of one conversation.
        named: What `FrameProcessor` takes.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        options: StreamOptions = DEFAULT_OPTIONS,
        user_id: str | None = None,
        **named: Any,
    ) -> None:
        super().__init__(**named)
        self._user_id = user_id
        self._session = EntitySession(connect, options, on_change=self._on_change)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take what concerns the session from the frame, and pass it on."""
        await super().process_frame(frame, direction)
        is_heard = direction == FrameDirection.DOWNSTREAM and self._is_heard(frame)
        if is_heard and isinstance(frame, EndFrame):
            await self._session.finish(_LAST_ANSWERS_S)
        # Before its answer can come.
        await self.push_frame(frame, direction)
        if not is_heard:
            return
        match frame:
            case InputAudioRawFrame():
                audio_format = AudioFormat(
                    sample_rate=frame.sample_rate, channels=frame.num_channels
                )
                self._session.add_audio(frame.audio, audio_format)
            case InterimTranscriptionFrame():
                self._session.revise(frame.text)
            case TranscriptionFrame():
                self._session.conclude(frame.text)
            case CancelFrame():
                await self._session.aclose()
            case _:
                pass

    async def cleanup(self) -> None:
        """Close the connection."""
        await super().cleanup()
        await self._session.aclose()

    def _is_heard(self, frame: Frame) -> bool:
        if self._user_id is None:
            return True
        match frame:
            case UserAudioRawFrame() | InterimTranscriptionFrame() | TranscriptionFrame():
                return bool(frame.user_id == self._user_id)
            case _:
                return True

    async def _on_change(self, found: Found) -> None:
        await self.push_frame(
            EntitiesFrame(
                utterance=found.utterance,
                text=found.text,
                entities=found.entities,
                final=found.final,
                audio_used=found.audio_used,
            )
        )
