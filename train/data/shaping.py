"""Sentences of one corpus made like those of another: as long, and as often without a name.

Newspaper corpora have long sentences with punctuation, CNERTA the clauses that people read out; and
what has no entity teaches little for what it costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cnerta.models.runtime.labels import Span

if TYPE_CHECKING:
    from cnerta.train.data.example import Example

__all__ = ["cut", "thinned"]

_PAUSES: Final = frozenset("，。；：！？、…—,;!?")
"""Marks after which a sentence may be cut."""


def cut(example: Example, longest: int) -> Iterator[Example]:
    """A sentence in pieces that end with punctuation, each as long as may be.

    Entities are never cut. What has no punctuation for so long stays whole.

    Args:
        example: Text as published, without audio.
        longest: Characters of a piece, punctuation included.
    """
    assert example.audio is None, "what is said cannot be cut at its text"
    text, spans = example.text, example.spans or ()
    inside = {i for s in spans for i in range(s.start + 1, s.end)}
    ends = [i for i, c in enumerate(text, 1) if c in _PAUSES and i not in inside]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    begin = 0
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is not None and following - begin <= longest:
            continue
        own = [Span(s.start - begin, s.end - begin, s.label) for s in spans if s.start >= begin]
        kept = tuple(s for s in own if s.end <= end - begin)
        yield replace(example, text=text[begin:end], spans=None if example.spans is None else kept)
        begin = end


def thinned(examples: Iterable[Example], share: float) -> Iterator[Example]:
    """All examples with entities, and of those without an evenly spread share.

    Args:
        examples: In order.
        share: Of the examples without entities, 0 to 1.
    """
    without = 0
    for example in examples:
        if not example.spans:
            without += 1
            if int(without * share) == int((without - 1) * share):
                continue
        yield example
