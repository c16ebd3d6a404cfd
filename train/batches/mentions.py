"""Mention replacement: training sentences with other names in place of theirs.

Mention replacement (Dai and Adel, COLING 2020, section 3): an entity is exchanged for another of
its type out of the training data. Nested ones are exchanged whole or inside only, so that 济阳路,
which holds 济阳, becomes 解放路 as well as 长葛路. The other is as long: such names look alike more
often, countries and countries, persons with a surname and persons with one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from cnerta.models.runtime.labels import Span
from cnerta.train.data.examples import Example

__all__ = ["Mentions"]


@dataclass(frozen=True, slots=True)
class _Mention:
    """A name as annotated.

    Attributes:
        text: Its characters.
        inner: The entities inside it, counted from its own beginning.
    """

    text: str
    inner: tuple[Span, ...]


class Mentions:
    """The names of training texts, by type and length."""

    def __init__(self, examples: Iterable[Example]) -> None:
        counts: defaultdict[tuple[str, str], Counter[_Mention]] = defaultdict(Counter)
        for example in examples:
            spans = example.spans or ()
            for span in spans:
                mention = _Mention(
                    example.text[span.start : span.end],
                    tuple(_moved(s, -span.start) for s in spans if span.contains(s)),
                )
                counts[span.label, mention.text][mention] += 1
        # Annotators differ; each name is taken as most of them have it.
        self._pools: defaultdict[tuple[str, int], list[_Mention]] = defaultdict(list)
        for (label, text), kinds in sorted(counts.items()):
            self._pools[label, len(text)].append(kinds.most_common(1)[0][0])

    def exchanged(
        self, example: Example, probability: float, generator: np.random.Generator
    ) -> Example:
        """An example with other names; its audio would no longer fit.

        Args:
            example: Text without audio.
            probability: Of each of its entities to be exchanged, the outer ones first; what is
                inside one that was exchanged is gone.
            generator: Draws.
        """
        assert example.audio is None, "what is said cannot be exchanged"
        left = sorted(example.spans or (), key=lambda s: (s.start, -s.end))
        characters = list(example.text)
        kept: list[Span] = []
        while left:
            span = left.pop(0)
            kept.append(span)
            if generator.random() >= probability:
                continue
            pool = self._pools[span.label, span.end - span.start]
            if not pool:
                continue
            name = pool[int(generator.integers(len(pool)))]
            characters[span.start : span.end] = name.text
            left = [s for s in left if not span.contains(s)]
            kept += [_moved(s, span.start) for s in name.inner]
        if "".join(characters) == example.text:
            return example
        spans = tuple(sorted(kept))
        return replace(example, text="".join(characters), spans=spans, readings=None)


def _moved(span: Span, by: int) -> Span:
    return replace(span, start=span.start + by, end=span.end + by)
