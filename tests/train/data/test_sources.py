from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.errors import ConfigError, DataError
from cnerta.models.runtime.labels import LabelScheme, Span
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, read_source
from cnerta.train.data.sources import read_sources
from cnerta.train.recipe import Source

torch = pytest.importorskip("torch")

from cnerta.models.text.gazetteer import Gazetteer  # noqa: E402
from cnerta.models.text.lexicon import Lexicon  # noqa: E402
from cnerta.train.batches.batch import BatchBuilder  # noqa: E402

ROWS = [
    {"text": "李在南京。", "entities": [[0, 1, "李", "PER"], [2, 4, "南京", "LOC"]]},
    {"text": "他去了北京，又回来", "entities": [[3, 5, "北京", "LOC"]]},
    {"text": "没有人", "entities": []},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, rows in (("train", ROWS), ("dev", [{"text": "李在，南京", "entities": []}])):
        lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def source(name: str, **settings: object) -> Source:
    return Source(format="manifest", path=f"{name}.jsonl", **settings)  # type: ignore[arg-type]


def texts(examples: list[Example]) -> list[str]:
    return [e.text for e in examples]


def test_a_source_leaves_out_what_another_has(data: Path) -> None:
    sources = {"train": source("train", exclude_texts_of=["dev"]), "dev": source("dev")}
    read = read_sources(sources, ["train", "dev"], data)
    # As the model sees them: punctuation is not said.
    assert texts(read["train"]) == ["他去了北京又回来", "没有人"]
    assert texts(read["dev"]) == ["李在南京"]
    assert list(read_sources(sources, ["train"], data)) == ["train"]


def test_a_recording_that_another_source_writes_otherwise_is_left_out(data: Path) -> None:
    rows = [
        {"sentence": "零点五", "audio": "A1", "entity": []},
        {"sentence": "好", "audio": "A2", "entity": []},
    ]
    for name, kept in (("one", rows), ("other", [rows[0] | {"sentence": "零点无"}])):
        (data / f"{name}.json").write_text("".join(json.dumps(r) + "\n" for r in kept))
    sources = {
        "one": Source(format="cnerta", path="one.json", exclude_texts_of=["other"]),
        "other": Source(format="cnerta", path="other.json"),
    }
    assert texts(read_sources(sources, ["one"], data)["one"]) == ["好"]


@pytest.mark.parametrize("other", ["train", "nobody"])
def test_only_other_sources_can_be_excluded(data: Path, other: str) -> None:
    sources = {"train": source("train", exclude_texts_of=[other])}
    with pytest.raises(ConfigError, match=f"'train': expected exclude_texts_of .*'{other}'"):
        read_sources(sources, sources, data)


def test_a_source_that_is_excluded_as_a_whole(data: Path) -> None:
    sources = {"dev": source("dev", exclude_texts_of=["train"]), "train": source("train")}
    with pytest.raises(DataError, match="'dev': expected a sentence that is not excluded"):
        read_sources(sources, sources, data)


def test_a_corpus_is_cut_thinned_and_marked(data: Path) -> None:
    read = read_source(source("train", longest=6, nameless=0.5, corpus="亜"), data)
    assert texts(read) == ["李在南京", "他去了北京", "没有人"]
    assert {e.corpus for e in read} == {"亜"}


def test_what_is_said_is_neither_cut_nor_marked(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    row = {"audio": "a.wav", "text": "没有人", "entities": []}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    for settings in ({"corpus": "亜"}, {"longest": 4}):
        with pytest.raises(DataError, match="expected text only"):
            read_source(source("m", **settings), tmp_path)
        assert read_source(source("m", speech=False, **settings), tmp_path)


def test_a_mark_is_read_before_the_text_and_moves_what_is_in_it() -> None:
    vocabulary = Vocabulary.build("亜李在南京")
    scheme = LabelScheme.flat(["LOC", "PER"])
    gazetteer = Gazetteer.of(Lexicon(("南京",), (1,), ("ns",)))
    builder = BatchBuilder(vocabulary, scheme, AudioCache(), None, gazetteer)
    plain = Example("李在南京", (Span(0, 1, "PER"), Span(2, 4, "LOC")))
    marked = Example(plain.text, plain.spans, corpus="亜")
    batch = builder.build([(plain,), (marked,)], np.random.default_rng(0))
    assert batch.counts.tolist() == [4, 5]
    assert batch.characters[1].tolist() == [
        *vocabulary.encode("亜").tolist(),
        *batch.characters[0, :4].tolist(),
    ]
    assert scheme.tags[int(batch.tags[1, 0])] == "O"
    assert batch.tags[1, 1:].tolist() == batch.tags[0, :4].tolist()
    assert batch.matches[0, 0].tolist() == [2, 4, 1]
    assert batch.matches[1, 0].tolist() == [3, 5, 1]
    hidden = builder.build([(marked,)], np.random.default_rng(0), drop_characters=1.0)
    assert hidden.characters[0].tolist() == [*vocabulary.encode("亜").tolist(), 1, 1, 1, 1]
