"""LiveKit Agents: entities in the transcripts of any speech recogniser.

`EntitySTT` wraps the recogniser of an agent. Its audio and its transcripts go to a session, too,
and each transcript comes out with ``metadata["entities"]``::

    session = AgentSession(
        stt=EntitySTT(deepgram.STT(), lambda: WebSocketConnection.open("ws://127.0.0.1:8765")),
        …
    )

Interim transcripts are passed on at once with what is known, and once more when their entities have
changed. A final transcript waits for its answer, some tens of milliseconds. docs/how-to/agents.md
has an agent that uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterable
from typing import Any, Final

from livekit import rtc
from livekit.agents import stt, utils
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
)
from msgspec import UNSET

from cnerta.streamer.client.stream import StreamOptions
from cnerta.streamer.integrations.entity_session import (
    DEFAULT_OPTIONS,
    Connect,
    EntitySession,
    Found,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity

__all__ = ["EntitySTT"]

_WHOLE_PATIENCE_S: Final = 5.0
"""For an utterance whose audio comes all at once."""
_GROWING: Final = (
    stt.SpeechEventType.INTERIM_TRANSCRIPT,
    stt.SpeechEventType.PREFLIGHT_TRANSCRIPT,
)


class EntitySTT(stt.STT):
    """A recogniser with entities: all that another one does, and ``metadata["entities"]``.

    Each entity is a dictionary: ``id``, ``label``, ``text``, ``start`` and ``end`` (half-open
    offsets in code points into the transcript), ``start_time`` and ``end_time`` (seconds, on the
    clock of the transcript's own; None if unknown), ``confidence``, ``status``, ``parent``, and
    ``suggested_text`` where a glossary writes it otherwise. Without a connection there is no such
    key.

    Args:
        wrapped: The recogniser.
        connect: Opens a connection; asked once for each stream.
        options: What is wanted of the model.
        patience_s: How long a final transcript waits for its entities at most.
    """

    def __init__(
        self,
        wrapped: stt.STT,
        connect: Connect,
        *,
        options: StreamOptions = DEFAULT_OPTIONS,
        patience_s: float = 0.5,
    ) -> None:
        super().__init__(capabilities=wrapped.capabilities)
        self._wrapped = wrapped
        self._connect = connect
        self._options = options
        self._patience_s = patience_s
        # What the wrapped one measures is passed on, rather than measured twice.
        self._recognize_metrics_needed = False
        wrapped.on("metrics_collected", self._on_metrics_collected)

    @property
    def wrapped_stt(self) -> stt.STT:
        """The recogniser."""
        return self._wrapped

    @property
    def model(self) -> str:
        """The recogniser's model."""
        return str(self._wrapped.model)

    @property
    def provider(self) -> str:
        """The recogniser's provider."""
        return str(self._wrapped.provider)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        """Open a stream of the recogniser, and a session for its entities."""
        recognised = self._wrapped.stream(language=language, conn_options=conn_options)
        return _EntityStream(self, recognised, self._connect, self._options, self._patience_s)

    def prewarm(self) -> None:
        """Prewarm the recogniser."""
        self._wrapped.prewarm()

    async def aclose(self) -> None:
        """Listen to the recogniser no more; who made it closes it, as with LiveKit's adapters."""
        self._wrapped.off("metrics_collected", self._on_metrics_collected)

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        event = await self._wrapped.recognize(buffer, language=language, conn_options=conn_options)
        if not event.alternatives:
            return event
        session = EntitySession(self._connect, self._options, paced=False)
        try:
            frame = utils.merge_frames(buffer)
            session.add_audio(bytes(frame.data), _format(frame))
            answer = session.conclude(event.alternatives[0].text)
            return _with_entities(event, await _in_time(answer, _WHOLE_PATIENCE_S), 0.0)
        finally:
            await session.aclose()

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        self._wrapped._update_session_keyterms(keyterms)

    def _push_conversation_item(self, ev: Any) -> None:
        self._wrapped._push_conversation_item(ev)

    def _on_metrics_collected(self, *arguments: Any, **named: Any) -> None:
        self.emit("metrics_collected", *arguments, **named)


class _EntityStream(stt.RecognizeStream):
    """A stream of the recogniser, with a session beside it."""

    def __init__(
        self,
        owner: EntitySTT,
        recognised: stt.RecognizeStream,
        connect: Connect,
        options: StreamOptions,
        patience_s: float,
    ) -> None:
        # The wrapped stream tries again by itself.
        once = dataclasses.replace(DEFAULT_API_CONNECT_OPTIONS, max_retry=0)
        super().__init__(stt=owner, conn_options=once)
        self._recognised = recognised
        self._patience_s = patience_s
        self._session = EntitySession(connect, options, on_change=self._on_change)
        self._growing: stt.SpeechEvent | None = None
        """The newest transcript, while it is not final."""

    async def _run(self) -> None:
        self._recognised.start_time_offset = self.start_time_offset
        tasks = [
            asyncio.create_task(self._forward_input()),
            asyncio.create_task(self._forward_output()),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await utils.aio.cancel_and_wait(*tasks)
            await self._recognised.aclose()
            await self._session.aclose()

    async def _forward_input(self) -> None:
        async for given in self._input_ch:
            if isinstance(given, rtc.AudioFrame):
                self._session.add_audio(bytes(given.data), _format(given))
            try:
                if isinstance(given, rtc.AudioFrame):
                    self._recognised.push_frame(given)
                else:
                    self._recognised.flush()
            except RuntimeError:  # It has ended by itself: reading from it says why.
                return
        with contextlib.suppress(RuntimeError):
            self._recognised.end_input()

    async def _forward_output(self) -> None:
        async for event in self._recognised:
            self.context = self._recognised.context
            if not event.alternatives:
                self._event_ch.send_nowait(event)
            elif event.type in _GROWING:
                self._growing = event
                found = self._session.revise(event.alternatives[0].text, **self._times(event))
                self._emit(event, found)
            elif event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                self._growing = None
                answer = self._session.conclude(event.alternatives[0].text, **self._times(event))
                self._emit(event, await _in_time(answer, self._patience_s))
            else:
                self._event_ch.send_nowait(event)

    def _times(self, event: stt.SpeechEvent) -> dict[str, float | None]:
        """Where the transcript is in the audio that this stream was given."""
        data = event.alternatives[0]
        if data.end_time <= data.start_time:  # Both are 0 where they are not known.
            return {"start_ms": None, "end_ms": None}
        offset = self.start_time_offset
        return {
            "start_ms": 1_000 * max(0.0, data.start_time - offset),
            "end_ms": 1_000 * max(0.0, data.end_time - offset),
        }

    async def _on_change(self, found: Found) -> None:
        growing = self._growing
        if found.final or growing is None or growing.alternatives[0].text != found.text:
            return
        # Never once more as a preflight transcript, which would start another reply.
        again = dataclasses.replace(growing, type=stt.SpeechEventType.INTERIM_TRANSCRIPT)
        with contextlib.suppress(utils.aio.ChanClosed):
            self._emit(again, found)

    def _emit(self, event: stt.SpeechEvent, found: Found | None) -> None:
        self._event_ch.send_nowait(_with_entities(event, found, self.start_time_offset))

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[stt.SpeechEvent]) -> None:
        # The wrapped stream measures; only read, so that the events do not pile up.
        async for _ in event_aiter:
            pass


async def _in_time(answer: asyncio.Future[Found | None], patience_s: float) -> Found | None:
    await asyncio.wait({answer}, timeout=patience_s)
    return answer.result() if answer.done() else None


def _format(frame: rtc.AudioFrame) -> AudioFormat:
    return AudioFormat(sample_rate=frame.sample_rate, channels=frame.num_channels)


def _with_entities(event: stt.SpeechEvent, found: Found | None, offset_s: float) -> stt.SpeechEvent:
    if found is None:
        return event
    first, *others = event.alternatives
    entities = [_as_dictionary(entity, offset_s) for entity in found.entities]
    metadata = {**(first.metadata or {}), "entities": entities}
    return dataclasses.replace(
        event, alternatives=[dataclasses.replace(first, metadata=metadata), *others]
    )


def _as_dictionary(entity: Entity, offset_s: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": entity.id,
        "label": entity.label,
        "text": entity.text,
        "start": entity.start,
        "end": entity.end,
        "start_time": _seconds(entity.start_ms, offset_s),
        "end_time": _seconds(entity.end_ms, offset_s),
        "confidence": entity.confidence,
        "status": entity.status,
        "parent": entity.parent,
    }
    if entity.suggested_text is not UNSET:
        told["suggested_text"] = entity.suggested_text
    return told


def _seconds(time_ms: int | None, offset_s: float) -> float | None:
    return None if time_ms is None else time_ms / 1_000 + offset_s
