"""How far audio runs ahead of real time, as the server counts it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(slots=True)
class Pace:
    """A bucket that fills with audio and drains with time.

    Attributes:
        most_ms: How far audio may run ahead; None: any.
        ahead_ms: How far it does, as of ``at``.
        at: In seconds.
    """

    most_ms: float | None
    ahead_ms: float = 0.0
    at: float = 0.0

    def wait_s(self, audio_ms: float, now: float) -> float:
        """How long to wait before more audio is sent, which counts as sent then.

        Args:
            audio_ms: How much is to be sent.
            now: In seconds.
        """
        self.ahead_ms = max(0.0, self.ahead_ms - 1_000 * (now - self.at)) + audio_ms
        self.at = now
        if self.most_ms is None:
            return 0.0
        return max(0.0, self.ahead_ms - self.most_ms) / 1_000
