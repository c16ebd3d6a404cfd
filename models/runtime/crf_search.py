"""Search through a linear-chain CRF: the best tag sequence, and how probable the tags are.

Twice: in numpy, and as two ONNX graphs, which serving uses. Both give the same. The graphs are
there because their loops over the characters need no GIL: in numpy every step may release the GIL
and wait to get it back (see :mod:`cnerta.models.runtime.buffers`), which in a busy
server takes ten times as long as the step. The CRF's parameters are inputs, so the same graphs
serve all bundles; :mod:`cnerta.export.crf_graphs` has their source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.labels import LabelScheme

__all__ = [
    "LATTICE_FILE",
    "SCORES_FILE",
    "CrfParameters",
    "GraphSearch",
    "Lattice",
    "NumpySearch",
    "Search",
    "allowed_scores",
]

SCORES_FILE = Path(__file__).parent / "crf_scores.onnx"
LATTICE_FILE = Path(__file__).parent / "crf_lattice.onnx"
_FORBIDDEN = -1e9

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CrfParameters:
    """What pytorch-crf learns.

    Attributes:
        start: Score of beginning with a tag. shape: (tags,)
        transitions: Score of going from a tag to a tag. shape: (tags, tags), [from, to]
        end: Score of ending with a tag. shape: (tags,)
    """

    start: npt.NDArray[np.floating[Any]]
    transitions: npt.NDArray[np.floating[Any]]
    end: npt.NDArray[np.floating[Any]]


def allowed_scores(scheme: LabelScheme, parameters: CrfParameters) -> CrfParameters:
    """The parameters with what the labels do not allow as good as impossible, in doubles.

    Raises:
        ConfigError: The parameter shapes do not fit the label scheme.
    """
    tags = len(scheme)
    shapes = (parameters.start.shape, parameters.transitions.shape, parameters.end.shape)
    if shapes != ((tags,), (tags, tags), (tags,)):
        raise ConfigError(f"expected CRF parameters for {tags} tags, got shapes {shapes}")
    return CrfParameters(
        np.where(scheme.allowed_starts(), parameters.start, _FORBIDDEN).astype(np.float64),
        np.where(scheme.allowed_transitions(), parameters.transitions, _FORBIDDEN).astype(
            np.float64
        ),
        np.where(scheme.allowed_ends(), parameters.end, _FORBIDDEN).astype(np.float64),
    )


@dataclass(frozen=True, slots=True)
class Lattice:
    """Scaled forward and backward probabilities of a sentence (Rabiner 1989, section V.A).

    ``forward[t] * backward[t]`` sums to one over the tags at every t.

    Attributes:
        weights: Exponentials of the emissions, the largest 1. shape: (length, tags)
        forward: shape: (length, tags)
        backward: shape: (length, tags)
        scale: What each step was divided by. shape: (length,)
    """

    weights: Doubles
    forward: Doubles
    backward: Doubles
    scale: Doubles


class Search(Protocol):
    """Searches batches of sentences.

    For both methods emissions have the shape (batch, length, tags), and lengths are the valid
    characters of each sentence.
    """

    def best_paths(self, emissions: Floats, lengths: Sequence[int]) -> list[list[int]]:
        """The most probable tag sequence of each sentence (Viterbi)."""
        ...

    def lattices(self, emissions: Floats, lengths: Sequence[int]) -> list[Lattice]:
        """The probabilities of each sentence; none may be empty."""
        ...


class NumpySearch:
    """The search in numpy."""

    def __init__(self, scores: CrfParameters) -> None:
        """A search.

        Args:
            scores: See :func:`allowed_scores`.
        """
        self._scores = scores
        self._transition_weights = np.exp(scores.transitions)

    def best_paths(self, emissions: Floats, lengths: Sequence[int]) -> list[list[int]]:
        """See :meth:`Search.best_paths`."""
        batch, longest, tags = emissions.shape
        if batch == 0 or longest == 0:
            return [[] for _ in range(batch)]
        scores = np.empty((longest, batch, tags))
        scores[0] = self._scores.start + emissions[:, 0]
        origins = np.zeros((longest, batch, tags), np.int64)
        for t in range(1, longest):
            candidates = scores[t - 1][:, :, None] + self._scores.transitions
            origins[t] = candidates.argmax(axis=1)
            scores[t] = candidates.max(axis=1) + emissions[:, t]
        paths: list[list[int]] = []
        for i, n in enumerate(lengths):
            if n == 0:
                paths.append([])
                continue
            path = [int((scores[n - 1, i] + self._scores.end).argmax())]
            for t in range(n - 1, 0, -1):
                path.append(int(origins[t, i, path[-1]]))
            paths.append(path[::-1])
        return paths

    def lattices(self, emissions: Floats, lengths: Sequence[int]) -> list[Lattice]:
        """See :meth:`Search.lattices`."""
        each = zip(emissions.astype(np.float64), lengths, strict=True)
        return [self._lattice(own[:n]) for own, n in each]

    def _lattice(self, emissions: Doubles) -> Lattice:
        length, tags = emissions.shape
        weights = np.exp(emissions - emissions.max(axis=1, keepdims=True))
        forward = np.empty((length, tags))
        backward = np.empty((length, tags))
        scale = np.empty(length)
        row = np.exp(self._scores.start) * weights[0]
        for t in range(length):
            if t:
                row = (forward[t - 1] @ self._transition_weights) * weights[t]
            scale[t] = row.sum()
            forward[t] = row / scale[t]
        ends = np.exp(self._scores.end)
        backward[-1] = ends / (forward[-1] @ ends)
        for t in range(length - 2, -1, -1):
            backward[t] = self._transition_weights @ (weights[t + 1] * backward[t + 1])
            backward[t] /= scale[t + 1]
        return Lattice(weights, forward, backward, scale)


class GraphSearch:
    """The search as graphs, a whole batch in one call."""

    def __init__(self, scores: CrfParameters, best_scores: Any, lattice: Any) -> None:
        """A search.

        Args:
            scores: See :func:`allowed_scores`.
            best_scores: An onnxruntime session of :data:`SCORES_FILE`.
            lattice: One of :data:`LATTICE_FILE`.
        """
        self._best_scores = best_scores
        self._lattice = lattice
        self._to_from = np.ascontiguousarray(scores.transitions.T)
        self._start = scores.start
        self._end = scores.end
        self._end_weights = np.exp(scores.end)
        self._weights = {
            "start": np.exp(scores.start),
            "transitions": np.exp(scores.transitions),
            "end": self._end_weights,
        }

    def best_paths(self, emissions: Floats, lengths: Sequence[int]) -> list[list[int]]:
        """See :meth:`Search.best_paths`."""
        if not any(lengths):
            return [[] for _ in lengths]
        feed = {"emissions": _two_rows(emissions), "start": self._start, "to_from": self._to_from}
        (scores,) = self._best_scores.run(None, feed)
        return [self._trace(scores[:n, i]) for i, n in enumerate(lengths)]

    def _trace(self, scores: Doubles) -> list[int]:
        """Follow the best path back. ``scores`` shape: (length, tags)."""
        if not len(scores):
            return []
        path = [int((scores[-1] + self._end).argmax())]
        for row in scores[-2::-1]:  # from the last but one to the first; none if there is one
            path.append(int((row + self._to_from[path[-1]]).argmax()))
        return path[::-1]

    def lattices(self, emissions: Floats, lengths: Sequence[int]) -> list[Lattice]:
        """See :meth:`Search.lattices`."""
        if not lengths:
            return []
        counts = np.array(lengths, np.int64)
        feed = {"emissions": _two_rows(emissions), "counts": counts, **self._weights}
        weights, forward, backward, scale = self._lattice.run(None, feed)
        return [
            Lattice(
                weights[:n, i],
                forward[:n, i],
                # Divided by what the whole comes to, which the graph leaves to us.
                backward[:n, i] / (forward[n - 1, i] @ self._end_weights),
                scale[:n, i],
            )
            for i, n in enumerate(lengths)
        ]


def _two_rows(emissions: Floats) -> Floats:
    """At least two rows, which the graphs want. shape: (batch, length, tags)."""
    if emissions.shape[1] > 1:
        return emissions
    return np.pad(emissions, ((0, 0), (0, 1), (0, 0)))
