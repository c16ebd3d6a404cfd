from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import DataError  # noqa: E402
from cnerta.models.networks.tagger import BREAK_LEVELS  # noqa: E402
from cnerta.train.batches.batch import UNKNOWN_BREAK, BatchBuilder  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import normalise_example, read_examples, read_source  # noqa: E402
from cnerta.train.data.prosody import break_levels  # noqa: E402
from cnerta.train.loop.continued_model import (  # noqa: E402
    with_prosody,
)
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Source, load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402


@pytest.mark.parametrize(
    ("text", "marked", "levels"),
    [
        ("它包含了课程就大班", "它#1包含了#1课程#2，就#1大班#4。", (1, 0, 0, 1, 0, 2, 1, 0, 4)),
        ("JavaScript这些", "Java Script#3，这些#4。", (*[0] * 9, 3, 0, 4)),
        ("好", "好", (0,)),
    ],
)
def test_marks_are_read(text: str, marked: str, levels: tuple[int, ...]) -> None:
    assert break_levels(text, marked) == levels


@pytest.mark.parametrize("marked", ["它#1包括了#4", "它#1包含#4", "它#1包含了他#4", ""])
def test_marks_of_another_text_are_refused(marked: str) -> None:
    with pytest.raises(DataError, match="expected prosody marks of '它包含了'"):
        break_levels("它包含了", marked)


def test_a_manifests_marks_follow_the_text_through_normalisation(tmp_path: Path) -> None:
    row = {"text": "用了12天，好", "prosody": "用了#1十二天#3，好#4"}
    path = tmp_path / "m.jsonl"
    for prosody in (row["prosody"], "用了#112天#3，好#4"):
        path.write_text(json.dumps({**row, "prosody": prosody}, ensure_ascii=False))
        if prosody == row["prosody"]:
            with pytest.raises(DataError, match="line 1: expected prosody marks"):
                read_examples(path)
            continue
        [example] = read_examples(path)
        normal = normalise_example(example)
        assert normal.text == "用了十二天好"
        assert normal.breaks == (0, 1, 0, 0, 3, 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones, of which every second has marks: a boundary after 市 and nowhere else."""
    folder = write_tones(tmp_path_factory.mktemp("tones"))
    manifest = folder / "tones.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows[::2]:
        row["prosody"] = "".join(c + "#2" * (c == "市") for c in row["text"])
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    manifest.write_text("".join(lines), encoding="utf-8")
    return folder


def test_boundaries_are_learnt_and_the_task_can_be_dropped(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        str(data / "recipe.toml"), ["stages.0.epochs=1", "model.fusion.prosody=1.0"]
    )
    trainer = Trainer(recipe, data, tmp_path / "a", cpu=True)
    best = trainer.run()
    model = trainer.model.eval()
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    builder = BatchBuilder(model.vocabulary, model.scheme, AudioCache(), None)
    batch = builder.build([(e,) for e in examples], np.random.default_rng(0))
    marked = [e.breaks is not None for e in examples]
    assert 0 < sum(marked) < len(marked)
    assert ((batch.breaks == UNKNOWN_BREAK).all(dim=1).tolist()) == [not m for m in marked]
    with torch.no_grad():
        frames, counts = model.acoustic(batch.samples, batch.sample_counts, 8)
        output = model(batch.characters, batch.counts, frames, counts)
    assert output.breaks is not None
    assert output.breaks.shape == (*batch.characters.shape, BREAK_LEVELS)
    known = batch.breaks != UNKNOWN_BREAK
    right = (output.breaks.argmax(dim=2) == batch.breaks)[known].float().mean()
    assert right > 0.95
    assert (batch.breaks[known] == 2).any()

    # Longer sentences without marks stand beside it as well.
    short = next(i for i, e in enumerate(examples) if e.breaks is not None)
    longer = replace(examples[short], text=examples[short].text * 2, breaks=None, times_ms=None)
    longer = replace(longer, readings=None, spans=())
    mixed = builder.build([(examples[short],), (longer,)], np.random.default_rng(0))
    assert mixed.breaks.shape == mixed.characters.shape
    assert (mixed.breaks[1] == UNKNOWN_BREAK).all()

    # An unheard sentence has no boundaries to learn.
    silent = builder.build([(e,) for e in examples], np.random.default_rng(0), drop_audio=1.0)
    assert (silent.breaks == UNKNOWN_BREAK).all()

    dropped = with_prosody(model, 0.0).eval()
    assert dropped.breaks is None
    with torch.no_grad():
        again = dropped(batch.characters, batch.counts, frames, counts)
    torch.testing.assert_close(again.emissions, output.emissions)
    without = load_recipe(str(data / "recipe.toml"), ["stages.0.epochs=1"])
    started = Trainer(without, data, tmp_path / "b", cpu=True, init=best)
    assert started.model.breaks is None
