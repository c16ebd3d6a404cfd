"""Where in a stream the audio of a text is: what its times say, and whether it was found there."""

from __future__ import annotations

from collections.abc import Callable

from cnerta.models.runtime.bundle import Bundle
from cnerta.streamer.session.answers import Answer
from cnerta.streamer.session.audio_track import AudioTrack
from cnerta.streamer.session.clock_skew import ClockSkew, Offsets
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.revision import PendingRevision, TaggedRevision
from cnerta.streamer.wire.messages import Transcript, WarningName

__all__ = ["AudioPlacement"]


class AudioPlacement:
    """Puts revisions on the stream's audio, and learns how far the transcript's clock is off."""

    def __init__(
        self,
        bundle: Bundle,
        audio: AudioTrack,
        limits: SessionLimits,
        warn: Callable[[WarningName, str], None],
    ) -> None:
        """Begin a stream.

        Args:
            bundle: The model.
            audio: The stream's audio.
            limits: How far times may be off.
            warn: Tells the client.
        """
        self._bundle = bundle
        self._audio = audio
        self._warn = warn
        self._slack_ms = limits.slack_ms
        self._skew = ClockSkew(limits.slack_ms)

    def given_ms(self, message: Transcript) -> tuple[int | None, int | None]:
        """Start and end as a transcript says, put on our clock."""
        offset_ms = self._skew.offset_ms
        start_ms, end_ms = (
            None if given is None else max(0, given + offset_ms)
            for given in (message.start_ms, message.end_ms)
        )
        return start_ms, end_ms

    def end_ms(self, message: Transcript) -> float:
        """End of the received audio that an answer to a transcript should wait for."""
        received_ms = self._audio.decoded_ms
        _, end_ms = self.given_ms(message)
        return received_ms if end_ms is None else min(received_ms, end_ms + self._slack_ms)

    def frames_of(self, revision: PendingRevision) -> tuple[int, int]:
        """Numbers of the frames that may belong to a revision (rule 7)."""
        start, end = self._audio.unassigned, self._audio.end
        if revision.is_final:
            # What came after the final transcript belongs to the next utterance.
            end = min(end, self._audio.frame_at(revision.audio_end_ms))
        if revision.scope == "unassigned":
            return start, end
        start_ms, end_ms = self.given_ms(revision.message)
        return self._audio.frames_around(start_ms, end_ms, start=start, end=end)

    def fits(self, tagged: TaggedRevision) -> bool:
        """Whether the audio is of the text (rule 6), as far as the model can tell."""
        can_tell = self._bundle.audio_use == "aligned"
        return not can_tell or tagged.score >= self._bundle.audio_fit_bound

    def may_be_elsewhere(self, tagged: TaggedRevision) -> bool:
        """Whether a final's audio may lie outside its given times, where it was looked for.

        It may if the text did not fit there or, as long as little is known of the transcript's
        clock, if it begins or ends just where the times cut the audio off; provided that there is
        audio beyond that no utterance was assigned.
        """
        revision, work = tagged.revision, tagged.work
        text, received = revision.normalised.text, self._audio.frame_at(revision.received_ms)
        if not revision.is_final or revision.scope != "timed" or not revision.has_times:
            return False
        if not text or len(text) > self._bundle.max_characters:
            return False
        if received - self._audio.unassigned < len(text):
            return False
        before = self._audio.unassigned < work.first_frame
        after = received > work.first_frame + len(work.frames)
        if not self.fits(tagged):
            return before or after
        if self._skew.is_settled:
            return False
        cut_start, cut_end = self._cut_off(tagged)
        return (cut_start and before) or (cut_end and after)

    def answered(self, tagged: TaggedRevision, answer: Answer) -> None:
        """A final was answered: its audio is assigned, and its given times are compared."""
        geometry, alignment = self._bundle.geometry, tagged.alignment
        if not tagged.revision.normalised.text:
            return
        if alignment is not None:
            # The rest is the next utterance's.
            consumed = tagged.work.first_frame + int(alignment.ends[-1])
            while geometry.frame_start_ms(consumed) < answer.times[-1][1]:
                consumed += 1  # the sound of the last character went on
            self._measure_skew(tagged, answer)
        else:
            # Whose audio this is nobody knows: the next utterance begins afresh.
            start_ms, end_ms = self.given_ms(tagged.revision.message)
            whole = tagged.revision.audio_end_ms
            if start_ms is not None and start_ms >= whole:
                return  # None of its audio has come yet, so what has come is another's.
            consumed = self._audio.frame_at(whole if end_ms is None else min(whole, end_ms))
        self._audio.assign(consumed)

    def _cut_off(self, tagged: TaggedRevision) -> tuple[bool, bool]:
        """Whether the text begins, and ends, just where the given times cut the audio off."""
        alignment, revision, work = tagged.alignment, tagged.revision, tagged.work
        if alignment is None or revision.scope != "timed":
            return False, False
        count = len(work.frames)
        is_end_given = work.first_frame + count < self._audio.frame_at(revision.received_ms)
        return (
            work.first_frame > 0 and int(alignment.starts[0]) == 0,
            is_end_given and int(alignment.ends[-1]) == count,
        )

    def _measure_skew(self, tagged: TaggedRevision, answer: Answer) -> None:
        """Compare a final's given times with where its text was found; follow and warn."""
        message = tagged.revision.message
        if message.start_ms is None or message.end_ms is None or any(self._cut_off(tagged)):
            return
        found_ms = answer.times[0][0], answer.times[-1][1]
        before_ms = self._skew.offset_ms
        self._skew = self._skew.after(Offsets.measure((message.start_ms, message.end_ms), found_ms))
        offset_ms = self._skew.offset_ms
        if offset_ms != before_ms:
            direction = "early" if offset_ms > 0 else "late"
            self._warn(
                "transcript_clock_skew",
                "expected transcript times on the clock of the received audio, got times that are "
                f"{abs(offset_ms)} ms too {direction}: {offset_ms:+d} ms is added to them from "
                "now on",
            )
