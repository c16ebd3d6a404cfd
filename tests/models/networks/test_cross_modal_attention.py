"""Every kind of fusion against naive mathematics, and what all kinds must keep to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from cnerta.export.graphs import TaggerGraph, write_graph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.models.config import CtcConfig, FusionConfig  # noqa: E402
from cnerta.models.networks.multimodal_interaction import MultimodalInteraction  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.bundle import TAGGER_FILE  # noqa: E402

Array = npt.NDArray[np.float64]

TEXTS = ["南京市长江大桥", "北京", "李明说"]
FRAMES = [30, 8, 12]
FUSIONS = {
    "cma": FusionConfig(kind="cma", width=16, heads=2, feed_forward=32),
    "mmi": FusionConfig(kind="mmi", width=16, heads=2, feed_forward=32),
    "aligned": FusionConfig(kind="aligned", width=16, feed_forward=32),
    "posteriors": FusionConfig(
        kind="cma", width=16, heads=2, feed_forward=32, posterior_features=20
    ),
}


@pytest.fixture(params=FUSIONS)
def model(request: pytest.FixtureRequest, tiny_model: SpeechTagger) -> SpeechTagger:
    return composed(tiny_model, FUSIONS[request.param])


def composed(tiny: SpeechTagger, fusion: FusionConfig) -> SpeechTagger:
    torch.manual_seed(0)
    config = msgspec.structs.replace(tiny.config, fusion=fusion)
    return SpeechTagger(config, tiny.vocabulary, tiny.scheme).eval()


def characters(model: SpeechTagger, text: str) -> torch.Tensor:
    return torch.from_numpy(model.vocabulary.encode(text))


def test_batch_mates_and_padding_do_not_change_an_answer(model: SpeechTagger) -> None:
    ids = [characters(model, t) for t in TEXTS]
    frames = [torch.randn(n, 16) for n in FRAMES]
    with torch.no_grad():
        together = model(
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            torch.tensor([len(i) for i in ids]),
            torch.nn.utils.rnn.pad_sequence(frames, batch_first=True, padding_value=9.0),
            torch.tensor(FRAMES),
        )
        for i, (own, audio) in enumerate(zip(ids, frames, strict=True)):
            alone = model(
                own[None], torch.tensor([len(own)]), audio[None], torch.tensor([len(audio)])
            )
            torch.testing.assert_close(
                together.emissions[i, : len(own)], alone.emissions[0], atol=1e-5, rtol=1e-5
            )


def test_without_audio_the_frames_do_not_matter(model: SpeechTagger) -> None:
    ids = characters(model, TEXTS[0])[None].expand(2, -1)
    counts = torch.tensor([7, 7])
    with torch.no_grad():
        # A batch of one sentence with audio and one without.
        mixed = model(ids, counts, torch.randn(2, 30, 16), torch.tensor([30, 0])).emissions
        alone = model(ids[:1], counts[:1], torch.zeros(1, 1, 16), torch.tensor([0])).emissions
    torch.testing.assert_close(mixed[1], alone[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(mixed[0], alone[0], atol=1e-2)


def test_an_empty_text_in_a_batch_harms_nobody(model: SpeechTagger) -> None:
    ids = torch.nn.utils.rnn.pad_sequence(
        [characters(model, TEXTS[0]), characters(model, "")], batch_first=True
    )
    frames = torch.randn(2, 9, 16)
    with torch.no_grad():
        output = model(ids, torch.tensor([7, 0]), frames, torch.tensor([9, 0]))
    assert bool(torch.isfinite(output.emissions).all())


def test_every_weight_of_the_fusion_learns(model: SpeechTagger) -> None:
    assert model.fusion is not None
    model.train()
    ids = characters(model, TEXTS[0])[None]
    output = model(ids, torch.tensor([7]), torch.randn(1, 30, 16), torch.tensor([30]))
    model.entity_loss(output, torch.zeros(1, 7, dtype=torch.long), torch.tensor([7])).backward()
    still = [n for n, p in model.fusion.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


# That of cma is exported in tests/export.
@pytest.mark.parametrize("kind", ["mmi", "aligned", "posteriors"])
def test_the_graph_agrees_with_torch(kind: str, tiny_model: SpeechTagger, tmp_path: Path) -> None:
    graph, path = TaggerGraph(composed(tiny_model, FUSIONS[kind])), tmp_path / TAGGER_FILE
    generator = torch.Generator().manual_seed(0)
    write_graph(graph, graph.example(3, 7, 20, generator), path)
    shapes = [(1, 1, 1), (1, 12, 60), (2, 1, 9), (4, 31, 2), (8, 20, 150)]
    check_parity(graph, path, [graph.example(*s, generator) for s in shapes])


def test_multimodal_interaction_is_what_its_equations_say() -> None:
    # One sentence, in double precision, a head and a row at a time.
    torch.manual_seed(0)
    config = FUSIONS["mmi"]
    fusion = MultimodalInteraction(config, 6, 5).double().eval()
    text = torch.randn(1, 3, 6, dtype=torch.float64)
    frames = torch.randn(1, 4, 5, dtype=torch.float64)
    weights = {n: p.detach().numpy() for n, p in fusion.named_parameters()}

    def linear(name: str, x: Array) -> Array:
        result: Array = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return result

    def norm(name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        scaled: Array = centred / deviation * weights[f"{name}.weight"]
        return scaled + weights[f"{name}.bias"]

    def cross_modal(name: str, asking: Array, answering: Array) -> Array:
        size = config.width // config.heads
        rows = []
        for row in asking:
            heads = []
            for head in range(config.heads):
                part = slice(head * size, (head + 1) * size)
                query = linear(f"{name}.query", row)[part]
                both = [linear(f"{name}.key_value", column) for column in answering]
                scores = [query @ kv[: config.width][part] / np.sqrt(size) for kv in both]
                shares = np.exp(scores) / np.exp(scores).sum()
                values = [kv[config.width :][part] for kv in both]
                heads.append(sum(p * v for p, v in zip(shares, values, strict=True)))
            rows.append(linear(f"{name}.output", np.concatenate(heads)))
        aware = norm(f"{name}.attention_norm", asking + np.stack(rows))
        inner = np.maximum(linear(f"{name}.feed_forward.0", aware), 0)
        return norm(f"{name}.feed_forward_norm", aware + linear(f"{name}.feed_forward.3", inner))

    for heard in (4, 0):
        r = linear("text", text[0].numpy())
        v = np.concatenate([weights["null_frame"][None], frames[0, :heard].numpy()])
        p = cross_modal("frames_ask_text", linear("asking_frames", v), r)
        a = cross_modal("text_asks_aware_frames", r, p)
        q = cross_modal("text_asks_frames", r, linear("answering_frames", v))
        gate = 1 / (1 + np.exp(-linear("gate", np.concatenate([a, q], axis=1))))
        expected = np.concatenate([a, gate * q], axis=1)
        nothing = torch.zeros(1, 4, 4, dtype=torch.float64)
        with torch.no_grad():
            found = fusion(text, torch.tensor([3]), frames, torch.tensor([heard]), nothing)
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


def test_the_tagger_sees_the_posterior_of_each_character_over_time(
    tiny_model: SpeechTagger,
) -> None:
    model = composed(tiny_model, FUSIONS["posteriors"])
    seen: list[torch.Tensor] = []
    model.emissions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = characters(model, TEXTS[0])[None].expand(3, -1)
    with torch.no_grad():
        output = model(ids, torch.tensor([7] * 3), torch.randn(3, 30, 16), torch.tensor([30, 8, 0]))
    expected = output.log_probabilities[:, :20, 1:].exp().transpose(1, 2).clone()
    expected[1, :, 8:] = 0
    expected[2] = 0
    text, fused = 16, 16
    assert seen[0].shape[2] == text + fused + 20
    torch.testing.assert_close(seen[0][:, :, text + fused :], expected)


def test_interaction_goes_with_and_without_ctc(tiny_model: SpeechTagger) -> None:
    for weight in (0.0, 0.1):
        config = msgspec.structs.replace(
            tiny_model.config, fusion=FUSIONS["mmi"], ctc=CtcConfig(weight=weight)
        )
        model = SpeechTagger(config, tiny_model.vocabulary, tiny_model.scheme)
        ids = characters(model, TEXTS[0])[None]
        counts, heard = torch.tensor([7]), torch.tensor([30])
        output = model(ids, counts, torch.randn(1, 30, 16), heard)
        loss = model.entity_loss(output, torch.zeros(1, 7, dtype=torch.long), counts)
        loss = loss + weight * model.masked_ctc_loss(output, ids, counts, heard)
        loss.backward()
        assert model.ctc.own.weight.grad is not None
        assert bool(model.ctc.own.weight.grad.any()) == bool(weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mmi", "guided": True}, "kind cma only, got mmi"),
        ({"kind": "none", "prosody": 0.3}, "a fusion that uses audio, got kind none"),
        ({"kind": "aligned", "pause_context": 3}, "kind cma only, got aligned"),
        ({"width": 10, "heads": 4}, "4 equal heads, got 10"),
        ({"kind": "mmii"}, "mmii"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(change, FusionConfig)
