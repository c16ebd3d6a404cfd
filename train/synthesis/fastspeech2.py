"""The FastSpeech 2 voice: a Mandarin speaker whose breaks can be heard without a silence.

FastSpeech 2 (Ren et al. 2021) as TensorFlowTTS trains it on DataBaker's Chinese Standard Mandarin
Speech Corpus, whose transcripts carry the boundaries of a professional reader, with Multi-band
MelGAN (Yang et al. 2021) as vocoder. Its symbols are initials, finals with their tone, and a mark
for the strength of the boundary after each syllable. So the end of a prosodic word sounds as that
reader's do, whether a pause follows or not. The durations it predicts inside come out of its graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.synthesis.pauses import with_pauses
from cnerta.train.synthesis.voices import (
    Samples,
    Script,
    Speech,
    VoiceError,
    load_graph,
    require,
    spoken_readings,
    start_session,
)

__all__ = ["FastSpeech2Voice"]

_MODEL_FILE = "fastspeech2_quan.onnx"
_VOCODER_FILE = "mb_melgan.onnx"
_SYMBOLS_FILE = "baker_mapper.json"

_MODEL_RATE = 24_000
_FRAME_MS = 12.5  # 300 samples at 24 kHz, the unit of the durations
# Between syllables of a word, between words, and where a pause follows.
_SYLLABLE_END, _WORD_END, _BREAK = "#0", "#1", "#3"
# The next syllable begins this far into the mark's own time: 0.84 by least squares on 2,810
# boundaries aligned by the default bundle, which are 16 ms off in the mean then.
_SHARE_BEFORE = 0.85
# The corpus has one speaker, so others are made of her: how far the melody goes up and down, and
# how large the speaker is, which scales pitch and formants alike.
_MELODIES = {"flat": 0.75, "plain": 1.0, "lively": 1.25}
_BUILDS = {"": 1.0, "-deep": 0.8, "-bright": 1.12}
_SPEAKERS = {m + b: (_MELODIES[m], _BUILDS[b]) for b in _BUILDS for m in _MELODIES}


class _Symbols(msgspec.Struct):
    """The symbols' file, as TensorFlowTTS publishes it."""

    symbol_to_id: dict[str, int]
    pinyin_dict: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Marked:
    """The model's input, and where in it the mark after each syllable but the last stands."""

    symbols: tuple[str, ...]
    marks: tuple[int, ...]


class FastSpeech2Voice:
    """Reads scripts with FastSpeech 2.

    Needs the packages onnx, onnxruntime and soxr.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Loads the models.

        Args:
            folder: With `fastspeech2_quan.onnx`, `mb_melgan.onnx` and `baker_mapper.json`; the two
                models are TensorFlow Lite's of these names, converted by tf2onnx.
            threads: For one utterance.

        Raises:
            VoiceError: A package or a file is missing, or of another kind.
        """
        self._soxr: Any = require("soxr", "soxr")
        try:
            content = (folder / _SYMBOLS_FILE).read_bytes()
            self._symbols = msgspec.json.decode(content, type=_Symbols)
        except OSError as error:
            raise VoiceError(f"expected {_SYMBOLS_FILE} in {folder}: {error}") from error
        except msgspec.MsgspecError as error:
            raise VoiceError(f"expected the symbols in {_SYMBOLS_FILE}, got: {error}") from error
        self._model = _session(folder / _MODEL_FILE, {"input_ids", "speed_ratios"}, threads)
        self._vocoder = _session(folder / _VOCODER_FILE, {"mels"}, threads)

    @property
    def name(self) -> str:
        """`fastspeech2`."""
        return "fastspeech2"

    @property
    def speakers(self) -> tuple[str, ...]:
        """The one speaker in several manners and sizes."""
        return tuple(_SPEAKERS)

    @property
    def blends(self) -> bool:
        """There is only one voice: nothing to mix."""
        return False

    def speak(self, script: Script) -> Speech:
        """Reads a script; see `Voice`.

        Raises:
            VoiceError: Unknown speaker or unreadable syllable.
        """
        if script.voice not in _SPEAKERS:
            raise VoiceError(f"expected one of {', '.join(_SPEAKERS)}, got {script.voice!r}")
        melody, build = _SPEAKERS[script.voice]
        spoken = spoken_readings(script.words)
        marked = self._marked(script, spoken)
        ids = [self._symbols.symbol_to_id[symbol] for symbol in marked.symbols]
        _, mel, durations, *_ = self._model.run(
            None,
            {
                "input_ids": np.array([ids], np.int32),
                "speaker_ids": np.zeros(1, np.int32),
                "speed_ratios": np.array([build / script.speed], np.float32),
                "f0_ratios": np.array([melody], np.float32),
                "energy_ratios": np.ones(1, np.float32),
            },
        )
        # shapes: (1, frames, 80), (1, symbols) in frames of 12.5 ms
        (raw,) = self._vocoder.run(None, {"mels": mel})
        audio: Samples = self._soxr.resample(
            np.asarray(raw, np.float32).ravel(), _MODEL_RATE * build, SAMPLE_RATE
        )
        frames = np.concatenate([[0.0], np.cumsum(durations[0].astype(np.float64))])
        edges = frames * _FRAME_MS / build
        starts, ends = _times(marked, edges)
        return with_pauses(script, starts, ends, audio, spoken)

    def _marked(self, script: Script, spoken: tuple[str, ...]) -> _Marked:
        symbols = ["sil"]
        marks: list[int] = []
        for word in script.words:
            for _ in word.syllables:
                symbols += self._sounds(spoken[len(marks)])
                marks.append(len(symbols))
                symbols.append(_SYLLABLE_END)
            symbols[-1] = _BREAK if word.pause_ms > 0 else _WORD_END
        # Nothing is marked after the last syllable.
        return _Marked((*symbols[:-1], "sil", "eos"), tuple(marks[:-1]))

    def _sounds(self, reading: str) -> tuple[str, str]:
        """Initial, and final with its tone."""
        base, tone = reading[:-1], reading[-1]
        initial, final = self._symbols.pinyin_dict.get(base, ("", ""))
        if final + tone not in self._symbols.symbol_to_id:
            raise VoiceError(f"expected pinyin with a tone digit that it can say, got {reading!r}")
        return initial, final + tone


def _times(marked: _Marked, edges: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Starts and ends of the syllables in ms.

    Args:
        marked: The model's input.
        edges: float64 (symbols + 1,), start of every symbol in ms.

    Returns:
        The same moment for the end of one and the start of the next, but where a break is.
    """
    ends: list[float] = []
    starts = [float(edges[1])]
    for mark in marked.marks:
        low, high = float(edges[mark]), float(edges[mark + 1])
        if marked.symbols[mark] != _BREAK:
            low = high = low + _SHARE_BEFORE * (high - low)
        ends.append(low)
        starts.append(high)
    ends.append(float(edges[-3]))
    return starts, ends


def _session(path: Path, inputs: set[str], threads: int) -> Any:
    """Loads a converted model, whose shapes the converter fixed at 1 or left without a name."""
    if not path.is_file():
        raise VoiceError(f"expected {path.name} in {path.parent}, found none")
    model = load_graph(path)
    found = {value.name for value in model.graph.input}
    if not inputs <= found:
        raise VoiceError(f"expected inputs {sorted(inputs)} in {path}, got {sorted(found)}")
    for value in [*model.graph.input, *model.graph.output]:
        dimensions = value.type.tensor_type.shape.dim
        for axis, dimension in enumerate(dimensions[:2] if len(dimensions) > 1 else ()):
            dimension.Clear()
            dimension.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    return start_session(model, threads)
