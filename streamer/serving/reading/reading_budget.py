"""How much of the event loop one connection may take, so that others get their turn."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReadingBudget"]


@dataclass(slots=True)
class ReadingBudget:
    """Counts the time that a connection takes, and says when to leave it alone for a while.

    Someone who speaks and has it transcribed needs a few milliseconds a second, 60 s of audio at
    once about 200. What a client sends meanwhile stays in the transport and at last in the client.

    Attributes:
        share: Of the loop's time, in the long run.
        burst_s: What may be spent at once before that holds.
        turn_s: What may be spent before others get a turn.
        spent_s: Since the last turn of others.
        debt_s: Spent beyond the share, as of ``at``.
        at: In seconds.
    """

    share: float = 0.05
    burst_s: float = 0.3
    turn_s: float = 0.001
    spent_s: float = 0.0
    debt_s: float = 0.0
    at: float = 0.0

    def spend(self, seconds: float, now: float) -> float | None:
        """Something took so long.

        Args:
            seconds: Of the processor's time.
            now: In seconds.

        Returns:
            How long to read nothing, in seconds; 0 for one turn of the loop; None: go on.
        """
        self.debt_s = max(0.0, self.debt_s - self.share * (now - self.at)) + seconds
        self.at = now
        self.spent_s += seconds
        if self.spent_s < self.turn_s:
            return None
        self.spent_s = 0.0
        return max(0.0, (self.debt_s - self.burst_s) / self.share)
