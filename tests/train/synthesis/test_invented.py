from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from cnerta.train.commands.train import app
from cnerta.train.data.examples import read_examples
from cnerta.train.synthesis.invented import (
    InventedSentence,
    InventedSplit,
    everyday_sentences,
    invented_sentences,
)

SPLITS: tuple[InventedSplit, ...] = ("train", "dev", "test")


def names(sentences: tuple[InventedSentence, ...]) -> set[str]:
    """The two characters that every made-up name begins with."""
    return {s.text[e.start : e.start + 2] for s in sentences for e in s.entities}


def frames(sentences: tuple[InventedSentence, ...]) -> set[str]:
    found = set()
    for sentence in sentences:
        text = sentence.text
        for entity in sorted(sentence.entities, key=lambda e: -e.start):
            text = f"{text[: entity.start]}_{text[entity.end :]}"
        found.add(text)
    return found


def test_no_name_and_no_frame_is_in_two_splits() -> None:
    made = {split: invented_sentences(split, 200) for split in SPLITS}
    for split in SPLITS:
        for other in SPLITS:
            if other != split:
                assert not names(made[split]) & names(made[other])
                assert not frames(made[split]) & frames(made[other])
        texts = [s.text for s in made[split] if s.entities]
        assert len(texts) == len(set(texts)), "none twice"
        assert {e.label for s in made[split] for e in s.entities} == {"PER", "LOC", "ORG"}
    assert made["train"] == invented_sentences("train", 200)
    assert made["train"] != invented_sentences("train", 200, seed=1)


def test_everyday_sentences_are_annotated_as_cnerta_is() -> None:
    sentences = everyday_sentences(300)
    found = {(s.text[e.start : e.end], e.label) for s in sentences for e in s.entities}
    assert {("南京市", "LOC"), ("南京大学", "ORG"), ("南京", "LOC")} <= found
    for sentence in sentences:
        for outer in sentence.entities:
            if outer.label == "ORG":
                inner = [e for e in sentence.entities if e.start == outer.start and e != outer]
                assert [(e.label, outer.end - e.end) for e in inner] == [("LOC", 2)]
    others = everyday_sentences(300, seed=1, without=sentences)
    seen = {s.text for s in sentences if s.entities}
    assert not seen & {s.text for s in others}


def test_the_command_writes_manifests(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["invent", "--out", str(tmp_path / "m"), "--sentences", "40"])
    assert result.exit_code == 0, result.output
    counts = {p.stem: len(read_examples(p)) for p in (tmp_path / "m").iterdir()}
    assert counts == {"train": 40, "dev": 10, "test": 20, "old": 40, "old_test": 40}
    assert all(e.spans is None for e in read_examples(tmp_path / "m" / "old.jsonl"))
    row = json.loads((tmp_path / "m" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for start, end, text, _ in row["entities"]:
        assert row["text"][start:end] == text
