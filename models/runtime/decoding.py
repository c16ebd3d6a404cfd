"""CRF decoding: the spans of the best tag sequence with their confidences.

The linear-chain CRF is that of pytorch-crf, which trains it; here only its three parameter arrays
are needed, so serving does without torch. Decoding is restricted to the transitions the label
scheme allows. Where it allows all, as the paper's plain CRF does, :meth:`LabelScheme.decode` says
what an ill-formed sequence means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.calibration import Calibration
from cnerta.models.runtime.crf_search import (
    CrfParameters,
    Lattice,
    NumpySearch,
    Search,
    allowed_scores,
)
from cnerta.models.runtime.labels import LabelScheme, Span
from cnerta.models.runtime.span_probability import SpanProbability
from cnerta.models.text.normalisation import NormalisedText
from cnerta.models.text.person_names import ends_of_full_names

__all__ = ["CrfDecoder", "CrfParameters", "ScoredSpan", "SpanHint"]

Doubles = npt.NDArray[np.float64]

PERSON = "PER"
_HARDLY = 6.8  # log-odds of 916 to 1, see cnerta.models.persons


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A decoded entity.

    Attributes:
        start: First character.
        end: One past the last character.
        label: Entity type.
        confidence: Marginal probability of exactly this span under the CRF, calibrated, 0 to 1.
    """

    start: int
    end: int
    label: str
    confidence: float

    @property
    def span(self) -> Span:
        """The entity without its confidence."""
        return Span(self.start, self.end, self.label)


@dataclass(frozen=True, slots=True)
class SpanHint:
    """Outside evidence for an entity, such as an entry of a glossary.

    Attributes:
        start: First character.
        end: One past the last character.
        label: Entity type.
        strength: How much it counts: what it adds to the log-odds of the entity, about.
        inner: The same for each character between the first and the last, where the characters
            that are there speak against the entity by themselves.
    """

    start: int
    end: int
    label: str
    strength: float
    inner: float = 0.0


class CrfDecoder:
    """Decodes emissions into spans with confidences.

    Raises:
        ConfigError: The parameter shapes do not fit the label scheme.
    """

    def __init__(
        self,
        scheme: LabelScheme,
        parameters: CrfParameters,
        calibration: Calibration | None = None,
        search: Callable[[CrfParameters], Search] = NumpySearch,
    ) -> None:
        """A decoder.

        Args:
            scheme: Labels.
            parameters: Of the CRF.
            calibration: Of the confidences.
            search: Makes what searches with the allowed scores.
        """
        scores = allowed_scores(scheme, parameters)
        self.scheme = scheme
        self._calibration = calibration or Calibration()
        self._search = search(scores)
        self._tags = {
            (prefix, label): np.flatnonzero(scheme.labels_of(prefix, label))
            for prefix in "BILU"
            for label in scheme.types
        }
        # From the tags that hold one part of an entity to those that hold the next. Small: numpy
        # keeps the GIL for up to 500 numbers, see cnerta.models.runtime.buffers.
        weights = np.exp(scores.transitions)
        self._inside = {
            (before, after, label): weights[
                np.ix_(self._tags[before, label], self._tags[after, label])
            ]
            for before in "BI"
            for after in "IL"
            for label in scheme.types
        }
        # Where a span is more than its labels.
        self._probability: SpanProbability | None = None
        if scheme.encoding != "bilou" or not scheme.well_formed:
            self._probability = SpanProbability(scheme, scores)

    def decode(
        self, emissions: npt.NDArray[np.float32], lengths: Sequence[int]
    ) -> list[tuple[ScoredSpan, ...]]:
        """Best spans of each sentence, in priority order (see ``labels``).

        Args:
            emissions: shape: (batch, length, tags)
            lengths: Valid characters of each sentence. shape: (batch,)
        """
        paths = self._search.best_paths(emissions, lengths)
        found = [self.scheme.decode(path) for path in paths]
        # Most captions hold no entity: then no confidence is needed.
        holding = [i for i, spans in enumerate(found) if spans]
        lattices = self._search.lattices(emissions[holding], [lengths[i] for i in holding])
        answers: list[tuple[ScoredSpan, ...]] = [()] * len(found)
        for i, lattice in zip(holding, lattices, strict=True):
            answers[i] = tuple(
                ScoredSpan(s.start, s.end, s.label, self._confidence(lattice, s)) for s in found[i]
            )
        return answers

    def with_hints(
        self, emissions: npt.NDArray[np.float32], hints: Sequence[SpanHint]
    ) -> npt.NDArray[np.float32]:
        """Emissions of one sentence with the scores of some entities raised.

        A hint raises all tags that begin its entity where it begins, and all that end it where it
        ends, by half its strength each. Whatever holds the entity gains all of it, whatever shares
        one boundary half; decoding weighs that against the rest, and the confidences follow. In BIO
        no tag says that an entity ends: its last character's is raised, the next one's lowered if
        it goes on. What a hint says of the characters between raises all tags that go on with it.

        Args:
            emissions: shape: (length, tags)
            hints: With labels of the scheme.
        """
        raised = emissions.copy()
        for hint in hints:
            last = hint.end - 1
            if hint.inner and last - hint.start > 1:
                raised[hint.start + 1 : last, self._tags["I", hint.label]] += hint.inner
            if self.scheme.encoding == "bio":
                begins, inside = self._tags["B", hint.label], self._tags["I", hint.label]
                raised[hint.start, begins] += hint.strength / 2
                raised[last, np.union1d(begins, inside)] += hint.strength / 2
                raised[hint.end : hint.end + 1, inside] -= hint.strength / 2
                continue
            if hint.start == last:
                raised[last, self._tags["U", hint.label]] += hint.strength
                continue
            raised[hint.start, self._tags["B", hint.label]] += hint.strength / 2
            raised[last, self._tags["L", hint.label]] += hint.strength / 2
        return raised

    def with_full_names(
        self, emissions: npt.NDArray[np.float32], text: str
    ) -> npt.NDArray[np.float32]:
        """Emissions of one sentence in which the end of a full name is hardly a person alone.

        Not in BIO, which has no tag for that.

        Args:
            emissions: shape: (length, tags)
            text: Its characters, see :mod:`cnerta.models.persons`.
        """
        places = list(ends_of_full_names(text))
        alone = self._tags.get(("U", PERSON))
        if not places or alone is None:
            return emissions
        lowered = emissions.copy()
        for place in places:
            lowered[place, alone] -= _HARDLY
        return lowered

    def _confidence(self, lattice: Lattice, span: Span) -> float:
        """Probability of all tag sequences that hold this span, calibrated."""
        if self._probability is not None:
            return self._calibration(float(np.clip(self._probability(lattice, span), 0.0, 1.0)))
        last = span.end - 1
        part = "U" if span.start == last else "B"
        tags = self._tags[part, span.label]
        mass = lattice.forward[span.start, tags]
        for t in range(span.start + 1, span.end):
            before, part = part, "L" if t == last else "I"
            tags = self._tags[part, span.label]
            mass = mass @ self._inside[before, part, span.label]
            mass = mass * lattice.weights[t, tags] / lattice.scale[t]
        return self._calibration(float(np.clip(mass @ lattice.backward[last, tags], 0.0, 1.0)))


def whole_tokens(found: Sequence[ScoredSpan], text: NormalisedText) -> tuple[ScoredSpan, ...]:
    """Entities that cover part of a token, grown to cover the whole of it.

    Grown entities may meet: of two that have become one the surer is kept, and so it is of two
    that now cross.

    Args:
        found: In priority order.
        text: What they were found in.

    Returns:
        In priority order.
    """
    grown = [(s, *text.normalised_range(*text.original_range(s.start, s.end))) for s in found]
    if all((s.start, s.end) == (start, end) for s, start, end in grown):
        return tuple(found)
    kept: list[tuple[ScoredSpan, bool]] = []
    for span, start, end in sorted(grown, key=lambda g: -g[0].confidence):
        new = ScoredSpan(start, end, span.label, span.confidence)
        is_grown = new != span
        if not any((is_grown or other_grown) and _collide(new, o) for o, other_grown in kept):
            kept.append((new, is_grown))
    return tuple(sorted((s for s, _ in kept), key=lambda s: (s.start, -s.end, s.label)))


def _collide(one: ScoredSpan, other: ScoredSpan) -> bool:
    """Whether two spans are the same, or cross."""
    if one.span == other.span:
        return True
    first, second = sorted((one, other), key=lambda s: (s.start, -s.end))
    return first.start < second.start < first.end < second.end
