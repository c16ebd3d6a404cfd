"""CRF decoding in numpy: best tag sequence, its spans, and how sure the model is of each span.

The linear-chain CRF is that of pytorch-crf, which trains it; here only its three parameter arrays
are needed, so serving does without torch. Decoding is restricted to the transitions the label
scheme allows: every decoded sequence is a well-formed annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.calibration import Calibration
from cnerta.models.errors import ConfigError
from cnerta.models.labels import LabelScheme, Span

__all__ = ["CrfDecoder", "CrfParameters", "ScoredSpan", "SpanHint"]

_FORBIDDEN = -1e9

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrfParameters:
    """What pytorch-crf learns.

    Attributes:
        start: Score of beginning with a tag. shape: (tags,)
        transitions: Score of going from a tag to a tag. shape: (tags, tags), [from, to]
        end: Score of ending with a tag. shape: (tags,)
    """

    start: npt.NDArray[np.float32]
    transitions: npt.NDArray[np.float32]
    end: npt.NDArray[np.float32]


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
    """Something from elsewhere that speaks for an entity.

    Attributes:
        start: First character.
        end: One past the last character.
        label: Entity type.
        strength: How much it counts: what it adds to the log-odds of the entity, about.
    """

    start: int
    end: int
    label: str
    strength: float


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
    ) -> None:
        tags = len(scheme)
        shapes = (parameters.start.shape, parameters.transitions.shape, parameters.end.shape)
        if shapes != ((tags,), (tags, tags), (tags,)):
            raise ConfigError(f"expected CRF parameters for {tags} tags, got shapes {shapes}")
        self.scheme = scheme
        self._calibration = calibration or Calibration()
        self._start = np.where(scheme.allowed_starts(), parameters.start, _FORBIDDEN)
        self._end = np.where(scheme.allowed_ends(), parameters.end, _FORBIDDEN)
        self._transitions = np.where(
            scheme.allowed_transitions(), parameters.transitions, _FORBIDDEN
        )
        self._transition_weights = np.exp(self._transitions)
        self._prefix_masks = {
            (prefix, label): scheme.labels_of(prefix, label).astype(np.float64)
            for prefix in "BILU"
            for label in scheme.types
        }

    def decode(
        self, emissions: npt.NDArray[np.float32], lengths: Sequence[int]
    ) -> list[tuple[ScoredSpan, ...]]:
        """Best spans of each sentence, in priority order (see ``labels``).

        Args:
            emissions: shape: (batch, length, tags)
            lengths: Valid characters of each sentence. shape: (batch,)
        """
        return [
            self._spans(emissions[i, :n].astype(np.float64), path)
            for i, (n, path) in enumerate(
                zip(lengths, self.best_paths(emissions, lengths), strict=True)
            )
        ]

    def with_hints(
        self, emissions: npt.NDArray[np.float32], hints: Sequence[SpanHint]
    ) -> npt.NDArray[np.float32]:
        """Emissions of one sentence that speak for some entities more than they did.

        A hint raises all tags that begin its entity where it begins, and all that end it where it
        ends, by half its strength each. Whatever holds the entity gains all of it, whatever shares
        one boundary half; decoding weighs that against the rest, and the confidences follow.

        Args:
            emissions: shape: (length, tags)
            hints: With labels of the scheme.
        """
        raised = emissions.copy()
        for hint in hints:
            last = hint.end - 1
            if hint.start == last:
                raised[last, self._prefix_masks["U", hint.label] > 0] += hint.strength
                continue
            raised[hint.start, self._prefix_masks["B", hint.label] > 0] += hint.strength / 2
            raised[last, self._prefix_masks["L", hint.label] > 0] += hint.strength / 2
        return raised

    def best_paths(
        self, emissions: npt.NDArray[np.float32], lengths: Sequence[int]
    ) -> list[list[int]]:
        """The most probable allowed tag sequence of each sentence (Viterbi)."""
        batch, longest, tags = emissions.shape
        if batch == 0 or longest == 0:
            return [[] for _ in range(batch)]
        scores = np.empty((longest, batch, tags))
        scores[0] = self._start + emissions[:, 0]
        origins = np.zeros((longest, batch, tags), np.int64)
        for t in range(1, longest):
            candidates = scores[t - 1][:, :, None] + self._transitions
            origins[t] = candidates.argmax(axis=1)
            scores[t] = candidates.max(axis=1) + emissions[:, t]
        paths: list[list[int]] = []
        for i, n in enumerate(lengths):
            if n == 0:
                paths.append([])
                continue
            path = [int((scores[n - 1, i] + self._end).argmax())]
            for t in range(n - 1, 0, -1):
                path.append(int(origins[t, i, path[-1]]))
            paths.append(path[::-1])
        return paths

    def _spans(self, emissions: Doubles, path: list[int]) -> tuple[ScoredSpan, ...]:
        spans = self.scheme.decode(path)
        if not spans:
            return ()
        lattice = self._lattice(emissions)
        return tuple(
            ScoredSpan(s.start, s.end, s.label, self._confidence(lattice, s)) for s in spans
        )

    def _lattice(self, emissions: Doubles) -> _Lattice:
        """Scaled forward and backward probabilities (Rabiner 1989, section V.A)."""
        length, tags = emissions.shape
        weights = np.exp(emissions - emissions.max(axis=1, keepdims=True))
        forward = np.empty((length, tags))
        backward = np.empty((length, tags))
        scale = np.empty(length)
        row = np.exp(self._start) * weights[0]
        for t in range(length):
            if t:
                row = (forward[t - 1] @ self._transition_weights) * weights[t]
            scale[t] = row.sum()
            forward[t] = row / scale[t]
        ends = np.exp(self._end)
        backward[-1] = ends / (forward[-1] @ ends)
        for t in range(length - 2, -1, -1):
            backward[t] = self._transition_weights @ (weights[t + 1] * backward[t + 1])
            backward[t] /= scale[t + 1]
        return _Lattice(weights, forward, backward, scale)

    def _confidence(self, lattice: _Lattice, span: Span) -> float:
        """Probability of all tag sequences that hold this span's labels, calibrated."""
        last = span.end - 1
        if span.start == last:
            mass = lattice.forward[last] * self._prefix_masks["U", span.label]
        else:
            mass = lattice.forward[span.start] * self._prefix_masks["B", span.label]
            for t in range(span.start + 1, span.end):
                mask = self._prefix_masks["L" if t == last else "I", span.label]
                mass = (mass @ self._transition_weights) * (
                    lattice.weights[t] * mask / lattice.scale[t]
                )
        return self._calibration(float(np.clip(mass @ lattice.backward[last], 0.0, 1.0)))


@dataclass(frozen=True, slots=True)
class _Lattice:
    """Scaled forward-backward quantities of one sentence. shapes: (length, tags); scale (length,).

    ``forward[t] * backward[t]`` sums to one over the tags at every t.
    """

    weights: Doubles
    forward: Doubles
    backward: Doubles
    scale: Doubles
