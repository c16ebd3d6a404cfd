"""One stream: audio and transcript revisions in, work for the engine out; results in, events out.

No I/O, no threads and no clock: the time is passed in, in seconds. The owner asks for work with
:meth:`Session.next_work`, has it run wherever it likes, and brings the result back with
:meth:`Session.work_done`. There is at most one piece of work away in each lane, because a chunk
needs the state the last one left, and an utterance's audio begins where the alignment of the last
one ended.

A revision costs one tagger call over the frames that are there. A final transcript first has the
audio received before it encoded; how, and what interim ones get, is told in
:mod:`cnerta.streamer.session.encoder_buffer`. A newer revision takes the place of an interim one
that has not run yet. The parts:

    options                      what the client asked for
    audio_track                  samples to frames, and what is kept of them
    utterances                   what is open, which finals and interims wait
    revision                     how far a transcript has come on its way to its answer
    placement, clock_skew        where its audio is
    tag_planning                 what the tagger is given for it
    failures                     what becomes of what the engine could not do
    answers                      from what the tagger said to times on the stream's clock
    entity_tracker, stabiliser   from answers to events
    outgoing.held_text           from answers to what may be shown
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from msgspec import UNSET, structs

from cnerta.models.runtime.bundle import Bundle
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.streamer.session.answers import Answer, make_answer
from cnerta.streamer.session.audio_track import AudioTrack
from cnerta.streamer.session.encoder_buffer import Sought
from cnerta.streamer.session.failures import after_failure
from cnerta.streamer.session.final_waits import FinalWaits
from cnerta.streamer.session.held_memory import (
    SESSION_BYTES,
    glossary_bytes,
    revisions_bytes,
    utterances_bytes,
)
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.names.glossary import Glossary
from cnerta.streamer.session.names.mending import mend
from cnerta.streamer.session.options import AnswerOptions, check_labels
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.placement import AudioPlacement
from cnerta.streamer.session.revision import PendingRevision, TaggedRevision
from cnerta.streamer.session.tag_planning import plan_tagging
from cnerta.streamer.session.text_budget import TextBudget
from cnerta.streamer.session.utterances import Utterance, Utterances
from cnerta.streamer.session.work import (
    CompileWork,
    EncodedAudio,
    EncodeWork,
    Lane,
    NormaliseWork,
    Result,
    TaggedText,
    TagWork,
    Work,
    lane_of,
)
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    MAX_TEXT_CHARACTERS,
    AudioAck,
    ServerMessage,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
)
from cnerta.streamer.wire.parts import GlossaryEntry

__all__ = ["Session"]

_SHORT_TEXT: Final = 256
"""Texts up to this length are normalised where they come in, which takes a third of a millisecond;
longer ones beside the event loop."""
_OVERDUE_S: Final = 0.5
"""An utterance of which nothing was answered after so long is answered from text alone: the encoder
is behind, and viewers have seen nothing of it. Only once, because each answer takes time from audio
and so from finals: in the simulation (docs/scale.md) an answer every 2 s doubles their delay."""
_LONG_INTERIM: Final = 4
_NORMALISED_PER_TAGGED: Final = 8
"""So many characters that are normalised beside the loop cost the others as much as one that is
tagged, about."""
_NAMES_PER_TEXT: Final = 8
"""So many characters of names cost as much as one of a text that is tagged, about."""


class Session:
    """The state of one stream.

    Attributes:
        outbox: Where its messages go.
        final_waits: How long its final transcripts wait for the engine.
    """

    def __init__(
        self, bundle: Bundle, start: SessionStart, limits: SessionLimits, outbox: Outbox
    ) -> None:
        """Begin a stream.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know.
        """
        self.outbox = outbox
        self.final_waits = FinalWaits()
        self._bundle = bundle
        self._geometry = bundle.geometry
        self._limits = limits
        self._options = AnswerOptions.starting(start, bundle)
        self._glossary: Glossary | None = None
        self._new_glossary: tuple[GlossaryEntry, ...] | None = None
        self._expect_names(start.glossary)
        # Not a method of this session, or it would hold itself, and its audio, until the garbage
        # collector finds the cycle.
        self._warn = outbox.warn
        self._audio = AudioTrack(start.audio, bundle.geometry, limits, self._warn)
        self._placement = AudioPlacement(bundle, self._audio, limits, self._warn)
        self._utterances = Utterances(limits)
        # Apart, so that interims never keep a final waiting.
        self._budget = TextBudget(limits.characters_per_s, limits.character_burst)
        self._interim_budget = TextBudget(limits.characters_per_s, limits.character_burst // 2)
        self._preparing: PendingRevision | CompileWork | None = None
        self._tagging: PendingRevision | None = None
        self._entity_total = 0
        self._told_interim_failed = False

    # --- what the client sends --------------------------------------------------------------------

    def add_audio(self, data: bytes) -> int:
        """Take one binary frame.

        Returns:
            Milliseconds of audio it held.

        Raises:
            ProtocolError: A float sample is NaN or infinite, or the engine is far behind.
        """
        added_ms = self._audio.add(data)
        self._forget_old()
        ack_ms = self._audio.next_ack_ms()
        if ack_ms is not None:
            self.outbox.put(AudioAck(received_ms=ack_ms))
        return added_ms

    def add_transcript(self, message: Transcript, now: float) -> None:
        """Take one revision of an utterance's text.

        Raises:
            ProtocolError: The text is too long, its times are impossible, or too many final
                transcripts wait for their answer.
        """
        _check(message)
        utterance = self._utterances.get(message.utterance)
        if self._utterances.is_answered(message.utterance) or (utterance and utterance.has_final):
            if self._utterances.is_repeat(message):
                return
            self._warn(
                "utterance_already_final",
                f"expected nothing after the final transcript of {message.utterance!r}, got "
                f"revision {message.revision}",
            )
            return
        if utterance is None:
            utterance = self._open(message, now)
        elif message.revision <= utterance.newest and not self._utterances.is_repeat(message):
            self._warn(
                "revision_not_newer",
                f"expected a revision above {utterance.newest} of {message.utterance!r}, got "
                f"{message.revision}",
            )
            # A final transcript is answered whatever its number (rule 4).
            if not message.final:
                return
        utterance.newest = max(utterance.newest, message.revision)
        self._utterances.heard(utterance)
        self._utterances.drop_interim(utterance)
        if message.final:
            revision = self._pending(message, now)
            self._utterances.add_final(utterance, revision)
            self.final_waits.begin(now)
            self._audio.commit(revision.audio_end_ms)
        elif self._options.interim:
            utterance.wait(self._pending(message, now))

    def update(self, message: SessionUpdate) -> None:
        """Change options from now on.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know.
        """
        options = self._options.updated(message, self._bundle)
        if message.glossary is not UNSET:
            self._expect_names(message.glossary)
        self._options = options
        if not options.interim:
            for utterance in self._utterances:
                utterance.drop()
        if message.audio is not UNSET:
            self._audio.change(message.audio)
            self._forget_old()

    def finish_input(self) -> None:
        """No more will come: have everything encoded and answered that still waits."""
        self._audio.finish()
        self._forget_old()

    def tick(self, now: float) -> None:
        """Let time pass: interims that have waited too long are dropped, entities become stable."""
        for utterance in self._utterances:
            self._drop_stale_interim(utterance, now)
        if self._options.interim:
            for utterance in self._utterances:
                self._send(utterance.tracker.tick(self._options, now))
                self._release(utterance, now)

    def park(self) -> None:
        """The connection is gone: finals are still answered, interims wait for nobody."""
        self._utterances.drop_all_interims()

    def resume(self) -> None:
        """The client is back: it goes on where :attr:`received_samples` ends."""
        self._utterances.resumed()
        self._audio.expect_again()
        for utterance in self._utterances:
            utterance.held.tell_again()

    def is_repeat(self, message: Transcript) -> bool:
        """Whether a transcript is known and comes again because of a resume."""
        return self._utterances.is_repeat(message)

    # --- work for the engine ----------------------------------------------------------------------

    def lanes(self) -> list[Lane]:
        """The lanes that may have work; :meth:`next_work` has none for the others.

        Nearly always there is none: audio comes in frames of 40 ms and less, work in chunks.
        """
        lanes: list[Lane] = []
        revisions = self._utterances.are_waiting
        if revisions and self._tagging is None:
            lanes.append("text")
        if self._preparing is None and (
            self._new_glossary is not None or (revisions and self._utterances.lack_text)
        ):
            lanes.append("preparation")
        if self._audio.may_have_work and (revisions or not self._audio.waits_for_answers):
            lanes.append("audio")
        return lanes

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """What a lane is to do next; nothing while the last piece of work is not back.

        Texts are tagged finals first, in the order they came, then interims, the oldest utterance
        first. A text waits until a new glossary is compiled and until audio that had come before it
        is encoded: for a final all of it, for an interim whole chunks; for the first answer of an
        utterance not longer than half a second.
        """
        match lane:
            case "audio":
                return self._audio.next_work(self._due_audio(now))
            case "preparation":
                return self._next_preparation(now)
            case "text":
                return self._next_text(now)

    def _next_preparation(self, now: float) -> CompileWork | NormaliseWork | None:
        if self._preparing is not None:
            return None
        if self._new_glossary is not None:
            if not self._budget.allows(now):
                return None
            entries, self._new_glossary = self._new_glossary, None
            self._budget.charge(sum(len(e.text) for e in entries) // _NAMES_PER_TEXT, now)
            self._preparing = CompileWork(entries, self._bundle.vocabulary)
            return self._preparing
        if not self._utterances.lack_text:
            return None
        revision = self._due_revision(now)
        if revision is None or revision.text is not None:
            return None
        self._take(revision)
        self._preparing = revision
        self._charge(revision, len(revision.message.text) // _NORMALISED_PER_TAGGED, now)
        return NormaliseWork(revision.message.text)

    def _next_text(self, now: float) -> TagWork | None:
        is_waiting = self._tagging is not None or not self._has_glossary
        revision = None if is_waiting else self._due_revision(now)
        if revision is None or revision.text is None:
            return None
        work = self._plan(revision)
        if not isinstance(work, TagWork):
            return None
        self._take(revision)
        self._tagging = revision
        self._charge(revision, len(work.text), now)
        return work

    def _charge(self, revision: PendingRevision, characters: int, now: float) -> None:
        if revision.is_final:
            self._budget.charge(characters, now)
            return
        # Interim answers that nobody can read in time count more.
        is_too_long = len(revision.message.text) > self._bundle.max_characters
        self._interim_budget.charge(characters * (_LONG_INTERIM if is_too_long else 1), now)

    def _take(self, revision: PendingRevision) -> None:
        """A revision is on its way: an interim waits no longer, a final is still the first."""
        utterance = self._utterances.of(revision)
        if utterance is not None and not revision.is_final:
            utterance.take()

    def work_done(self, work: Work, result: Result | Exception, now: float) -> None:
        """Take back what :meth:`next_work` gave out.

        Raises:
            ProtocolError: A glossary cannot be used, or a final transcript cannot be answered.
        """
        preparing: PendingRevision | CompileWork | None = None
        tagging: PendingRevision | None = None
        match lane_of(work):
            case "preparation":
                preparing, self._preparing = self._preparing, None
            case "text":
                tagging, self._tagging = self._tagging, None
            case "audio":
                pass
        if isinstance(result, ProtocolError):
            raise result
        match result:
            case EncodedAudio():
                self._audio.encoded(result)
                self._forget_old()
            case Glossary():
                self._glossary = result if result.names else None
            case NormalisedText():
                assert isinstance(preparing, PendingRevision), "expected a text to be away"
                self._utterances.put_back(replace(preparing, text=result))
            case TaggedText():
                assert tagging is not None, "expected a text to be away"
                assert isinstance(work, TagWork), "expected the work of this result"
                self._tagged(replace(tagging, pieces=(*tagging.pieces, result)), work, now)
            case Exception():
                self._failed(work, preparing or tagging)

    def _failed(self, work: Work, away: PendingRevision | CompileWork | None) -> None:
        """The engine could not do something: only that is lost.

        Raises:
            ProtocolError: It was the last way to answer a final transcript.
        """
        if isinstance(work, EncodeWork):
            self._audio.lose()
            self._forget_old()
            return
        if not isinstance(away, PendingRevision):
            self._glossary = None
            self._warn("answer_failed", "expected a glossary, got a failure inside: none is used")
            return
        if not away.is_final:
            self._utterances.dropped_interims += 1
            if not self._told_interim_failed:
                self._told_interim_failed = True
                self._warn(
                    "answer_failed",
                    "expected an answer, got a failure inside: an interim "
                    "revision stays unanswered; others may follow",
                )
            return
        had_audio = isinstance(work, TagWork) and work.has_audio
        following = after_failure(away, had_audio=had_audio)
        if following is None:
            raise ProtocolError(ErrorName.INTERNAL, "expected an answer, got an internal error")
        self._utterances.put_back(following)
        if following.scope == "none" and away.scope != "none":
            self._warn(
                "answer_failed",
                f"expected an answer of {away.message.utterance!r} from its audio, "
                "got a failure inside: it is answered from text alone",
            )

    # --- what the owner wants to know -------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """Whether a final transcript waits for its answer."""
        return self._utterances.first_final is not None

    def is_overdue(self, now: float) -> bool:
        """Whether interims of an utterance have waited for half a second, and none was answered."""
        return any(utterance.is_overdue(now, _OVERDUE_S) for utterance in self._utterances)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is away and nothing waits that has to run."""
        return not (
            self.is_urgent
            or self._preparing is not None
            or self._tagging is not None
            or self._new_glossary is not None
            or self._audio.is_busy
            or any(u.waiting for u in self._utterances)
        )

    @property
    def is_holding(self) -> bool:
        """Whether text is held back until it may be shown."""
        return self._options.hold_ms is not None

    @property
    def received_ms(self) -> int:
        """Audio received so far."""
        return self._audio.received_ms

    @property
    def received_samples(self) -> int:
        """The same in samples of each channel, exactly."""
        return self._audio.received_samples

    @property
    def owed(self) -> tuple[str, ...]:
        """The utterances whose finals wait for their answer."""
        return self._utterances.owed

    @property
    def has_unfinished(self) -> bool:
        """Whether there is an utterance without a final transcript."""
        return self._utterances.has_unfinished

    @property
    def dropped_interims(self) -> int:
        """Interim revisions that were never answered."""
        return self._utterances.dropped_interims

    @property
    def backlog_ms(self) -> float:
        """Audio that waits to be encoded."""
        return self._audio.backlog_ms

    @property
    def held_bytes(self) -> int:
        """Memory that the session holds, about."""
        return (
            SESSION_BYTES
            + self._audio.held_bytes
            + utterances_bytes(self._utterances)
            + glossary_bytes(self._glossary)
            + self.outbox.held_bytes
        )

    @property
    def finals_bytes(self) -> int:
        """Memory of the final transcripts that wait, about."""
        return revisions_bytes(self._utterances.finals)

    def release_memory(self, wanted_bytes: int, now: float) -> None:
        """Give memory up, because all sessions together hold too much.

        The oldest audio goes first, then the oldest utterances without a final transcript. Finals
        that wait are answered all the same, from text alone if their audio is gone.
        """
        given = self._audio.release(wanted_bytes)
        if given:
            self._warn(
                "memory_short",
                "expected memory for all sessions, got too little: the oldest audio of this one is "
                f"forgotten ({given / 1e6:.1f} MB)",
            )
        wanted = self.held_bytes - (wanted_bytes - given)
        while given < wanted_bytes and self.held_bytes > wanted:
            if not self._forget_oldest_utterance(now, "memory is short"):
                return

    def summary(self) -> SessionSummary:
        """The figures of the session so far."""
        return SessionSummary(
            utterances=self._utterances.total,
            entities=self._entity_total,
            audio_ms=self._audio.received_ms,
            dropped_interims=self._utterances.dropped_interims,
        )

    # --- transcripts ------------------------------------------------------------------------------

    def _expect_names(self, entries: Iterable[GlossaryEntry]) -> None:
        entries = tuple(entries)
        check_labels((entry.label for entry in entries), self._bundle)
        if not entries:
            self._glossary = None
        self._new_glossary = entries or None

    def _pending(self, message: Transcript, now: float) -> PendingRevision:
        text = normalise(message.text) if len(message.text) <= _SHORT_TEXT else None
        received_ms, end_ms = self._audio.decoded_ms, self._placement.end_ms(message)
        return PendingRevision(message, text, now, received_ms, end_ms)

    def _open(self, message: Transcript, now: float) -> Utterance:
        if self._utterances.is_full:
            self._forget_oldest_utterance(
                now,
                f"expected at most {self._limits.open_utterances} utterances without a final "
                "transcript, got one more",
            )
        return self._utterances.open(message, self._audio.received_frames)

    def _forget_oldest_utterance(self, now: float, reason: str) -> bool:
        away = (self._tagging, self._preparing)
        running = [self._utterances.of(r) for r in away if isinstance(r, PendingRevision)]
        oldest = self._utterances.forget_oldest([u for u in running if u is not None])
        if oldest is None:
            return False
        self._send(oldest.tracker.retract_all("utterance_dropped", now))
        withdrawn = oldest.held.withdraw(oldest.id)
        if withdrawn is not None:
            self.outbox.put(withdrawn)
        self._warn(
            "utterance_dropped",
            f"{reason}: {oldest.id!r} is forgotten",
        )
        return True

    def _drop_stale_interim(self, utterance: Utterance, now: float) -> None:
        if utterance.waiting is None or self._is_fresh(utterance.waiting, now):
            return
        self._utterances.drop_interim(utterance)
        self._warn(
            "interims_dropped",
            f"expected answers within {self._limits.interim_patience_ms} ms, got behind: "
            f"{self.dropped_interims} interim revisions were dropped so far",
        )

    def _is_fresh(self, revision: PendingRevision, now: float) -> bool:
        return 1000 * (now - revision.arrived) <= self._limits.interim_patience_ms

    # --- what is due ------------------------------------------------------------------------------

    def _due_revision(self, now: float) -> PendingRevision | None:
        """What is to be answered next, if its audio is there as far as it has to be."""
        final = self._utterances.first_final
        if final is not None:
            if not self._budget.allows(now):
                self.final_waits.restart(now)
                return None
            is_encoded = self._audio.end >= self._audio.frame_at(final.audio_end_ms)
            return final if is_encoded else None
        if not self._interim_budget.allows(now):
            return None
        for utterance in self._utterances:
            waiting = utterance.waiting
            if waiting is None or not self._is_fresh(waiting, now):
                continue
            missing = self._audio.frame_at(waiting.audio_end_ms) - self._audio.end
            if missing < self._geometry.chunk_frames:
                return waiting
            if utterance.is_overdue(now, _OVERDUE_S):
                return waiting.without_audio()
        return None

    def _due_audio(self, now: float) -> Sought | None:
        """What a full-context model is to encode: the audio of the answer that is due."""
        if not self._audio.waits_for_answers or self._tagging is not None:
            return None
        revision = self._due_revision(now)
        if revision is None or revision.text is None:
            return None
        work = self._plan(revision)
        return work if isinstance(work, Sought) else None

    @property
    def _has_glossary(self) -> bool:
        """Whether the glossary that was asked for last is there."""
        return self._new_glossary is None and not isinstance(self._preparing, CompileWork)

    def _plan(self, revision: PendingRevision) -> TagWork | Sought:
        return plan_tagging(
            revision,
            self._bundle,
            self._audio,
            self._placement,
            glossary=self._glossary,
            wants_readings=revision.is_final and self._options.readings,
        )

    # --- answers ----------------------------------------------------------------------------------

    def _tagged(self, revision: PendingRevision, work: TagWork, now: float) -> None:
        """A text, or a piece of it, comes back."""
        utterance = self._utterances.of(revision)
        if utterance is None or not (revision.is_final or self._options.interim):
            return  # It was forgotten, or the client has switched interims off in the meantime.
        done = sum(piece.length for piece in revision.pieces)
        if done < len(revision.normalised.text):
            self._utterances.put_back(revision)
            if revision.is_final:
                self.final_waits.restart(now)
            return
        tagged = TaggedRevision(revision, work, revision.pieces)
        earlier = revision.earlier
        if earlier is not None:
            # If neither has audio, the first is answered; if they fit alike, the one not cut off.
            if tagged.score < earlier.score or not tagged.work.has_audio:
                tagged = earlier
        elif self._placement.may_be_elsewhere(tagged):
            self._utterances.put_back(revision.widened(tagged))
            self._audio.commit(revision.received_ms)
            return
        if tagged.work.has_audio and not self._placement.fits(tagged):
            self._utterances.put_back(tagged.revision.without_audio())
            return
        if len(revision.normalised.text) > self._bundle.max_characters:
            self._warn(
                "text_beyond_model",
                f"expected at most {self._bundle.max_characters} characters, got "
                f"{len(revision.normalised.text)}: answered in pieces, from text alone",
            )
        given_ms = self._placement.given_ms(tagged.revision.message)
        answer = make_answer(tagged, given_ms, self._geometry)
        self._send(utterance.tracker.apply(tagged.revision, answer, self._options, now))
        if revision.is_final:
            self._close(utterance, tagged, answer)
            self.final_waits.answer(now, is_last=not self.is_urgent)
        elif self._options.hold_ms is not None:
            message = tagged.revision.message
            utterance.held.answered(
                message.revision, message.text, utterance.tracker.entities, revision.arrived
            )
            self._release(utterance, now)

    def _close(self, utterance: Utterance, tagged: TaggedRevision, answer: Answer) -> None:
        """Forget an utterance whose final was answered, and the audio that was its own."""
        self._utterances.close(utterance)
        self._entity_total += len(utterance.tracker)
        self._placement.answered(tagged, answer)

    # --- messages ---------------------------------------------------------------------------------

    def _release(self, utterance: Utterance, now: float) -> None:
        """Tell what of an unfinished utterance may be shown, if the client asked for it."""
        hold_ms = self._options.hold_ms
        if hold_ms is None or not utterance.held:
            return
        update = utterance.held.release(
            utterance.id, utterance.tracker.entities, self._options.stabiliser, hold_ms, now
        )
        answered = utterance.tracker.answered
        if update is None or answered is None:
            return
        mended = mend(update.text, update.entities) if self._options.apply_suggestions else None
        self.outbox.put(
            structs.replace(
                update,
                speaker=answered.speaker,
                channel=answered.channel,
                mended=UNSET if mended is None else mended,
            )
        )

    def _send(self, messages: Iterable[ServerMessage]) -> None:
        for message in messages:
            self.outbox.put(message)

    def _forget_old(self) -> None:
        """Forget audio that is too old, and warn of the utterances that began before."""
        oldest = self._audio.forget_old()
        if oldest is None:
            return
        for utterance in self._utterances:
            if utterance.began < oldest and not utterance.warned_too_long:
                utterance.warned_too_long = True
                self._warn(
                    "utterance_too_long",
                    f"expected a final transcript of {utterance.id!r} within "
                    f"{self._limits.retained_ms} ms of audio, got none: the oldest is forgotten",
                )


def _check(message: Transcript) -> None:
    """Check what the message types cannot say.

    Raises:
        ProtocolError: The text is too long or its times are impossible.
    """
    if len(message.text) > MAX_TEXT_CHARACTERS:
        raise ProtocolError(
            ErrorName.TEXT_TOO_LONG,
            f"expected at most {MAX_TEXT_CHARACTERS} characters, got {len(message.text)}",
        )
    start, end = message.start_ms, message.end_ms
    if start is not None and end is not None and end < start:
        raise ProtocolError(
            ErrorName.INVALID_TIMES, f"expected end_ms of at least {start}, got {end}"
        )
