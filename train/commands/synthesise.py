"""`cnerta-train synthesise`: recordings with a manifest, made from text."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cnerta.models.command_line import log_to_console
from cnerta.models.errors import CnertaError, DataError
from cnerta.train.commands.failure import fail
from cnerta.train.synthesis.corpus import remaining
from cnerta.train.synthesis.corpus import synthesise as synthesise_tasks
from cnerta.train.synthesis.espeak import EspeakVoice
from cnerta.train.synthesis.fastspeech2 import FastSpeech2Voice
from cnerta.train.synthesis.homographs import homograph_pairs
from cnerta.train.synthesis.kokoro import KokoroVoice
from cnerta.train.synthesis.sentences import read_marked, read_sentences
from cnerta.train.synthesis.tasks import (
    Cast,
    Task,
    homograph_tasks,
    interleave,
    marked_tasks,
    sentence_tasks,
)
from cnerta.train.synthesis.voices import Voice, VoiceError

__all__ = ["synthesise"]

_SENTENCES_PER_HOMOGRAPH = 3


class VoiceName(StrEnum):
    """Which engine reads."""

    KOKORO = "kokoro"
    ESPEAK = "espeak"
    FASTSPEECH2 = "fastspeech2"


class SplitName(StrEnum):
    """Which half of the homograph material."""

    TRAIN = "train"
    DEV = "dev"


def synthesise(
    out: Annotated[Path, typer.Option(help="Folder for the recordings and manifest.jsonl.")],
    text: Annotated[
        Path | None,
        typer.Option(help="Sentences to read: CNERTA's JSON lines or a manifest."),
    ] = None,
    homographs: Annotated[
        int, typer.Option(min=0, help="Homograph pairs to generate and read, two readings each.")
    ] = 0,
    split: Annotated[
        SplitName, typer.Option(help="Whose names and carrier sentences the pairs use.")
    ] = SplitName.TRAIN,
    marked: Annotated[
        Path | None,
        typer.Option(
            help="Lines `key<tab>text` with the reading written out: 南京/市长(shi4 zhang3)|江大桥"
        ),
    ] = None,
    voice: Annotated[VoiceName, typer.Option(help="Engine.")] = VoiceName.KOKORO,
    model: Annotated[
        Path | None, typer.Option(help="Kokoro: the ONNX file of the 82M model, v1.0.")
    ] = None,
    voices_dir: Annotated[
        Path | None,
        typer.Option(help="Kokoro: folder with the speakers' .bin files; z* are Mandarin."),
    ] = None,
    lend_timbre: Annotated[
        bool,
        typer.Option(
            help="Kokoro: Mandarin speakers also with the timbre of those of other languages."
        ),
    ] = False,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            help="Use this speaker, the blend `a*0.6+b*0.4`, or `a/b`: a with the timbre of b. "
            "Repeatable. All where left out."
        ),
    ] = None,
    speed: Annotated[
        tuple[float, float], typer.Option(help="Slowest and fastest; 1 is the speaker's own.")
    ] = (0.82, 1.22),
    seed: Annotated[int, typer.Option(help="Chooses speakers, speeds, pauses and pairs.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="At most so many utterances; 0: all.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 1,
) -> None:
    """Make training speech from text. Goes on where an earlier run stopped."""
    console = Console(stderr=True)
    log_to_console(console=console, show_time=True)
    try:
        build = _builder(voice, model, voices_dir, lend_timbre=lend_timbre)
        reader = build()
        cast = Cast(tuple(speaker or reader.speakers), reader.blends and not speaker, speed)
        tasks = [
            *interleave(
                _sentences(text, cast, seed, split),
                homograph_tasks(
                    homograph_pairs(homographs, seed=seed, split=split.value), cast, seed=seed
                ),
                ratio=_SENTENCES_PER_HOMOGRAPH,
            ),
            *_marked(marked, cast, seed, split),
        ][: limit or None]
        if not tasks:
            raise DataError("expected something to read: --text, --homographs or --marked")
        # One process can use the voice that is loaded; workers load their own.
        _run(tasks, out, build if jobs > 1 else lambda: reader, jobs, console)
    except CnertaError as error:
        fail(error)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None


def _builder(
    voice: VoiceName, model: Path | None, voices_dir: Path | None, *, lend_timbre: bool
) -> Callable[[], Voice]:
    """A picklable recipe for the voice: worker processes each build their own."""
    if lend_timbre and voice is not VoiceName.KOKORO:
        raise VoiceError(f"expected the Kokoro voice with --lend-timbre, got {voice.value}")
    if voice is VoiceName.ESPEAK:
        return EspeakVoice
    if voice is VoiceName.FASTSPEECH2:
        if model is None:
            raise VoiceError("the FastSpeech 2 voice needs --model")
        return functools.partial(FastSpeech2Voice, model)
    if model is None or voices_dir is None:
        raise VoiceError("the Kokoro voice needs --model and --voices-dir")
    return functools.partial(KokoroVoice, model, voices_dir, lend_timbre=lend_timbre)


def _sentences(text: Path | None, cast: Cast, seed: int, split: SplitName) -> Iterator[Task]:
    """In random order, so that what an interrupted run has made is a fair sample."""
    if text is None:
        return iter(())
    sentences = list(read_sentences(text))
    random.Random(seed).shuffle(sentences)
    return sentence_tasks(sentences, cast, seed=seed, split=split.value)


def _marked(marked: Path | None, cast: Cast, seed: int, split: SplitName) -> Iterator[Task]:
    if marked is None:
        return iter(())
    return marked_tasks(read_marked(marked), cast, seed=seed, split=split.value)


def _run(
    tasks: list[Task], out: Path, build: Callable[[], Voice], jobs: int, console: Console
) -> None:
    seconds = 0.0
    made = left_out = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        shown = progress.add_task("speaking", total=len(tasks))
        progress.advance(shown, len(tasks) - remaining(tasks, out))
        for written in synthesise_tasks(tasks, out, build, jobs=jobs):
            progress.advance(shown)
            made += written.problem is None
            left_out += written.problem is not None
            seconds += written.seconds
    before = len(tasks) - made - left_out
    console.print(
        f"{made} recordings, {seconds / 60:.1f} min, in {out}"
        + (f"; {before} were there already" if before else "")
        + (f"; {left_out} left out" if left_out else "")
    )
