from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from cnerta.models.config import CtcConfig, FusionConfig, ModelConfig  # noqa: E402
from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import (  # noqa: E402
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.geometry import HOP_SAMPLES  # noqa: E402
from cnerta.train.loop.new_model import take_acoustic  # noqa: E402


def text_only(tiny: SpeechTagger) -> SpeechTagger:
    """The tiny model's text encoder under a CRF, and nothing else."""
    config: ModelConfig = msgspec.structs.replace(
        tiny.config,
        fusion=FusionConfig(kind="none"),
        ctc=CtcConfig(weight=0.0, units="pronunciations"),
    )
    return SpeechTagger(config, tiny.vocabulary, tiny.scheme).eval()


def test_a_model_of_text_alone_has_the_parameters_of_its_text_encoder_and_crf(
    tiny_model: SpeechTagger,
) -> None:
    model = text_only(tiny_model)
    own = sum(p.numel() for p in model.parameters())
    parts = (model.text, model.emissions, model.crf)
    assert own == sum(p.numel() for part in parts for p in part.parameters())
    tags = len(model.scheme)
    counted = sum(p.numel() for p in tiny_model.text.parameters())
    assert own == counted + tags * (model.text.width + 1) + tags * (tags + 2)
    assert own < sum(p.numel() for p in tiny_model.parameters()) - sum(
        p.numel() for p in tiny_model.acoustic.parameters()
    )


def test_audio_changes_nothing(tiny_model: SpeechTagger) -> None:
    model = text_only(tiny_model)
    characters = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    counts = torch.tensor([4, 2])
    samples = torch.randn(2, 7 * HOP_SAMPLES)
    frames = model.acoustic.encode(model.acoustic.features(samples), torch.tensor([7, 3]), None)
    assert frames.shape == (2, 7, model.config.acoustic.width)
    with torch.no_grad():
        heard = model(characters, counts, frames, torch.tensor([7, 3]))
        alone = model(characters, counts, frames[:, :1], torch.tensor([0, 0]))
    assert torch.equal(heard.emissions, alone.emissions)
    assert heard.log_probabilities.shape == (2, 7, 5)


def test_a_checkpoint_that_has_an_acoustic_encoder_is_still_read(
    tiny_model: SpeechTagger, tmp_path: Path
) -> None:
    model = text_only(tiny_model)
    save_checkpoint(tmp_path, Checkpoint("old", model, {}, {}))
    weights = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith(("acoustic.", "ctc.")) for name in weights)
    old = {n: w for n, w in tiny_model.state_dict().items() if n.startswith(("acoustic.", "ctc."))}
    save_file(weights | old, tmp_path / "model.safetensors")
    for name, weight in load_checkpoint(tmp_path).model.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_an_acoustic_encoder_is_not_given_to_a_model_of_text_alone(
    tiny_model: SpeechTagger,
) -> None:
    with pytest.raises(ConfigError, match="got one of text alone"):
        take_acoustic(text_only(tiny_model), tiny_model)
