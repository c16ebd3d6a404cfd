"""Search through a linear-chain CRF: the best tag sequence, and how probable the tags are.

Twice: in numpy, and as an ONNX graph, ``crf_search.onnx``, which serving uses. Both give the same.
The graph is there because its loop over the characters needs no interpreter: in numpy every step
gives the interpreter up and waits to get it back, which in a busy server takes ten times as long as
the step. The CRF's parameters are its inputs, so one graph serves all bundles;
:mod:`cnerta.export.crf_graph` has its source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.labels import LabelScheme

__all__ = [
    "GRAPH_FILE",
    "CrfParameters",
    "GraphSearch",
    "Lattice",
    "NumpySearch",
    "Search",
    "Searched",
    "allowed_scores",
]

GRAPH_FILE = Path(__file__).parent / "crf_search.onnx"
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


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found of a sentence.

    Attributes:
        path: The most probable tag sequence (Viterbi).
        lattice: Works the probabilities out; not for a sentence of no characters.
    """

    path: list[int]
    lattice: Callable[[], Lattice]


class Search(Protocol):
    """Searches sentences."""

    def __call__(self, emissions: Floats, lengths: Sequence[int]) -> list[Searched]:
        """Search each sentence.

        Args:
            emissions: shape: (batch, length, tags)
            lengths: Valid characters of each sentence. shape: (batch,)
        """
        ...


class NumpySearch:
    """The search in numpy, sentence by sentence but for the best path."""

    def __init__(self, scores: CrfParameters) -> None:
        """A search.

        Args:
            scores: See :func:`allowed_scores`.
        """
        self._scores = scores
        self._transition_weights = np.exp(scores.transitions)

    def __call__(self, emissions: Floats, lengths: Sequence[int]) -> list[Searched]:
        """See :meth:`Search.__call__`."""
        return [
            Searched(path, lambda own=emissions[i, :n]: self._lattice(own.astype(np.float64)))  # type: ignore[misc]
            for i, (n, path) in enumerate(
                zip(lengths, self._best_paths(emissions, lengths), strict=True)
            )
        ]

    def _best_paths(self, emissions: Floats, lengths: Sequence[int]) -> list[list[int]]:
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
    """The search as a graph, a whole batch in one call."""

    def __init__(self, scores: CrfParameters, session: Any) -> None:
        """A search.

        Args:
            scores: See :func:`allowed_scores`.
            session: An onnxruntime session of :data:`GRAPH_FILE`.
        """
        self._session = session
        self._parameters = {
            "start": scores.start,
            "transitions": scores.transitions,
            "end": scores.end,
        }

    def __call__(self, emissions: Floats, lengths: Sequence[int]) -> list[Searched]:
        """See :meth:`Search.__call__`."""
        feed = {"emissions": emissions, "counts": np.array(lengths, np.int64), **self._parameters}
        path, weights, forward, backward, scale = self._session.run(None, feed)
        return [
            Searched(
                path[:n, i].tolist(),
                lambda n=n, i=i: Lattice(  # type: ignore[misc]
                    weights[:n, i], forward[:n, i], backward[:n, i], scale[:n, i]
                ),
            )
            for i, n in enumerate(lengths)
        ]
