"""Names that must not be shown: each of their characters is replaced, one for one.

So offsets and times go on holding, and captions keep their lines. A name that was hidden once is
hidden wherever the same characters come again in the session, whether they are found there or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, UnsetType, structs

from cnerta.streamer.errors import OutputError
from cnerta.streamer.wire.messages import CaptionUpdate, UtteranceFinal
from cnerta.streamer.wire.parts import CharacterReading, Entity, MendedText

__all__ = ["DEFAULT_SIGN", "MaskRule", "NameMask"]

DEFAULT_SIGN: Final = "＊"
_NAMES_KEPT: Final = 1_024
_SHORTEST_REMEMBERED: Final = 2
"""A name of one character would hide the character in every word."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """What is hidden.

    Attributes:
        labels: Types of the names that are.
        sign: What stands in the place of each of their characters.
    """

    labels: frozenset[str]
    sign: str = DEFAULT_SIGN

    @classmethod
    def parse(cls, labels: str, sign: str = DEFAULT_SIGN) -> MaskRule:
        """Take types with commas between them.

        Raises:
            OutputError: There is none, or the sign is not one character that can be seen.
        """
        listed = frozenset(part.strip() for part in labels.split(",") if part.strip())
        if not listed:
            raise OutputError(
                f"expected types of names to be hidden, as in PER,LOC, got {labels!r}"
            )
        if len(sign) != 1 or not sign.isprintable() or sign.isspace():
            raise OutputError(f"expected one character in the place of each other, got {sign!r}")
        return cls(listed, sign)


class NameMask:
    """Hides the names of one session.

    Args:
        rule: What is hidden.
        names: Names that are hidden from the beginning, wherever they are written.
    """

    def __init__(self, rule: MaskRule, names: Iterable[str] = ()) -> None:
        self._rule = rule
        self._expected = tuple(name for name in names if name)
        self._known: dict[str, None] = {}
        """Names that were hidden, the oldest first."""

    def check(self, labels: Sequence[str]) -> None:
        """Refuse a model that does not know what is to be hidden: nothing ever would be.

        Raises:
            OutputError: It knows other types only.
        """
        unknown = sorted(self._rule.labels - set(labels))
        if unknown:
            raise OutputError(
                f"expected types of names that the model knows ({', '.join(labels)}) to be hidden, "
                f"got {', '.join(unknown)}"
            )

    def caption(self, message: CaptionUpdate) -> CaptionUpdate:
        """Hide the names in what is shown of an unfinished utterance."""
        hidden = self._hidden(message.text, message.entities)
        text = self._masked(message.text, hidden)
        entities = [self._entity(e, text, hidden) for e in message.entities]
        speaker = message.speaker if message.speaker is UNSET else self.speaker(message.speaker)
        return structs.replace(
            message,
            text=text,
            entities=entities,
            speaker=speaker,
            mended=self._mended(message),
        )

    def speaker(self, speaker: str) -> str:
        """Hide in the name of whoever speaks what is hidden wherever it is written."""
        return self._masked(speaker, self._hidden(speaker, ()))

    def final(self, message: UtteranceFinal) -> UtteranceFinal:
        """Hide the names in a final answer, and remember them."""
        for entity in message.entities:
            if entity.label in self._rule.labels:
                self._remember(entity.text)
                if entity.suggested_text is not UNSET:
                    self._remember(entity.suggested_text)
        while len(self._known) > _NAMES_KEPT:
            del self._known[next(iter(self._known))]
        hidden = self._hidden(message.text, message.entities)
        text = self._masked(message.text, hidden)
        readings: list[CharacterReading] | UnsetType = UNSET
        if message.readings is not UNSET:
            # How a hidden character is read would tell what it is.
            readings = [
                structs.replace(
                    each,
                    start_utf16=_utf16(text[: each.start]),
                    end_utf16=_utf16(text[: each.end]),
                )
                for each in message.readings
                if hidden.isdisjoint(range(each.start, each.end))
            ]
        return structs.replace(
            message,
            text=text,
            entities=[self._entity(e, text, hidden) for e in message.entities],
            readings=readings,
            speaker=message.speaker if message.speaker is UNSET else self.speaker(message.speaker),
            mended=self._mended(message),
        )

    def _remember(self, name: str) -> None:
        if len(name) >= _SHORTEST_REMEMBERED:
            self._known.pop(name, None)
            self._known[name] = None

    def _mended(self, message: CaptionUpdate | UtteranceFinal) -> MendedText | UnsetType:
        """Hide the names in a mended text; the text goes if one of them is not known there."""
        mended = message.mended
        if mended is UNSET:
            return UNSET
        named = {e.id for e in message.entities if e.label in self._rule.labels}
        if named - {e.id for e in mended.entities}:
            return UNSET
        hidden = self._hidden(mended.text, mended.entities)
        text = self._masked(mended.text, hidden)
        entities = [self._entity(e, text, hidden) for e in mended.entities]
        return structs.replace(mended, text=text, entities=entities)

    def _hidden(self, text: str, entities: Sequence[Entity]) -> frozenset[int]:
        """The characters that are."""
        hidden: set[int] = set()
        for entity in entities:
            if entity.label in self._rule.labels:
                hidden.update(range(entity.start, entity.end))
        for name in (*self._expected, *self._known):
            at = text.find(name)
            while at >= 0:
                hidden.update(range(at, at + len(name)))
                at = text.find(name, at + 1)
        return frozenset(hidden)

    def _masked(self, text: str, hidden: frozenset[int]) -> str:
        sign = self._rule.sign
        return "".join(sign if i in hidden else c for i, c in enumerate(text))

    def _entity(self, entity: Entity, masked: str, hidden: frozenset[int]) -> Entity:
        is_whole = hidden.isdisjoint(range(entity.start, entity.end))
        return structs.replace(
            entity,
            text=masked[entity.start : entity.end],
            # The sign may take another number of units than what it stands for.
            start_utf16=_utf16(masked[: entity.start]),
            end_utf16=_utf16(masked[: entity.end]),
            suggested_text=entity.suggested_text if is_whole else UNSET,
            original_text=entity.original_text if is_whole else UNSET,
        )


def _utf16(text: str) -> int:
    """Length in UTF-16 units."""
    return len(text) + sum(ord(c) > 0xFFFF for c in text)
