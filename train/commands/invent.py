"""``cnerta-train invent``: a small made-up domain to try fine-tuning on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cnerta.models.files import write_atomically
from cnerta.train.commands.failure import fail
from cnerta.train.synthesis.invented import (
    InventedSentence,
    everyday_sentences,
    invented_sentences,
)

__all__ = ["invent"]


def invent(
    out: Annotated[Path, typer.Option(help="Folder to write the manifests to; made if missing.")],
    sentences: Annotated[int, typer.Option(min=8, help="For training, of either kind.")] = 160,
    seed: Annotated[int, typer.Option(help="Decides which sentences.")] = 0,
) -> None:
    """Make up a domain with names of its own: train, dev and test.jsonl.

    No name and no frame of a sentence is in two of them. old.jsonl has everyday sentences without
    annotation, for replay, and old_test.jsonl other ones with it.
    """
    old = everyday_sentences(sentences, seed)
    held_out = everyday_sentences(sentences, seed + 1, without=old)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "train.jsonl", invented_sentences("train", sentences, seed))
        _write(out / "dev.jsonl", invented_sentences("dev", sentences // 4, seed))
        _write(out / "test.jsonl", invented_sentences("test", sentences // 2, seed))
        _write(out / "old.jsonl", old, annotated=False)
        _write(out / "old_test.jsonl", held_out)
    except OSError as error:
        fail(error)
    Console(stderr=True).print(f"manifests: {out}", markup=False, soft_wrap=True)


def _write(path: Path, sentences: Iterable[InventedSentence], *, annotated: bool = True) -> None:
    lines = []
    for sentence in sentences:
        row: dict[str, object] = {"text": sentence.text}
        if annotated:
            row["entities"] = [
                [s.start, s.end, sentence.text[s.start : s.end], s.label] for s in sentence.entities
            ]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines).encode())
