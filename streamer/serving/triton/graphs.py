"""Graphs that Triton runs, as the model in this process knows graphs.

Triton puts requests together only where their shapes are the same. So texts and windows are filled
up to whole steps (:mod:`cnerta.models.runtime.model_repository`), and what comes back is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.model_repository import CHARACTERS_STEP, FRAMES_STEP, MATCHES_STEP
from cnerta.streamer.serving.triton.server import Arrays, TritonServer

__all__ = ["PROVIDER", "TritonTagger", "TritonUtterances"]

Array = npt.NDArray[Any]

PROVIDER = "Triton"
"""What clients are told that it runs on; not where that is."""


class _TritonGraph:
    """Asks one model, and waits for its answer."""

    def __init__(self, server: TritonServer, model: str) -> None:
        self._server = server
        self._model = model

    def get_providers(self) -> list[str]:
        """See :meth:`cnerta.models.runtime.graph_session.GraphSession.get_providers`."""
        return [PROVIDER]

    def _ask(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> Arrays:
        return self._server.infer(self._model, feed, outputs).result()

    def _cut(self, found: Array, name: str, shape: tuple[int, ...]) -> Array:
        if found.ndim != len(shape) or any(f < s for f, s in zip(found.shape, shape, strict=True)):
            raise InferenceError(
                f"expected {name} of at least {shape} from Triton's model {self._model}, got "
                f"{found.shape}"
            )
        return found[tuple(map(slice, shape))].copy()


class TritonTagger(_TritonGraph):
    """``tagger.onnx``."""

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Run it, see :meth:`cnerta.models.runtime.graph_session.GraphSession.run`.

        Raises:
            InferenceError: Triton does not answer, or with something else.
        """
        batch, length = feed["characters"].shape
        time = feed["frames"].shape[1]
        asked = {
            "characters": _filled(feed["characters"], CHARACTERS_STEP),
            "character_count": feed["character_count"][:, None],
            "frames": _filled(feed["frames"], FRAMES_STEP),
            "frame_count": feed["frame_count"][:, None],
        }
        if "matches" in feed:
            asked["matches"] = _filled(feed["matches"], MATCHES_STEP)
        found = self._ask(asked, names)
        tags = found["emissions"].shape[-1]
        shapes = {
            "emissions": (batch, length, tags),
            "log_probabilities": (batch, time, 1 + length),
        }
        return [self._cut(found[name], name, shapes[name]) for name in names]


class TritonUtterances(_TritonGraph):
    """``acoustic.onnx`` of a full-context model."""

    def __init__(self, server: TritonServer, model: str, hop_samples: int) -> None:
        super().__init__(server, model)
        self._hop = hop_samples

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Run it, see :meth:`cnerta.models.runtime.graph_session.GraphSession.run`.

        Raises:
            InferenceError: Triton does not answer, or with something else.
        """
        batch, samples = feed["samples"].shape
        asked = {
            "samples": _filled(feed["samples"], FRAMES_STEP * self._hop),
            "frame_count": feed["frame_count"][:, None],
        }
        frames = self._ask(asked, names)["frames"]
        return [self._cut(frames, "frames", (batch, samples // self._hop, frames.shape[-1]))]


def _filled(values: Array, step: int) -> Array:
    """With zeros at the end of the second axis, up to a multiple of a step."""
    missing = -values.shape[1] % step
    if not missing:
        return values
    return np.pad(values, [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))
