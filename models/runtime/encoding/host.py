"""Encodes chunks with every stream's cache in this process's memory: what a CPU does best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.buffers import joined
from cnerta.models.runtime.encoding.plausible import check_plausible
from cnerta.models.runtime.encoding.state import AcousticState
from cnerta.models.runtime.geometry import FrameGeometry, cache_inputs

__all__ = ["HostEncoder"]

Floats = npt.NDArray[np.float32]


class HostEncoder:
    """A stream's state goes in and comes out as a value: it may go on anywhere."""

    faults = 0
    """Those of its graph are counted there."""

    def __init__(self, geometry: FrameGeometry, graph: Any) -> None:
        """Encode.

        Args:
            geometry: Of the model.
            graph: Session of the acoustic graph.
        """
        self._geometry = geometry
        self._graph = graph
        self._inputs = cache_inputs(geometry.layers)

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        """See :meth:`cnerta.models.runtime.encoding.state.ChunkEncoder.encode`."""
        batch = len(samples)
        geometry = self._geometry
        held = [_held(state) for state in states]
        caches = joined([cache[k] for k in range(len(self._inputs)) for cache in held])
        caches = caches.reshape(-1, batch, *geometry.cache_shape[2:])
        positions = np.array([s.position for s in states], np.int64)
        feed = {
            "samples": samples,
            "carry": joined([s.carry for s in states]).reshape(batch, -1),
            "position": positions,
        }
        feed.update(zip(self._inputs, caches, strict=True))
        frames, carry, new = self._graph.run(["frames", "next_carry", "new_cache"], feed)
        check_plausible("frames", frames)
        left = geometry.left_frames
        # The new keys and values take the places of the oldest.
        new = new.reshape(-1, *new.shape[2:])[..., -left:, :]
        places = (positions[:, None] + np.arange(frames.shape[1])[-left:]) % left
        caches[:, np.arange(batch)[:, None], :, places] = new.transpose(1, 3, 0, 2, 4)
        # Copies, because a row of the batch would keep the whole batch alive.
        return [
            (
                joined([frames[i]]).reshape(frames.shape[1:]),
                AcousticState(
                    joined([carry[i]]),
                    tuple([layer[i].tobytes() for layer in caches]),
                    state.position + frames.shape[1],
                ),
            )
            for i, state in enumerate(states)
        ]

    def reopen(self) -> None:
        """Nothing is kept here."""


def _held(state: AcousticState) -> tuple[bytes, ...]:
    assert isinstance(state.cache, tuple), "expected a cache that is a value"
    return state.cache
