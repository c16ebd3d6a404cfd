"""Training speech: sentences and homograph pairs in, recordings with a manifest out.

A `Task` is one utterance to make: a script for a voice and what the manifest should say of it.
Plans make tasks (`sentence_tasks`, `homograph_tasks`, `marked_tasks`); `synthesise` carries them
out and skips what the folder's manifest already lists, so a run may be interrupted and repeated.
Every choice (speaker, speed, pauses) follows from the seed and the utterance's key alone: neither
the order of the tasks nor an interruption changes it.

Pauses in ordinary sentences follow a word segmenter. Entity labels never influence how a sentence
is read; only homograph readings, whose point is to show the entities, are said as written.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import random
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
from pypinyin import Style, lazy_pinyin

from cnerta.models.errors import DataError
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.homographs import HomographPair, Kind, Word, read_words
from cnerta.train.synthesis.voices import (
    ProsodicWord,
    Script,
    Speech,
    Syllable,
    Voice,
    VoiceError,
    require,
)

__all__ = [
    "MANIFEST",
    "Cast",
    "MarkedLine",
    "Sentence",
    "Task",
    "Written",
    "homograph_tasks",
    "interleave",
    "marked_tasks",
    "may_pause",
    "read_marked",
    "read_sentences",
    "remaining",
    "sentence_tasks",
    "synthesise",
]

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"

_BLEND_CHANCE = 0.4  # how often two speakers are mixed into one nobody else has
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
class Sentence:
    """A sentence to read.

    Attributes:
        key: Unique, usable as a file name.
        text: As in the corpus.
        entities: Gold, copied into the manifest, never looked at.
    """

    key: str
    text: str
    entities: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """A text in the notation of `cnerta.train.synthesis.homographs`, said exactly as marked."""

    key: str
    words: tuple[Word, ...]


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


@dataclass(frozen=True, slots=True)
class Written:
    """A task's outcome.

    Attributes:
        key: The task's.
        seconds: Length of the recording; 0 where it was left out.
        problem: Why it was left out, or None.
    """

    key: str
    seconds: float
    problem: str | None = None


# ------------------------------------------------------------------------------------------- input


def read_sentences(path: Path) -> tuple[Sentence, ...]:
    """Reads CNERTA's JSON lines or a manifest.

    Args:
        path: One object a line: `sentence` and `entity`, or `text` and `entities`; `audio` names
            the recording, which need not exist.

    Raises:
        DataError: The file is missing or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read sentences from {path}: {error}") from error
    sentences: list[Sentence] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["sentence"] if "sentence" in row else row["text"]
            entities = row["entity"] if "sentence" in row else row.get("entities", [])
            spans = tuple(sorted(Span(int(s), int(e), str(label)) for s, e, _, label in entities))
            key = Path(str(row["audio"])).stem if row.get("audio") else f"{path.stem}-{number:06d}"
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a sentence line ({error!r})") from error
        sentences.append(Sentence(key, str(text), spans))
    return tuple(sentences)


def read_marked(path: Path) -> tuple[MarkedLine, ...]:
    """Reads marked lines: `key<tab>marked text`; empty lines and those after `#` are comments.

    Raises:
        DataError: The file is missing or a line has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read marked lines from {path}: {error}") from error
    lines: list[MarkedLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, separator, marked = line.partition("\t")
        if not separator or not re.fullmatch(r"[\w.-]+", key):
            raise DataError(f"{path}:{number}: expected `key<tab>marked text`, got {line!r}")
        try:
            lines.append(MarkedLine(key, read_words(marked.strip())))
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
    return tuple(lines)


# ------------------------------------------------------------------------------------------- plans


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


# ----------------------------------------------------------------------------------------- running


def _manifest_line(task: Task, speech: Speech, engine: str) -> str:
    text = task.script.text
    row: dict[str, Any] = {
        "audio": f"{task.key}.flac",
        "text": text,
        "entities": [[s.start, s.end, text[s.start : s.end], s.label] for s in task.entities],
        "seconds": round(speech.seconds, 3),
        "speaker": f"{engine}:{task.script.voice}",
        "voice": task.script.voice,
        "speed": task.script.speed,
        "split": task.split,
        "readings": [syllable.reading for syllable in task.script.syllables],
        "spoken": list(speech.spoken),
    }
    if speech.times is not None:
        row["characters"] = [[round(start), round(end)] for start, end in speech.times]
    if task.pair is not None:
        row["pair"] = task.pair.identifier
        row["family"] = task.pair.family
        row["reading"] = task.reading
    return json.dumps(row, ensure_ascii=False)


def _finished(folder: Path) -> set[str]:
    """Keys the manifest already lists; lines an interruption cut short are removed from it."""
    path = folder / MANIFEST
    if not path.exists():
        return set()
    keys: set[str] = set()
    kept: list[str] = []
    text = path.read_text(encoding="utf-8", errors="replace")
    damaged = not text.endswith("\n")
    for line in text.splitlines():
        try:
            key = Path(json.loads(line)["audio"]).stem
        except (ValueError, KeyError, TypeError):
            damaged = True
            continue
        keys.add(key)
        kept.append(line)
    if damaged:
        log.warning("%s: dropped what was cut short", path)
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return keys


def remaining(tasks: Iterable[Task], folder: Path) -> int:
    """How many of the tasks the folder does not have yet."""
    finished = _finished(folder)
    return sum(task.key not in finished for task in tasks)


def _make(voice: Voice, task: Task, folder: Path) -> tuple[Written, str | None]:
    """Speaks and stores one utterance; the manifest line is the caller's to write."""
    try:
        speech = voice.speak(task.script)
    except VoiceError as problem:
        return Written(task.key, 0.0, str(problem)), None
    soundfile.write(folder / f"{task.key}.flac", speech.samples, SAMPLE_RATE, subtype="PCM_16")
    return Written(task.key, speech.seconds), _manifest_line(task, speech, voice.name)


# One voice per worker process: building it reads the model. This is the process' own, never shared.
_worker_voice: Voice | None = None


def _start_worker(build: Callable[[], Voice]) -> None:
    global _worker_voice
    _worker_voice = build()


def _work(task: Task, folder: Path) -> tuple[Written, str | None]:
    assert _worker_voice is not None
    return _make(_worker_voice, task, folder)


def _outcomes(
    tasks: Iterator[Task], folder: Path, build: Callable[[], Voice], jobs: int
) -> Iterator[tuple[Written, str | None]]:
    if jobs == 1:
        voice = build()
        for task in tasks:
            yield _make(voice, task, folder)
        return
    # Forking a process whose runtime has threads can leave a lock taken in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start_worker, initargs=(build,)
    ) as pool:
        waiting: set[Future[tuple[Written, str | None]]] = set()
        for task in tasks:
            waiting.add(pool.submit(_work, task, folder))
            # Plans may be endless: keep only a few ahead.
            while len(waiting) >= 2 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def synthesise(
    tasks: Iterable[Task], folder: Path, build: Callable[[], Voice], *, jobs: int = 1
) -> Iterator[Written]:
    """Makes the recordings that are not there yet, one after the other as the caller asks.

    A recording is complete before its manifest line is written: what the manifest lists exists.

    Args:
        tasks: The plan; keys must be unique.
        folder: Receives `<key>.flac` and `manifest.jsonl`.
        build: Makes the voice; called once in every worker, so it must be picklable for `jobs` > 1.
        jobs: Processes.

    Yields:
        The outcome of every task that was not there yet, in the order they finish.

    Raises:
        VoiceError: The voice cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = _finished(folder)
    remaining = (task for task in tasks if task.key not in finished)
    with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
        for written, line in _outcomes(remaining, folder, build, jobs):
            if line is None:
                log.warning("left out %s: %s", written.key, written.problem)
            else:
                manifest.write(line + "\n")
                manifest.flush()
            yield written
