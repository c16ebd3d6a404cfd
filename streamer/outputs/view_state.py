"""What there is to see of a session: the fold of everything sent and received, without effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from msgspec import UNSET, structs

from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.levels import NO_AUDIO, Levels
from cnerta.streamer.outputs.speakers import voice_of
from cnerta.streamer.session.names.mending import mend
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import (
    AudioAck,
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    RecognisedTranscript,
    ServerMessage,
    SessionGoingAway,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import CharacterReading, Entity

__all__ = ["CAPTIONS_KEPT", "Caption", "ViewState", "fitting"]

CAPTIONS_KEPT = 12
REVISIONS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Caption:
    """One utterance as it is shown.

    Attributes:
        utterance: Its name.
        text: The newest text sent, or the final one answered.
        final: Whether the server has answered the final text.
        audio_used: Whether the answer rests on audio too; known once final.
        readings: How characters were pronounced; known once final, if it was asked for.
        entities: What holds now, in order of the text.
        hidden: Ids of those that are listed but not highlighted.
        latencies_ms: For every entity id, from sending the text to its first answer.
        sent: The last revisions with the time they were sent, in seconds.
        voice: Who speaks; empty if unknown, or not to be shown.
    """

    utterance: str
    text: str = ""
    final: bool = False
    audio_used: bool = True
    readings: tuple[CharacterReading, ...] = ()
    entities: tuple[Entity, ...] = ()
    hidden: frozenset[str] = frozenset()
    latencies_ms: tuple[tuple[str, int], ...] = ()
    final_latency_ms: int | None = None
    sent: tuple[tuple[int, float], ...] = ()
    voice: str = ""

    @property
    def is_text_alone(self) -> bool:
        """Whether the answer rests on the text alone."""
        return self.final and bool(self.text) and not self.audio_used

    def latency_ms(self, entity_id: str) -> int | None:
        """From sending the text to the first answer with this entity."""
        return dict(self.latencies_ms).get(entity_id)

    def _since_sent_ms(self, revision: int, now_s: float) -> int | None:
        sent_s = dict(self.sent).get(revision)
        return None if sent_s is None else round(1_000 * (now_s - sent_s))

    def with_revision(self, revision: Revision, now_s: float) -> Caption:
        """After `revision` was sent."""
        sent = (*self.sent, (revision.revision, now_s))[-REVISIONS_KEPT:]
        return replace(self, text=revision.text, sent=sent)

    def with_entity(self, message: EntityUpsert, now_s: float) -> Caption:
        """After an entity came or changed."""
        new = message.entity
        others = [entity for entity in self.entities if entity.id != new.id]
        latency_ms = self._since_sent_ms(message.revision, now_s)
        latencies = self.latencies_ms
        if self.latency_ms(new.id) is None and latency_ms is not None:
            latencies = (*latencies, (new.id, latency_ms))
        return replace(self, entities=_in_text_order([*others, new]), latencies_ms=latencies)

    def without_entity(self, entity_id: str) -> Caption:
        """After an entity was retracted."""
        left = tuple(entity for entity in self.entities if entity.id != entity_id)
        return replace(self, entities=left)

    def released(self, message: CaptionUpdate) -> Caption:
        """After it was said what of the text may be shown."""
        return replace(self, text=message.text, entities=_in_text_order(message.entities))

    def mended(self) -> Caption:
        """With the glossary's spelling of names that only sound like it.

        They must be settled and fit the text. What is final was mended by the server.
        """
        if self.final:
            return self
        found = [e for e in self.entities if _fits(e, self.text)]
        settled = [
            structs.replace(e, suggested_text=UNSET) if e.status == "tentative" else e
            for e in found
        ]
        mended = mend(self.text, settled)
        if mended is None:
            return self
        return replace(self, text=mended.text, entities=_in_text_order(mended.entities))

    def finished(self, message: UtteranceFinal, now_s: float) -> Caption:
        """After the final answer, which is complete by itself."""
        return replace(
            self,
            text=message.text,
            final=True,
            audio_used=message.audio_used,
            readings=() if message.readings is UNSET else tuple(message.readings),
            entities=_in_text_order(message.entities),
            final_latency_ms=self._since_sent_ms(message.revision, now_s),
        )


def _fits(entity: Entity, text: str) -> bool:
    """Whether a text, which may be newer than the revision that was answered, still has it."""
    return text[entity.start : entity.end] == entity.text


def _in_text_order(entities: Sequence[Entity]) -> tuple[Entity, ...]:
    """Sort by start, an outer entity before the inner ones that start with it."""
    return tuple(sorted(entities, key=lambda entity: (entity.start, -entity.end)))


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything the view shows: the fold of all that was sent and received.

    Attributes:
        status: What the session does, in a word or two.
        model: The model and what it runs on.
        captions: The last utterances, the oldest first.
        audio_ms: Audio sent.
        level_dbfs: Level of the last block sent.
        levels: Levels of the last minute.
        source: What keeps the audio silent, such as "muted"; empty if nothing does.
        behind_live_ms: What the last event said.
        notice: The last warning or error.
        summary: The last message of a finished session.
        recorded: Whether audio, transcripts and messages are kept.
        is_silent: Whether the server says nothing, not even that it is there.
        names_speakers: Whether it is shown who speaks.
        mends: Whether names are shown as the glossary writes them while their text still grows.
    """

    status: str = "connecting"
    model: str = ""
    captions: tuple[Caption, ...] = ()
    audio_ms: float = 0.0
    level_dbfs: float = -math.inf
    levels: Levels = NO_AUDIO
    source: str = ""
    behind_live_ms: int | None = None
    notice: str = ""
    summary: SessionSummary | None = None
    recorded: bool = False
    is_silent: bool = False
    names_speakers: bool = False
    mends: bool = False

    @property
    def shown(self) -> tuple[Caption, ...]:
        """The captions as they are to be shown."""
        if not self.mends:
            return self.captions
        return tuple(caption.mended() for caption in self.captions)

    @property
    def is_stale(self) -> bool:
        """Whether nothing comes from the server at present, so that figures are old."""
        return self.is_silent or self.status == "reconnecting"

    def with_audio(self, audio_ms: float, level_dbfs: float) -> ViewState:
        """After audio was sent."""
        levels = self.levels.with_block(audio_ms, level_dbfs)
        return replace(self, audio_ms=audio_ms, level_dbfs=level_dbfs, levels=levels)

    def sent(self, revision: Revision, now_s: float) -> ViewState:
        """After a revision of the transcript was sent, at `now_s` on a steady clock."""
        return self._changed(
            revision.utterance,
            lambda caption: self._voiced(caption.with_revision(revision, now_s), revision),
            add=True,
        )

    def received(self, message: ServerMessage, now_s: float) -> ViewState:
        """After a message came, at `now_s` on the same clock."""
        match message:
            case SessionReady():
                model = f"{message.model.name} on {_provider(message.model.device)}"
                recorded = message.recorded is True
                return replace(self, status="live", model=model, recorded=recorded)
            case RecognisedTranscript():
                return self  # told as a revision
            case CaptionUpdate():
                return self._changed(
                    message.utterance,
                    lambda caption: self._voiced(caption.released(message), message),
                    add=True,
                )
            case EntityUpsert():
                state = self._changed(
                    message.utterance, lambda caption: caption.with_entity(message, now_s)
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case EntityRetract():
                state = self._changed(
                    message.utterance, lambda caption: caption.without_entity(message.id)
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case UtteranceFinal():
                state = self._changed(
                    message.utterance,
                    lambda caption: self._voiced(caption.finished(message, now_s), message),
                    add=True,
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case WarningMessage():
                return replace(self, notice=f"{message.name}: {message.detail}")
            case ErrorMessage():
                return replace(self, status="refused", notice=f"{message.name}: {message.detail}")
            case SessionGoingAway():
                return replace(self, status=f"going away ({message.reason})")
            case SessionSummary():
                return replace(self, status="ended", summary=message)
            case AudioAck():
                return self

    def connection_changed(self, change: ConnectionChange) -> ViewState:
        """After the connection fell silent, broke, or was made anew."""
        match change.state:
            case "silent" | "heard":
                return replace(self, is_silent=change.state == "silent")
            case "lost" | "waiting":
                changed = replace(self, status="reconnecting")
            case "resumed" | "restarted":
                changed = replace(self, status="live", recorded=change.is_recorded)
        return replace(changed, notice=str(change), is_silent=False)

    def highlighted(self, utterance: str, highlighter: Highlighter) -> ViewState:
        """After it was chosen what is highlighted in an utterance."""

        def choose(caption: Caption) -> Caption:
            found, final = caption.entities, caption.final
            chosen = highlighter.choose(utterance, caption.text, found, final=final)
            return replace(caption, hidden=frozenset(entity.id for entity in found) - chosen)

        return self._changed(utterance, choose)

    def _voiced(self, caption: Caption, told: Revision | CaptionUpdate | UtteranceFinal) -> Caption:
        """After it was told who speaks, if that is to be shown."""
        if not self.names_speakers:
            return caption
        return replace(caption, voice=voice_of(told.speaker, told.channel))

    def _changed(
        self, utterance: str, change: Callable[[Caption], Caption], *, add: bool = False
    ) -> ViewState:
        captions = list(self.captions)
        for index, caption in enumerate(captions):
            if caption.utterance == utterance:
                captions[index] = change(caption)
                break
        else:
            if add:
                captions.append(change(Caption(utterance)))
        return replace(self, captions=tuple(captions[-CAPTIONS_KEPT:]))


def _provider(device: str) -> str:
    """Shorten ``CUDAExecutionProvider`` to ``CUDA``."""
    return device.removesuffix("ExecutionProvider")


def fitting(caption: Caption) -> list[Entity]:
    """What is highlighted and fits the text shown, which may be newer than the revision of it."""
    return [
        entity
        for entity in caption.entities
        if entity.id not in caption.hidden and _fits(entity, caption.text)
    ]
