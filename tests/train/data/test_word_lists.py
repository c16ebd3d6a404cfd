from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.networks.softlexicon import SoftLexiconEncoder  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme, Span  # noqa: E402
from cnerta.models.runtime.vocabulary import UNKNOWN_ID, Vocabulary  # noqa: E402
from cnerta.models.text.gazetteer import Gazetteer  # noqa: E402
from cnerta.models.text.lexicon import read_lexicon, read_word_list  # noqa: E402
from cnerta.train.batches.batch import BatchBuilder  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.data.word_lists import lexicon_paths  # noqa: E402
from cnerta.train.evaluation.predict import torch_predictions  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

RECIPE = """
name = "words"
[model]
labels = "flat"
[model.acoustic]
conv_channels = 2
width = 8
layers = 1
heads = 1
feed_forward = 8
[model.text]
encoder = "softlexicon"
embedding = 3
word_embedding = 4
hidden = 16
dropout = 0.0
embeddings = "characters.vec"
word_embeddings = "words.vec"
[model.fusion]
kind = "none"
[model.ctc]
weight = 0.0
[data.texts]
format = "manifest"
path = "texts.jsonl"
[[stages]]
name = "crf"
task = "entities"
train = ["texts"]
dev = ["texts"]
epochs = 12
batch_size = 2
learning_rate = 0.03
warmup_steps = 1
freeze_acoustic = true
"""
# Which word of the list a stretch is decides; the last two words are in no training text.
WORDS = {"甲乙": 1.0, "乙丙": -1.0, "丙丁": 1.0, "丁甲": -1.0, "戊己": 1.0, "庚辛": -1.0}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"text": f"的{w}了", "entities": [[1, 3, w, "LOC"]] if WORDS[w] > 0 else []}
        for w in ("甲乙", "乙丙", "丙丁", "丁甲")
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    vectors = "".join(f"{w} {x} {x} 0 0\n" for w, x in WORDS.items())
    (tmp_path / "words.vec").write_text(f"6 4\n{vectors}", encoding="utf-8")
    (tmp_path / "characters.vec").write_text("甲 1 2 3\n壬 4 5 6\n", encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def train(data: Path, *overrides: str) -> Path:
    recipe = load_recipe(str(data / "recipe.toml"), overrides)
    return Trainer(recipe, data, data / "out", cpu=True).run()


def test_words_that_training_never_showed_are_known_by_their_vectors(data: Path) -> None:
    model = load_checkpoint(train(data)).model
    assert model.lexicon is not None
    # The list is that of the vectors, words met in training first.
    assert model.lexicon.words[4:] == ("戊己", "庚辛")
    assert model.lexicon.counts == (1, 1, 1, 1, 0, 0)
    text = model.text
    assert isinstance(text, SoftLexiconEncoder)
    torch.testing.assert_close(
        text.words(torch.tensor([5, 6])), torch.tensor([[1.0, 1, 0, 0], [-1, -1, 0, 0]])
    )
    # A character that only the vectors know keeps what it started with, as it is never met.
    own = text.embedding(torch.from_numpy(model.vocabulary.encode("壬")))
    torch.testing.assert_close(own, torch.tensor([[4.0, 5, 6]]))
    assert model.vocabulary.encode("戊")[0] == UNKNOWN_ID
    examples = [Example(t, ()) for t in ("的戊己了", "的庚辛了")]
    assert torch_predictions(model, examples, AudioCache()) == [[Span(1, 3, "LOC")], []]


def test_a_word_with_a_hidden_character_is_hidden(data: Path) -> None:
    lexicon = read_lexicon([data / "words.vec"])

    vocabulary = Vocabulary.build("甲乙丙丁")
    builder = BatchBuilder(vocabulary, LabelScheme.flat(["LOC"]), AudioCache(), None, lexicon)
    clip = (Example("甲乙丙丁", ()),)
    assert builder.build([clip], np.random.default_rng(0)).matches[0].tolist() == [
        [0, 2, 1],
        [1, 3, 2],
        [2, 4, 3],
    ]
    seen = set()
    for seed in range(100):
        batch = builder.build([clip], np.random.default_rng(seed), drop_characters=0.4)
        hidden = [c == UNKNOWN_ID for c in batch.characters[0].tolist()]
        found = [tuple(m) for m in batch.matches[0].tolist() if m[2]]
        assert found == [(i, i + 2, i + 1) for i in range(3) if not any(hidden[i : i + 2])]
        seen.add(len(found))
    assert seen == {0, 1, 2, 3}


def test_a_gazetteer_keeps_half_of_what_it_knows_of_hidden_characters(data: Path) -> None:
    lexicon = read_lexicon([data / "words.vec"])
    vocabulary = Vocabulary.build("甲乙丙丁")
    gazetteer = Gazetteer.of(lexicon)
    builder = BatchBuilder(vocabulary, LabelScheme.flat(["LOC"]), AudioCache(), None, gazetteer)
    clip = (Example("甲乙丙丁", ()),)
    kept = []
    for seed in range(100):
        batch = builder.build([clip], np.random.default_rng(seed), drop_characters=0.999)
        assert batch.characters[0].tolist() == [UNKNOWN_ID] * 4
        kept.append(int((batch.matches[0, :, 2] > 0).sum()))
    assert set(kept) == {0, 3}
    assert 30 < kept.count(3) < 70


def test_word_lists_are_found_where_they_are_named(data: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "absolute.txt").write_text("江\n", encoding="utf-8")
    paths = lexicon_paths(f"words.vec, jieba,{elsewhere}", data)
    assert paths[0] == data / "words.vec"
    assert paths[2] == elsewhere
    # The package's own dictionary, with parts of speech.
    assert next(read_word_list(paths[1]))[2]
    with pytest.raises(ConfigError, match=r"got no file .*gone"):
        lexicon_paths("gone.txt", data)
    with pytest.raises(ConfigError, match=r"word lists \(model\.text\.lexicon\), got none"):
        lexicon_paths("", data)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.text.embedding=4"], "vectors of 4 numbers .* got 3 for '甲'"),
        (["model.text.word_embedding=5"], "vectors of 5 numbers .* got 4 for '甲乙'"),
        (["model.text.encoder=bilstm"], r"no model\.text\.word_embeddings for bilstm"),
        (["model.text.embeddings=gone.vec"], "readable vectors in .*gone"),
    ],
)
def test_settings_that_do_not_go_together_are_told(
    data: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(data, *overrides)
