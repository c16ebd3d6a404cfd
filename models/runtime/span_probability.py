"""How probable one span is under a CRF that need not keep to well-formed sequences.

Where ill-formed sequences are forbidden and the labels are BILOU, a span is there exactly if its
labels are, and :class:`cnerta.models.runtime.decoding.CrfDecoder` adds those up. Here the span also
begins at an inside label that continues nothing, and ends where the next tag does not continue it,
as :meth:`LabelScheme.decode` reads sequences. Exact as long as no entity lies in another of its own
type; there, what continues an entity is counted for any of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.crf_search import CrfParameters, Lattice
from cnerta.models.runtime.labels import LabelScheme, Span

__all__ = ["SpanProbability"]

Doubles = npt.NDArray[np.float64]


class SpanProbability:
    """Sums over the tag sequences that hold a span."""

    def __init__(self, scheme: LabelScheme, scores: CrfParameters) -> None:
        """What does not depend on a sentence.

        Args:
            scheme: Labels.
            scores: Of the CRF, as they are searched with.
        """
        self._transitions = np.exp(scores.transitions)
        self._begins = {t: _holding(scheme, "BU", t) for t in scheme.types}
        self._continues = {t: _holding(scheme, "IL", t) for t in scheme.types}
        self._ends = {t: _holding(scheme, "UL", t) for t in scheme.types}
        self._stays_open = {t: _holding(scheme, "BI", t) for t in scheme.types}

    def __call__(self, lattice: Lattice, span: Span) -> float:
        """Probability of all tag sequences that are read as holding the span."""
        label, length = span.label, len(lattice.weights)
        begins, continues = self._begins[label], self._continues[label]
        ends, stays_open = self._ends[label], self._stays_open[label]
        mass = np.where(begins, lattice.forward[span.start], 0.0)
        orphan = continues & ~begins
        if span.start == 0:
            mass += np.where(orphan, lattice.forward[0], 0.0)
        else:
            closed = np.where(stays_open, 0.0, lattice.forward[span.start - 1])
            mass += np.where(orphan, self._step(lattice, closed, span.start), 0.0)
        for place in range(span.start + 1, span.end):
            mass = np.where(ends & ~stays_open, 0.0, mass)
            mass = np.where(continues, self._step(lattice, mass, place), 0.0)
        last = span.end - 1
        if span.end == length:
            return float(mass @ lattice.backward[last])
        ended = np.where(ends & ~stays_open, mass, 0.0)
        going_on = self._step(lattice, mass - ended, span.end)
        left = np.where(continues, 0.0, going_on)
        return float(ended @ lattice.backward[last] + left @ lattice.backward[span.end])

    def _step(self, lattice: Lattice, mass: Doubles, place: int) -> Doubles:
        """What of a mass before a place goes to each tag there. shape: (tags,) -> (tags,)."""
        moved: Doubles = (mass @ self._transitions) * lattice.weights[place] / lattice.scale[place]
        return moved


def _holding(scheme: LabelScheme, prefixes: str, label: str) -> npt.NDArray[np.bool_]:
    """Which tags hold one of these labels. shape: (tags,)."""
    found = np.zeros(len(scheme), bool)
    for prefix in prefixes:
        found |= scheme.labels_of(prefix, label)
    return found
