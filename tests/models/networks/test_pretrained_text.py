from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.errors import ConfigError, DataError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.ctc import CtcHead  # noqa: E402
from cnerta.models.networks.pretrained_text import (  # noqa: E402
    PretrainedEncoder,
    load_pretrained,
    pretrained_architecture,
    pretrained_characters,
    principal_embeddings,
)
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.evaluation.bundle_answers import bundle_answers  # noqa: E402

# Pieces in an order of their own, words and punctuation among them.
PIECES = [
    "[CLS]",
    "[PAD]",
    "[SEP]",
    "[UNK]",
    "长江",
    "江",
    "。",
    "南",
    "市",
    "长",
    "##市",
    "A",
    "b",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT as the hub has them, in small, with random weights."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in PIECES), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=40, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    transformers.BertModel(config).half().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def vocabulary(checkpoint: str) -> Vocabulary:
    return Vocabulary.build(pretrained_characters(checkpoint) + "桥")


def encoder(checkpoint: str, vocabulary: Vocabulary) -> PretrainedEncoder:
    built = PretrainedEncoder(TextConfig(), pretrained_architecture(checkpoint), vocabulary)
    load_pretrained(built, checkpoint, vocabulary)
    return built.eval()


def test_single_pieces_that_the_model_can_meet_are_characters(checkpoint: str) -> None:
    # No words, no punctuation, no capital: the normalisation leaves none of these.
    assert set(pretrained_characters(checkpoint)) == set("江南市长b")


def test_it_computes_what_the_library_computes_on_single_texts(
    checkpoint: str, vocabulary: Vocabulary
) -> None:
    texts = ["南市长江", "长", "桥b"]
    ids = torch.full((3, 4), PADDING_ID)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.from_numpy(vocabulary.encode(text))
    counts = torch.tensor([len(t) for t in texts])
    with torch.no_grad():
        encoded = encoder(checkpoint, vocabulary)(ids, counts)
    reference = transformers.BertModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    for row, text in zip(encoded, texts, strict=True):
        known = [PIECES.index(c) if c in PIECES else PIECES.index("[UNK]") for c in text]
        with torch.no_grad():
            expected = reference(torch.tensor([[0, *known, 2]])).last_hidden_state[0, 1:-1]
        torch.testing.assert_close(row[: len(text)], expected, rtol=1e-5, atol=1e-5)


def test_a_saved_model_needs_the_checkpoint_no_more(
    checkpoint: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    config = ModelConfig(
        acoustic=AcousticConfig(conv_channels=2, width=8, layers=1, heads=1, feed_forward=8),
        text=TextConfig(encoder="pretrained", checkpoint="gone"),
        fusion=FusionConfig(width=8, heads=1, feed_forward=8),
    )
    model = SpeechTagger(
        config, vocabulary, LabelScheme.flat(["LOC"]), pretrained_architecture(checkpoint)
    ).eval()
    save_checkpoint(tmp_path, Checkpoint("m", model, {}, {}))
    again = load_checkpoint(tmp_path).model
    inputs = (torch.tensor([[2, 3, 4]]), torch.tensor([3]), torch.randn(1, 5, 8), torch.tensor([5]))
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs).emissions, model(*inputs).emissions)


def test_an_exported_model_reads_as_far_as_its_positions_go(
    checkpoint: str, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=1, feed_forward=8
        ),
        text=TextConfig(encoder="pretrained", checkpoint=checkpoint),
        fusion=FusionConfig(width=8, heads=1, feed_forward=8),
    )
    model = SpeechTagger(
        config, vocabulary, LabelScheme.flat(["LOC"]), pretrained_architecture(checkpoint)
    ).eval()
    export_bundle(Checkpoint("m", model, {}, {}), tmp_path)
    bundle = Model.load(tmp_path, device="cpu")
    # 40 positions, two of them for the brackets around the text.
    assert bundle.bundle.max_characters == 38
    none = np.zeros((0, 8), np.float32)
    long, short = bundle.tag(["江" * 38, "南市"], [none, none])
    (alone,) = bundle.tag(["南市"], [none])
    assert [s.span for s in short.spans] == [s.span for s in alone.spans]
    assert all(0 <= s.start < s.end <= 38 for s in long.spans)
    example = Example("江" * 39, ())
    with pytest.raises(DataError, match="at most 38 characters, got 39"):
        list(bundle_answers(bundle, [example]))


def test_principal_components_keep_which_characters_are_alike(
    checkpoint: str, vocabulary: Vocabulary
) -> None:
    rows = principal_embeddings(checkpoint, vocabulary, 5)
    assert rows.shape == (len(vocabulary), 5)
    assert not rows[PADDING_ID].any()
    # Five known characters and the unknown span five dimensions: no distance may be lost.
    source = transformers.BertModel.from_pretrained(checkpoint, dtype=torch.float32)
    pieces = source.get_input_embeddings().weight.detach()
    text = "江南市长b"
    own = torch.cdist(*[rows[torch.from_numpy(vocabulary.encode(text))]] * 2)
    full = torch.cdist(*[pieces[[PIECES.index(c) for c in text]]] * 2)
    ratio = (own / full)[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=1e-3)
    # What the checkpoint does not know is its unknown piece.
    torch.testing.assert_close(rows[vocabulary.encode("桥")[0]], rows[UNKNOWN_ID])
    with pytest.raises(ConfigError, match="at most 16"):
        principal_embeddings(checkpoint, vocabulary, 17)


def test_what_is_no_checkpoint_is_named(vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder with a pretrained encoder"):
        pretrained_architecture(str(tmp_path))
    with pytest.raises(ConfigError, match="configuration of a pretrained encoder"):
        PretrainedEncoder(TextConfig(), '{"model_type": "nonesuch"}', vocabulary)


def test_a_ctc_head_takes_what_it_shares_with_another() -> None:
    torch.manual_seed(0)
    first = Vocabulary.build("南市", {"南": ["nan2"], "市": ["shi4"]})
    second = Vocabulary.build("市长", {"市": ["shi4"], "长": ["zhang4", "shang3"]})
    theirs = CtcHead(first, 6, tied=True)
    torch.nn.init.normal_(theirs.own.weight)
    ours = CtcHead(second, 6, tied=True)
    ours.take(theirs, second.units, first.units)
    row, their_row = ours.unit_rows(), theirs.unit_rows()
    # shi4 is known whole, initial, final and tone; the tone of zhang4 came along.
    torch.testing.assert_close(
        row[second.units.index("shi4")], their_row[first.units.index("shi4")]
    )
    torch.testing.assert_close(ours.blank.weight, theirs.blank.weight)
    assert ours.part_rows is not None
    assert not torch.equal(row[second.units.index("zhang4")], their_row[first.units.index("shi4")])
