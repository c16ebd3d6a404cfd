"""The espeak-ng voice: robotic, available everywhere, and without character times.

Speaks pinyin, so a script decides how every character is pronounced; pauses are marked in SSML.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import zlib
from typing import Any

import numpy as np
import soundfile

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.synthesis.voices import (
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

__all__ = ["EspeakVoice"]

_PROGRAM = "espeak-ng"
_LANGUAGE = "cmn-latn-pinyin"
_WORDS_PER_MINUTE = 175  # the program's own default, our speed 1
_TIMEOUT_S = 60.0
# Variants every installation has; the language's own timbre is `plain`.
_SPEAKERS = ("plain", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7")


class EspeakVoice:
    """Reads scripts with the program espeak-ng, which must be installed."""

    def __init__(self, program: str = _PROGRAM) -> None:
        """Finds the program.

        Args:
            program: Name on the path, or a path.

        Raises:
            VoiceError: It is not installed.
        """
        found = shutil.which(program)
        if found is None:
            raise VoiceError(f"the program {program!r} is not installed (Debian: espeak-ng)")
        self._program = found
        self._soxr: Any = require("soxr", "soxr")

    @property
    def name(self) -> str:
        """`espeak`."""
        return "espeak"

    @property
    def speakers(self) -> tuple[str, ...]:
        """The program's variants."""
        return _SPEAKERS

    @property
    def blends(self) -> bool:
        """Variants cannot be mixed."""
        return False

    def speak(self, script: Script) -> Speech:
        """Reads a script; see `Voice`. `times` is None.

        Raises:
            VoiceError: Unknown speaker, or the program fails.
        """
        if script.voice not in _SPEAKERS:
            raise VoiceError(f"expected one of {', '.join(_SPEAKERS)}, got {script.voice!r}")
        spoken = spoken_readings(script.words)
        variant = "" if script.voice == "plain" else f"+{script.voice}"
        command = [
            self._program,
            "-v",
            _LANGUAGE + variant,
            "-s",
            str(round(_WORDS_PER_MINUTE * script.speed)),
            "-m",
            "--stdout",
            "--stdin",
        ]
        try:
            done = subprocess.run(
                command,
                input=_markup(script, spoken).encode(),
                capture_output=True,
                check=True,
                timeout=_TIMEOUT_S,
            )
            raw, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
        except (OSError, subprocess.SubprocessError, soundfile.SoundFileError) as error:
            raise VoiceError(f"espeak-ng failed on {script.text!r}: {error}") from error
        audio: Samples = self._soxr.resample(raw, rate, SAMPLE_RATE)
        begin_ms, end_ms = audible_span(loudness(audio))
        said = audio[round(begin_ms * SAMPLE_RATE / 1000) : round(end_ms * SAMPLE_RATE / 1000)]
        noise = np.random.default_rng(zlib.crc32(script.text.encode()))
        lead, tail = (
            room_noise(round(ms * SAMPLE_RATE / 1000), noise)
            for ms in (script.lead_ms, script.tail_ms)
        )
        samples: Samples = np.clip(np.concatenate([lead, said, tail]), -1.0, 1.0)
        return Speech(samples, None, spoken)


def _markup(script: Script, spoken: tuple[str, ...]) -> str:
    """SSML: syllables of a word joined, words by a space, pauses as breaks."""
    parts: list[str] = []
    position = 0
    for word in script.words:
        parts.append("".join(spoken[position : position + len(word.syllables)]))
        position += len(word.syllables)
        if word.pause_ms > 0:
            parts.append(f'<break time="{round(word.pause_ms)}ms"/>')
    return f"<speak>{' '.join(parts)}</speak>"
