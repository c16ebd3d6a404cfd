"""``cnerta-train shard``: a corpus as tar files that are read from front to back."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cnerta.models.errors import CnertaError
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import Example, raw_examples
from cnerta.train.data.shards import write_shards
from cnerta.train.recipe import Source

__all__ = ["shard"]

Format = Literal["cnerta", "aishell-ner", "manifest", "kaldi", "lhotse", "huggingface", "shards"]


def shard(
    data: Annotated[
        str,
        typer.Argument(help="A file or folder of the given format; of huggingface also a name."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; made if missing.")],
    format: Annotated[Format, typer.Option(help="Of the data.")] = "manifest",  # noqa: A002
    audio_root: Annotated[
        str, typer.Option(help="Recordings of the formats cnerta and aishell-ner.")
    ] = "",
    split: Annotated[str, typer.Option(help="Of the format huggingface, such as train.")] = "",
    data_root: Annotated[
        Path, typer.Option(help="Folder that all paths are relative to.")
    ] = Path(),
    per_shard: Annotated[
        int, typer.Option(min=1, help="Utterances of a shard: 1000 of 5 s are about 100 MB.")
    ] = 1000,
    shuffle: Annotated[
        bool,
        typer.Option(
            help="Mix all utterances first, which holds about 1 kB of each in memory; otherwise "
            "they stay in order."
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Decides how they are mixed.")] = 0,
    flac: Annotated[
        bool,
        typer.Option(
            "--flac",
            help="Write all recordings as training hears them, FLAC of 16 kHz and one channel.",
        ),
    ] = False,
) -> None:
    """Write a corpus as shards, in the layout of WebDataset, for training to stream.

    Texts stay as they are written, and so do recordings that are files. Stretches of recordings and
    those in archives become FLAC.
    """
    try:
        source = Source(format=format, path=data, split=split, audio_root=audio_root)
        examples: Iterable[Example] = raw_examples(source, data_root)
        if shuffle:
            examples = list(examples)
            random.Random(seed).shuffle(examples)
        silent: list[str] = []
        sizes = write_shards(
            _noting_silent(examples, silent), out, per_shard=per_shard, encode=flac,
            name=Path(source.path).stem,
        )  # fmt: skip
    except (CnertaError, OSError, ValueError) as error:
        fail(error)
    count, hours = sum(s.nsamples for s in sizes), sum(s.seconds for s in sizes) / 3600
    errors = Console(stderr=True, soft_wrap=True)
    if silent:
        errors.print(
            f"warning: {len(silent)} of {count} rows name a recording and were written without: "
            "--audio-root says where recordings are",
            markup=False,
        )
    errors.print(
        f"{out}: {len(sizes)} shards, {count} utterances, {hours:.2f} h of speech",
        markup=False,
    )


def _noting_silent(examples: Iterable[Example], silent: list[str]) -> Iterator[Example]:
    """Passes examples on, and notes those whose recording is named but not there."""
    for example in examples:
        if example.name and example.audio is None:
            silent.append(example.name)
        yield example
