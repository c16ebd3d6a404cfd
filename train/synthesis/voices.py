"""Voices: a prosodically marked script in, samples and the times of its characters out.

A script says everything a reader must know: which characters, how each is pronounced, which of
them form one prosodic word, and how long the silence after each word is. So the two readings of a
homograph are two scripts of the same text. `cnerta.train.synthesis.kokoro` and
`cnerta.train.synthesis.espeak` hold the voices; the packages and programs they need are optional,
and `VoiceError` names what is missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import CnertaError
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.models.runtime.loudness import power_db

__all__ = [
    "HOP_MS",
    "QUIET_DB",
    "ProsodicWord",
    "Samples",
    "Script",
    "Speech",
    "Syllable",
    "Voice",
    "VoiceError",
    "audible_span",
    "load_graph",
    "loudness",
    "require",
    "room_noise",
    "spoken_readings",
    "start_session",
]

Samples = npt.NDArray[np.float32]

HOP_MS = 5.0  # resolution of `loudness`
QUIET_DB = -38.0  # so far below the loud level a moment counts as silence
_ROOM_LEVEL = 2e-4  # added silence carries noise of this deviation: no recording is digital zero

# Before these 一 is part of a number, which is read digit by digit with the first tone.
_NUMERALS = frozenset("零〇一二三四五六七八九十百千万亿两点幺")


class VoiceError(CnertaError):
    """A voice cannot be built, or cannot say what it was given."""


@dataclass(frozen=True, slots=True)
class Syllable:
    """One character and its dictionary reading.

    Attributes:
        character: One code point.
        reading: Pinyin with the tone as a digit, 5 for neutral: `zhang3`.
    """

    character: str
    reading: str


@dataclass(frozen=True, slots=True)
class ProsodicWord:
    """Syllables said without a break, and the silence after them.

    Attributes:
        syllables: At least one.
        pause_ms: Silence before the next word; 0 says the next follows without a break. Has no
            meaning after the last word.
    """

    syllables: tuple[Syllable, ...]
    pause_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """What a voice reads.

    Attributes:
        words: The text, in order.
        voice: Name of the speaker; each `Voice` says which it has.
        speed: 1 is the speaker's own rate, 1.2 a fifth faster.
        lead_ms: Silence before the first character, at most.
        tail_ms: Silence after the last one, at most.
    """

    words: tuple[ProsodicWord, ...]
    voice: str
    speed: float = 1.0
    lead_ms: float = 150.0
    tail_ms: float = 200.0

    @property
    def syllables(self) -> tuple[Syllable, ...]:
        """All syllables in order."""
        return tuple(syllable for word in self.words for syllable in word.syllables)

    @property
    def text(self) -> str:
        """The characters, joined."""
        return "".join(syllable.character for syllable in self.syllables)


@dataclass(frozen=True, slots=True)
class Speech:
    """What a voice said.

    Attributes:
        samples: float32 (samples,), 16 kHz, within [-1, 1].
        times: [start, end) of every character in ms; None where the voice cannot tell.
        spoken: The readings as pronounced, after tone sandhi.
    """

    samples: Samples
    times: tuple[tuple[float, float], ...] | None
    spoken: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / SAMPLE_RATE


class Voice(Protocol):
    """Anything that reads scripts."""

    @property
    def name(self) -> str:
        """Short name of the engine, for manifests."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names `Script.voice` may take."""

    @property
    def blends(self) -> bool:
        """Whether `a*0.7+b*0.3` is a speaker as well."""

    def speak(self, script: Script) -> Speech:
        """Reads a script.

        Raises:
            VoiceError: The script holds something this voice cannot pronounce.
        """


def spoken_readings(words: Sequence[ProsodicWord]) -> tuple[str, ...]:
    """Applies the regular tone changes of Mandarin to dictionary readings.

    不 before a fourth tone is bú; 一 that starts a word is yí before a fourth tone and yì before
    any other, unless it is part of a number; of third tones said together all but the last rise.
    This happens within a word, and from a word of one syllable to the next; a pause separates.

    Args:
        words: The script.

    Returns:
        One reading a syllable.
    """
    spoken: list[str] = []
    for index, word in enumerate(words):
        upcoming: list[Syllable | None] = list(word.syllables[1:])
        leans = len(word.syllables) == 1 and word.pause_ms <= 0 and index + 1 < len(words)
        upcoming.append(words[index + 1].syllables[0] if leans else None)
        for position, (syllable, after) in enumerate(zip(word.syllables, upcoming, strict=True)):
            spoken.append(_changed(syllable, after, first=position == 0))
    return tuple(spoken)


def _changed(syllable: Syllable, after: Syllable | None, *, first: bool) -> str:
    """The reading before `after`, or None before a pause or where nothing is leant on."""
    base, tone = syllable.reading[:-1], syllable.reading[-1]
    if after is None:
        return syllable.reading
    upcoming = after.reading[-1]
    if syllable.character == "不" and upcoming == "4":
        tone = "2"
    elif syllable.character == "一" and first and after.character not in _NUMERALS:
        tone = "2" if upcoming == "4" else "4"
    elif tone == "3" and upcoming == "3":
        tone = "2"
    return base + tone


def require(module: str, package: str) -> ModuleType:
    """Imports an optional dependency.

    Raises:
        VoiceError: It is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise VoiceError(
            f"speech synthesis needs the package {package!r}, which is not installed here: "
            f"pip install {package}"
        ) from error


def load_graph(path: Path) -> Any:
    """Reads an ONNX file.

    Raises:
        VoiceError: onnx is not installed, or the file is none.
    """
    onnx: Any = require("onnx", "onnx")
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's own errors
        raise VoiceError(f"{path} is not an ONNX model: {error}") from error


def start_session(graph: Any, threads: int) -> Any:
    """Makes a graph ready to run on the CPU.

    Raises:
        VoiceError: onnxruntime is not installed.
    """
    runtime: Any = require("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return runtime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def loudness(samples: Samples) -> npt.NDArray[np.float64]:
    """Level in dB below the recording's loud level, its 95th percentile.

    Args:
        samples: float32 (samples,), 16 kHz.

    Returns:
        float64 (length / 5 ms,), over windows of 10 ms.
    """
    hop = round(SAMPLE_RATE * HOP_MS / 1000)
    padded = np.pad(samples.astype(np.float64) ** 2, (hop // 2, 2 * hop))
    sums = np.concatenate([[0.0], np.cumsum(padded)])
    begins = np.arange(0, max(len(samples) // hop, 1)) * hop
    power = (sums[begins + 2 * hop] - sums[begins]) / (2 * hop)
    level: npt.NDArray[np.float64] = power_db(power)
    loud = float(np.percentile(level, 95))
    return level - loud


def audible_span(levels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """[start, end) in ms of what is not silence; everything, where all of it is silence."""
    audible = np.flatnonzero(levels > QUIET_DB)
    if not len(audible):
        return 0.0, len(levels) * HOP_MS
    return float(audible[0]) * HOP_MS, float(audible[-1] + 1) * HOP_MS


def room_noise(count: int, generator: np.random.Generator) -> Samples:
    """Silence as a recording has it: float32 (count,)."""
    return generator.normal(0.0, _ROOM_LEVEL, count).astype(np.float32)
