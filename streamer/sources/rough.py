"""The model's own acoustic encoder as a recogniser of last resort: rough, with nothing to fetch.

The acoustic encoder was trained to align known characters. Here the syllable that it finds most
likely in each frame is taken (greedy CTC), and for each syllable the character that is most often
read so. About two syllables in three are right and half of the characters; names hardly ever. It
shows that sound arrives and where speech is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.streamer.errors import RecogniserMissingError
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.sources.mono_audio import MonoAudio
from cnerta.streamer.sources.utterances import Hypothesis, Utterances

__all__ = ["GreedySyllables", "RoughTranscript", "common_characters"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

SILENT_FRAMES: Final = 15
LONGEST_FRAMES: Final = 375


@cache
def common_characters() -> dict[str, str]:
    """The character that is most often read as a syllable such as ``zhang3``."""
    table = files(__package__).joinpath("syllables.txt").read_text(encoding="utf-8")
    return dict(line.split(" ") for line in table.splitlines())


class GreedySyllables:
    """Best path of CTC, frame by frame, cut into utterances where nothing is said for a while.

    Args:
        texts: What each unit is written as, the blank (nothing) first.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._last = 0
        self._frame = 0
        self._first: int | None = None
        self._silent = 0
        self._text = ""

    def add(self, best: Sequence[int]) -> list[tuple[str, bool, int, int]]:
        """Take the most likely unit of each new frame.

        Returns:
            Text, whether it is final, and its first frame and one past its last, for each utterance
            that these frames add to.
        """
        said: list[tuple[str, bool, int, int]] = []
        grown = False
        for unit in best:
            if unit and unit != self._last and self._texts[unit]:
                if self._first is None:
                    self._first = self._frame
                self._text += self._texts[unit]
                grown = True
            self._silent = 0 if unit else self._silent + 1
            self._last = unit
            self._frame += 1
            if self._first is not None and (
                self._silent >= SILENT_FRAMES or self._frame - self._first >= LONGEST_FRAMES
            ):
                said += self.end()
                grown = False
        if grown and self._first is not None:
            said.append((self._text, False, self._first, self._frame))
        return said

    def end(self) -> list[tuple[str, bool, int, int]]:
        """End the utterance that is open, if one is."""
        if self._first is None:
            return []
        ended = (self._text, True, self._first, self._frame - self._silent)
        self._first, self._text = None, ""
        return [ended]


class RoughTranscript:
    """A `TranscriptSource` that needs no recogniser, and is none.

    Args:
        where: A bundle that can tell pronunciations; the default one if None.

    Raises:
        BundleError: It cannot be used.
        RecogniserMissingError: It cannot tell pronunciations, or not while somebody speaks.
    """

    def __init__(self, where: str | None = None) -> None:
        self._model = Model.load(find_bundle(None if where is None else Path(where)))
        bundle = self._model.bundle
        if not bundle.has_readings:
            raise RecogniserMissingError(
                f"expected a bundle with readings.onnx, got {bundle.name}: its model has no "
                "pronunciations to look for"
            )
        if not bundle.geometry.streaming:
            raise RecogniserMissingError(
                f"expected a bundle that encodes audio in chunks, got {bundle.name}: its "
                "model encodes an utterance only as a whole"
            )
        names = bundle.vocabulary.units[1:]  # but <unk>
        self._units = np.arange(1, len(names) + 1)
        known = common_characters()
        self._texts = ("", *(known.get(name, "") for name in names))
        log.warning(
            "the transcript is ROUGH: the most likely syllables, each with its most usual "
            "character; half of them are wrong, and names hardly ever come out right"
        )

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield the syllables that are recognised, as characters."""
        geometry = self._model.bundle.geometry
        chunk_samples = geometry.chunk_frames * geometry.hop_samples
        mono = MonoAudio(audio, SAMPLE_RATE, chunk_samples)
        greedy = GreedySyllables(self._texts)
        utterances = Utterances(longest_ms=float("inf"))
        state = AcousticState.initial(geometry)
        number = 0
        async for block in _with_tail(mono.blocks(), chunk_samples):
            state, best = await asyncio.to_thread(self._recognise, block, state)
            for text, final, first, last in greedy.add(best):
                hypothesis = Hypothesis(
                    f"s{number}",
                    text,
                    final,
                    mono.start_ms + geometry.frame_start_ms(first),
                    mono.start_ms + geometry.frame_start_ms(last),
                )
                number += final
                for revision in utterances.update(hypothesis, audio.audio_ms):
                    yield revision
        for text, _, first, last in greedy.end():
            start_ms, end_ms = (mono.start_ms + geometry.frame_start_ms(f) for f in (first, last))
            for revision in utterances.update(
                Hypothesis(f"s{number}", text, True, start_ms, end_ms), audio.audio_ms
            ):
                yield revision

    def _recognise(self, block: Floats, state: AcousticState) -> tuple[AcousticState, list[int]]:
        ((frames, state),) = self._model.encode(block[None], [state])
        best: list[int] = self._model.score_units(frames, self._units).argmax(axis=1).tolist()
        return state, best


async def _with_tail(blocks: AsyncIterator[Floats], chunk_samples: int) -> AsyncIterator[Floats]:
    """Blocks of one length, and silence after them, since a frame sees a little of what follows."""
    async for block in blocks:
        yield np.pad(block, (0, chunk_samples - len(block)))
    yield np.zeros(chunk_samples, np.float32)
