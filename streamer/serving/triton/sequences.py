"""Encodes chunks on Triton, which keeps each stream's cache as the state of a sequence.

A chunk goes there with the number of its first frame, and the cache has a chunk more than the graph
looks at (:mod:`cnerta.models.runtime.encoding.kept_graphs`). So a request that failed, or whose
answer was lost, can be made again whether Triton has done it or not.

A sequence ends when nobody has its state any more; Triton is told so with the next chunks of
others, and forgets it by itself after a while.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.encoding.kept_graphs import SlotShape
from cnerta.models.runtime.encoding.plausible import check_plausible
from cnerta.models.runtime.encoding.state import AcousticState, KeptCache
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.streamer.serving.triton.server import (
    Arrays,
    SequenceLostError,
    SequencePlace,
    TritonServer,
)

__all__ = ["TritonEncoder"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
_MOST_ENDS: Final = 64
"""Sequences that are ended beside one batch."""
_MOST_WAITING: Final = 100_000
"""Ended sequences that are remembered; Triton forgets the others by itself."""


class _StreamSequence(KeptCache):
    """A stream's cache on Triton."""

    __slots__ = ("_ended", "number")

    def __init__(self, ended: deque[int]) -> None:
        # Servers that share a Triton know nothing of each other: numbers that do not meet.
        self.number = 1 + secrets.randbits(62)
        self._ended = ended

    def __del__(self) -> None:
        self._ended.append(self.number)


@dataclass(frozen=True, slots=True)
class _Asked:
    samples: Floats
    state: AcousticState
    sequence: _StreamSequence
    answer: Future[Arrays]


class TritonEncoder:
    """A :class:`cnerta.models.runtime.encoding.state.ChunkEncoder`.

    Attributes:
        faults: Streams whose cache Triton had lost, and that went on without, so far.
    """

    def __init__(self, server: TritonServer, model: str, geometry: FrameGeometry) -> None:
        """Encode.

        Args:
            server: Where the model is.
            model: Its name.
            geometry: Of the bundle.
        """
        self.faults = 0
        self._server = server
        self._model = model
        self._geometry = geometry
        self._most_frames = SlotShape.of(geometry).spare_frames
        self._ended: deque[int] = deque(maxlen=_MOST_WAITING)

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        """See :meth:`cnerta.models.runtime.encoding.state.ChunkEncoder.encode`."""
        count = samples.shape[1] // self._geometry.hop_samples
        if count > self._most_frames:
            raise InferenceError(
                f"expected at most {self._most_frames} frames of a stream at once, got {count}"
            )
        self._end_sequences()
        # All at once: Triton puts them together.
        asked = [self._ask(row, state) for row, state in zip(samples, states, strict=True)]
        found = [self._frames(one, count) for one in asked]
        return [
            (
                frames,
                AcousticState(
                    one.state.next_carry(one.samples), one.sequence, one.state.position + count
                ),
            )
            for one, frames in found
        ]

    def reopen(self) -> None:
        """Nothing hangs here for longer than a call may take."""

    def _ask(self, samples: Floats, state: AcousticState) -> _Asked:
        cache = state.cache
        sequence = cache if isinstance(cache, _StreamSequence) else _StreamSequence(self._ended)
        answer = self._server.infer(
            self._model,
            {
                "samples": samples[None],
                "carry": state.carry[None],
                "first_frame": np.array([[state.position]], np.int64),
            },
            ["frames"],
            SequencePlace(sequence.number, is_first=state.position == 0),
        )
        return _Asked(samples, state, sequence, answer)

    def _frames(self, asked: _Asked, count: int) -> tuple[_Asked, Floats]:
        """Wait for an answer; where the stream's cache is lost, begin the sequence anew."""
        try:
            answer = asked.answer.result()
        except SequenceLostError as error:
            logger.error("a stream goes on without what was said before: %s", error)
            self.faults += 1
            asked = self._ask(asked.samples, asked.state.without_cache(self._geometry))
            answer = asked.answer.result()
        frames: npt.NDArray[Any] = answer["frames"]
        expected = (1, count, self._geometry.width)
        if frames.shape != expected:
            raise InferenceError(
                f"expected frames of shape {expected} from Triton's model {self._model}, got "
                f"{frames.shape}"
            )
        check_plausible("frames", frames)
        return asked, frames[0].copy()

    def _end_sequences(self) -> None:
        """Tell Triton which sequences have ended; what it says to that is of no interest."""
        g = self._geometry
        for _ in range(min(len(self._ended), _MOST_ENDS)):
            place = SequencePlace(self._ended.popleft(), is_last=True)
            self._server.infer(
                self._model,
                {
                    "samples": np.zeros((1, g.hop_samples), np.float32),
                    "carry": np.zeros((1, g.carry_samples), np.float32),
                    "first_frame": np.zeros((1, 1), np.int64),
                },
                ["frames"],
                place,
            )
