"""How much text one session may have tagged, so that none takes the tagger from all others."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TextBudget"]


@dataclass(slots=True)
class TextBudget:
    """A leaky bucket of characters: what was tagged lately flows out at a steady rate.

    People speak four to eight characters a second, and a recogniser that writes its whole utterance
    anew five times a second comes to a few hundred.

    Attributes:
        characters_per_s: How fast it flows out; None: there is no bound.
        capacity: Characters that fit in.
        level: Characters in it, as of ``at``.
        at: In seconds.
    """

    characters_per_s: float | None
    capacity: int
    level: float = 0.0
    at: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether a text may be tagged now."""
        return self._level(now) < self.capacity

    def charge(self, characters: int, now: float) -> None:
        """A text of so many characters is tagged."""
        self.level, self.at = self._level(now) + characters, now

    def _level(self, now: float) -> float:
        if self.characters_per_s is None:
            return 0.0
        return max(0.0, self.level - self.characters_per_s * (now - self.at))
