"""Recognises in this process with sherpa-onnx: its streaming Mandarin models, CPU only.

The recogniser is really streaming: it takes each block once and is done a few hundred milliseconds
after the speaker. Its own endpointing ends the utterances.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.errors import RecogniserError, RecogniserMissingError
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.sources.hub import fetch_model, import_package
from cnerta.streamer.sources.mono_audio import MonoAudio
from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.utterances import Hypothesis, Utterances

__all__ = ["DEFAULT_MODEL", "SherpaTranscript", "find_model_files"]

log = logging.getLogger(__name__)

DEFAULT_MODEL: Final = "k2-fsa/sherpa-onnx-streaming-zipformer-ctc-multi-zh-hans-2023-12-13"
"""A Zipformer with CTC, trained on fourteen Mandarin corpora: 71 MB with 8-bit weights."""

EXTRA: Final = "asr"
BLOCK_SAMPLES: Final = 1_600
TAIL_S: Final = 0.6
"""Silence given after the end of the audio, so that what the last chunk waits for comes."""
LEAD_MS: Final = 300
"""A character is recognised after it began: what comes before the first one is given too."""
LAG_MS: Final = 300

Kind = Literal["transducer", "paraformer", "zipformer2-ctc", "wenet-ctc", "nemo-ctc"]


class _Options(msgspec.Struct, frozen=True):
    kind: Kind | None = None
    threads: int = 1
    silence: float = 0.8
    longest: float = 20.0
    method: str = "greedy_search"


def find_model_files(folder: Path, kind: Kind | None = None) -> tuple[Kind, dict[str, str]]:
    """Tell what model lies in a folder, by the names that its publishers give the files.

    Weights in 8 bits are preferred: half the time, and hardly worse.

    Args:
        folder: What was downloaded and unpacked.
        kind: What it is, where the files do not tell.

    Returns:
        The kind, and the files by the names of the arguments that take them.

    Raises:
        RecogniserMissingError: There is no model in it, or only a part of one.
    """
    found = {"tokens": folder / "tokens.txt"}
    graphs = sorted(folder.glob("*.onnx"), key=lambda path: (".int8." not in path.name, path.name))
    for part in ("encoder", "decoder", "joiner"):
        fitting = [path for path in graphs if part in path.name]
        if fitting:
            found[part] = fitting[0]
    if kind is None:
        kind = (
            "transducer"
            if "joiner" in found
            else "paraformer"
            if "encoder" in found
            else "zipformer2-ctc"
        )
    wanted = {
        "transducer": ("tokens", "encoder", "decoder", "joiner"),
        "paraformer": ("tokens", "encoder", "decoder"),
    }.get(kind, ("tokens", "model"))
    if "model" in wanted and graphs:
        found["model"] = graphs[0]
    missing = [name for name in wanted if name not in found or not found[name].is_file()]
    if missing:
        got = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise RecogniserMissingError(
            f"expected a sherpa-onnx model ({kind}: tokens.txt and .onnx files for "
            f"{', '.join(wanted[1:])}) in {folder}, got {got}"
        )
    return kind, {name: str(found[name]) for name in wanted}


class SherpaTranscript:
    """A `TranscriptSource` that recognises with a streaming model of sherpa-onnx.

    Args:
        where: A model's folder, or the name of one on the Hugging Face hub, which is fetched once.
        options: ``kind`` of the model if its files do not tell, ``threads``, ``silence`` that ends
            an utterance and ``longest`` one (both in seconds), decoding ``method``.

    Raises:
        RecogniserMissingError: sherpa-onnx is not installed, or the model cannot be had.
        RecogniserError: The model does not load.
    """

    def __init__(self, where: str = DEFAULT_MODEL, **options: str) -> None:
        given = read_options(_Options, "sherpa-onnx", options)
        self._package: Any = import_package("sherpa_onnx", EXTRA)
        folder = Path(where)
        kind, files = (
            find_model_files(folder, given.kind) if folder.is_dir() else _fetch(where, given.kind)
        )
        self._recogniser = self._load(kind, files, given)
        log.info("%s model of %s", kind, where)

    def _load(self, kind: Kind, files: Mapping[str, str], given: _Options) -> Any:
        make = getattr(
            self._package.OnlineRecognizer,
            f"from_{kind.replace('-', '_')}",
        )
        try:
            return make(
                **files,
                num_threads=given.threads,
                decoding_method=given.method,
                enable_endpoint_detection=True,
                rule1_min_trailing_silence=2.4,  # where nothing was recognised at all
                rule2_min_trailing_silence=given.silence,
                rule3_min_utterance_length=given.longest,
            )
        except Exception as error:  # whatever its C++ throws
            raise RecogniserError(
                f"expected a {kind} model that sherpa-onnx loads, got: {error}"
            ) from error

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield what is recognised, block by block.

        Raises:
            RecogniserError: The recogniser failed.
        """
        mono = MonoAudio(audio, SAMPLE_RATE, BLOCK_SAMPLES)
        utterances = Utterances()
        stream = self._recogniser.create_stream()
        segment = 0
        async for block in mono.blocks():
            result = await asyncio.to_thread(self._advance, stream, block, False)
            if result is None:
                continue
            text, final, times = result
            for revision in utterances.update(
                _heard(f"s{segment}", text, final, times, mono.start_ms), audio.audio_ms
            ):
                yield revision
            segment += final
        text, _, times = await asyncio.to_thread(self._finish, stream)
        last = _heard(f"s{segment}", text, True, times, mono.start_ms)
        for revision in utterances.update(last, audio.audio_ms):
            yield revision

    def _advance(
        self, stream: Any, block: Any, finished: bool
    ) -> tuple[str, bool, list[float]] | None:
        """Feed one block.

        Returns:
            Text, whether it is final, and when its tokens were recognised, in seconds; None if
            the block was not enough for anything new.
        """
        try:
            stream.accept_waveform(SAMPLE_RATE, block)
            if finished:
                stream.input_finished()
            ready = False
            while self._recogniser.is_ready(stream):
                ready = True
                self._recogniser.decode_stream(stream)
            if not ready and not finished:
                return None
            text: str = self._recogniser.get_result(stream)
            start_s: float = self._recogniser.start_time(stream)
            times = [start_s + at for at in self._recogniser.timestamps(stream)]
            final: bool = self._recogniser.is_endpoint(stream)
            if final:
                self._recogniser.reset(stream)
        except Exception as error:  # whatever its C++ throws
            raise RecogniserError(f"expected text from sherpa-onnx, got: {error}") from error
        return text, final, times

    def _finish(self, stream: Any) -> tuple[str, bool, list[float]]:
        tail = np.zeros(round(TAIL_S * SAMPLE_RATE), np.float32)
        result = self._advance(stream, tail, True)
        assert result is not None, "the end brings a result"
        return result


def _heard(key: str, text: str, final: bool, times: list[float], offset_ms: float) -> Hypothesis:
    start_ms = offset_ms + 1_000 * times[0] - LEAD_MS if times else None
    end_ms = offset_ms + 1_000 * times[-1] + LAG_MS if times else None
    return Hypothesis(key, text, final, start_ms, end_ms)


def _fetch(name: str, kind: Kind | None) -> tuple[Kind, dict[str, str]]:
    """Fetch a model of the hub, its 8-bit weights if it has such, and tell what it is."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise RecogniserMissingError(
            f"expected a model's folder or its name on the Hugging Face hub (owner/name), got "
            f"{name!r}"
        )
    folder = fetch_model(name, ("tokens.txt", "*.int8.onnx"), EXTRA)
    try:
        return find_model_files(folder, kind)
    except RecogniserMissingError:
        return find_model_files(fetch_model(name, ("tokens.txt", "*.onnx"), EXTRA), kind)
