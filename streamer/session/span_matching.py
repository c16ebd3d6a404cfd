"""Which new entity is which old one, when the text between two revisions has changed.

Offsets do not identify an entity: a word inserted in front moves them all. So the two texts are
compared first, every old character gets its place in the new text, and an old entity goes on as
the new one that has most of its characters, whatever its label and boundaries are now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from cnerta.models.runtime.labels import Span

__all__ = ["TextChange", "compare_texts", "match_spans"]

# Comparing is up to cubic in what lies between the common beginning and end. Revisions of speech
# recognition differ in a few characters; longer differences count as new text.
_LONGEST_COMPARED: Final = 64


@dataclass(frozen=True, slots=True)
class TextChange:
    """Where the characters of a text went in its next revision.

    Attributes:
        old: The old text.
        new: The new text.
        places: For each old character its offset in the new text, None for a deleted one.
        kept: For each old character whether it is still the same one there. A character that was
            exchanged for another (a corrected homophone) has a place but is not kept.
    """

    old: str
    new: str
    places: tuple[int | None, ...]
    kept: tuple[bool, ...]

    def moved(self, span: Span) -> frozenset[int]:
        """Offsets in the new text of an old span's characters."""
        return frozenset(p for p in self.places[span.start : span.end] if p is not None)

    def is_kept(self, span: Span) -> bool:
        """Whether an old span's characters are unchanged and still in one piece."""
        places = self.places[span.start : span.end]
        first = places[0]
        return (
            all(self.kept[span.start : span.end])
            and first is not None
            and list(places) == list(range(first, first + len(places)))
        )


def compare_texts(old: str, new: str) -> TextChange:
    """Find the places of the old text's characters in the new text."""
    limit = min(len(old), len(new))
    prefix = 0
    while prefix < limit and old[prefix] == new[prefix]:
        prefix += 1
    suffix = 0
    while suffix < limit - prefix and old[-1 - suffix] == new[-1 - suffix]:
        suffix += 1

    places: list[int | None] = [*range(prefix), *[None] * (len(old) - prefix)]
    kept = [True] * prefix + [False] * (len(old) - prefix)
    for old_start, old_end, new_start, new_end in _middle_blocks(
        old[prefix : len(old) - suffix], new[prefix : len(new) - suffix]
    ):
        if old_end - old_start == new_end - new_start:
            for i in range(old_end - old_start):
                at, to = prefix + old_start + i, prefix + new_start + i
                places[at], kept[at] = to, old[at] == new[to]
    for i in range(suffix):
        places[len(old) - 1 - i] = len(new) - 1 - i
        kept[len(old) - 1 - i] = True
    return TextChange(old, new, tuple(places), tuple(kept))


def _middle_blocks(old: str, new: str) -> list[tuple[int, int, int, int]]:
    """Corresponding stretches (old start, old end, new start, new end) of two texts."""
    if max(len(old), len(new)) > _LONGEST_COMPARED:
        return [(0, len(old), 0, len(new))]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [opcode[1:] for opcode in matcher.get_opcodes()]


def match_spans(old: Sequence[Span], new: Sequence[Span], change: TextChange) -> dict[int, int]:
    """Pair each new span with the old one that it continues.

    A pair shares more than half of the shorter one's characters. Best pairs come first: by the
    shared part of all their characters, then by an equal label. Two texts can often be compared
    in several ways (了了北京 with 北京了了), and an entity that is still there may look lost: so in
    the end, spans left over are paired if they are the same words under the same label.

    Returns:
        Index of the old span for the index of each new span that has one.
    """
    covering: dict[int, list[int]] = {}
    for n, after in enumerate(new):
        for place in range(after.start, after.end):
            covering.setdefault(place, []).append(n)
    candidates: list[tuple[float, bool, int, int]] = []
    for o, before in enumerate(old):
        shared = Counter(n for place in change.moved(before) for n in covering.get(place, ()))
        for n, count in shared.items():
            after = new[n]
            old_length, new_length = before.end - before.start, after.end - after.start
            if 2 * count > min(old_length, new_length):
                union = old_length + new_length - count
                candidates.append((-count / union, before.label != after.label, o, n))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, o, n in sorted(candidates):
        if o not in taken and n not in pairs:
            taken.add(o)
            pairs[n] = o
    lost: dict[tuple[str, str], list[int]] = {}
    for o, before in enumerate(old):
        if o not in taken:
            lost.setdefault((change.old[before.start : before.end], before.label), []).append(o)
    for n, after in enumerate(new):
        same = lost.get((change.new[after.start : after.end], after.label))
        if n not in pairs and same:
            pairs[n] = same.pop(0)
    return pairs
