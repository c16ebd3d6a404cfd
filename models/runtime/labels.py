"""Entity spans and their two tag encodings, flat and nested.

Flat: one tag a character, outermost entities only.

Nested: the linearisation of Straková et al. (2019), which section 4.2 of M3T (Sui et al., 2021)
adopts. A character's tag joins the labels of every entity that covers it, from the highest
priority to the lowest. Priority rules of section 4.2: an entity that starts earlier comes before
one that starts later; of two with the same start, the longer comes first.

Labels are BILOU (ours) or BIO (the paper). With the priority rules, the labels that continue an
entity (``I``, ``L``) always precede those that begin one (``B``, ``U``), and they appear in the
order in which their entities were opened.
So decoding matches the k-th continuing label with the k-th open entity, and a tag may follow
another exactly if the types still open agree: see :meth:`LabelScheme.allowed_transitions`.
In BIO an entity ends where the next tag does not continue it; of two crossing entities of one type
it cannot tell which ends first, and takes the later one to.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cnerta.models.config import Encoding, LabelKind
from cnerta.models.errors import ConfigError, DataError

__all__ = ["OUTSIDE", "LabelScheme", "Span", "outermost", "parents"]

OUTSIDE = "O"
_JOIN = "|"
_PREFIXES: dict[Encoding, str] = {"bilou": "BILU", "bio": "BI"}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One entity: characters ``start`` to ``end`` (half-open) of type ``label``."""

    start: int
    end: int
    label: str

    def contains(self, other: Span) -> bool:
        """Whether ``other`` lies inside this span and is not the same stretch of text."""
        return (
            self.start <= other.start
            and other.end <= self.end
            and (self.start, self.end) != (other.start, other.end)
        )


def outermost(spans: Iterable[Span]) -> list[Span]:
    """The spans that overlap no earlier or longer one: what a flat annotation keeps.

    Of crossing spans the one that starts first is kept, of spans with one start the longest, of
    two types on the same stretch the alphabetically first.
    """
    kept: list[Span] = []
    for span in sorted(set(spans), key=_priority):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def parents(spans: Sequence[Span]) -> list[int | None]:
    """For each span the index of the shortest span that contains it, or None.

    One pass over spans in priority order: a text full of entities costs no more than its depth.

    Args:
        spans: In priority order, as :meth:`LabelScheme.decode` gives them.
    """
    found: list[int | None] = []
    open_spans: list[int] = []
    for index, span in enumerate(spans):
        open_spans = [i for i in open_spans if spans[i].end > span.start]
        around = [i for i in open_spans if spans[i].contains(span)]
        found.append(min(around, key=lambda i: spans[i].end - spans[i].start, default=None))
        open_spans.append(index)
    return found


def _priority(span: Span) -> tuple[int, int, str]:
    return (span.start, -span.end, span.label)


def _split(tag: str) -> list[str]:
    return [] if tag == OUTSIDE else tag.split(_JOIN)


@dataclass(frozen=True)
class LabelScheme:
    """A tag inventory with its encoding.

    Attributes:
        kind: ``flat`` or ``nested``.
        tags: The tags in the order of their ids. The first is ``O``.
        encoding: Of their labels.
        well_formed: Whether only sequences that are an annotation are allowed; if not, all are.
    """

    kind: LabelKind
    tags: tuple[str, ...]
    encoding: Encoding = "bilou"
    well_formed: bool = True
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the inventory.

        Raises:
            ConfigError: The first tag is not ``O``, a tag repeats, or one is of another encoding.
        """
        if self.kind not in ("flat", "nested"):
            raise ConfigError(f"expected label kind 'flat' or 'nested', got {self.kind!r}")
        if not self.tags or self.tags[0] != OUTSIDE:
            raise ConfigError(f"expected the first tag to be {OUTSIDE!r}, got {self.tags[:1]}")
        if len(set(self.tags)) != len(self.tags):
            raise ConfigError("expected every tag once, got a repeated tag")
        for tag in self.tags[1:]:
            parts = _split(tag)
            if any(len(p) < 3 or p[0] not in self.prefixes or p[1] != "-" for p in parts):
                name = self.encoding.upper()
                raise ConfigError(f"expected {name} labels joined by {_JOIN!r}, got {tag!r}")
            if self.kind == "flat" and len(parts) > 1:
                raise ConfigError(f"expected one label a tag in a flat scheme, got {tag!r}")
        object.__setattr__(self, "_ids", {tag: i for i, tag in enumerate(self.tags)})

    @classmethod
    def flat(
        cls, types: Iterable[str], encoding: Encoding = "bilou", *, well_formed: bool = True
    ) -> LabelScheme:
        """The full inventory for the given entity types."""
        plain = [f"{p}-{t}" for t in sorted(set(types)) for p in _PREFIXES[encoding]]
        return cls("flat", (OUTSIDE, *plain), encoding, well_formed)

    @classmethod
    def nested(
        cls,
        annotations: Iterable[tuple[Sequence[Span], int]],
        min_count: int = 1,
        encoding: Encoding = "bilou",
        *,
        well_formed: bool = True,
    ) -> LabelScheme:
        """The joint tags that occur in the given annotations (spans, length in characters).

        The full product of stacked labels has no bound, so the inventory is what training data
        uses, together with all plain tags of its types.

        Args:
            annotations: Spans and length of each text.
            min_count: Leave out joint tags seen less often: a CRF costs the square of its tags.
            encoding: Of the labels.
            well_formed: See the class.
        """
        seen: Counter[str] = Counter()
        types: set[str] = set()
        for spans, length in annotations:
            types.update(s.label for s in spans)
            seen.update(_joint_tags(spans, length, encoding))
        plain = {f"{p}-{t}" for t in types for p in _PREFIXES[encoding]}
        often = {tag for tag, count in seen.items() if count >= min_count}
        joint = sorted((often | plain) - {OUTSIDE}, key=lambda t: (t.count(_JOIN), t))
        return cls("nested", (OUTSIDE, *joint), encoding, well_formed)

    @property
    def prefixes(self) -> str:
        """What labels may begin with."""
        return _PREFIXES[self.encoding]

    @cached_property
    def types(self) -> tuple[str, ...]:
        """The entity types, sorted."""
        return tuple(sorted({p[2:] for tag in self.tags for p in _split(tag)}))

    def __len__(self) -> int:
        return len(self.tags)

    def encode(self, spans: Iterable[Span], length: int) -> list[int]:
        """Tag ids of the ``length`` characters.

        A flat scheme encodes the outermost spans. A nested one encodes all; where a joint tag is
        not in the inventory, spans are left out, deepest first, until the rest can be written.

        Raises:
            DataError: A span is empty, leaves the text or has an unknown type.
        """
        kept = sorted(set(spans), key=_priority)
        for span in kept:
            if not 0 <= span.start < span.end <= length:
                raise DataError(f"expected a span inside 0..{length}, got {span}")
            if span.label not in self.types:
                raise DataError(f"expected an entity type of {self.types}, got {span.label!r}")
        if self.kind == "flat":
            kept = outermost(kept)
        while True:
            tags = _joint_tags(kept, length, self.encoding)
            missing = next((i for i, tag in enumerate(tags) if tag not in self._ids), None)
            if missing is None:
                return [self._ids[tag] for tag in tags]
            kept.remove([s for s in kept if s.start <= missing < s.end][-1])

    def decode(self, tag_ids: Sequence[int]) -> list[Span]:
        """The spans that a tag sequence encodes, in priority order.

        Defined for every sequence: an entity that the next tag does not continue ends there, a
        continuing label without an open entity of its type begins one, as in CoNLL's evaluation
        (Tjong Kim Sang and De Meulder 2003). The authors' release drops such labels.
        """
        spans: list[Span] = []
        open_spans: list[tuple[int, str]] = []
        for position, tag_id in enumerate(tag_ids):
            waiting = list(open_spans)
            open_spans = []
            for part in _split(self.tags[tag_id]):
                prefix, label = part[0], part[2:]
                start = position
                if prefix in "IL":
                    match = next((o for o in waiting if o[1] == label), None)
                    if match is not None:
                        # Entities skipped over were not continued: they ended before.
                        skipped = waiting[: waiting.index(match)]
                        spans += [Span(s, position, t) for s, t in skipped]
                        waiting = waiting[len(skipped) + 1 :]
                        start = match[0]
                if prefix in "LU":
                    spans.append(Span(start, position + 1, label))
                else:
                    open_spans.append((start, label))
            spans += [Span(s, position, t) for s, t in waiting]
        spans += [Span(s, len(tag_ids), t) for s, t in open_spans]
        return sorted(set(spans), key=_priority)

    def _leaves_open(self, tag: str) -> list[str]:
        return [p[2:] for p in _split(tag) if p[0] in "BI"]

    def _continues(self, tag: str) -> list[str]:
        return [p[2:] for p in _split(tag) if p[0] in "IL"]

    def allowed_transitions(self) -> npt.NDArray[np.bool_]:
        """Which tag may follow which. shape: (tags, tags), [from, to]."""
        if not self.well_formed:
            return np.ones((len(self), len(self)), bool)
        left_open = [self._leaves_open(tag) for tag in self.tags]
        continued = [self._continues(tag) for tag in self.tags]
        # In BIO what is left open may end unsaid.
        fits = operator.eq if self.encoding == "bilou" else _in_order
        return np.array([[fits(a, b) for b in continued] for a in left_open])

    def allowed_starts(self) -> npt.NDArray[np.bool_]:
        """Which tag may begin a sentence. shape: (tags,)."""
        if not self.well_formed:
            return np.ones(len(self), bool)
        return np.array([not self._continues(tag) for tag in self.tags])

    def allowed_ends(self) -> npt.NDArray[np.bool_]:
        """Which tag may end a sentence. shape: (tags,)."""
        if not self.well_formed or self.encoding == "bio":
            return np.ones(len(self), bool)
        return np.array([not self._leaves_open(tag) for tag in self.tags])

    def labels_of(self, prefix: str, label: str) -> npt.NDArray[np.bool_]:
        """Which tags hold the label ``prefix-label``. shape: (tags,)."""
        return np.array([f"{prefix}-{label}" in _split(tag) for tag in self.tags])


def _in_order(whole: Sequence[str], part: Sequence[str]) -> bool:
    """Whether ``part`` is what is left of ``whole`` when some of it is taken out."""
    rest = iter(whole)
    return all(label in rest for label in part)


def _joint_tags(spans: Sequence[Span], length: int, encoding: Encoding) -> list[str]:
    alone, last = ("U", "L") if encoding == "bilou" else ("B", "I")
    stacks: list[list[str]] = [[] for _ in range(length)]
    for span in sorted(spans, key=_priority):
        if span.end - span.start == 1:
            stacks[span.start].append(f"{alone}-{span.label}")
            continue
        stacks[span.start].append(f"B-{span.label}")
        for position in range(span.start + 1, span.end - 1):
            stacks[position].append(f"I-{span.label}")
        stacks[span.end - 1].append(f"{last}-{span.label}")
    return [_JOIN.join(stack) or OUTSIDE for stack in stacks]
