"""Plans for training speech: who says what, how fast and with which pauses.

A `Task` is one utterance to make: a script for a voice and what the manifest should say of it.
Every choice (speaker, speed, pauses) follows from the seed and the utterance's key alone: neither
the order of the tasks nor an interruption changes it.

Pauses in ordinary sentences follow a word segmenter. Entity labels never influence how a sentence
is read; only homograph readings, whose point is to show the entities, are said as written.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pypinyin import Style, lazy_pinyin

from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.homograph_phrases import Kind
from cnerta.train.synthesis.homographs import HomographPair
from cnerta.train.synthesis.marked_words import Word
from cnerta.train.synthesis.sentences import MarkedLine, Sentence
from cnerta.train.synthesis.voices import ProsodicWord, Script, Syllable, require

__all__ = [
    "Cast",
    "Task",
    "homograph_tasks",
    "interleave",
    "marked_tasks",
    "may_pause",
    "sentence_tasks",
]

log = logging.getLogger(__name__)

_BLEND_CHANCE = 0.4  # how often two speakers are mixed into a new one
_LEAD_MS = (60.0, 400.0)
_TAIL_MS = (80.0, 400.0)
_CHINESE = re.compile(r"[\u3400-\u9fff]+")
# Where a pause may fall, by jieba's parts of speech (first letters). A segmenter errs most inside
# names, between one noun and the next, and a pause there would teach that pauses mean nothing; so
# only where a phrase surely ends (what that is worth: docs/results.md).
_PARTICLES = frozenset("的了着过地得")
_NOT_AFTER_PARTICLE = frozenset("uyqf")
_NOT_AFTER = frozenset("dprmcf")
_OPENS_PHRASE = frozenset("cdpr")
_NOMINAL = frozenset("nsjtl")
_VERBAL_NOUN = "vn"
# How pauses fall in an ordinary sentence: hardly ever at once, likelier the longer the breath.
_PAUSE_CHANCE = 0.04
_PAUSE_CHANCE_PER_SYLLABLE = 0.05
_BREATH = 3  # syllables after which the chance grows
_SHORT_PAUSE_MS = (0.0, 120.0)
_LONG_PAUSE_MS = (100.0, 380.0)
_SHORT_SHARE = 0.6
# Silence at a decisive boundary: heard words need none, heard pauses must be there.
_DECISIVE_MS: dict[Kind, tuple[float, float]] = {
    "pronounced": (0.0, 250.0),
    "paused": (60.0, 300.0),
}
_OPTIONAL_MS = (0.0, 90.0)
_OPTIONAL_CHANCE = 0.35
_SHORTEST_PAUSE_MS = 20.0  # below it no listener notices: said as no pause


@dataclass(frozen=True, slots=True)
class Cast:
    """Who speaks and how fast.

    Attributes:
        speakers: Names the voice knows.
        blends: Whether to mix two of them now and then.
        speeds: Slowest and fastest.
    """

    speakers: tuple[str, ...]
    blends: bool = False
    speeds: tuple[float, float] = (0.82, 1.22)

    def speaker(self, rng: random.Random) -> str:
        """Draws one."""
        if self.blends and len(self.speakers) > 1 and rng.random() < _BLEND_CHANCE:
            one, other = rng.sample(self.speakers, 2)
            share = rng.choice((0.3, 0.4, 0.5))
            return f"{one}*{1 - share:.1f}+{other}*{share:.1f}"
        return rng.choice(self.speakers)


@dataclass(frozen=True, slots=True)
class Task:
    """One utterance to make.

    Attributes:
        key: Unique within the output folder; the recording is `<key>.flac`.
        script: What to say and how.
        entities: Nested gold.
        split: Copied into the manifest.
        pair: The homograph pair, or None.
        reading: 0 or 1, which reading of the pair; None for sentences.
    """

    key: str
    script: Script
    entities: tuple[Span, ...]
    split: str
    pair: HomographPair | None = None
    reading: int | None = None


def _rng(seed: int, key: str) -> random.Random:
    return random.Random(f"synthesis:{seed}:{key}")


def _delivery(rng: random.Random, words: Iterable[ProsodicWord], cast: Cast) -> Script:
    return Script(
        tuple(words),
        voice=cast.speaker(rng),
        speed=round(rng.uniform(*cast.speeds), 2),
        lead_ms=round(rng.uniform(*_LEAD_MS)),
        tail_ms=round(rng.uniform(*_TAIL_MS)),
    )


def _pause(rng: random.Random, bounds: tuple[float, float]) -> float:
    drawn = rng.uniform(*bounds)
    return 0.0 if drawn < _SHORTEST_PAUSE_MS else round(drawn)


def may_pause(word: tuple[str, str], upcoming: tuple[str, str]) -> bool:
    """Whether a reader may pause between two words.

    Args:
        word: A word and its part of speech in jieba's notation.
        upcoming: The next one.
    """
    (text, part), (next_text, next_part) = word, upcoming
    if text in _PARTICLES:
        return next_part[0] not in _NOT_AFTER_PARTICLE
    if len(text) < 2 or part[0] in _NOT_AFTER:
        return False
    if next_part[0] in _OPENS_PHRASE:
        return True
    verb = next_part[0] == "v" and next_part != _VERBAL_NOUN and len(next_text) > 1
    return verb and part[0] in _NOMINAL


def _sentence_words(text: str, rng: random.Random) -> tuple[ProsodicWord, ...]:
    """Segments, looks up the readings and places pauses.

    Raises:
        VoiceError: The segmenter is not installed.
    """
    jieba: Any = require("jieba", "jieba")
    jieba.setLogLevel(logging.WARNING)
    posseg: Any = require("jieba.posseg", "jieba")
    tagged = [(pair.word, pair.flag) for pair in posseg.lcut(text)]
    segments = [word for word, _ in tagged]
    # A character without a known reading stands for itself; the voice will refuse it.
    readings = lazy_pinyin(
        segments,
        style=Style.TONE3,
        neutral_tone_with_five=True,
        errors=list,  # type: ignore[arg-type]
    )
    words: list[ProsodicWord] = []
    fluency = rng.uniform(0.5, 1.3)  # speakers differ in how often they pause
    breath = 0
    position = 0
    for index, segment in enumerate(segments):
        syllables = tuple(
            Syllable(character, reading)
            for character, reading in zip(segment, readings[position:], strict=False)
        )
        position += len(segment)
        breath += len(segment)
        pause = 0.0
        if index + 1 < len(tagged) and may_pause(tagged[index], tagged[index + 1]):
            lateness = _PAUSE_CHANCE_PER_SYLLABLE * max(breath - _BREATH, 0)
            if rng.random() < fluency * (_PAUSE_CHANCE + lateness):
                short = rng.random() < _SHORT_SHARE
                pause = _pause(rng, _SHORT_PAUSE_MS if short else _LONG_PAUSE_MS)
                breath = 0
        words.append(ProsodicWord(syllables, pause))
    return tuple(words)


def sentence_tasks(
    sentences: Iterable[Sentence], cast: Cast, *, seed: int = 0, split: str = "train"
) -> Iterator[Task]:
    """Plans ordinary sentences.

    One that is not all Chinese characters (Latin letters, digits) is left out, with a log line.
    """
    for sentence in sentences:
        rng = _rng(seed, sentence.key)
        if not _CHINESE.fullmatch(sentence.text):
            log.warning("left out %s, not all Chinese: %r", sentence.key, sentence.text)
            continue
        script = _delivery(rng, _sentence_words(sentence.text, rng), cast)
        yield Task(sentence.key, script, sentence.entities, split)


def _marked_words(
    words: Iterable[Word], kind: Kind, rng: random.Random
) -> tuple[ProsodicWord, ...]:
    said: list[ProsodicWord] = []
    for word in words:
        if word.pause_ms is not None:
            pause = word.pause_ms
        elif word.following == "decisive":
            pause = _pause(rng, _DECISIVE_MS[kind])
        elif word.following == "optional" and rng.random() < _OPTIONAL_CHANCE:
            pause = _pause(rng, _OPTIONAL_MS)
        else:
            pause = 0.0
        syllables = tuple(Syllable(c, r) for c, r in zip(word.text, word.pinyin, strict=True))
        said.append(ProsodicWord(syllables, pause))
    return tuple(said)


def homograph_tasks(pairs: Iterable[HomographPair], cast: Cast, *, seed: int = 0) -> Iterator[Task]:
    """Plans both readings of every pair, each with its own speaker, speed and pauses."""
    for pair in pairs:
        for number, reading in enumerate((pair.first, pair.second)):
            key = f"{pair.identifier}-{'ab'[number]}"
            rng = _rng(seed, key)
            script = _delivery(rng, _marked_words(reading.words, pair.kind, rng), cast)
            yield Task(key, script, reading.entities, pair.split, pair, number)


def marked_tasks(
    lines: Iterable[MarkedLine], cast: Cast, *, seed: int = 0, split: str = "train"
) -> Iterator[Task]:
    """Plans lines whose reading was written down."""
    for line in lines:
        rng = _rng(seed, line.key)
        script = _delivery(rng, _marked_words(line.words, "paused", rng), cast)
        yield Task(line.key, script, (), split)


def interleave(first: Iterable[Task], second: Iterable[Task], *, ratio: int) -> Iterator[Task]:
    """`ratio` tasks of the first, one of the second, and so on; what is left comes last."""
    one, other = iter(first), iter(second)
    while turn := [*itertools.islice(one, ratio), *itertools.islice(other, 1)]:
        yield from turn
