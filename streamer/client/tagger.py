"""Entities of whole texts and recordings, in five lines and without an event loop.

In a program or a notebook::

    from cnerta.streamer import load

    tagger = load("fast")
    for entity in tagger.tag("今天我们来认识一下南京市长江大桥", "bridge.flac"):
        print(entity.label, entity.text, entity.start_ms, entity.confidence)

A text is answered as a session answers a final transcript, because it is one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Device, Model
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.client.tagged_utterance import TaggedUtterance
from cnerta.streamer.errors import AudioFileError, SessionRefusedError
from cnerta.streamer.serving.engine import Engine, Inference
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire.messages import (
    ClientMessage,
    ErrorMessage,
    SessionFinish,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import (
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioFormat,
    GlossaryEntry,
)

__all__ = ["Tagger", "load"]

Samples = npt.NDArray[np.floating]

_BLOCK_BYTES: Final = 2**16
_NOW: Final = 0.0
"""Nothing here depends on the time."""


def load(
    bundle: str | os.PathLike[str] = "fast", *, device: Device = "auto", threads: int = 1
) -> Tagger:
    """Load a bundle.

    Args:
        bundle: ``fast``, ``accurate``, the folder of another, or ``hf:OWNER/NAME`` of the Hugging
            Face hub.
        device: ``cuda`` insists on a GPU, ``auto`` takes one if there is one.
        threads: CPU threads of the engine.

    Raises:
        BundleError: The bundle cannot be used.
        InferenceError: onnxruntime is missing or refuses the graphs.
    """
    return Tagger(Model.load(find_bundle(Path(bundle)), device=device, threads=threads))


class Tagger:
    """Tags whole texts, each with its recording if there is one.

    Attributes:
        model: What answers.
    """

    def __init__(self, model: Inference) -> None:
        self.model = model
        self._engine = Engine(model)

    def tag(
        self,
        text: str,
        audio: str | os.PathLike[str] | Samples | None = None,
        *,
        sample_rate: int | None = None,
        labels: Sequence[str] | None = None,
        nested: bool = True,
        readings: bool = False,
        glossary: Iterable[GlossaryEntry] = (),
    ) -> TaggedUtterance:
        """Find the entities of one text.

        Args:
            text: Written in any way; at most 4,096 characters.
            audio: Its recording: a file, or samples from -1 to 1. shape: (samples,)
            sample_rate: Of samples, in hertz: 8,000 to 48,000.
            labels: Types that are wanted; None: all.
            nested: Whether entities within others are wanted.
            readings: Tell how characters with several pronunciations were read.
            glossary: Names to expect.

        Raises:
            AudioFileError: The file, or the samples, cannot be used.
            SessionRefusedError: An option or the text is none that a session takes.
        """
        audio_format, blocks, duration_ms = _read(audio, sample_rate)
        session = SessionLimits(
            retained_ms=math.ceil(duration_ms) + 1_000,
            backlog_ms=math.ceil(duration_ms) + 1_000,
            characters_per_s=None,
        )
        limits = ConnectionLimits(
            start_timeout_s=None, idle_timeout_s=None, max_audio_ahead_ms=None, session=session
        )
        served = ServedModel(self.model.bundle, self.model.device)
        protocol = ServerProtocol(served, limits, "tagger", _NOW)
        start = SessionStart(
            audio=audio_format,
            labels=None if labels is None else list(labels),
            nested=nested,
            interim=False,
            readings=readings,
            glossary=list(glossary),
        )
        self._say(protocol, start)
        for block in blocks:
            protocol.receive(block, _NOW)
            self._work(protocol)
        self._say(protocol, Transcript(utterance="u1", revision=1, final=True, text=text))
        self._say(protocol, SessionFinish())
        return _answer(protocol)

    def _say(self, protocol: ServerProtocol, message: ClientMessage) -> None:
        protocol.receive_message(message, _NOW)
        self._work(protocol)

    def _work(self, protocol: ServerProtocol) -> None:
        """Do all that can be done now."""
        is_done = False
        while not is_done:
            is_done = True
            for lane in protocol.lanes():
                work = protocol.next_work(lane, _NOW)
                if work is not None:
                    protocol.work_done(work, self._engine.run(work), _NOW)
                    is_done = False


def _read(
    audio: str | os.PathLike[str] | Samples | None, sample_rate: int | None
) -> tuple[AudioFormat, Iterable[bytes], float]:
    """Format, blocks and duration (ms) of a recording."""
    if audio is None:
        return AudioFormat(sample_rate=16_000), (), 0.0
    if not isinstance(audio, np.ndarray):
        file = AudioFile(Path(audio), paced=False)
        return file.format, file.encoded_blocks(), file.duration_ms
    if sample_rate is None or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioFileError(
            f"expected sample_rate from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} with samples, got "
            f"{sample_rate}"
        )
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise AudioFileError(
            "expected samples of one channel as floats from -1 to 1, got an array of "
            f"{audio.ndim} dimensions and {audio.dtype}"
        )
    data = audio.astype("<f4").tobytes()
    blocks = (data[at : at + _BLOCK_BYTES] for at in range(0, len(data), _BLOCK_BYTES))
    audio_format = AudioFormat(encoding="pcm_f32le", sample_rate=sample_rate)
    return audio_format, blocks, 1000 * len(audio) / sample_rate


def _answer(protocol: ServerProtocol) -> TaggedUtterance:
    while (message := protocol.next_message()) is not None:
        if isinstance(message, ErrorMessage):
            raise SessionRefusedError(
                message.code, message.name, message.detail, retryable=message.retryable
            )
        if isinstance(message, UtteranceFinal):
            return TaggedUtterance(
                message.text,
                tuple(message.entities),
                tuple((start, end) for start, end in message.characters),
                message.audio_used,
                tuple(message.readings or ()),
            )
    raise AssertionError("a final transcript is answered")
