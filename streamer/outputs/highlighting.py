"""Which entities are highlighted, where not all of them are.

Viewers prefer captions of which 5 to 15 % are highlighted: more is as tiring as none. A
`Highlighter` chooses for all that shows one session, so that the terminal and the caption files
agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cnerta.streamer.wire.parts import Entity

__all__ = ["ALL_HIGHLIGHTED", "HighlightRule", "Highlighter"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

SAVED_CHARACTERS: Final = 300
"""A share that was not used is saved for at most this much text, about a minute of speech: after a
long stretch without entities the next utterance is not to be all colour."""
FINALS_KEPT: Final = 64
NAMES_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class HighlightRule:
    """How much is highlighted.

    Attributes:
        share: Of all characters so far, at most this share is within a highlight; 1 for no limit.
        first_only: Whether a name is highlighted only where it comes up first.
    """

    share: float = 1.0
    first_only: bool = False


ALL_HIGHLIGHTED: Final = HighlightRule()


class Highlighter:
    """Chooses what is highlighted in one session, by a `HighlightRule`.

    Where the share does not reach for all, names that have not been highlighted before come first,
    then those the model is surest of. What an utterance has shown already stays ahead of both, so
    that highlights do not come and go while it grows.
    """

    def __init__(self, rule: HighlightRule = ALL_HIGHLIGHTED) -> None:
        self._rule = rule
        self._saved = 0.0
        """Characters that may be highlighted beyond the share of the next utterance."""
        self._names: dict[tuple[str, str], None] = {}
        """(type, text) of what has been highlighted, the oldest first."""
        self._shown: dict[str, frozenset[str]] = {}
        self._finals: dict[str, frozenset[str]] = {}

    def choose(
        self, utterance: str, text: str, entities: Sequence[Entity], *, final: bool
    ) -> frozenset[str]:
        """Return the ids of those entities of an utterance that are highlighted.

        Asked again about an utterance that is final, it answers the same.

        Args:
            utterance: Its name.
            text: Its text as it is now.
            entities: Everything found in that text.
            final: Whether text and entities will not change any more.
        """
        if (known := self._finals.get(utterance)) is not None:
            return known
        chosen = self._choose(utterance, text, entities, final=final)
        if not final:
            self._shown[utterance] = chosen
            return chosen
        self._shown.pop(utterance, None)
        self._finals[utterance] = chosen
        _forget_oldest(self._finals, FINALS_KEPT)
        _forget_oldest(self._shown, FINALS_KEPT)  # utterances that were dropped
        return chosen

    def _choose(
        self, utterance: str, text: str, entities: Sequence[Entity], *, final: bool
    ) -> frozenset[str]:
        rule = self._rule
        if rule.share >= 1.0 and not rule.first_only:
            return frozenset(entity.id for entity in entities)
        new = self._new_names(entities)
        shown = self._shown.get(utterance, frozenset())
        candidates = [entity for entity in entities if not rule.first_only or entity.id in new]
        candidates.sort(
            key=lambda entity: (
                entity.id not in shown,
                entity.id not in new,
                -entity.confidence,
                entity.start,
                -entity.end,
            )
        )
        room = self._saved + rule.share * len(text) if rule.share < 1.0 else float(len(text))
        covered: set[int] = set()
        chosen: list[Entity] = []
        for entity in candidates:
            wider = covered | set(range(entity.start, entity.end))
            if len(wider) <= room:
                covered = wider
                chosen.append(entity)
        if final:
            self._saved = min(room - len(covered), rule.share * SAVED_CHARACTERS)
            for entity in chosen:
                self._names.pop((entity.label, entity.text), None)
                self._names[entity.label, entity.text] = None
            _forget_oldest(self._names, NAMES_KEPT)
        return frozenset(entity.id for entity in chosen)

    def _new_names(self, entities: Iterable[Entity]) -> frozenset[str]:
        """Ids of the entities whose name has not come up before, here or in what was shown."""
        known = set(self._names)
        new: set[str] = set()
        for entity in sorted(entities, key=lambda entity: (entity.start, -entity.end)):
            name = (entity.label, entity.text)
            if name not in known:
                known.add(name)
                new.add(entity.id)
        return frozenset(new)


def _forget_oldest(known: dict[_Key, _Value], kept: int) -> None:
    while len(known) > kept:
        del known[next(iter(known))]
