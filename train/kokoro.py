"""The Kokoro voice: natural Mandarin with exact phoneme durations, through onnxruntime.

Kokoro 82M (v1.0, Apache-2.0) takes phonemes, a style and a speed. Phonemes are made syllable by
syllable from pinyin, so a script decides how every character is pronounced. The durations the model
predicts inside are made an output of the graph, so character times come with the speech.

Pauses are made twice: a comma lets the model lengthen the syllable before it, as speakers do, then
the silence found there is stretched or cut to the length the script asks for.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cnerta.models.geometry import SAMPLE_RATE
from cnerta.train.voices import (
    HOP_MS,
    QUIET_DB,
    Samples,
    Script,
    Speech,
    VoiceError,
    audible_span,
    loudness,
    require,
    room_noise,
    spoken_readings,
)

__all__ = ["KokoroVoice", "SpeakerStyles", "phonemes"]

_MODEL_RATE = 24_000
_FRAME_MS = 25.0  # 600 samples at 24 kHz, the unit of the durations
_STYLES = (510, 256)  # a speaker's style vectors: one for each number of phonemes
_TIMBRE = 128  # the first half of a style is the decoder's, the second sets durations and melody
_MANNERED = frozenset({"nicole", "santa"})  # a whisper, and Father Christmas
_MAX_PHONEMES = 510
_DURATIONS = "/encoder/Clip_output_0"
# The decoder sounds a phoneme this much before the sum of the durations says. Measured on the
# acoustic landmarks of 470 syllables (stops, fricatives, 9 voices): what remains is within 25 ms.
_DECODER_LEAD_MS = 50.0

_SEARCH_MS = 25.0  # a pause is looked for this far beyond the comma's own time
_REACH_MS = 300.0  # and followed this far from its quietest moment
_FADE_MS = 6.0  # at the edges of a cut

# Token ids of Kokoro v1.0 for the symbols Mandarin needs, from its published configuration.
_VOCABULARY = {
    ",": 3, " ": 16, "ʦ": 20, "ʨ": 21, "ꭧ": 23, "a": 43, "e": 47, "f": 48, "h": 50, "i": 51,
    "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "s": 61, "t": 62, "u": 63,
    "w": 65, "x": 66, "y": 67, "ɕ": 77, "ə": 83, "ɚ": 85, "ɛ": 86, "ɥ": 99, "ɨ": 101, "ŋ": 112,
    "ɔ": 76, "ɻ": 126, "ʂ": 130, "ʊ": 135, "ɤ": 140, "ʰ": 162,
    "↓": 169, "→": 171, "↗": 172, "↘": 173,
}  # fmt: skip

# Kokoro v1.0 was trained on the notation of misaki's first Mandarin front end: arrows for tones.
_ARROWS = (("˧˩˧", "↓"), ("˧˥", "↗"), ("˥˩", "↘"), ("˥", "→"))


@functools.lru_cache(maxsize=4096)
def phonemes(reading: str) -> str:
    """One pinyin syllable in the notation of Kokoro v1.0.

    Raises:
        VoiceError: It is no syllable of Mandarin, or misaki is not installed.
    """
    transcription: Any = require("misaki.transcription", "misaki")
    try:
        ipa = "".join(next(iter(transcription.pinyin_to_ipa(reading))))
    except Exception as error:  # misaki lets through whatever its parser meets
        raise VoiceError(f"expected pinyin with a tone digit, got {reading!r}") from error
    for contour, arrow in _ARROWS:
        ipa = ipa.replace(contour, arrow)
    # The two syllabic consonants became one vowel; no other combining mark is in the vocabulary.
    ipa = ipa.replace("\u027b\u0329", "ɨ").replace("\u0279\u0329", "ɨ")
    ipa = "".join(c for c in ipa if not unicodedata.combining(c))
    unknown = [c for c in ipa if c not in _VOCABULARY]
    if unknown or not ipa:
        raise VoiceError(f"Kokoro has no symbols {unknown} for {reading!r}")
    return ipa


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The model's input, and where each syllable's tokens start and end in it."""

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Samples [start, end) are replaced by `length` quiet ones."""

    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class _Shift:
    """What starts at or after `at_ms`, and what ends after it, comes `by_ms` later."""

    at_ms: float
    by_ms: float


class SpeakerStyles:
    """The style vectors of a folder's speakers, and of speakers made from them.

    `a*0.7+b*0.3` is a new speaker between two. `a/b` speaks as `a` does with the timbre of `b`, who
    may be of any language: a new speaker with the melody of Mandarin.
    """

    def __init__(self, folder: Path, *, lend_timbre: bool = False) -> None:
        """Lists the folder.

        Args:
            folder: `<speaker>.bin`, float32 (510, 1, 256) each; those of Mandarin begin with z.
            lend_timbre: Whether `speakers` has those with a timbre of another language as well.

        Raises:
            VoiceError: No Mandarin speaker is there.
        """
        self._files = {path.stem: path for path in sorted(folder.glob("*.bin"))}
        self._native = tuple(name for name in self._files if name.startswith("z"))
        if not self._native:
            raise VoiceError(f"expected Mandarin speakers (z*.bin) in {folder}, found none")
        self._lend_timbre = lend_timbre

    @property
    def speakers(self) -> tuple[str, ...]:
        """The Mandarin speakers, and `own/lender` for each of the same sex where they are lent."""
        lenders = [
            name
            for name in self._files
            if self._lend_timbre and name not in self._native and name[3:] not in _MANNERED
        ]
        lent = (f"{own}/{other}" for other in lenders for own in self._native if own[1] == other[1])
        return (*self._native, *lent)

    def __getitem__(self, voice: str) -> Samples:
        """Style vectors of a speaker, float32 (510, 256), one for each number of phonemes.

        Raises:
            VoiceError: Unknown speaker, or a file of another size.
        """
        total = np.zeros(_STYLES, dtype=np.float32)
        for part in voice.split("+"):
            match = re.fullmatch(r"(\w+)(?:/(\w+))?(?:\*([0-9.]+))?", part)
            if match is None or match[1] not in self._native:
                raise VoiceError(f"expected one of {', '.join(self._native)}, got {part!r}")
            style = self._read(match[1])
            if match[2]:
                style[:, :_TIMBRE] = self._read(match[2])[:, :_TIMBRE]
            total += float(match[3] or 1.0) * style
        return total

    # Not kept: blends are many, each is half a megabyte, and to read it is nothing beside speaking.
    def _read(self, speaker: str) -> Samples:
        if speaker not in self._files:
            raise VoiceError(f"expected one of {', '.join(self._files)}, got {speaker!r}")
        values = np.fromfile(self._files[speaker], dtype=np.float32)
        if values.size != math.prod(_STYLES):
            path = self._files[speaker]
            raise VoiceError(f"expected {math.prod(_STYLES)} values in {path}, got {values.size}")
        return values.reshape(_STYLES)


class KokoroVoice:
    """Reads scripts with Kokoro 82M.

    Needs the packages onnx, onnxruntime, soxr and misaki.
    """

    def __init__(
        self, model: Path, styles: Path, *, threads: int = 1, lend_timbre: bool = False
    ) -> None:
        """Loads the model.

        Args:
            model: ONNX file with inputs `tokens`, `style`, `speed` and output `audio`.
            styles: The speakers' folder, see `SpeakerStyles`.
            threads: For one utterance.
            lend_timbre: Whether speakers of other languages lend theirs to the Mandarin ones.

        Raises:
            VoiceError: A package, the model or the speakers are missing or of another kind.
        """
        onnx: Any = require("onnx", "onnx")
        runtime: Any = require("onnxruntime", "onnxruntime")
        self._soxr: Any = require("soxr", "soxr")
        require("misaki.transcription", "misaki")
        if not model.is_file():
            raise VoiceError(f"no Kokoro model at {model}")
        self._styles = SpeakerStyles(styles, lend_timbre=lend_timbre)
        try:
            graph = onnx.load(str(model))
            produced = {name for node in graph.graph.node for name in node.output}
        except Exception as error:  # protobuf's own errors
            raise VoiceError(f"{model} is not an ONNX model: {error}") from error
        if _DURATIONS not in produced:
            raise VoiceError(f"expected Kokoro with a tensor {_DURATIONS}, {model} has none")
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None)
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session: Any = runtime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    @property
    def name(self) -> str:
        """`kokoro`."""
        return "kokoro"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Those of the folder, see `SpeakerStyles`."""
        return self._styles.speakers

    @property
    def blends(self) -> bool:
        """Speakers can be mixed."""
        return True

    def speak(self, script: Script) -> Speech:
        """Reads a script; see `Voice`.

        Raises:
            VoiceError: Unknown speaker, unreadable syllable, or more than 510 phonemes.
        """
        if not script.words or any(not word.syllables for word in script.words):
            raise VoiceError("expected at least one syllable in every word of the script")
        spoken = spoken_readings(script.words)
        tokens = _tokens(script, spoken)
        count = len(tokens.ids) - 2
        if count > _MAX_PHONEMES:
            raise VoiceError(f"expected at most {_MAX_PHONEMES} phonemes, got {count}")
        style = self._styles[script.voice][count - 1]
        raw, durations = self._session.run(
            ["audio", _DURATIONS],
            {
                "tokens": np.array([tokens.ids], dtype=np.int64),
                "style": style[None],
                "speed": np.array([script.speed], dtype=np.float32),
            },
        )
        # shape: (samples at 24 kHz,), (tokens,) in frames of 25 ms
        audio: Samples = self._soxr.resample(
            np.asarray(raw, dtype=np.float32).ravel(), _MODEL_RATE, SAMPLE_RATE
        )
        edges = np.concatenate([[0.0], np.cumsum(np.asarray(durations, np.float64).ravel())])
        edges = np.maximum(edges * _FRAME_MS - _DECODER_LEAD_MS, 0.0)
        return _assemble(script, tokens, edges, audio, spoken)


def _tokens(script: Script, spoken: Sequence[str]) -> _Tokens:
    ids = [0]
    starts: list[int] = []
    ends: list[int] = []
    for index, word in enumerate(script.words):
        if index:
            mark = ", " if script.words[index - 1].pause_ms > 0 else " "
            ids += [_VOCABULARY[c] for c in mark]
        for _ in word.syllables:
            starts.append(len(ids))
            ids += [_VOCABULARY[c] for c in phonemes(spoken[len(ends)])]
            ends.append(len(ids))
    return _Tokens((*ids, 0), tuple(starts), tuple(ends))


def _quiet_run(
    levels: npt.NDArray[np.float64], low_ms: float, high_ms: float
) -> tuple[float, float]:
    """The silence around the quietest moment of [low, high), as [start, end) in ms.

    Empty, at the quietest moment, where nothing is quiet.
    """
    low = min(max(int(low_ms / HOP_MS), 0), len(levels) - 1)
    high = min(max(int(np.ceil(high_ms / HOP_MS)), low + 1), len(levels))
    deepest = low + int(np.argmin(levels[low:high]))
    if levels[deepest] >= QUIET_DB:
        return deepest * HOP_MS, deepest * HOP_MS
    reach = int(_REACH_MS / HOP_MS)
    start = end = deepest
    while start > max(deepest - reach, 0) and levels[start - 1] < QUIET_DB:
        start -= 1
    while end < min(deepest + reach, len(levels)) and levels[end] < QUIET_DB:
        end += 1
    # A level is of 10 ms around the middle of its 5: the windows themselves are quiet throughout.
    return start * HOP_MS - HOP_MS / 2, end * HOP_MS + HOP_MS / 2


def _assemble(
    script: Script,
    tokens: _Tokens,
    edges: npt.NDArray[np.float64],
    audio: Samples,
    spoken: tuple[str, ...],
) -> Speech:
    """Puts the pauses in, trims the ends and gives every character its time.

    Args:
        script: What was asked.
        tokens: Which tokens are whose.
        edges: float64 (tokens + 1,), start of every token in ms.
        audio: float32 (samples,), 16 kHz, as the model gave it.
        spoken: Readings after sandhi.
    """
    levels = loudness(audio)
    starts = [float(edges[token]) for token in tokens.starts]
    ends = [float(edges[token]) for token in tokens.ends]
    # The model pads both ends with silence that it counts to the outer tokens.
    audible_from, audible_to = audible_span(levels)
    starts[0] = min(max(audible_from, starts[0] - 100.0), ends[0] - HOP_MS)
    ends[-1] = max(audible_to, starts[-1] + HOP_MS)

    cuts: list[_Cut] = []
    shifts: list[_Shift] = []
    syllable = 0
    for word in script.words[:-1]:
        syllable += len(word.syllables)
        before, after = ends[syllable - 1], starts[syllable]
        if word.pause_ms <= 0:
            # The boundary's own token is spoken through: its time is shared.
            ends[syllable - 1] = starts[syllable] = (before + after) / 2
            continue
        quiet_from, quiet_to = _quiet_run(levels, before - _SEARCH_MS, after + _SEARCH_MS)
        # Neither neighbour may lose all of its time.
        quiet_from = max(quiet_from, starts[syllable - 1] + HOP_MS)
        quiet_to = max(min(quiet_to, ends[syllable] - HOP_MS), quiet_from)
        ends[syllable - 1], starts[syllable] = quiet_from, quiet_to
        # Too long a silence loses its middle, too short a one is opened there.
        change = word.pause_ms - (quiet_to - quiet_from)
        middle, half = (quiet_from + quiet_to) / 2, max(-change, 0.0) / 2
        cuts.append(
            _Cut(_samples(middle - half), _samples(middle + half), _samples(max(change, 0.0)))
        )
        shifts.append(_Shift(quiet_to, change))

    origin = max(starts[0] - script.lead_ms, 0.0)
    noise = np.random.default_rng(zlib.crc32(script.text.encode()))
    stop = min(_samples(ends[-1] + script.tail_ms), len(audio))
    samples = _joined(audio, _samples(origin), stop, cuts, noise)
    times = _moved(starts, ends, shifts, origin, len(samples) * 1000 / SAMPLE_RATE)
    return Speech(samples, times, spoken)


def _samples(ms: float) -> int:
    return round(ms * SAMPLE_RATE / 1000)


def _joined(
    audio: Samples, begin: int, stop: int, cuts: Sequence[_Cut], noise: np.random.Generator
) -> Samples:
    """audio[begin:stop] with the cuts made, each edge faded."""
    fade = _samples(_FADE_MS)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    pieces: list[Samples] = []
    for cut in [*cuts, _Cut(stop, stop, 0)]:
        piece = audio[begin : cut.start].copy()
        if len(piece) >= fade:
            if pieces:
                piece[:fade] *= ramp
            if cut.start < stop:
                piece[-fade:] *= ramp[::-1]
        pieces += [piece, room_noise(cut.length, noise)]
        begin = cut.end
    joined: Samples = np.clip(np.concatenate(pieces), -1.0, 1.0)
    return joined


def _moved(
    starts: Sequence[float],
    ends: Sequence[float],
    shifts: Sequence[_Shift],
    origin: float,
    length_ms: float,
) -> tuple[tuple[float, float], ...]:
    """Times in the finished recording: in order and inside it."""
    times: list[tuple[float, float]] = []
    reached = 0.0
    for start, end in zip(starts, ends, strict=True):
        opening = start - origin + sum(s.by_ms for s in shifts if start >= s.at_ms)
        closing = end - origin + sum(s.by_ms for s in shifts if end > s.at_ms)
        opening = min(max(opening, reached), length_ms)
        reached = min(max(closing, opening), length_ms)
        times.append((opening, reached))
    return tuple(times)
