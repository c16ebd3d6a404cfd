"""The Kokoro voice: natural Mandarin with exact phoneme durations, through onnxruntime.

Kokoro 82M (v1.0, Apache-2.0) takes phonemes, a style and a speed. Phonemes are made syllable by
syllable from pinyin, so a script decides how every character is pronounced. The durations the model
predicts inside are made an output of the graph, so character times come with the speech.

Where the script has a pause the model is given a comma; `cnerta.train.synthesis.pauses` does the
rest.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
        self._soxr: Any = require("soxr", "soxr")
        require("misaki.transcription", "misaki")
        if not model.is_file():
            raise VoiceError(f"no Kokoro model at {model}")
        self._styles = SpeakerStyles(styles, lend_timbre=lend_timbre)
        graph = load_graph(model)
        produced = {name for node in graph.graph.node for name in node.output}
        if _DURATIONS not in produced:
            raise VoiceError(f"expected Kokoro with a tensor {_DURATIONS}, {model} has none")
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None)
        )
        self._session = start_session(graph, threads)

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
        starts = [float(edges[token]) for token in tokens.starts]
        ends = [float(edges[token]) for token in tokens.ends]
        return with_pauses(script, starts, ends, audio, spoken)


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
