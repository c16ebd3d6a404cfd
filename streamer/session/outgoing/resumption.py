"""What lets a client go on with its session on another connection, or tells what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cnerta.streamer.wire.parts import LossReason, LostHistory, ResumeOffer

__all__ = ["ResumeTerms", "lost_history"]

_MOST_NAMED: Final = 64


@dataclass(frozen=True, slots=True)
class ResumeTerms:
    """What a client has to show, and for how long it may.

    Attributes:
        token: Shown by whoever resumes the session; secret.
        ttl_s: How long the session is kept without a connection, in seconds.
        epoch: Names the server process: sessions do not outlive it.
    """

    token: str
    ttl_s: int
    epoch: str

    def offer(self) -> ResumeOffer:
        """What the client is told."""
        return ResumeOffer(token=self.token, ttl_s=self.ttl_s)


def lost_history(
    reason: LossReason, *, events: int | None = None, utterances: tuple[str, ...] = ()
) -> LostHistory:
    """What a client that cannot resume is told of its session.

    Args:
        reason: Why.
        events: How many of the events it has not received are gone; None: unknown.
        utterances: Those whose final answer the lost session still owed, the oldest first.
    """
    return LostHistory(reason=reason, events=events, utterances=list(utterances[:_MOST_NAMED]))
