"""One stream: audio and transcript revisions in, work for the engine out; results in, events out.

No I/O, no threads and no clock: the time is passed in, in seconds. The owner asks for work with
:meth:`Session.take_encode` and :meth:`Session.take_tag`, has it run wherever it likes, and brings
the result back with :meth:`Session.encoded` and :meth:`Session.tagged`. There is at most one of
each outstanding, because a chunk needs the state the last one left, and an utterance's audio
begins where the alignment of the last one ended.

A revision costs one tagger call over the frames that are there. A final transcript first has the
audio received before it encoded; how, and what interim ones get, is told in
:mod:`cnerta.streamer.session.encoder_buffer`. A newer revision takes the place of an interim one
that has not run yet.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.boundaries import character_times
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.decoding import ScoredSpan, SpanHint, whole_tokens
from cnerta.models.runtime.inference import AcousticState, Tagged
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.audio.decoder import AudioInput
from cnerta.streamer.session.clock_skew import ClockSkew, Offsets
from cnerta.streamer.session.encoder_buffer import Sought, new_hearing
from cnerta.streamer.session.entity_tracker import (
    Answer,
    AnswerOptions,
    EntityTracker,
    Revision,
    spread_times,
)
from cnerta.streamer.session.glossary import Glossary, GlossaryMatch, GlossaryName, read_pinyin
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outbox import Outbox
from cnerta.streamer.session.stabiliser import StabiliserOptions
from cnerta.streamer.session.voice_activity import voiced_range
from cnerta.streamer.session.work import EncodeWork, TagWork
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    MAX_TEXT_CHARACTERS,
    AudioAck,
    ServerMessage,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    WarningMessage,
    WarningName,
)
from cnerta.streamer.wire.parts import GlossaryEntry, TimeSource

__all__ = ["Session"]

Floats = npt.NDArray[np.float32]

_ACK_EVERY_MS: Final = 1_000


@dataclass(slots=True)
class _Utterance:
    """An utterance whose final transcript was not answered yet.

    Attributes:
        newest: Highest revision seen.
        began: Number of the frame that was received when its first revision came.
        tracker: Its entities.
        waiting: Interim revision that has not run yet.
        has_final: A final transcript is on its way.
        warned_too_long: The client was told that it lasts too long.
    """

    id: str
    newest: int
    began: int
    tracker: EntityTracker
    waiting: Revision | None = None
    has_final: bool = False
    warned_too_long: bool = False


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the tagger said of a revision.

    Attributes:
        revision: The revision.
        work: What the tagger was given.
        results: What it said, for each text.
    """

    revision: Revision
    work: TagWork
    results: Sequence[Tagged]

    @property
    def alignment(self) -> Alignment | None:
        """Frames of each character, counted from ``work.first_frame``; None without audio."""
        return self.results[0].alignment if self.work.has_audio else None

    @property
    def score(self) -> float:
        """How well the audio fits the text."""
        return -math.inf if self.alignment is None else self.alignment.score


class Session:
    """The state of one stream.

    Attributes:
        outbox: Where its messages go.
    """

    def __init__(
        self, bundle: Bundle, start: SessionStart, limits: SessionLimits, outbox: Outbox
    ) -> None:
        """Begin a stream.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know, or
                its glossary cannot be used.
        """
        self.outbox = outbox
        self._bundle = bundle
        self._geometry = bundle.geometry
        self._limits = limits
        self._options = AnswerOptions(
            labels=self._checked_labels(start.labels),
            nested=start.nested,
            interim=start.interim,
            stabiliser=StabiliserOptions(max_delay_ms=start.max_delay_ms),
            readings=self._checked_readings(start.readings),
        )
        self._glossary = self._compiled_glossary(start.glossary)

        self._audio = AudioInput(start.audio)
        self._acked_ms = 0
        self._received_samples = 0
        self._hearing = new_hearing(bundle.geometry)
        self._cursor = 0  # first frame that belongs to no answered final

        self._utterances: OrderedDict[str, _Utterance] = OrderedDict()
        self._finals: deque[Revision] = deque()
        self._answered_finals: OrderedDict[str, None] = OrderedDict()
        self._tagging: tuple[_Utterance, Revision, TagWork] | None = None
        self._first_try: _Heard | None = None  # of the oldest final, at its given times
        self._skew = ClockSkew(limits.slack_ms)

        self._ids = 0
        self._utterance_total = 0
        self._entity_total = 0
        self._dropped_interims = 0

    # --- what the client sends --------------------------------------------------------------------

    def add_audio(self, data: bytes) -> int:
        """Take one binary frame.

        Returns:
            Milliseconds of audio it held.

        Raises:
            ProtocolError: A float sample is NaN or infinite, or the engine is far behind.
        """
        before_ms, was_clipped = self._audio.received_ms, self._audio.clipped
        self._add_samples(self._audio.add(data))
        if self._audio.clipped and not was_clipped:
            self._warn("audio_clipped", "expected samples between -1 and 1; others are cut")
        received_ms = self._audio.received_ms
        if received_ms - self._acked_ms >= _ACK_EVERY_MS:
            self._acked_ms = received_ms
            self.outbox.put(AudioAck(received_ms=received_ms))
        return received_ms - before_ms

    def add_transcript(self, message: Transcript, now: float) -> None:
        """Take one revision of an utterance's text.

        Raises:
            ProtocolError: The text is too long, its times are impossible, or too many final
                transcripts wait for their answer.
        """
        _check(message)
        utterance = self._utterances.get(message.utterance)
        if message.utterance in self._answered_finals or (utterance and utterance.has_final):
            self._warn(
                "utterance_already_final",
                f"expected nothing after the final transcript of {message.utterance!r}, got "
                f"revision {message.revision}",
            )
            return
        if utterance is None:
            utterance = self._open(message, now)
        elif message.revision <= utterance.newest:
            self._warn(
                "revision_not_newer",
                f"expected a revision above {utterance.newest} of {message.utterance!r}, got "
                f"{message.revision}",
            )
            # A final transcript is answered whatever its number (rule 4).
            if not message.final:
                return
        utterance.newest = max(utterance.newest, message.revision)
        if utterance.waiting is not None:
            utterance.waiting = None
            self._dropped_interims += 1
        if message.final:
            self._add_final(utterance, self._revision(message, now))
        elif self._options.interim:
            utterance.waiting = self._revision(message, now)

    def update(self, message: SessionUpdate) -> None:
        """Change options from now on.

        Raises:
            ProtocolError: The client asks for labels or readings that the model does not know, or
                its glossary cannot be used.
        """
        options = self._options
        if message.labels is not UNSET:
            options = replace(options, labels=self._checked_labels(message.labels))
        if message.nested is not UNSET:
            options = replace(options, nested=message.nested)
        if message.interim is not UNSET:
            options = replace(options, interim=message.interim)
        if message.max_delay_ms is not UNSET:
            stabiliser = replace(options.stabiliser, max_delay_ms=message.max_delay_ms)
            options = replace(options, stabiliser=stabiliser)
        if message.readings is not UNSET:
            options = replace(options, readings=self._checked_readings(message.readings))
        if message.glossary is not UNSET:
            self._glossary = self._compiled_glossary(message.glossary)
        self._options = options
        if not options.interim:
            for utterance in self._utterances.values():
                utterance.waiting = None
        if message.audio is not UNSET:
            self._warn_partial_sample()
            self._add_samples(self._audio.change(message.audio))

    def finish_input(self) -> None:
        """No more will come: have everything encoded and answered that still waits."""
        self._warn_partial_sample()
        self._add_samples(self._audio.finish())
        self._hearing.commit(self._received_samples // self._geometry.hop_samples)

    # --- work for the engine ----------------------------------------------------------------------

    def take_encode(self) -> EncodeWork | None:
        """The next samples to encode, unless there are none or the last are not back yet."""
        if self._hearing.waiting_samples > self._samples(self._limits.backlog_ms):
            self._skip_backlog()
        return self._hearing.take()

    def encoded(self, frames: Floats, state: AcousticState | None) -> None:
        """Take back what :meth:`take_encode` gave out. shape of frames: (n, width)."""
        self._hearing.give(frames, state)
        self._forget_old()

    def take_tag(self, now: float) -> TagWork | None:
        """The next revision to tag: finals in the order they came, then interims.

        None if there is none, if the last one is not back yet, or if audio that had come before
        the transcript waits to be encoded: for a final all of it, for an interim whole chunks. A
        full-context model has the audio encoded when it is asked for here, see
        :meth:`cnerta.streamer.session.encoder_buffer.UtteranceHearing.window`.
        """
        if self._tagging is not None:
            return None
        if self._finals:
            revision = self._finals[0]
            if self._hearing.end < self._frame_at(revision.audio_end_ms):
                return None
            utterance = self._utterances[revision.message.utterance]
        else:
            interim = next(self._fresh_interims(now), None)
            if interim is None:
                return None
            utterance, revision = interim
        work = self._tag_work(revision)
        if work is None:
            return None
        utterance.waiting = None
        work = self._with_hints(work)
        self._tagging = (utterance, revision, work)
        return work

    def tagged(self, results: Sequence[Tagged], now: float) -> None:
        """Take back what :meth:`take_tag` gave out, one result for each of its texts."""
        assert self._tagging is not None, "expected work to be outstanding"
        utterance, revision, work = self._tagging
        self._tagging = None
        if not (revision.message.final or self._options.interim):
            return  # The client has switched interims off in the meantime.
        heard = _Heard(revision, work, results)
        if revision.hears == "unclaimed" and self._first_try is not None:
            # If neither has audio, the first is answered; if they fit alike, the one not cut off.
            first, self._first_try = self._first_try, None
            if heard.score < first.score or not heard.work.has_audio:
                heard = first
        elif self._may_be_elsewhere(heard):
            self._first_try = heard
            self._listen_elsewhere(revision)
            return
        if heard.work.has_audio and not self._fits(heard):
            self._retry_without_audio(utterance, heard.revision)
            return
        answer = self._answer(heard)
        self._send(utterance.tracker.apply(heard.revision, answer, self._options, now))
        if revision.message.final:
            self._finals.popleft()
            self._close(utterance, heard, answer)

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self._options.interim:
            for utterance in self._utterances.values():
                self._send(utterance.tracker.tick(self._options, now))

    # --- what the owner wants to know -------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """Whether a final transcript waits for its answer."""
        return bool(self._finals)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is away and nothing waits that has to run."""
        return not (
            self._finals
            or self._tagging
            or self._hearing.is_busy
            or any(u.waiting for u in self._utterances.values())
        )

    @property
    def received_ms(self) -> int:
        """Audio received so far."""
        return self._audio.received_ms

    @property
    def dropped_interims(self) -> int:
        """Interim revisions that never ran."""
        return self._dropped_interims

    @property
    def backlog_ms(self) -> float:
        """Audio that waits to be encoded."""
        return 1000 * self._hearing.waiting_samples / self._geometry.sample_rate

    def summary(self) -> SessionSummary:
        """The figures of the session so far."""
        return SessionSummary(
            utterances=self._utterance_total,
            entities=self._entity_total,
            audio_ms=self._audio.received_ms,
            dropped_interims=self._dropped_interims,
        )

    # --- audio ------------------------------------------------------------------------------------

    def _samples(self, milliseconds: float) -> int:
        return round(milliseconds * self._geometry.sample_rate / 1000)

    def _frame_at(self, milliseconds: float) -> int:
        """Number of the frame that a time falls into: all before it are complete by then."""
        return self._samples(milliseconds) // self._geometry.hop_samples

    def _add_samples(self, samples: Floats) -> None:
        if not len(samples):
            return
        self._hearing.add(samples)
        self._forget_old()
        self._received_samples += len(samples)
        if self._hearing.waiting_samples > 2 * self._samples(self._limits.backlog_ms):
            raise ProtocolError(
                ErrorName.TRY_AGAIN_LATER,
                f"expected the engine to be at most {2 * self._limits.backlog_ms} ms behind, got "
                "more: the server is overloaded",
            )

    def _skip_backlog(self) -> None:
        """Give up audio that waits: better a gap than an endless delay."""
        count = self._hearing.skip()
        if not count:
            return
        self._forget_old()
        self._warn(
            "audio_skipped",
            f"expected at most {self._limits.backlog_ms} ms of audio to wait, got more: "
            f"{round(count * self._geometry.frame_ms)} ms were skipped",
        )

    def _forget_old(self) -> None:
        """Forget the frames that are too old to be asked for."""
        oldest = self._hearing.end - int(self._limits.retained_ms / self._geometry.frame_ms)
        if oldest > self._cursor:
            self._cursor = oldest
            self._warn_too_long(oldest)
        late = int(self._limits.late_ms / self._geometry.frame_ms)
        self._hearing.drop_before(max(oldest, self._cursor - late))

    # --- transcripts ------------------------------------------------------------------------------

    def _checked_labels(self, labels: list[str] | None) -> frozenset[str] | None:
        if labels is None:
            return None
        known = self._bundle.scheme.types
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise ProtocolError(
                ErrorName.UNKNOWN_LABEL,
                f"expected labels among {', '.join(known)}, got {unknown[0][:60]!r}",
            )
        return frozenset(labels)

    def _compiled_glossary(self, entries: Sequence[GlossaryEntry]) -> Glossary:
        names: list[GlossaryName] = []
        for entry in entries:
            self._checked_labels([entry.label])
            said = entry.pronunciation
            syllables = None if said is None else read_pinyin(said)
            name = GlossaryName(entry.text, entry.label, syllables)
            if not name.characters:
                raise ProtocolError(
                    ErrorName.INVALID_GLOSSARY,
                    f"expected a name with something to pronounce, got {entry.text!r}",
                )
            if said is not None and len(name.syllables or ()) != len(name.characters):
                raise ProtocolError(
                    ErrorName.INVALID_GLOSSARY,
                    f"expected {len(name.characters)} syllables of pinyin for {entry.text!r}, such "
                    f"as 'jiang1 da4 qiao2', got {said[:60]!r}",
                )
            names.append(name)
        return Glossary(names, self._bundle.vocabulary)

    def _checked_readings(self, wanted: bool) -> bool:
        if wanted and not self._bundle.has_readings:
            raise ProtocolError(
                ErrorName.UNSUPPORTED_READINGS,
                f"expected no readings, which the model {self._bundle.name} cannot tell, got a "
                "request for them",
            )
        return wanted

    def _revision(self, message: Transcript, now: float) -> Revision:
        received_ms = audio_end_ms = 1000 * self._received_samples / self._geometry.sample_rate
        _, end_ms = self._times(message)
        if end_ms is not None:
            audio_end_ms = min(received_ms, end_ms + self._limits.slack_ms)
        return Revision(message, normalise(message.text), now, received_ms, audio_end_ms)

    def _times(self, message: Transcript) -> tuple[int | None, int | None]:
        """Start and end as the transcript says, put on our clock."""
        offset_ms = self._skew.offset_ms
        start_ms, end_ms = (
            None if given is None else max(0, given + offset_ms)
            for given in (message.start_ms, message.end_ms)
        )
        return start_ms, end_ms

    def _open(self, message: Transcript, now: float) -> _Utterance:
        if len(self._utterances) - len(self._finals) >= self._limits.open_utterances:
            self._forget_oldest_utterance(now)
        tracker = EntityTracker(message.utterance, lambda: self._new_id(message.utterance))
        began = self._received_samples // self._geometry.hop_samples
        utterance = _Utterance(message.utterance, message.revision, began, tracker)
        self._utterances[message.utterance] = utterance
        return utterance

    def _new_id(self, utterance: str) -> str:
        # Counted over the session: an utterance that was forgotten and comes back must not give
        # its old ids to other entities.
        self._ids += 1
        return f"{utterance}-e{self._ids}"

    def _forget_oldest_utterance(self, now: float) -> None:
        running = self._tagging[0] if self._tagging else None
        oldest = next(
            (u for u in self._utterances.values() if not u.has_final and u is not running), None
        )
        if oldest is None:
            return
        del self._utterances[oldest.id]
        self._dropped_interims += oldest.waiting is not None
        self._send(oldest.tracker.retract_all("utterance_dropped", now))
        self._warn(
            "utterance_dropped",
            f"expected at most {self._limits.open_utterances} utterances without a final "
            f"transcript, got one more: {oldest.id!r} is forgotten",
        )

    def _add_final(self, utterance: _Utterance, revision: Revision) -> None:
        if len(self._finals) >= self._limits.pending_finals:
            raise ProtocolError(
                ErrorName.TOO_MANY_FINALS,
                f"expected at most {self._limits.pending_finals} unanswered final transcripts, "
                "got one more",
            )
        utterance.has_final = True
        self._finals.append(revision)
        self._commit(revision.audio_end_ms)

    def _commit(self, milliseconds: float) -> None:
        """Have the audio up to a time encoded at once, as a short chunk if need be."""
        self._hearing.commit(self._frame_at(milliseconds))

    def _fresh_interims(self, now: float) -> Iterator[tuple[_Utterance, Revision]]:
        """Interims that wait, oldest utterance first; those that waited too long are dropped."""
        for utterance in self._utterances.values():
            waiting = utterance.waiting
            if waiting is None:
                continue
            if 1000 * (now - waiting.arrived) <= self._limits.interim_patience_ms:
                missing = self._frame_at(waiting.audio_end_ms) - self._hearing.end
                if missing < self._geometry.chunk_frames:
                    yield utterance, waiting
                continue
            utterance.waiting = None
            self._dropped_interims += 1
            self._warn(
                "interims_dropped",
                f"expected answers within {self._limits.interim_patience_ms} ms, got behind: "
                f"{self._dropped_interims} interim revisions were dropped so far",
            )

    def _tag_work(self, revision: Revision) -> TagWork | None:
        """What the tagger is to be given; None if its frames have to be encoded first."""
        text, longest = revision.text.text, self._bundle.max_characters
        wants_readings = revision.message.final and self._options.readings
        none = np.zeros((0, self._geometry.width), np.float32)
        if len(text) > longest:
            self._warn(
                "text_beyond_model",
                f"expected at most {longest} characters, got {len(text)}: answered in pieces, "
                "from text alone",
            )
        if len(text) > longest or not text:
            pieces = tuple(text[i : i + longest] for i in range(0, len(text), longest))
            return TagWork(pieces, (none,) * len(pieces), 0, wants_readings=wants_readings)
        start, end = self._window(revision)
        start = max(start, self._hearing.first)
        levels = self._hearing.levels(start, end)
        # Each character needs a frame of its own, else this audio cannot be of this text.
        deaf = revision.hears == "nothing" or self._bundle.audio_use == "none"
        if deaf or len(levels) < len(text):
            return TagWork((text,), (none,), start, wants_readings=wants_readings)
        first, last = start, start + len(levels)
        if revision.hears == "unclaimed" or not _has_times(revision.message):
            voiced = voiced_range(levels, len(text))
            if voiced[1] - voiced[0] >= len(text):
                first, last = start + voiced[0], start + voiced[1]
        message = revision.message
        heard = self._hearing.window(Sought(message.utterance, message.final, start, first, last))
        if heard is None:
            return None
        if len(heard.frames) < len(text):
            return TagWork((text,), (none,), start, wants_readings=wants_readings)
        return TagWork(
            (text,),
            (heard.frames,),
            heard.first,
            start + len(levels) if heard.end == last else heard.end,
            wants_readings,
            self._hearing.levels(heard.first, heard.end),
        )

    def _with_hints(self, work: TagWork) -> TagWork:
        """Add what the glossary speaks for."""
        hints: list[tuple[SpanHint, ...]] = []
        names: list[GlossaryMatch] = []
        offset = 0
        for text in work.texts:
            found = self._glossary.find(text)
            hints.append(tuple(map(self._glossary.hint, found)))
            names += [replace(m, start=m.start + offset, end=m.end + offset) for m in found]
            offset += len(text)
        return replace(work, hints=tuple(hints), names=tuple(names)) if names else work

    def _window(self, revision: Revision) -> tuple[int, int]:
        """Numbers of the frames that may belong to a revision (rule 7)."""
        frame_ms, slack_ms = self._geometry.frame_ms, self._limits.slack_ms
        start, end = self._cursor, self._hearing.end
        if revision.message.final:
            # What came after the final transcript belongs to the next utterance.
            end = min(end, self._frame_at(revision.audio_end_ms))
        if revision.hears == "unclaimed":
            return start, end
        start_ms, end_ms = self._times(revision.message)
        if start_ms is not None:
            start = max(0, math.floor((start_ms - slack_ms) / frame_ms))
        if end_ms is not None:
            end = min(end, math.ceil((end_ms + slack_ms) / frame_ms))
        return start, end

    # --- answers ----------------------------------------------------------------------------------

    def _fits(self, heard: _Heard) -> bool:
        """Whether the audio is of the text (rule 6), as far as the model can tell."""
        can_tell = self._bundle.audio_use == "aligned"
        return not can_tell or heard.score >= self._bundle.audio_fit_bound

    def _may_be_elsewhere(self, heard: _Heard) -> bool:
        """Whether a final's audio may lie outside its given times, where it was looked for.

        It may if the text did not fit there or, as long as little is known of the transcript's
        clock, if it begins or ends just where the times cut the audio off; provided that there is
        audio beyond that no utterance has claimed.
        """
        revision, work = heard.revision, heard.work
        message, received = revision.message, self._frame_at(revision.received_ms)
        if not message.final or revision.hears != "expected" or len(work.texts) != 1:
            return False
        if not _has_times(message):
            return False
        if received - self._cursor < len(work.texts[0]):
            return False
        before = self._cursor < work.first_frame
        after = received > work.first_frame + len(work.frames[0])
        if not self._fits(heard):
            return before or after
        if self._skew.is_settled:
            return False
        cut_start, cut_end = self._cut_off(heard)
        return (cut_start and before) or (cut_end and after)

    def _cut_off(self, heard: _Heard) -> tuple[bool, bool]:
        """Whether the text begins, and ends, just where the given times cut the audio off."""
        alignment, revision, work = heard.alignment, heard.revision, heard.work
        if alignment is None or revision.hears != "expected":
            return False, False
        count = len(work.frames[0])
        is_end_given = work.first_frame + count < self._frame_at(revision.received_ms)
        return (
            work.first_frame > 0 and int(alignment.starts[0]) == 0,
            is_end_given and int(alignment.ends[-1]) == count,
        )

    def _listen_elsewhere(self, revision: Revision) -> None:
        """Look for a final's audio in all that no utterance has claimed."""
        self._finals[0] = replace(revision, hears="unclaimed", audio_end_ms=revision.received_ms)
        self._commit(revision.received_ms)

    def _retry_without_audio(self, utterance: _Utterance, revision: Revision) -> None:
        again = replace(revision, hears="nothing")
        if revision.message.final:
            self._finals[0] = again
        elif utterance.waiting is None and not utterance.has_final:
            utterance.waiting = again
        else:
            self._dropped_interims += 1

    def _answer(self, heard: _Heard) -> Answer:
        """Put a result on the stream's clock and its pieces together."""
        work, alignment = heard.work, heard.alignment
        heard_ms = work.end_frame * self._geometry.frame_ms if work.has_audio else None
        if alignment is not None:
            exact = character_times(alignment, work.first_frame, work.levels, self._geometry)
            times = tuple((start, end) for start, end in np.rint(exact).astype(int).tolist())
            (tagged,) = heard.results
            readings = tagged.readings if work.wants_readings else None
            found = whole_tokens(tagged.spans, heard.revision.text)
            return Answer(found, times, "alignment", heard_ms, readings, work.names)
        offset = 0
        spans: list[ScoredSpan] = []
        for text, tagged in zip(work.texts, heard.results, strict=True):
            spans += [replace(s, start=s.start + offset, end=s.end + offset) for s in tagged.spans]
            offset += len(text)
        found = whole_tokens(spans, heard.revision.text)
        times = spread_times(*self._times(heard.revision.message), len(heard.revision.text.text))
        source: TimeSource = "transcript" if times else "none"
        none = () if work.wants_readings else None
        return Answer(found, times, source, heard_ms, none, work.names)

    def _close(self, utterance: _Utterance, heard: _Heard, answer: Answer) -> None:
        """Forget an utterance whose final was answered, and the audio that was its own."""
        del self._utterances[utterance.id]
        self._answered_finals[utterance.id] = None
        if len(self._answered_finals) > self._limits.remembered_finals:
            self._answered_finals.popitem(last=False)
        self._utterance_total += 1
        self._entity_total += len(utterance.tracker)
        if not heard.work.texts:
            return
        alignment = heard.alignment
        if alignment is not None:
            # The rest is the next utterance's.
            consumed = heard.work.first_frame + int(alignment.ends[-1])
            while self._geometry.frame_start_ms(consumed) < answer.times[-1][1]:
                consumed += 1  # the sound of the last character went on
            self._measure_skew(heard, answer)
        else:
            # Whose audio this is nobody knows: the next utterance begins afresh.
            start_ms, end_ms = self._times(heard.revision.message)
            whole = heard.revision.audio_end_ms
            if start_ms is not None and start_ms >= whole:
                return  # None of its audio has come yet, so what has come is another's.
            consumed = self._frame_at(whole if end_ms is None else min(whole, end_ms))
        self._cursor = max(self._cursor, min(consumed, self._hearing.end))

    def _measure_skew(self, heard: _Heard, answer: Answer) -> None:
        """Compare a final's given times with where its text was heard; follow and warn."""
        message = heard.revision.message
        if message.start_ms is None or message.end_ms is None or any(self._cut_off(heard)):
            return
        heard_ms = answer.times[0][0], answer.times[-1][1]
        before_ms = self._skew.offset_ms
        self._skew = self._skew.after(Offsets.measure((message.start_ms, message.end_ms), heard_ms))
        offset_ms = self._skew.offset_ms
        if offset_ms != before_ms:
            direction = "early" if offset_ms > 0 else "late"
            self._warn(
                "transcript_clock_skew",
                "expected transcript times on the clock of the received audio, got times that are "
                f"{abs(offset_ms)} ms too {direction}: {offset_ms:+d} ms is added to them from "
                "now on",
            )

    # --- messages ---------------------------------------------------------------------------------

    def _send(self, messages: Iterable[ServerMessage]) -> None:
        for message in messages:
            self.outbox.put(message)

    def _warn(self, name: WarningName, detail: str) -> None:
        self.outbox.put(WarningMessage(name=name, detail=detail))

    def _warn_too_long(self, oldest: int) -> None:
        """Warn of the utterances that began before the oldest frame that is kept."""
        for utterance in self._utterances.values():
            if utterance.began < oldest and not utterance.warned_too_long:
                utterance.warned_too_long = True
                self._warn(
                    "utterance_too_long",
                    f"expected a final transcript of {utterance.id!r} within "
                    f"{self._limits.retained_ms} ms of audio, got none: the oldest is forgotten",
                )

    def _warn_partial_sample(self) -> None:
        if self._audio.partial_bytes:
            self._warn(
                "partial_sample_dropped",
                f"expected whole samples at the end, got {self._audio.partial_bytes} bytes more",
            )


def _has_times(message: Transcript) -> bool:
    return message.start_ms is not None or message.end_ms is not None


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
