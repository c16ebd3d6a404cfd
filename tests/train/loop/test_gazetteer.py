from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.export.graphs import TaggerGraph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.errors import BundleError, CheckpointError, CnertaError, ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.runtime.bundle import TAGGER_FILE, load_bundle  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.models.text.gazetteer import Gazetteer  # noqa: E402
from cnerta.models.text.word_files import GAZETTEER_FILE  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.evaluation.predict import torch_predictions  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

RECIPE = """
name = "places"
[model]
labels = "flat"
[model.acoustic]
mel_bins = 40
conv_channels = 2
width = 8
layers = 1
heads = 1
feed_forward = 8
[model.text]
# So small that the lists are the easier way.
embedding = 1
hidden = 2
dropout = 0.0
[model.gazetteer]
lists = "words.txt"
width = 8
hide = 0.0
[model.fusion]
kind = "none"
context = 8
[model.ctc]
weight = 0.0
[data.texts]
format = "manifest"
path = "texts.jsonl"
[[stages]]
name = "crf"
task = "entities"
train = ["texts"]
dev = []
epochs = 30
batch_size = 2
learning_rate = 0.03
warmup_steps = 1
freeze_acoustic = true
"""
# The dictionary's part of speech decides; the last two words are in no training text.
WORDS = {"甲乙": "ns", "乙丙": "v", "丙丁": "ns", "丁甲": "v", "戊己": "ns", "庚辛": "v"}
UNSEEN = ["的戊己了", "的庚辛了"]


def write_data(folder: Path) -> Path:
    rows = [
        {"text": f"的{w}了", "entities": [[1, 3, w, "LOC"]] if WORDS[w] == "ns" else []}
        for w in ("甲乙", "乙丙", "丙丁", "丁甲")
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = "".join(f"{w} 30 {tag}\n" for w, tag in WORDS.items())
    (folder / "words.txt").write_text(words, encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(write_data(tmp_path_factory.mktemp("trained")))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After one epoch: enough where the weights do not matter."""
    return train(write_data(tmp_path_factory.mktemp("begun")), "stages.0.epochs=1")


def train(data: Path, *overrides: str, out: str = "out", init: Path | None = None) -> Path:
    recipe = load_recipe(str(data / "recipe.toml"), overrides)
    return Trainer(recipe, data, data / out, cpu=True, init=init).run()


def found(checkpoint: Path, texts: list[str] = UNSEEN) -> list[list[Span]]:
    model = load_checkpoint(checkpoint).model
    return torch_predictions(model, [Example(t, ()) for t in texts], AudioCache())


def test_names_that_training_never_showed_are_known_by_their_kind(trained: Path) -> None:
    assert found(trained) == [[Span(1, 3, "LOC")], []]


def test_a_trained_model_is_given_a_gazetteer(data: Path) -> None:
    plain = train(data, 'model.gazetteer.lists=""', out="plain")
    (before,) = {tuple(map(tuple, found(plain)))}
    assert before != ((Span(1, 3, "LOC"),), ()), "it cannot know"
    start = Trainer(load_recipe(str(data / "recipe.toml")), data, data / "start", init=plain).model
    assert isinstance(start.lexicon, Gazetteer)
    known = [f"的{w}了" for w in WORDS]
    examples = [Example(t, ()) for t in known]
    assert torch_predictions(start, examples, AudioCache()) == found(plain, known), "as before"
    assert found(train(data, init=plain)) == [[Span(1, 3, "LOC")], []]


def test_a_trained_model_is_given_another_gazetteer(data: Path, trained: Path) -> None:
    # A kind more, which sorts before the others, and words that the first one has not.
    (data / "more.txt").write_text("壬癸 30 ns\n子丑 30 a\n", encoding="utf-8")
    lists = 'model.gazetteer.lists="words.txt,more.txt"'
    recipe = load_recipe(str(data / "recipe.toml"), [lists])
    given = Trainer(recipe, data, data / "given", init=trained).model
    assert isinstance(given.lexicon, Gazetteer)
    assert given.lexicon.kinds == ("a", "ns", "v")
    texts = [*UNSEEN, "的壬癸了"]
    answers = torch_predictions(given, [Example(t, ()) for t in texts], AudioCache())
    assert answers == [[Span(1, 3, "LOC")], [], [Span(1, 3, "LOC")]]
    assert found(train(data, lists, "stages.0.epochs=1", out="on", init=trained)) == answers[:2]


def test_lists_are_not_read_again_where_they_are_the_same(data: Path, begun: Path) -> None:
    (data / "words.txt").unlink()
    recipe = load_recipe(str(data / "recipe.toml"), ["model.gazetteer.hide=0.5"])
    model = Trainer(recipe, data, data / "other", init=begun).model
    assert model.word_kinds is not None
    assert model.word_kinds.hide == 0.5
    assert found(begun) == torch_predictions(model, [Example(t, ()) for t in UNSEEN], AudioCache())


def test_the_width_of_a_gazetteer_stays(data: Path, begun: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected model\.gazetteer\.width = 8, got 4"):
        train(data, "model.gazetteer.width=4", init=begun, out="other")


def test_other_settings_must_still_be_those_of_the_model(data: Path) -> None:
    plain = train(data, 'model.gazetteer.lists=""', "stages.0.epochs=1", out="plain")
    with pytest.raises(CheckpointError, match="expected a model as the recipe describes it"):
        train(data, "model.text.hidden=20", init=plain)


def test_a_checkpoint_without_its_gazetteer(begun: Path, tmp_path: Path) -> None:
    best = shutil.copytree(begun, tmp_path / "best")
    (best / GAZETTEER_FILE).unlink()
    with pytest.raises(CnertaError, match="gazetteer"):
        load_checkpoint(best)


def test_a_bundle_looks_words_up_by_itself(trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained)
    export_bundle(checkpoint, tmp_path / "bundle")
    graph = TaggerGraph(checkpoint.model)
    generator = torch.Generator().manual_seed(1)
    sizes = [(1, 40, 3), (2, 1, 200), (9, 5, 1)]
    examples = [graph.example(*s, generator) for s in sizes]
    check_parity(graph, tmp_path / "bundle" / TAGGER_FILE, examples)
    served = Model.load(tmp_path / "bundle", device="cpu")
    silence = np.zeros((0, 8), np.float32)
    answers = served.tag(UNSEEN, [silence] * 2)
    assert [[s.span for s in a.spans] for a in answers] == [[Span(1, 3, "LOC")], []]
    (tmp_path / "bundle" / GAZETTEER_FILE).write_bytes(b"")
    with pytest.raises(BundleError, match=r"expected gazetteer\.npz with sha256"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['model.gazetteer.lists="gone.txt"'], "expected a word list, got no file .*gone.txt"),
        (
            ['model.text.encoder="softlexicon"', 'model.text.lexicon="words.txt"'],
            "expected no model.gazetteer.lists beside the text encoder 'softlexicon'",
        ),
    ],
)
def test_settings_that_do_not_go_together(data: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(data, *overrides)
