from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.export.graphs import TaggerGraph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.errors import BundleError, ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.softlexicon import SoftLexiconEncoder  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.networks.word_embedding import WordEmbedding  # noqa: E402
from cnerta.models.runtime.bundle import TAGGER_FILE, load_bundle  # noqa: E402
from cnerta.models.runtime.decoding import CrfDecoder  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.models.text.lexicon import Lexicon, pad_matches  # noqa: E402
from cnerta.models.text.word_files import LEXICON_FILE  # noqa: E402

TEXTS = ["南京市长江大桥", "江", "大桥的市长", "的的"]
LEXICON = Lexicon(
    ("南京", "南京市", "市长", "长江", "大桥", "长江大桥", "江", "江大桥", "无锡"),
    (4, 9, 2, 3, 1, 5, 7, 0, 0),
    ("ns places", "ns", "n", "ns places", "n", "nz", "n", "", "ns"),
)
VOCABULARY = Vocabulary.build("".join(TEXTS))


def inputs(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    characters = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in zip(characters, texts, strict=True):
        row[: len(text)] = torch.from_numpy(VOCABULARY.encode(text))
    matches = torch.from_numpy(pad_matches([LEXICON.match(t) for t in texts]))
    return characters, torch.tensor([len(t) for t in texts]), matches


@pytest.fixture
def encoder() -> SoftLexiconEncoder:
    torch.manual_seed(0)
    config = TextConfig("softlexicon", embedding=6, word_embedding=5, hidden=8)
    return SoftLexiconEncoder(config, len(VOCABULARY), LEXICON).eval()


def by_definition(encoder: SoftLexiconEncoder, text: str, place: int) -> torch.Tensor:
    """The four sets of one character, word by word over the lexicon."""
    sets: list[list[tuple[float, torch.Tensor]]] = [[], [], [], []]
    for number, word in enumerate(LEXICON.words, 1):
        for start in range(len(text) - len(word) + 1):
            if text[start : start + len(word)] != word:
                continue
            if not start <= place < start + len(word):
                continue
            if len(word) == 1:
                kind = 3
            elif place == start:
                kind = 0
            elif place == start + len(word) - 1:
                kind = 2
            else:
                kind = 1
            vector = encoder.words(torch.tensor(number))
            sets[kind].append((max(1, LEXICON.counts[number - 1]), vector))
    for members in sets:
        if not members:
            members.append((1, encoder.words(torch.tensor(0))))
    everything = sum(count for members in sets for count, _ in members)
    pooled = [4 / everything * sum(c * v for c, v in members) for members in sets]
    return torch.cat(pooled)


@torch.no_grad()
def test_word_sets_are_pooled_as_the_paper_defines(encoder: SoftLexiconEncoder) -> None:
    characters, _, matches = inputs(TEXTS)
    pooled = encoder.pooled(matches, characters.shape[1])
    for row, text in zip(pooled, TEXTS, strict=True):
        expected = torch.stack([by_definition(encoder, text, i) for i in range(len(text))])
        torch.testing.assert_close(row[: len(text)], expected)


@torch.no_grad()
def test_batch_mates_and_padding_change_nothing(encoder: SoftLexiconEncoder) -> None:
    together = encoder(*inputs(TEXTS))
    for row, text in zip(together, TEXTS, strict=True):
        torch.testing.assert_close(row[: len(text)], encoder(*inputs([text]))[0])


def test_only_words_met_in_training_are_trained() -> None:
    torch.manual_seed(0)
    words = WordEmbedding(LEXICON, 5, vectors=True)
    ids = torch.arange(len(LEXICON) + 1)
    before = words(ids).detach()
    optimizer = torch.optim.Adam(words.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        words(ids).square().sum().backward()
        optimizer.step()
    changed = (words(ids).detach() != before).any(dim=1)
    # The two with count 0 are as they were; word 0, which stands for none, is trained too.
    assert changed.tolist() == [True] * 8 + [False] * 2
    assert len({tuple(row) for row in before.tolist()}) == len(LEXICON)
    assert not words(torch.tensor([8, 9])).any()
    vectors = torch.randn(3, 5)
    words.start(torch.tensor([2, 9, 7]), vectors)
    torch.testing.assert_close(words(torch.tensor([2, 9, 7])), vectors)
    torch.testing.assert_close(words(torch.tensor([8]))[0], before[8])


def test_words_without_vectors_are_what_their_tags_are() -> None:
    torch.manual_seed(0)
    words = WordEmbedding(LEXICON, 5, vectors=False, tags=3).eval()
    assert words.width == 8
    assert words.tags is not None
    n, ns, nz, places = words.tags.weight  # in alphabetical order
    ids = torch.arange(len(LEXICON) + 1)
    found = words(ids)
    torch.testing.assert_close(
        found[:, 5:],
        torch.stack(
            [torch.zeros(3), (ns + places) / 2, ns, n, (ns + places) / 2, n, nz, n, n * 0, ns]
        ),
    )
    # Training showed neither of the last two: their own part says nothing.
    assert found[:8, :5].any(dim=1).all()
    assert not found[8:, :5].any()


def test_own_vectors_are_hidden_in_training_only() -> None:
    torch.manual_seed(0)
    words = WordEmbedding(LEXICON, 5, vectors=False, tags=3, hidden=0.25)
    ids = torch.arange(8).repeat(500, 1)
    found = words(ids)
    hidden = ~found[:, :, :5].any(dim=2)
    assert not hidden[:, 0].any(), "no word is no word to hide"
    # Binomial, 3500 draws: six standard deviations.
    assert abs(hidden[:, 1:].float().mean().item() - 0.25) < 6 * (0.25 * 0.75 / 3500) ** 0.5
    whole = words.eval()(ids)
    torch.testing.assert_close(found[:, :, 5:], whole[:, :, 5:])
    torch.testing.assert_close(found[~hidden], whole[~hidden])
    assert whole[:, :, :5].any(dim=2).all()


@pytest.fixture(scope="module")
def model() -> SpeechTagger:
    torch.manual_seed(0)
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=1, feed_forward=8
        ),
        text=TextConfig(
            "softlexicon",
            embedding=6,
            word_embedding=5,
            tag_embedding=3,
            hide_words=0.5,
            hidden=8,
            lexicon="gone",
        ),
        fusion=FusionConfig(width=8, heads=1, feed_forward=8),
    )
    scheme = LabelScheme.flat(["LOC", "PER"])
    return SpeechTagger(config, VOCABULARY, scheme, lexicon=LEXICON).eval()


def test_a_checkpoint_carries_its_words(model: SpeechTagger, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint("m", model, {}, {}))
    again = load_checkpoint(tmp_path).model
    assert again.lexicon == LEXICON
    characters, counts, matches = inputs(TEXTS)
    frames, none = torch.zeros(4, 1, 8), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        expected = model(characters, counts, frames, none, matches).emissions
        found = again(characters, counts, frames, none, matches).emissions
    torch.testing.assert_close(found, expected)
    (tmp_path / LEXICON_FILE).unlink()
    with pytest.raises(Exception, match="lexicon"):
        load_checkpoint(tmp_path)


def test_a_bundle_looks_words_up_by_itself(model: SpeechTagger, tmp_path: Path) -> None:
    written = export_bundle(Checkpoint("m", model, {}, {}), tmp_path)
    assert written.tagger_difference < 1e-4
    graph = TaggerGraph(model)
    generator = torch.Generator().manual_seed(1)
    sizes = [(1, 40, 3), (2, 1, 200), (9, 5, 1)]
    check_parity(graph, tmp_path / TAGGER_FILE, [graph.example(*s, generator) for s in sizes])
    bundle = Model.load(tmp_path, device="cpu")
    assert bundle.bundle.lexicon == LEXICON
    silence = np.zeros((0, 8), np.float32)
    answers = bundle.tag(TEXTS, [silence] * 4)
    characters, counts, matches = inputs(TEXTS)
    with torch.no_grad():
        output = model(
            characters, counts, torch.zeros(4, 1, 8), torch.zeros(4, dtype=torch.int64), matches
        )
    decoder = CrfDecoder(model.scheme, model.crf.parameters_as_values())
    expected = decoder.decode(output.emissions.numpy(), counts.tolist())
    assert [[s.span for s in a.spans] for a in answers] == [[s.span for s in e] for e in expected]
    assert any(a.spans for a in answers)
    # Words are part of what was trained: another list is another model.
    (tmp_path / LEXICON_FILE).write_text("江\t1\t\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"expected lexicon\.txt with sha256"):
        load_bundle(tmp_path)


def test_an_encoder_and_its_words_come_together() -> None:
    scheme = LabelScheme.flat(["LOC"])
    with pytest.raises(ConfigError, match="expected a lexicon"):
        SpeechTagger(ModelConfig(text=TextConfig("softlexicon")), VOCABULARY, scheme)
    with pytest.raises(ConfigError, match="expected no lexicon"):
        SpeechTagger(ModelConfig(), VOCABULARY, scheme, lexicon=LEXICON)
