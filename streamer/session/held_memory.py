"""Estimates of what a session's parts hold in memory, in bytes.

Measured with ``tracemalloc`` and rounded up (tests/benchmarks/memory.py measures the whole).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cnerta.streamer.session.names.glossary import Glossary
from cnerta.streamer.session.revision import PendingRevision
from cnerta.streamer.session.utterances import Utterances

__all__ = ["SESSION_BYTES", "glossary_bytes", "revisions_bytes", "utterances_bytes"]

SESSION_BYTES: Final = 64_000
"""A session that holds nothing: its objects and its connection's."""
_UTTERANCE_BYTES: Final = 2_000
_REVISION_BYTES: Final = 2_000
_TEXT_BYTES: Final = 4
"""A character of a text as it came."""
_NORMALISED_BYTES: Final = 48
"""A character of its normalised text, with where it is in the other."""
_ENTITY_BYTES: Final = 1_000
_HELD_BYTES: Final = 500
"""A character that is held back until it may be shown."""
_NAME_BYTES: Final = 1_000
_NAME_CHARACTER_BYTES: Final = 80


def utterances_bytes(utterances: Utterances) -> int:
    """All that are open: their entities, and the texts that wait or were answered last."""
    total = revisions_bytes(utterances.finals)
    for utterance in utterances:
        kept = (utterance.waiting, utterance.tracker.answered)
        total += _UTTERANCE_BYTES + _ENTITY_BYTES * len(utterance.tracker)
        total += _HELD_BYTES * len(utterance.held)
        total += revisions_bytes(r for r in kept if r is not None)
    return total


def glossary_bytes(glossary: Glossary | None) -> int:
    """Names that are ready to be looked for."""
    if glossary is None:
        return 0
    return _NAME_BYTES * len(glossary.names) + _NAME_CHARACTER_BYTES * glossary.characters


def revisions_bytes(revisions: Iterable[PendingRevision]) -> int:
    """Transcripts, and what was made of them."""
    total = 0
    for revision in revisions:
        total += _REVISION_BYTES + _TEXT_BYTES * len(revision.message.text)
        if revision.text is not None:
            total += _NORMALISED_BYTES * len(revision.text.text)
    return total
