"""The entities of one utterance, followed from revision to revision.

Every answer of the tagger is compared with the one before. What goes on keeps its id, what has
changed is told, what is gone is retracted with the reason. Values in, events out; the events get
their ``seq`` later, when they leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, UnsetType, structs

from cnerta.models.runtime.decoding import ScoredSpan
from cnerta.models.runtime.labels import Span, outermost, parents
from cnerta.models.runtime.readings import CharacterReading
from cnerta.models.text.normalisation import NormalisedText
from cnerta.streamer.session.answers import Answer, CharacterTimes, spread_times
from cnerta.streamer.session.names.mending import mend
from cnerta.streamer.session.options import AnswerOptions
from cnerta.streamer.session.revision import PendingRevision
from cnerta.streamer.session.span_matching import TextChange, compare_texts, match_spans
from cnerta.streamer.session.stabiliser import Evidence, is_stable
from cnerta.streamer.wire import parts
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    RetractReason,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Entity, EntityStatus

__all__ = ["EntityTracker"]

Event = EntityUpsert | EntityRetract | UtteranceFinal

_UNSEQUENCED: Final = 0
# Smaller changes of a tentative entity are not worth a message; the final one is exact.
_CONFIDENCE_STEP: Final = 0.05
_TIME_STEP_MS: Final = 80


@dataclass(slots=True)
class _Tracked:
    """An entity, and how well it has held.

    Attributes:
        span: In normalised characters.
        entity: As last sent, or as it would be.
        agreements: Revisions in a row that gave this reading.
        since: When this reading was first given, in seconds.
        is_told: Whether the client knows of it.
        told_parent: The entity around it, as the client knows it.
    """

    span: Span
    entity: Entity
    agreements: int
    since: float
    is_told: bool = False
    told_parent: str | None = None


class EntityTracker:
    """One utterance's entities.

    Attributes:
        answered: The revision that was answered last.
    """

    def __init__(self, utterance: str, new_id: Callable[[], str]) -> None:
        """Begin an utterance.

        Args:
            utterance: The client's id of it.
            new_id: Gives an entity id that was never used before.
        """
        self.answered: PendingRevision | None = None
        self._utterance = utterance
        self._new_id = new_id
        self._tracked: tuple[_Tracked, ...] = ()
        self._encoded_ms: float | None = None

    def __len__(self) -> int:
        return len(self._tracked)

    @property
    def entities(self) -> list[Entity]:
        """Those of the answer that was given last, whether they were told or not."""
        return [tracked.entity for tracked in self._tracked]

    def apply(
        self, revision: PendingRevision, answer: Answer, options: AnswerOptions, now: float
    ) -> list[Event]:
        """Take an answer; the events say what it changes, a final's last of all."""
        kept = _filter(answer.found, options)
        spans = [Span(s.start, s.end, s.label) for s in kept]
        old_spans = [t.span for t in self._tracked]
        old_text = self.answered.normalised.text if self.answered else ""
        change = compare_texts(old_text, revision.normalised.text)
        pairs = match_spans(old_spans, spans, change)
        self.answered, self._encoded_ms = revision, answer.encoded_ms

        gone = sorted(set(range(len(old_spans))) - set(pairs.values()))
        events: list[Event] = [
            self._retraction(
                self._tracked[o], _reason(old_spans[o], change, answer.found, spans), now
            )
            for o in gone
            if self._tracked[o].is_told
        ]
        before = [self._tracked[pairs[n]] if n in pairs else None for n in range(len(spans))]
        ids = [b.entity.id if b else self._new_id() for b in before]
        # What was shown is followed to the end, with all that belongs to it.
        tells = options.interim or any(t.is_told for t in self._tracked)
        tracked: list[_Tracked] = []
        for n, (span, parent) in enumerate(zip(kept, parents(spans), strict=True)):
            parent_id = None if parent is None else ids[parent]
            fresh = _Tracked(spans[n], _entity(revision, answer, span, ids[n], parent_id), 1, now)
            is_news = self._carry_on(fresh, before[n], change, options, now)
            tracked.append(fresh)
            if tells:
                events += self._tell(fresh, tracked, options, now, is_news=is_news)
        self._tracked = tuple(tracked)
        if revision.message.final:
            events.append(self._final(revision, answer, options, now))
        return events

    def tick(self, options: AnswerOptions, now: float) -> list[Event]:
        """Let time pass: entities that have held long enough become stable."""
        events: list[Event] = []
        tells = options.interim or any(t.is_told for t in self._tracked)
        for tracked in self._tracked:
            is_news = False
            if tracked.entity.status == "tentative" and self._is_stable(tracked, options, now):
                tracked.entity = structs.replace(
                    tracked.entity, status="stable", version=_next_version(tracked)
                )
                is_news = True
            if tells:
                events += self._tell(tracked, self._tracked, options, now, is_news=is_news)
        return events

    def retract_all(self, reason: RetractReason, now: float) -> list[Event]:
        """Take everything back: the utterance is forgotten."""
        events: list[Event] = [self._retraction(t, reason, now) for t in self._tracked if t.is_told]
        self._tracked = ()
        return events

    def _carry_on(
        self,
        fresh: _Tracked,
        before: _Tracked | None,
        change: TextChange,
        options: AnswerOptions,
        now: float,
    ) -> bool:
        """Give an entity of this answer the history it has.

        Returns:
            Whether it is news to the client.
        """
        assert self.answered is not None
        status: EntityStatus = "tentative"
        if before is not None:
            if _is_same_reading(before.span, fresh.span, change):
                fresh.agreements, fresh.since = before.agreements + 1, before.since
            status = before.entity.status
            fresh.is_told, fresh.told_parent = before.is_told, before.told_parent
        if self.answered.message.final:
            status = "final"
        elif status == "tentative" and self._is_stable(fresh, options, now):
            status = "stable"
        fresh.entity = structs.replace(fresh.entity, status=status)
        if before is None:
            return True
        if _is_news(before.entity, fresh.entity):
            fresh.entity = structs.replace(fresh.entity, version=_next_version(before))
            return True
        fresh.entity = before.entity
        return False

    def _is_stable(self, tracked: _Tracked, options: AnswerOptions, now: float) -> bool:
        assert self.answered is not None
        evidence = Evidence(
            agreements=tracked.agreements,
            edge_distance=len(self.answered.normalised.text) - tracked.span.end,
            confidence=tracked.entity.confidence,
            age_ms=1000 * (now - tracked.since),
        )
        return is_stable(evidence, options.stabiliser)

    def _tell(
        self,
        tracked: _Tracked,
        all_tracked: Sequence[_Tracked],
        options: AnswerOptions,
        now: float,
        *,
        is_news: bool,
    ) -> list[Event]:
        """Tell of an entity, if it is settled enough for the client and there is anything to tell.

        What is around it is named only when the client knows of that.
        """
        is_early = options.min_status == "stable" and tracked.entity.status == "tentative"
        if is_early and not tracked.is_told:
            return []
        parent = next(
            (
                t.entity.id
                for t in all_tracked
                if t.is_told and t.entity.id == tracked.entity.parent
            ),
            None,
        )
        if tracked.is_told and not is_news:
            if parent == tracked.told_parent:
                return []
            version = _next_version(tracked)
            tracked.entity = structs.replace(tracked.entity, version=version)
        tracked.is_told, tracked.told_parent = True, parent
        return [self._upsert(tracked, now)]

    def _upsert(self, tracked: _Tracked, now: float) -> EntityUpsert:
        assert self.answered is not None
        return EntityUpsert(
            seq=_UNSEQUENCED,
            utterance=self._utterance,
            revision=self.answered.message.revision,
            entity=structs.replace(tracked.entity, parent=tracked.told_parent),
            behind_live_ms=self.answered.behind_live_ms(self._encoded_ms, now),
            speaker=self.answered.speaker,
            channel=self.answered.channel,
        )

    def _retraction(self, tracked: _Tracked, reason: RetractReason, now: float) -> EntityRetract:
        assert self.answered is not None
        return EntityRetract(
            seq=_UNSEQUENCED,
            utterance=self._utterance,
            revision=self.answered.message.revision,
            id=tracked.entity.id,
            reason=reason,
            behind_live_ms=self.answered.behind_live_ms(self._encoded_ms, now),
        )

    def _final(
        self, revision: PendingRevision, answer: Answer, options: AnswerOptions, now: float
    ) -> UtteranceFinal:
        text, entities = revision.message.text, self.entities
        characters = _original_times(revision.normalised, answer.times)
        mended = mend(text, entities, characters) if options.apply_suggestions else None
        return UtteranceFinal(
            seq=_UNSEQUENCED,
            utterance=self._utterance,
            revision=revision.message.revision,
            text=text,
            entities=entities,
            characters=characters,
            time_source=answer.time_source,
            audio_used=answer.encoded_ms is not None,
            behind_live_ms=revision.behind_live_ms(answer.encoded_ms, now),
            readings=_readings(revision.normalised, answer.readings),
            mended=UNSET if mended is None else mended,
            speaker=revision.speaker,
            channel=revision.channel,
        )


def _next_version(tracked: _Tracked) -> int:
    """Version after a change; what the client does not know of has no versions yet."""
    return tracked.entity.version + (1 if tracked.is_told else 0)


def _filter(found: Sequence[ScoredSpan], options: AnswerOptions) -> list[ScoredSpan]:
    """The entities that the client asked for."""
    kept = list(found)
    if not options.nested:
        outer = set(outermost(Span(s.start, s.end, s.label) for s in found))
        kept = [s for s in kept if Span(s.start, s.end, s.label) in outer]
    if options.labels is not None:
        kept = [s for s in kept if s.label in options.labels]
    return kept


def _entity(
    revision: PendingRevision, answer: Answer, span: ScoredSpan, entity_id: str, parent: str | None
) -> Entity:
    """An entity as the client sees it, in the client's own offsets."""
    text = revision.normalised
    start, end = text.original_range(span.start, span.end)
    name = answer.name_of(span)
    return Entity(
        id=entity_id,
        version=1,
        status="tentative",
        label=span.label,
        text=text.original[start:end],
        start=start,
        end=end,
        start_utf16=int(text.utf16[start]),
        end_utf16=int(text.utf16[end]),
        parent=parent,
        start_ms=answer.times[span.start][0] if answer.times else None,
        end_ms=answer.times[span.end - 1][1] if answer.times else None,
        time_source=answer.time_source,
        confidence=round(min(1.0, max(0.0, float(span.confidence))), 4),
        audio_used=answer.encoded_ms is not None,
        glossary=UNSET if name is None else True,
        suggested_text=UNSET if name is None or name.kind == "characters" else name.name.text,
    )


def _is_same_reading(before: Span, after: Span, change: TextChange) -> bool:
    """Whether an entity still gives the same label to the same characters."""
    return (
        before.label == after.label
        and change.is_kept(before)
        and change.moved(before) == frozenset(range(after.start, after.end))
    )


def _is_news(before: Entity, after: Entity) -> bool:
    """Whether the client should hear of a change."""
    return (
        structs.replace(
            after,
            version=before.version,
            confidence=before.confidence,
            start_ms=before.start_ms,
            end_ms=before.end_ms,
        )
        != before
        or abs(after.confidence - before.confidence) >= _CONFIDENCE_STEP
        or _moved_ms(before.start_ms, after.start_ms) >= _TIME_STEP_MS
        or _moved_ms(before.end_ms, after.end_ms) >= _TIME_STEP_MS
    )


def _moved_ms(before: int | None, after: int | None) -> int:
    # One of them unknown means another time source, which is news anyway.
    return 0 if before is None or after is None else abs(after - before)


def _reason(
    old: Span, change: TextChange, found: Sequence[ScoredSpan], spans: Sequence[Span]
) -> RetractReason:
    """Why an old entity has no successor among ``spans``."""
    if not change.is_kept(old):
        return "text_changed"
    place = change.places[old.start]
    assert place is not None, "a kept character has a place"
    moved = Span(place, place + old.end - old.start, old.label)
    if any(Span(s.start, s.end, s.label) == moved for s in found):
        return "filtered"
    if any(s.start < moved.end and moved.start < s.end for s in spans):
        return "superseded"
    return "withdrawn"


def _readings(
    text: NormalisedText, readings: Sequence[CharacterReading] | None
) -> list[parts.CharacterReading] | UnsetType:
    """Readings as the client sees them, in the client's own offsets; unset if not asked for."""
    if readings is None:
        return UNSET
    told: list[parts.CharacterReading] = []
    for heard in readings:
        if not text.is_plain(heard.index):
            continue  # What stands there is no character that is read so, but a figure.
        start, end = text.original_range(heard.index, heard.index + 1)
        (reading, confidence), *others = heard.readings
        told.append(
            parts.CharacterReading(
                start=start,
                end=end,
                start_utf16=int(text.utf16[start]),
                end_utf16=int(text.utf16[end]),
                text=text.original[start:end],
                reading=reading,
                confidence=round(confidence, 4),
                alternatives=[
                    parts.PossibleReading(reading=name, confidence=round(share, 4))
                    for name, share in others
                ],
            )
        )
    return told


def _original_times(text: NormalisedText, times: CharacterTimes) -> list[tuple[int, int]]:
    """[start_ms, end_ms] of each code point as the client sent it.

    What is not spoken (white space, punctuation) takes no time, where the last character ended. A
    token that is said in as many characters as it is written in has their times; any other has its
    time spread evenly.
    """
    if not times:
        return []
    spread: list[tuple[int, int]] = []
    first = 0
    while first < len(times):
        start, end = text.original_range(first, first + 1)
        last = text.normalised_range(start, end)[1]
        now = spread[-1][1] if spread else times[0][0]
        spread += [(now, now)] * (start - len(spread))
        if last - first == end - start:
            spread += times[first:last]
        else:
            spread += spread_times(times[first][0], times[last - 1][1], end - start)
        first = last
    now = spread[-1][1]
    return spread + [(now, now)] * (len(text.original) - len(spread))
