"""With the real library: what it writes is read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

datasets = pytest.importorskip("datasets")

from cnerta.models.errors import DataError  # noqa: E402
from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.train.data.audio import AudioCache, read_audio  # noqa: E402
from cnerta.train.data.examples import read_examples, read_source  # noqa: E402
from cnerta.train.data.held import HeldRecording  # noqa: E402
from cnerta.train.data.huggingface import open_table, read_table, tagged_spans  # noqa: E402
from cnerta.train.recipe import Source  # noqa: E402

ENTITIES = [
    [{"start": 2, "end": 6, "label": "ORG"}, {"start": 2, "end": 4, "label": "LOC"}],
    [],
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write_spoken(folder: Path, seconds: float = 0.5) -> Path:
    """A data set with recordings of two rates inside it, as ``save_to_disk`` writes it."""
    sounds = folder / "sounds"
    sounds.mkdir()
    for number, rate in enumerate((8_000, 16_000)):
        ramp = np.linspace(-0.5, 0.5, round(rate * seconds))
        soundfile.write(sounds / f"{number}.flac", ramp, rate)
    rows = {
        "audio": [str(sounds / f"{n}.flac") for n in range(2)],
        "text": ["他在北京大学", "今天很好"],
        "entities": ENTITIES,
        "speaker": ["anna", "bert"],
        "kind": ["a", "b"],
    }
    made = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    held = made.map(lambda r: {"audio": {"bytes": Path(r["audio"]["path"]).read_bytes(),
                                         "path": None}})  # fmt: skip
    held = held.cast_column("audio", datasets.Audio())
    datasets.DatasetDict({"train": held, "dev": held.select([1])}).save_to_disk(folder / "set")
    for file in sounds.iterdir():  # what is read is in the data set
        file.unlink()
    return folder


def source(path: str = "set", **settings: object) -> Source:
    return Source(format="huggingface", path=path, **settings)  # type: ignore[arg-type]


def test_a_data_set_with_recordings_is_read(tmp_path: Path) -> None:
    write_spoken(tmp_path)
    first, second = read_source(source(split="train"), tmp_path)
    assert (first.text, first.speaker) == ("他在北京大学", "anna")
    assert first.spans == (Span(2, 4, "LOC"), Span(2, 6, "ORG"))
    assert second.spans == ()
    cache = AudioCache()
    for example, rate in ((first, 8_000), (second, 16_000)):
        assert isinstance(example.audio, HeldRecording)
        assert cache.seconds(example.audio) == pytest.approx(0.5)
        samples = cache(example.audio)
        assert len(samples) == 8_000, f"16 kHz from {rate} Hz"
        assert samples[1_000] == pytest.approx(-0.5 + 1_000 / 8_000, abs=0.01)
    assert str(first.audio) == "set/train/0"
    (only,) = read_source(source(split="dev"), tmp_path)
    assert only.text == "今天很好"
    (chosen,) = read_source(source(split="train", where={"kind": ["b"]}), tmp_path)
    assert (chosen.text, str(chosen.audio)) == (second.text, "set/train/1")
    assert [e.audio for e in read_source(source(split="train", speech=False), tmp_path)] == [
        None,
        None,
    ]


def test_a_recording_is_decoded_when_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spoken(tmp_path)
    table = open_table(source(split="train"), tmp_path)
    read: list[int] = []
    whole = type(table.rows).__getitem__

    def counting(self: object, row: object) -> object:
        found = whole(self, row)
        if isinstance(found, dict) and "audio" in found:
            read.append(int(str(row)))
        return found

    monkeypatch.setattr(type(table.rows), "__getitem__", counting)
    examples = list(read_table(table, source()))
    assert read == []
    assert examples[1].audio is not None
    assert len(read_audio(examples[1].audio)) == 8_000
    assert read == [1]


def test_files_that_the_library_loads_and_tags_of_tokens(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {"tokens": [list("王芳在北京"), list("好")], "ner_tags": [[1, 2, 0, 3, 4], [0]]}
    (tmp_path / "tagged").mkdir()
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(tmp_path / "tagged" / "train.parquet")
    first, second = read_source(source("tagged"), tmp_path)
    assert (first.text, first.spans) == ("王芳在北京", (Span(0, 2, "PER"), Span(3, 5, "LOC")))
    assert (first.audio, second.spans) == (None, ())


def test_entities_as_json_text_and_columns_of_other_names(tmp_path: Path) -> None:
    rows = {"words": ["他在北京"], "names": ['[[2, 4, "北京", "LOC"]]']}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    wanted = source(text_field="words", entity_field="names")
    (example,) = read_source(wanted, tmp_path)
    assert example.spans == (Span(2, 4, "LOC"),)
    with pytest.raises(DataError, match=r"set, row 0: no field 'text'"):
        read_source(source(), tmp_path)
    with pytest.raises(DataError, match=r"expected a column of \['names', 'words'\].*got 'x'"):
        read_source(source(text_field="x"), tmp_path)


def test_a_folder_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["他在北京", "好"]}).save_to_disk(tmp_path / "set")
    assert [e.text for e in read_examples(tmp_path / "set")] == ["他在北京", "好"]
    with pytest.raises(DataError, match="expected no split"):
        read_source(source(split="train"), tmp_path)


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spoken(tmp_path)
    with pytest.raises(DataError, match=r"expected a split of \['dev', 'train'\].*got ''"):
        read_source(source(), tmp_path)
    with pytest.raises(DataError, match="expected a data set nowhere, got"):
        read_source(source("nowhere"), tmp_path)
    wrong = {"text": ["好"], "entities": [[{"start": 0, "end": 9, "label": "LOC"}]]}
    datasets.Dataset.from_dict(wrong).save_to_disk(tmp_path / "wrong")
    with pytest.raises(DataError, match=r"wrong, row 0: expected an entity inside 0\.\.1"):
        read_source(source("wrong"), tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'cnerta-stream\[corpora\]'"):
        read_source(source(), tmp_path)


@pytest.mark.parametrize(
    ("tokens", "tags", "text", "spans"),
    [
        ("甲乙丙丁", "B-A I-A B-A O", "甲乙丙丁", [(0, 2, "A"), (2, 3, "A")]),
        ("甲乙丙丁", "I-A I-B O I-A", "甲乙丙丁", [(0, 1, "A"), (1, 2, "B"), (3, 4, "A")]),
        ("甲乙丙丁", "B-A L-A U-B S-B", "甲乙丙丁", [(0, 2, "A"), (2, 3, "B"), (3, 4, "B")]),
        ("甲乙丙丁", "B-A M-A E-A I-A", "甲乙丙丁", [(0, 3, "A"), (3, 4, "A")]),
        (["用", "new", "phone"], "O B-A I-A", "用new phone", [(1, 10, "A")]),
    ],
)
def test_tags_become_entities(
    tokens: list[str], tags: str, text: str, spans: list[tuple[int, int, str]]
) -> None:
    assert tagged_spans(tokens, tags.split()) == (text, [Span(*s) for s in spans])


def test_tags_that_are_none() -> None:
    with pytest.raises(DataError, match="tag for each of 2 tokens, got 1"):
        tagged_spans("甲乙", ["O"])
    for tag in ("B", "O-A", "X-A", ""):
        with pytest.raises(DataError, match=f"expected tags such as O and B-PER, got '{tag}'"):
            tagged_spans("甲", [tag])


def test_a_data_set_trains_a_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from cnerta.train.commands.train import app

    write_spoken(tmp_path)
    recipe = """
    extends = "bilstm-crf"
    [model.text]
    embeddings = ""
    embedding = 8
    hidden = 8
    [data.train]
    format = "huggingface"
    path = "set"
    split = "train"
    audio_root = ""
    [data.dev]
    format = "huggingface"
    path = "set"
    split = "dev"
    audio_root = ""
    [[stages]]
    name = "tag"
    task = "entities"
    train = ["train"]
    dev = ["dev"]
    epochs = 1
    """
    (tmp_path / "mine.toml").write_text(recipe)
    done = CliRunner().invoke(
        app,
        [str(tmp_path / "mine.toml"), "--data-root", str(tmp_path), "--cpu", "--threads", "1",
         "--out", str(tmp_path / "run")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "best-0-tag" / "model.safetensors").is_file()
