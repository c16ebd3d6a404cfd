"""The utterances of a stream that have no answer to a final transcript yet, and their revisions."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cnerta.streamer.session.entity_tracker import EntityTracker
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outgoing.held_text import HeldText
from cnerta.streamer.session.revision import PendingRevision
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import Transcript

__all__ = ["Utterance", "Utterances"]


@dataclass(eq=False, slots=True)
class Utterance:
    """An utterance whose final transcript was not answered yet.

    Attributes:
        id: The client's name of it.
        newest: Highest revision seen.
        began: Number of the frame that was received when its first revision came.
        tracker: Its entities.
        waiting: Interim revision that has not been answered.
        waits_since: When the first interim came, in seconds, as long as none is on its way.
        was_heard: An interim was on its way to its answer.
        final_revision: That of the final transcript that is on its way, if one is.
        heard: How often the session had been resumed when its newest revision came.
        warned_too_long: The client was told that it lasts too long.
        held: What of its text may be shown.
    """

    id: str
    newest: int
    began: int
    tracker: EntityTracker
    waiting: PendingRevision | None = None
    waits_since: float | None = None
    was_heard: bool = False
    final_revision: int | None = None
    heard: int = 0
    warned_too_long: bool = False
    held: HeldText = field(default_factory=HeldText)

    @property
    def has_final(self) -> bool:
        """Whether a final transcript is on its way."""
        return self.final_revision is not None

    def wait(self, revision: PendingRevision) -> None:
        """An interim has come; it takes the place of the one before."""
        self.waiting = revision
        if self.waits_since is None and not self.was_heard:
            self.waits_since = revision.arrived

    def take(self) -> None:
        """The interim that waits is on its way to its answer."""
        self.waiting, self.waits_since, self.was_heard = None, None, True

    def drop(self) -> None:
        """Nobody is to be told of interims."""
        self.waiting = self.waits_since = None

    def is_overdue(self, now: float, overdue_s: float) -> bool:
        """Whether interims have waited for so long, and none was answered yet."""
        waits = self.waiting is not None and self.waits_since is not None
        return waits and now - (self.waits_since or 0.0) > overdue_s


@dataclass(slots=True)
class _Answered:
    """An utterance whose final was answered.

    Attributes:
        revision: That of the final transcript.
        heard: As :attr:`Utterance.heard`.
    """

    revision: int
    heard: int


class Utterances:
    """All that are open, the oldest first, and the finals that wait in the order they came.

    Attributes:
        total: Utterances that were answered.
        dropped_interims: Interim revisions that were never answered.
    """

    def __init__(self, limits: SessionLimits) -> None:
        self.total = 0
        self.dropped_interims = 0
        self._limits = limits
        self._open: OrderedDict[str, Utterance] = OrderedDict()
        self._finals: deque[PendingRevision] = deque()
        self._answered: OrderedDict[str, _Answered] = OrderedDict()
        # Of entities, counted over the session: an utterance that was forgotten and comes back must
        # not give its old ids to other entities.
        self._numbers = itertools.count(1)
        self._resumes = 0

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._open.values())

    def get(self, name: str) -> Utterance | None:
        """An utterance that is open."""
        return self._open.get(name)

    def of(self, revision: PendingRevision) -> Utterance | None:
        """The utterance of a revision; None if it was forgotten."""
        return self._open.get(revision.message.utterance)

    def is_answered(self, name: str) -> bool:
        """Whether an utterance's final was answered, as far as is remembered."""
        return name in self._answered

    def is_repeat(self, message: Transcript) -> bool:
        """Whether a revision is one that is known and comes again because of a resume.

        A client that comes back cannot know what of it had arrived. It may send once more, after
        each resume, the newest revision of everything that it has no answer to.
        """
        known = self._open.get(message.utterance) or self._answered.get(message.utterance)
        if known is None or known.heard == self._resumes:
            return False
        if isinstance(known, _Answered):
            final, newest = True, known.revision
        elif known.final_revision is not None:
            final, newest = True, known.final_revision
        else:
            final, newest = False, known.newest
        if (message.final, message.revision) != (final, newest):
            return False
        known.heard = self._resumes
        return True

    def heard(self, utterance: Utterance) -> None:
        """A revision of an utterance has come."""
        utterance.heard = self._resumes

    def resumed(self) -> None:
        """The client has come back on another connection."""
        self._resumes += 1

    def drop_all_interims(self) -> None:
        """Nobody is there to be told; the client will send the newest again."""
        for utterance in self:
            utterance.drop()

    @property
    def owed(self) -> tuple[str, ...]:
        """The utterances whose finals wait for their answer."""
        return tuple(revision.message.utterance for revision in self._finals)

    @property
    def has_unfinished(self) -> bool:
        """Whether there is one without a final transcript."""
        return len(self._open) > len(self._finals)

    @property
    def lack_text(self) -> bool:
        """Whether a revision waits whose text has to be normalised."""
        first = self.first_final
        if first is not None:
            return first.text is None
        return any(u.waiting is not None and u.waiting.text is None for u in self)

    @property
    def are_waiting(self) -> bool:
        """Whether a revision waits."""
        return bool(self._finals) or any(u.waiting is not None for u in self._open.values())

    @property
    def is_full(self) -> bool:
        """Whether there are as many without a final as may be."""
        return len(self._open) - len(self._finals) >= self._limits.open_utterances

    def open(self, message: Transcript, began: int) -> Utterance:
        """Begin an utterance."""
        name, numbers = message.utterance, self._numbers  # not self, which would be a circle
        tracker = EntityTracker(name, lambda: f"{name}-e{next(numbers)}")
        utterance = Utterance(name, message.revision, began, tracker, heard=self._resumes)
        self._open[name] = utterance
        return utterance

    def forget_oldest(self, running: Sequence[Utterance]) -> Utterance | None:
        """Forget the oldest without a final, but for those whose texts are away."""
        oldest = next((u for u in self if not u.has_final and u not in running), None)
        if oldest is not None:
            del self._open[oldest.id]
            self.drop_interim(oldest)
        return oldest

    def drop_interim(self, utterance: Utterance) -> bool:
        """Give up the interim that waits. Returns whether there was one."""
        was_waiting = utterance.waiting is not None
        utterance.waiting = None
        self.dropped_interims += was_waiting
        return was_waiting

    # --- finals -----------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def first_final(self) -> PendingRevision | None:
        """The oldest final that waits for its answer."""
        return self._finals[0] if self._finals else None

    @property
    def finals(self) -> Iterator[PendingRevision]:
        """All that wait, the oldest first."""
        return iter(self._finals)

    def add_final(self, utterance: Utterance, revision: PendingRevision) -> None:
        """An utterance's final has come.

        Raises:
            ProtocolError: Too many wait.
        """
        if len(self._finals) >= self._limits.pending_finals:
            raise ProtocolError(
                ErrorName.TOO_MANY_FINALS,
                f"expected at most {self._limits.pending_finals} unanswered final transcripts, "
                "got one more",
            )
        utterance.final_revision = revision.message.revision
        self._finals.append(revision)

    def put_back(self, revision: PendingRevision) -> None:
        """A revision goes round once more: unless it was overtaken, if it is an interim."""
        if revision.is_final:
            self._finals[0] = revision
            return
        utterance = self.of(revision)
        if utterance is None or utterance.waiting is not None or utterance.has_final:
            self.dropped_interims += 1
        else:
            utterance.waiting = revision

    def close(self, utterance: Utterance) -> None:
        """The oldest final was answered: the utterance is over."""
        self._finals.popleft()
        del self._open[utterance.id]
        assert utterance.final_revision is not None, "expected a final"
        self._answered[utterance.id] = _Answered(utterance.final_revision, utterance.heard)
        if len(self._answered) > self._limits.remembered_finals:
            self._answered.popitem(last=False)
        self.total += 1
