"""Name lists out of annotated corpora, for a gazetteer.

A corpus whose conventions are not CNERTA's still knows which strings are persons, places and
organisations. Each name is listed with what it is and how often: ``李大桥 3 name-PER``, a form that
:func:`cnerta.models.text.lexicon.read_word_list` reads. So a gazetteer tells the model in which
words somebody has annotated which type, and the model learns how far to believe it.

A model that trains on the very sentences a list is from meets no name that is not on it, and comes
to believe that whatever is not listed is no name. Names that occur once are the worst of that:
leave them out (``least``) where the corpus is trained on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnerta.train.data.examples import Example

__all__ = ["Name", "collect_names", "write_names"]

_LEAST_SHARE = 0.2
"""Of a name's occurrences: what is rarer is somebody's slip."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name and what it was annotated as.

    Attributes:
        text: Normalised.
        count: How often it is an entity.
        labels: Its types, the most frequent first.
    """

    text: str
    count: int
    labels: tuple[str, ...]


def collect_names(
    examples: Iterable[Example], *, shortest: int = 2, longest: int = 8, least: int = 1
) -> list[Name]:
    """Names of corpora, the most frequent first.

    Args:
        examples: Normalised; those without annotation are passed over.
        shortest: Characters of a name, at least: a single one says next to nothing.
        longest: At most, which is what a gazetteer takes.
        least: Names that occur less often are left out.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for span in example.spans or ():
            if shortest <= span.end - span.start <= longest:
                counts[example.text[span.start : span.end]][span.label] += 1
    names = []
    for text, labels in counts.items():
        total = labels.total()
        if total >= least:
            often = tuple(t for t, n in labels.most_common() if n >= _LEAST_SHARE * total)
            names.append(Name(text, total, often))
    return sorted(names, key=lambda n: (-n.count, n.text))


def write_names(path: Path, names: Iterable[Name], prefix: str = "name") -> None:
    """Write a word list: name, count and types a line.

    Args:
        path: The file, replaced as a whole.
        names: What to write.
        prefix: Put before each type, so that a gazetteer tells lists apart: ``name-PER``.
    """
    lines = (f"{n.text} {n.count} {' '.join(f'{prefix}-{t}' for t in n.labels)}\n" for n in names)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
