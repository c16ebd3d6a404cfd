from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.models.bert.modeling_bert import BertConfig, BertModel  # noqa: E402

from cnerta.export.graphs import TaggerGraph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.networks.zen import (  # noqa: E402
    ZenEncoder,
    load_zen,
    zen_architecture,
    zen_characters,
    zen_lexicon,
)
from cnerta.models.runtime.bundle import TAGGER_FILE  # noqa: E402
from cnerta.models.runtime.decoding import CrfDecoder  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.models.text.lexicon import pad_matches  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

from .zen_checkpoint import (  # noqa: E402
    HEADS,
    INNER,
    LAYERS,
    NGRAM_LAYERS,
    NGRAMS,
    PIECES,
    POSITIONS,
    WIDTH,
    published,
    write,
)

TEXTS = ["南京市长江大桥", "的", "b市长", "江江"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("zen"), published())


@pytest.fixture(scope="module")
def vocabulary(checkpoint: str) -> Vocabulary:
    return Vocabulary.build(zen_characters(checkpoint) + "江")


def built(checkpoint: str, vocabulary: Vocabulary) -> ZenEncoder:
    lexicon = zen_lexicon(checkpoint).counted(TEXTS[:1])
    encoder = ZenEncoder(TextConfig("zen"), zen_architecture(checkpoint), vocabulary, lexicon)
    load_zen(encoder, checkpoint, vocabulary, lexicon)
    return encoder.eval()


def inputs(
    checkpoint: str, vocabulary: Vocabulary, texts: list[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    characters = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in zip(characters, texts, strict=True):
        row[: len(text)] = torch.from_numpy(vocabulary.encode(text))
    lexicon = zen_lexicon(checkpoint).counted(TEXTS[:1])
    matches = torch.from_numpy(pad_matches([lexicon.match(t) for t in texts]))
    return characters, torch.tensor([len(t) for t in texts]), matches


def bert_layers(weights: dict[str, torch.Tensor], stack: str, count: int) -> list[torch.nn.Module]:
    """The library's own layers with the checkpoint's weights."""
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=WIDTH, num_hidden_layers=count,
        num_attention_heads=HEADS, intermediate_size=INNER, max_position_embeddings=POSITIONS,
        layer_norm_eps=1e-12, attn_implementation="eager",
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    prefix = f"bert.encoder.{stack}."
    own = {
        "encoder.layer." + name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    missing = bert.load_state_dict(own, strict=False).missing_keys
    assert all(name.startswith("embeddings.") for name in missing)
    return list(bert.encoder.layer)


def normed(weights: dict[str, torch.Tensor], block: str, x: torch.Tensor) -> torch.Tensor:
    name = f"bert.{block}.LayerNorm"
    return torch.nn.functional.layer_norm(
        x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12
    )


def as_the_paper_says(weights: dict[str, torch.Tensor], text: str) -> torch.Tensor:
    """One text through the library's layers, n-grams added to characters one by one."""
    table = weights["bert.embeddings.word_embeddings.weight"]
    unknown = PIECES.index("[UNK]")
    known = [PIECES.index(c) if c in PIECES else unknown for c in text]
    rows = [PIECES.index("[CLS]"), *known, PIECES.index("[SEP]")]
    x = table[rows] + weights["bert.embeddings.position_embeddings.weight"][: len(rows)]
    x = normed(
        weights, "embeddings", x + weights["bert.embeddings.token_type_embeddings.weight"][0]
    )
    found = []
    for length in range(2, 8):
        for start in range(len(text) - length + 1):
            ngram = text[start : start + length]
            if ngram in NGRAMS:
                last = max(i for i, other in enumerate(NGRAMS, 1) if other == ngram)
                found.append((start, start + length, last))
    layers = bert_layers(weights, "layer", LAYERS)
    word_layers = bert_layers(weights, "word_layers", NGRAM_LAYERS)
    y = weights["bert.word_embeddings.word_embeddings.weight"][[row for _, _, row in found]]
    y = y + weights["bert.word_embeddings.token_type_embeddings.weight"][0]
    y = normed(weights, "word_embeddings", y)

    def one(layer: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        output = layer(states[None])
        return (output[0] if isinstance(output, tuple) else output)[0]

    for i, layer in enumerate(layers):
        x = one(layer, x)
        if found and i < NGRAM_LAYERS:
            y = one(word_layers[i], y)
        x = x.clone()
        for k, (start, end, _) in enumerate(found):
            for place in range(start, end):
                x[place + 1] += y[k]  # after [CLS]
    return x[1:-1]


@torch.no_grad()
def test_it_computes_what_the_paper_says_with_the_published_weights(
    checkpoint: str, vocabulary: Vocabulary
) -> None:
    encoded = built(checkpoint, vocabulary)(*inputs(checkpoint, vocabulary, TEXTS))
    weights = published()
    for row, text in zip(encoded, TEXTS, strict=True):
        expected = as_the_paper_says(weights, text)
        torch.testing.assert_close(row[: len(text)], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_batch_mates_and_padding_change_nothing(checkpoint: str, vocabulary: Vocabulary) -> None:
    encoder = built(checkpoint, vocabulary)
    together = encoder(*inputs(checkpoint, vocabulary, TEXTS))
    for row, text in zip(together, TEXTS, strict=True):
        (alone,) = encoder(*inputs(checkpoint, vocabulary, [text]))
        torch.testing.assert_close(row[: len(text)], alone, rtol=1e-5, atol=1e-5)


def test_only_n_grams_of_chinese_characters_are_looked_up(checkpoint: str) -> None:
    lexicon = zen_lexicon(checkpoint)
    assert lexicon.words == ("南京", "市长", "大桥", "长江大桥", "京市")
    assert lexicon.counts == (70, 30, 50, 60, 90)
    assert set(zen_characters(checkpoint)) == set("桥南京市长江大的b")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["zip", "legacy", "tensorflow names", "no prefix"])
def test_checkpoints_are_read_in_all_their_forms(
    checkpoint: str, vocabulary: Vocabulary, tmp_path: Path, kind: str
) -> None:
    folder = write(tmp_path, None)
    weights = published()
    if kind == "tensorflow names":
        weights = published(weight="gamma", bias="beta")
    elif kind == "no prefix":
        weights = published(prefix="")
    new = kind != "legacy"
    torch.save(weights, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    given = inputs(checkpoint, vocabulary, TEXTS)
    expected = built(checkpoint, vocabulary)(*given)
    torch.testing.assert_close(built(folder, vocabulary)(*given), expected)


def test_what_is_no_zen_is_told(checkpoint: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with config\.json, got"):
        zen_architecture(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(ConfigError, match=r"expected a ZEN in .*num_hidden_layers"):
        zen_architecture(str(tmp_path))
    weights = published()
    del weights["bert.encoder.word_layers.1.output.dense.bias"]
    folder = write(tmp_path, weights)
    with pytest.raises(ConfigError, match=r"to fit, got: .*word_layers\.1\.output\.dense\.bias"):
        built(folder, vocabulary)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors or pytorch_model\.bin"):
        built(folder, vocabulary)
    # What runs code when it is read is not read.
    torch.save({"bert.x": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="expected readable weights"):
        built(folder, vocabulary)
    (tmp_path / "ngram.txt").write_text("a,1\n")
    with pytest.raises(ConfigError, match=r"n-grams in ngram\.txt"):
        zen_lexicon(folder)


def tagger(checkpoint: str, vocabulary: Vocabulary) -> SpeechTagger:
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=1, feed_forward=8
        ),
        text=TextConfig("zen", checkpoint="gone"),
        fusion=FusionConfig(width=8, heads=1, feed_forward=8),
    )
    lexicon = zen_lexicon(checkpoint).counted(TEXTS[:1])
    scheme = LabelScheme.flat(["LOC", "PER"])
    model = SpeechTagger(config, vocabulary, scheme, zen_architecture(checkpoint), lexicon)
    assert isinstance(model.text, ZenEncoder)
    load_zen(model.text, checkpoint, vocabulary, lexicon)
    return model.eval()


def test_an_exported_model_needs_the_checkpoint_no_more(
    checkpoint: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    model = tagger(checkpoint, vocabulary)
    save_checkpoint(tmp_path, Checkpoint("m", model, {}, {}))
    again = load_checkpoint(tmp_path)
    assert again.model.lexicon == model.lexicon
    export_bundle(again, tmp_path / "bundle")
    graph = TaggerGraph(model)
    generator = torch.Generator().manual_seed(1)
    sizes = [(1, 38, 3), (2, 1, 50), (7, 5, 1)]
    path = tmp_path / "bundle" / TAGGER_FILE
    check_parity(graph, path, [graph.example(*s, generator) for s in sizes])
    bundle = Model.load(tmp_path / "bundle", device="cpu")
    # Two of 40 positions are for the brackets around the text.
    assert bundle.bundle.max_characters == 38
    answers = bundle.tag(TEXTS, [np.zeros((0, 8), np.float32)] * 4)
    characters, counts, matches = inputs(checkpoint, vocabulary, TEXTS)
    silence = torch.zeros(4, 1, 8), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        output = model(characters, counts, *silence, matches)
    decoder = CrfDecoder(model.scheme, model.crf.parameters_as_values())
    expected = decoder.decode(output.emissions.numpy(), counts.tolist())
    assert [[s.span for s in a.spans] for a in answers] == [[s.span for s in e] for e in expected]


def test_a_recipe_trains_it_at_a_rate_of_its_own(checkpoint: str, tmp_path: Path) -> None:
    rows = [
        {"text": "南京市", "entities": [[0, 2, "南京", "LOC"]]},
        {"text": "的市长", "entities": []},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = f"""
        name = "zen"
        [model.acoustic]
        conv_channels = 2
        width = 8
        layers = 1
        heads = 1
        feed_forward = 8
        [model.text]
        encoder = "zen"
        checkpoint = {json.dumps(checkpoint)}
        [model.fusion]
        kind = "none"
        [model.ctc]
        weight = 0.0
        [data.t]
        format = "manifest"
        path = "t.jsonl"
        [[stages]]
        name = "crf"
        task = "entities"
        train = ["t"]
        dev = ["t"]
        epochs = 2
        batch_size = 2
        learning_rate = 0.01
        text_learning_rate = 1e-12
        freeze_acoustic = true
    """
    (tmp_path / "r.toml").write_text(recipe)
    run = Trainer(load_recipe(str(tmp_path / "r.toml")), tmp_path, tmp_path / "out", cpu=True)
    before = {n: p.detach().clone() for n, p in run.model.named_parameters()}
    trained = load_checkpoint(run.run()).model
    moved = {
        name
        for name, parameter in trained.named_parameters()
        if (parameter - before[name]).abs().max() > 1e-9
    }
    assert {"emissions.weight", "emissions.bias"} <= moved
    assert not any(name.startswith("text.") for name in moved)
    assert trained.lexicon is not None
    assert trained.lexicon.words == ("南京", "市长", "京市", "大桥", "长江大桥")
    nothing = load_recipe(str(tmp_path / "r.toml"), ["model.text.checkpoint="])
    with pytest.raises(ConfigError, match=r"expected model\.text\.checkpoint"):
        Trainer(nothing, tmp_path, tmp_path / "o", cpu=True)
