"""A voice whose recordings say what it was asked for, and what its tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cnerta.train.synthesis.corpus import MANIFEST
from cnerta.train.synthesis.tasks import Cast
from cnerta.train.synthesis.voices import (
    ProsodicWord,
    Script,
    Speech,
    Syllable,
    VoiceError,
    spoken_readings,
)

RATE = 16_000
CAST = Cast(("low", "high"))


class SineVoice:
    """A tone a syllable, silence for every pause: what was asked can be read off the samples."""

    def __init__(self, log: Path | None = None, refuses: str = "") -> None:
        self._log = log
        self._refuses = refuses

    @property
    def name(self) -> str:
        return "sine"

    @property
    def speakers(self) -> tuple[str, ...]:
        return CAST.speakers

    @property
    def blends(self) -> bool:
        return False

    def speak(self, script: Script) -> Speech:
        if self._refuses and self._refuses in script.text:
            raise VoiceError(f"cannot say {self._refuses}")
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{script.text}\n")
        tone = 200.0 if script.voice == "low" else 400.0
        pieces = [np.zeros(round(script.lead_ms * 16))]
        times: list[tuple[float, float]] = []
        for number, word in enumerate(script.words):
            for _ in word.syllables:
                start = sum(map(len, pieces)) / 16
                length = round(100 / script.speed) * 16
                pieces.append(0.5 * np.sin(2 * np.pi * tone * np.arange(length) / RATE))
                times.append((start, start + length / 16))
            if number + 1 < len(script.words):
                pieces.append(np.zeros(round(word.pause_ms * 16)))
        pieces.append(np.zeros(round(script.tail_ms * 16)))
        return Speech(
            np.concatenate(pieces).astype(np.float32), tuple(times), spoken_readings(script.words)
        )


def word(text: str, pinyin: str, pause_ms: float = 0.0) -> ProsodicWord:
    syllables = (Syllable(c, r) for c, r in zip(text, pinyin.split(), strict=True))
    return ProsodicWord(tuple(syllables), pause_ms)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]
