from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    CtcConfig,
    FusionConfig,
    ModelConfig,
    TextConfig,
)
from cnerta.models.networks.audio_head import FitGate  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.loop.continued_model import with_gate  # noqa: E402

READINGS = {"长": ["chang2", "zhang3"], "江": ["jiang1"], "市": ["shi4"], "京": ["jing1"]}


def tagger(*, gated: bool, kind: str = "cma") -> SpeechTagger:
    torch.manual_seed(0)
    config = ModelConfig(
        acoustic=AcousticConfig(width=8, layers=1, heads=2, feed_forward=8, conv_channels=2),
        text=TextConfig(embedding=6, hidden=8, dropout=0.1),
        fusion=FusionConfig(
            kind=kind, width=8, heads=2, feed_forward=8, context=6, readings=4, gated=gated,
            guided=kind == "cma",
        ),
        ctc=CtcConfig(units="pronunciations"),
    )  # fmt: skip
    return SpeechTagger(
        config, Vocabulary.build("南京市长江大桥", READINGS), LabelScheme.flat(["LOC", "PER"])
    ).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    characters = torch.randint(2, 8, (3, 5), generator=generator)
    characters[1, 3:] = 0
    frames = torch.randn(3, 11, 8, generator=generator)
    return characters, torch.tensor([5, 3, 5]), frames, torch.tensor([11, 7, 0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["cma", "aligned", "mmi"])
def test_without_audio_the_answer_is_that_of_the_text(kind: str) -> None:
    model = tagger(gated=True, kind=kind)
    characters, counts, frames, frame_counts = inputs()
    heard = model(characters, counts, frames, frame_counts)
    silent = model(characters, counts, frames[:, :1], torch.zeros_like(frame_counts))
    assert heard.text_emissions is not None
    torch.testing.assert_close(heard.text_emissions, silent.emissions)
    torch.testing.assert_close(heard.emissions[2], heard.text_emissions[2])
    assert not torch.allclose(heard.emissions[0], heard.text_emissions[0])


@torch.no_grad()
def test_a_trained_model_is_given_a_second_head() -> None:
    one = tagger(gated=False)
    two = with_gate(one).eval()
    characters, counts, frames, frame_counts = inputs()
    nothing = torch.zeros_like(frame_counts)
    alone = one(characters, counts, frames, nothing).emissions
    listened = one(characters, counts, frames, frame_counts).emissions
    grown = two(characters, counts, frames, frame_counts)
    torch.testing.assert_close(two(characters, counts, frames, nothing).emissions, alone)
    torch.testing.assert_close(grown.text_emissions, alone)
    # Somewhere between the two.
    assert two.audio_head is not None
    with torch.no_grad():
        two.audio_head.gate.belief.bias.fill_(100.0)
    moved = two(characters, counts, frames, frame_counts).emissions
    torch.testing.assert_close(moved[:2], listened[:2], rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_not_believed() -> None:
    gate = FitGate()
    length, time = 4, 12
    fits = torch.full((1, time, 1 + length), -9.0)
    for u in range(length):
        fits[0, 3 * u, 1 + u] = -0.2
    other = torch.full((1, time, 1 + length), -8.0)
    sure = torch.zeros(1, length, 3)
    sure[:, :, 0] = 8.0
    counts, frames = torch.tensor([length]), torch.tensor([time])
    with torch.no_grad():
        believed = gate(fits, counts, frames, sure, sure)
        unsure = gate(fits, counts, frames, torch.zeros_like(sure), sure)
        others = gate(other, counts, frames, sure, sure)
        silent = gate(fits, counts, torch.tensor([0]), sure, sure)
    assert believed.shape == (1, length, 1)
    assert float(believed.min()) > 0.5
    assert float(unsure.min()) > 0.9, "where the text does not know, listening counts"
    assert float(others.max()) < 0.1
    assert float(silent.max()) == 0.0


def test_a_gate_needs_something_to_hear() -> None:
    with pytest.raises(ValueError, match="gated"):
        FusionConfig(kind="none", gated=True)
