"""What docs/fidelity.md says of the networks: the paper's equations, and the authors' release.

The release (DianboWork/M3T-CNERTA) was read, not copied: its parameters are named and sized here as
there, filled with random numbers, and put through its mathematics written down anew, one head and
one row at a time. Our modules, given the same numbers, must say the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, product

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    CtcConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.networks.acoustic_encoder import AcousticEncoder, sinusoids  # noqa: E402
from cnerta.models.networks.crf import ConstrainedCrf  # noqa: E402
from cnerta.models.networks.cross_modal_attention import CrossModalAttention  # noqa: E402
from cnerta.models.networks.multimodal_interaction import MultimodalInteraction  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme, Span  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]

PAPER = FusionConfig(
    kind="cma", width=0, residual="text", null_key=False, tagger_input="fused",
    heads=2, feed_forward=10,
)  # fmt: skip


# --- mathematics, a row at a time -----------------------------------------------------------------


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Array, epsilon: float = 1e-5) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(query: Array, key: Array, value: Array, heads: int) -> Array:
    """Each head and each row by itself."""
    size = query.shape[1] // heads
    rows = []
    for row in query:
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = np.array([row[own] @ k[own] / np.sqrt(size) for k in key])
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            parts.append(sum(s * v[own] for s, v in zip(shares, value, strict=True)))
        rows.append(np.concatenate(parts))
    return np.stack(rows)


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    generator = np.random.default_rng(seed)
    return {n: 0.3 * generator.normal(size=shape) for n, shape in shapes.items()}


def load(module: nn.Module, weights: Weights) -> None:
    """Give a module all of its parameters."""
    state = {n: torch.from_numpy(w).to(torch.float64) for n, w in weights.items()}
    module.double().eval().load_state_dict(state)


def of(module: nn.Module) -> Weights:
    return {n: p.detach().numpy() for n, p in module.named_parameters()}


# --- the paper ------------------------------------------------------------------------------------


def test_equation_1() -> None:
    torch.manual_seed(0)
    fusion = CrossModalAttention(PAPER, 6, 5).double().eval()
    text = torch.randn(1, 3, 6, dtype=torch.float64)
    frames = torch.randn(1, 4, 5, dtype=torch.float64)
    w, x, s = of(fusion), text[0].numpy(), frames[0].numpy()
    key_value = linear(w, "key_value", s)
    heads = attention(linear(w, "query", x), key_value[:, :6], key_value[:, 6:], 2)
    hat = norm(w, "attention_norm", x + linear(w, "output", heads))
    inner = np.maximum(linear(w, "feed_forward.0", hat), 0)
    expected = norm(w, "feed_forward_norm", hat + linear(w, "feed_forward.3", inner))
    with torch.no_grad():
        found = fusion(text, torch.tensor([3]), frames, torch.tensor([4]), torch.zeros(1, 4, 4))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)
    assert "null_key_value" not in w


@pytest.mark.parametrize("kind", ["cma", "mmi"])
def test_without_audio_attention_adds_nothing_where_there_is_no_null_key(kind: str) -> None:
    torch.manual_seed(0)
    config = msgspec.structs.replace(PAPER, kind=kind, tagger_input="both")
    built = {"cma": CrossModalAttention, "mmi": MultimodalInteraction}[kind]
    fusion = built(config, 6, 5).eval()
    text, none = torch.randn(2, 3, 6), torch.tensor([4, 0])
    counts, nothing = torch.tensor([3, 3]), torch.zeros(2, 4, 4)
    with torch.no_grad():
        one, other = (fusion(text, counts, torch.randn(2, 4, 5), none, nothing) for _ in range(2))
        alone = fusion(text[1:], counts[1:], torch.zeros(1, 1, 5), none[1:], nothing[1:, :1])
    torch.testing.assert_close(one[1], other[1])
    torch.testing.assert_close(one[1], alone[0])
    assert not torch.allclose(one[0], other[0], atol=1e-2)
    if kind == "cma":
        w, x = of(fusion), text[1].numpy()
        hat = norm(w, "attention_norm", x)
        inner = np.maximum(linear(w, "feed_forward.0", hat), 0)
        expected = norm(w, "feed_forward_norm", hat + linear(w, "feed_forward.3", inner))
        np.testing.assert_allclose(one[1].numpy(), expected, atol=1e-5)


def a_tagger(**changes: object) -> SpeechTagger:
    torch.manual_seed(0)
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=2, feed_forward=8,
            streaming=False, positions="sinusoids", norm="post",
        ),
        text=TextConfig(embedding=4, hidden=6, dropout=0.0),
        fusion=PAPER,
        ctc=CtcConfig(weight=1.0),
        tags="bio",
        crf="plain",
    )  # fmt: skip
    config = msgspec.structs.replace(config, **changes)
    scheme = LabelScheme.flat(["LOC"], "bio", well_formed=False)
    return SpeechTagger(config, Vocabulary.build("南京市长江", None), scheme)


def test_the_crf_is_fed_with_f_alone() -> None:
    model = a_tagger()
    assert model.emissions.weight.shape == (3, 6)
    seen: list[torch.Tensor] = []
    fused: list[torch.Tensor] = []
    assert model.fusion is not None
    model.fusion.register_forward_hook(lambda _, __, output: fused.append(output))
    model.emissions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = torch.from_numpy(model.vocabulary.encode("南京市"))[None]
    model.eval()(ids, torch.tensor([3]), torch.randn(1, 9, 8), torch.tensor([9]))
    assert torch.equal(seen[0], fused[0])
    both = a_tagger(fusion=msgspec.structs.replace(PAPER, tagger_input="both"))
    assert both.emissions.weight.shape == (3, 12)


def test_a_width_of_0_is_the_text_encoders_and_heads_must_share_it() -> None:
    fusion = CrossModalAttention(PAPER, 14, 5)
    assert fusion.width == 14
    from cnerta.models.errors import ConfigError

    with pytest.raises(ConfigError, match="2 equal heads, got 7"):
        CrossModalAttention(PAPER, 7, 5)


@pytest.mark.parametrize("scale", ["character", "sentence"])
def test_equation_2_and_the_loss_of_its_logits(scale: str) -> None:
    model = a_tagger(ctc=CtcConfig(weight=1.0, scale=scale)).double().eval()
    texts = ["南京南", "江市"]
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(model.vocabulary.encode(t)) for t in texts], batch_first=True
    )
    counts, heard = torch.tensor([3, 2]), torch.tensor([9, 7])
    frames = torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        output = model(ids, counts, frames, heard)
        found = float(model.masked_ctc_loss(output, ids, counts, heard))
    # G over the whole vocabulary, rows of other characters at minus infinity.
    rows, bias = model.ctc.own.weight[:, :-1], model.ctc.own.weight[:, -1]
    losses = []
    for text, s, n in zip(texts, frames, heard.tolist(), strict=True):
        g = torch.cat([model.ctc.blank(s[:n]), s[:n] @ rows.T + bias], dim=1).detach()
        columns = [1 + model.vocabulary.units.index(c) for c in text]
        masked = torch.full_like(g, -math.inf)
        masked[:, [0, *columns]] = g[:, [0, *columns]]
        logs = masked.log_softmax(dim=1)
        total = 0.0
        for path in product(sorted({0, *columns}), repeat=n) if n == 7 else ():
            kept = [p for i, p in enumerate(path) if p and (i == 0 or p != path[i - 1])]
            if kept == columns:
                total += math.exp(sum(float(logs[t, c]) for t, c in enumerate(path)))
        usual = nn.functional.ctc_loss(
            logs, torch.tensor(columns), torch.tensor(n), torch.tensor(len(columns)),
            reduction="none",
        )  # fmt: skip
        if n == 7:
            assert float(usual) == pytest.approx(-math.log(total), rel=1e-9)
        losses.append(float(usual) / (len(columns) if scale == "character" else 1))
    assert found == pytest.approx(sum(losses) / 2, rel=1e-5), "the loss is single precision"


def test_a_plain_crf_is_normalised_over_all_sequences() -> None:
    torch.manual_seed(0)
    scheme = LabelScheme.flat(["LOC"], "bio", well_formed=False)
    crf = ConstrainedCrf(scheme).double()
    crf.constrain()
    emissions = torch.randn(1, 4, 3, dtype=torch.float64)
    paths = list(product(range(3), repeat=4))
    likelihoods = [float(crf(emissions, torch.tensor([p])).detach().exp()) for p in paths]
    assert sum(likelihoods) == pytest.approx(1.0, abs=1e-9)
    assert min(likelihoods) > 1e-6, "an ill-formed sequence has a probability too"


# --- the release ----------------------------------------------------------------------------------


def release_acoustic_shapes(
    mel_bins: int, width: int, inner: int, blocks: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `AudioTransformerEncoder`."""
    bands = ((mel_bins - 1) // 2 - 1) // 2
    shapes: dict[str, tuple[int, ...]] = {
        "embed.conv.0.weight": (width, 1, 3, 3),
        "embed.conv.0.bias": (width,),
        "embed.conv.2.weight": (width, width, 3, 3),
        "embed.conv.2.bias": (width,),
        "embed.out.0.weight": (width, width * bands),
        "embed.out.0.bias": (width,),
    }
    for i in range(blocks):
        for part in ("q", "k", "v", "out"):
            shapes[f"blocks.{i}.self_attn.linear_{part}.weight"] = (width, width)
            shapes[f"blocks.{i}.self_attn.linear_{part}.bias"] = (width,)
        shapes |= {
            f"blocks.{i}.feed_forward.w_1.weight": (inner, width),
            f"blocks.{i}.feed_forward.w_1.bias": (inner,),
            f"blocks.{i}.feed_forward.w_2.weight": (width, inner),
            f"blocks.{i}.feed_forward.w_2.bias": (width,),
        }
        for n in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{n}.{p}": (width,) for p in ("weight", "bias")}
    return shapes


def ours_from_release(w: Weights, blocks: int) -> Weights:
    """The release's acoustic parameters under our names."""
    parts = {
        "embed.conv.0": "convolutions.0",
        "embed.conv.2": "convolutions.2",
        "embed.out.0": "projection",
    }
    for i in range(blocks):
        parts |= {
            f"blocks.{i}.self_attn.linear_q": f"layers.{i}.attention.query",
            f"blocks.{i}.self_attn.linear_out": f"layers.{i}.attention.output",
            f"blocks.{i}.feed_forward.w_1": f"layers.{i}.feed_forward.0",
            f"blocks.{i}.feed_forward.w_2": f"layers.{i}.feed_forward.3",
            f"blocks.{i}.norm1": f"layers.{i}.attention_norm",
            f"blocks.{i}.norm2": f"layers.{i}.feed_forward_norm",
        }
    ours = {f"{n}.{p}": w[f"{o}.{p}"] for o, n in parts.items() for p in ("weight", "bias")}
    for i in range(blocks):
        for p in ("weight", "bias"):
            both = [w[f"blocks.{i}.self_attn.linear_{k}.{p}"] for k in "kv"]
            ours[f"layers.{i}.attention.key_value.{p}"] = np.concatenate(both)
    return ours


def release_acoustic(w: Weights, features: Array, heads: int, blocks: int) -> Array:
    """`AudioTransformerEncoder` in evaluation, of one utterance. shape: (windows, mel_bins)."""
    x: Array = features[None]
    for name in ("embed.conv.0", "embed.conv.2"):
        kernels, bias = w[f"{name}.weight"], w[f"{name}.bias"]
        height, width = ((n - 3) // 2 + 1 for n in x.shape[1:])
        maps = np.zeros((len(kernels), height, width))
        for t, f in product(range(height), range(width)):
            seen = x[:, 2 * t : 2 * t + 3, 2 * f : 2 * f + 3]
            maps[:, t, f] = (kernels * seen).sum(axis=(1, 2, 3)) + bias
        x = np.maximum(maps, 0)
    rows = np.stack([x[:, t].reshape(-1) for t in range(x.shape[1])])
    y = linear(w, "embed.out.0", rows)
    size = y.shape[1]
    for t, c in product(range(len(y)), range(size)):
        angle = t / 10_000 ** ((c - c % 2) / size)
        y[t, c] = y[t, c] * math.sqrt(size) + (math.cos(angle) if c % 2 else math.sin(angle))
    for i in range(blocks):
        own = f"blocks.{i}"
        q, k, v = (linear(w, f"{own}.self_attn.linear_{part}", y) for part in "qkv")
        y = norm(w, f"{own}.norm1", y + linear(w, f"{own}.self_attn.linear_out",
                                               attention(q, k, v, heads)))  # fmt: skip
        inner = np.maximum(linear(w, f"{own}.feed_forward.w_1", y), 0)
        y = norm(w, f"{own}.norm2", y + linear(w, f"{own}.feed_forward.w_2", inner))
    return y


def test_the_releases_acoustic_encoder() -> None:
    config = AcousticConfig(
        mel_bins=11, conv_channels=6, width=6, layers=2, heads=2, feed_forward=7,
        streaming=False, positions="sinusoids", norm="post",
    )  # fmt: skip
    encoder = AcousticEncoder(config)
    w = random_weights(release_acoustic_shapes(11, 6, 7, 2))
    bank = {n: v.numpy() for n, v in encoder.state_dict().items() if n.startswith("filter_bank.")}
    load(encoder, ours_from_release(w, 2) | bank)
    features = np.random.default_rng(1).normal(size=(4 * 5 + 3, 11))
    with torch.no_grad():
        found = encoder.encode(torch.from_numpy(features)[None], torch.tensor([5]), None)[0]
    # The positions are single precision, as the release's.
    np.testing.assert_allclose(found.numpy(), release_acoustic(w, features, 2, 2), atol=1e-5)


def test_the_releases_acoustic_sizes() -> None:
    config = load_recipe("bilstm-m3t").model.acoustic
    shapes = release_acoustic_shapes(40, 256, 2048, 6)
    empty = {n: np.empty(s, np.float32) for n, s in shapes.items()}
    expected = {n: v.shape for n, v in ours_from_release(empty, 6).items()}
    encoder = AcousticEncoder(config)
    found = {n: tuple(p.shape) for n, p in encoder.named_parameters()}
    assert found == expected
    assert config.heads == 4


def test_positions_are_those_of_vaswani_et_al() -> None:
    found = sinusoids(torch.arange(50), 8)
    for t, c in product((0, 1, 49), range(8)):
        angle = t / 10_000 ** ((c - c % 2) / 8)
        expected = math.cos(angle) if c % 2 else math.sin(angle)
        assert float(found[t, c]) == pytest.approx(expected, abs=1e-5)


def release_fusion_shapes(d: int, frames: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `GateAttentionFusionLayer`, but for its gate, which nothing calls."""
    parts = {
        "dim_match.0": (d, frames),
        "crossattention.self.query": (d, d),
        "crossattention.self.key": (d, d),
        "crossattention.self.value": (d, d),
        "crossattention.output.dense": (d, d),
        "intermediate.dense": (inner, d),
        "output.dense": (d, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in parts.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in ("crossattention.output.LayerNorm", "output.LayerNorm"):
        shapes |= {f"{name}.{p}": (d,) for p in ("weight", "bias")}
    return shapes


def fusion_from_release(w: Weights) -> Weights:
    parts = {
        "dim_match.0": "matching",
        "crossattention.self.query": "query",
        "crossattention.output.dense": "output",
        "crossattention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "feed_forward.0",
        "output.dense": "feed_forward.3",
        "output.LayerNorm": "feed_forward_norm",
    }
    ours = {f"{n}.{p}": w[f"{o}.{p}"] for o, n in parts.items() for p in ("weight", "bias")}
    for p in ("weight", "bias"):
        both = [w[f"crossattention.self.{k}.{p}"] for k in ("key", "value")]
        ours[f"key_value.{p}"] = np.concatenate(both)
    return ours


def release_cross(
    w: Weights, asking: Array, answering: Array, heads: int, own: str, after: str
) -> Array:
    """A layer of BERT whose keys and values are of something else; its epsilon is 1e-12."""
    q = linear(w, f"{own}.self.query", asking)
    k, v = (linear(w, f"{own}.self.{part}", answering) for part in ("key", "value"))
    attended = linear(w, f"{own}.output.dense", attention(q, k, v, heads))
    hat = norm(w, f"{own}.output.LayerNorm", attended + asking, 1e-12)
    inner = gelu(linear(w, f"{after}intermediate.dense", hat))
    return norm(
        w, f"{after}output.LayerNorm", linear(w, f"{after}output.dense", inner) + hat, 1e-12
    )


def test_the_releases_cross_modal_attention() -> None:
    config = msgspec.structs.replace(PAPER, match_frames=True, activation="gelu", feed_forward=9)
    fusion = CrossModalAttention(config, 6, 4)
    w = random_weights(release_fusion_shapes(6, 4, 9))
    load(fusion, fusion_from_release(w))
    generator = np.random.default_rng(1)
    x, s = generator.normal(size=(3, 6)), generator.normal(size=(5, 4))
    matched = np.tanh(linear(w, "dim_match.0", s))
    expected = release_cross(w, x, matched, 2, "crossattention", "")
    with torch.no_grad():
        found = fusion(
            torch.from_numpy(x)[None], torch.tensor([3]), torch.from_numpy(s)[None],
            torch.tensor([5]), torch.zeros(1, 5, 4),
        )[0]  # fmt: skip
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_the_releases_fusion_sizes() -> None:
    config = load_recipe("bert-m3t").model.fusion
    empty = {n: np.empty(s, np.float32) for n, s in release_fusion_shapes(768, 256, 3072).items()}
    expected = {n: v.shape for n, v in fusion_from_release(empty).items()}
    with torch.device("meta"):
        fusion = CrossModalAttention(config, 768, 256)
    assert {n: tuple(p.shape) for n, p in fusion.named_parameters()} == expected
    assert config.heads == 12


def test_the_releases_multimodal_interaction() -> None:
    """`CoupledCMT`, but for its self-attention over the text, which nothing calls."""
    config = msgspec.structs.replace(
        PAPER, kind="mmi", tagger_input="both", activation="gelu", feed_forward=9
    )
    fusion = MultimodalInteraction(config, 6, 4)
    ways = {
        "text2audio_attention": "text_asks_frames",
        "audio2text_attention": "frames_ask_text",
        "text2text_attention": "text_asks_aware_frames",
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for way in ways:
        for name, shape in release_fusion_shapes(6, 4, 9).items():
            if not name.startswith("dim_match"):
                shapes[f"{way}.layer.0.{name.replace('crossattention', 'attention')}"] = shape
    for name, shape in (("dim_match_1", (6, 4)), ("dim_match_2", (6, 4)), ("gate", (6, 12))):
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    w = random_weights(shapes)
    ours: Weights = {}
    for way, name in ways.items():
        start = f"{way}.layer.0."
        own = {
            n.removeprefix(start).replace("attention.", "crossattention.", 1)
            if n.removeprefix(start).startswith("attention.")
            else n.removeprefix(start): v
            for n, v in w.items()
            if n.startswith(start)
        }
        unused = {"dim_match.0.weight": np.empty(0), "dim_match.0.bias": np.empty(0)}
        found = fusion_from_release(own | unused)
        ours |= {f"{name}.{n}": v for n, v in found.items() if not n.startswith("matching")}
    names = {"dim_match_1": "answering_frames", "dim_match_2": "asking_frames", "gate": "gate"}
    for theirs, name in names.items():
        ours |= {f"{name}.{p}": w[f"{theirs}.{p}"] for p in ("weight", "bias")}
    load(fusion, ours)
    generator = np.random.default_rng(1)
    x, s = generator.normal(size=(3, 6)), generator.normal(size=(5, 4))

    def cross(way: str, asking: Array, answering: Array) -> Array:
        start = f"{way}.layer.0."
        return release_cross(w, asking, answering, 2, f"{start}attention", start)

    one, two = linear(w, "dim_match_1", s), linear(w, "dim_match_2", s)
    heard = cross("text2audio_attention", x, one)
    aware = cross("audio2text_attention", two, x)
    back = cross("text2text_attention", x, aware)
    gate = 1 / (1 + np.exp(-linear(w, "gate", np.concatenate([back, heard], axis=1))))
    expected = np.concatenate([back, gate * heard], axis=1)
    with torch.no_grad():
        output = fusion(
            torch.from_numpy(x)[None], torch.tensor([3]), torch.from_numpy(s)[None],
            torch.tensor([5]), torch.zeros(1, 5, 4),
        )[0]  # fmt: skip
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-4)


def test_the_releases_crf() -> None:
    """One matrix of transitions with a start and a stop tag, as our starts, ends and the rest."""
    generator = np.random.default_rng(0)
    tags, length = 3, 4
    matrix = generator.normal(size=(tags + 2, tags + 2))
    matrix[:, -2] = matrix[-1, :] = -1000.0  # nothing leads to the start or away from the stop
    emissions = generator.normal(size=(length, tags + 2))

    def score(path: tuple[int, ...]) -> float:
        places = [tags, *path, tags + 1]
        total = sum(matrix[a, b] for a, b in pairwise(places))
        return float(total + sum(emissions[i, t] for i, t in enumerate(path)))

    everything = [score(p) for p in product(range(tags + 2), repeat=length)]
    gold = (1, 2, 0, 1)
    expected = float(np.logaddexp.reduce(everything)) - score(gold)
    crf = ConstrainedCrf(LabelScheme.flat(["LOC"], "bio", well_formed=False))
    load(crf, {
        "start_transitions": matrix[-2, :tags],
        "transitions": matrix[:tags, :tags],
        "end_transitions": matrix[:tags, -1],
    })  # fmt: skip
    own = torch.from_numpy(emissions[None, :, :tags])
    found = -float(crf(own, torch.tensor([gold])).detach())
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_releases_bilstm() -> None:
    """One bidirectional layer of 150 each way, and scores: sizes as `BiLSTM_Tagging` has."""
    model = load_recipe("bilstm-crf").model
    theirs = nn.LSTM(50, 300 // 2, batch_first=True, bidirectional=True)
    scheme = LabelScheme.flat(["LOC", "ORG", "PER"], "bio", well_formed=False)
    tagger = SpeechTagger(model, Vocabulary.build("南京", None), scheme)
    sizes: Callable[[nn.Module], list[tuple[int, ...]]] = lambda m: sorted(  # noqa: E731
        tuple(p.shape) for p in m.parameters()
    )
    assert sizes(tagger.text.lstm) == sizes(theirs)
    # The release adds a score each for its start and stop tag, which no sequence has.
    assert tagger.emissions.weight.shape == (len(scheme), 300)
    assert len(scheme) == 1 + 2 * 3


def test_nested_tags_are_the_papers() -> None:
    spans = (Span(0, 3, "LOC"), Span(0, 2, "LOC"), Span(3, 7, "LOC"), Span(3, 5, "LOC"))
    scheme = LabelScheme.nested([(spans, 7)], 1, "bio", well_formed=False)
    assert [scheme.tags[i] for i in scheme.encode(spans, 7)] == [
        "B-LOC|B-LOC", "I-LOC|I-LOC", "I-LOC", "B-LOC|B-LOC", "I-LOC|I-LOC", "I-LOC", "I-LOC",
    ]  # fmt: skip
