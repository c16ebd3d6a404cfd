"""What becomes of a revision that the engine could not do: only it fails, not its session.

An interim is dropped. A final goes on in steps, one for each failure::

    as it was ──► once more, alone ──► from text alone, alone ──► the session ends by name
                                       (if it had audio)

so that it is answered, or its client told that it never will be.
"""

from __future__ import annotations

from dataclasses import replace

from cnerta.streamer.session.revision import PendingRevision

__all__ = ["after_failure"]


def after_failure(revision: PendingRevision, *, had_audio: bool) -> PendingRevision | None:
    """The next step of a final that failed.

    Args:
        revision: The final, as it was given out.
        had_audio: Whether it was to be answered from audio.

    Returns:
        What to try next; None: all was tried.
    """
    if revision.failures == 0:
        return replace(revision, failures=1)
    if had_audio and revision.scope != "none":
        return replace(revision.without_audio(), failures=revision.failures + 1)
    return None
