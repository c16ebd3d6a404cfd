"""Training speech: tasks in (:mod:`cnerta.train.synthesis.tasks`), recordings with a manifest out.

What the folder's manifest already lists is skipped, so a run may be interrupted and repeated.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from cnerta.models.files import write_atomically
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.synthesis.tasks import Task
from cnerta.train.synthesis.voices import Speech, Voice, VoiceError

__all__ = ["MANIFEST", "Written", "remaining", "synthesise"]

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"


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
        write_atomically(path, "".join(f"{line}\n" for line in kept).encode())
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
