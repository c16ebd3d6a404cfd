from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.config import AcousticConfig, FusionConfig, ModelConfig  # noqa: E402
from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.pretrained_acoustic import (  # noqa: E402
    PretrainedAcousticEncoder,
    acoustic_architecture,
    load_acoustic,
)
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402

from . import acoustic_checkpoint  # noqa: E402

CONFIG = AcousticConfig(
    width=16, dropout=0.0, streaming=False, encoder="pretrained", checkpoint="somewhere"
)
HOP = 640
KINDS = ["whisper", "wav2vec2", "wav2vec2-stable", "hubert"]


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return acoustic_checkpoint.write(tmp_path_factory.mktemp("acoustic"), request.param)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    return acoustic_checkpoint.write(tmp_path_factory.mktemp("acoustic"), "whisper")


def encoder(checkpoint: str) -> PretrainedAcousticEncoder:
    built = PretrainedAcousticEncoder(CONFIG, acoustic_architecture(checkpoint))
    load_acoustic(built, checkpoint)
    return built.eval()


def speech(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(
        1, int(seconds * 16_000), generator=torch.Generator().manual_seed(seed)
    )


def test_whispers_features_are_those_of_its_extractor(whisper: str) -> None:
    samples = speech(2.0)
    expected = transformers.WhisperFeatureExtractor()(
        samples[0].numpy(), sampling_rate=16_000, return_tensors="pt", padding=False
    ).input_features
    actual = encoder(whisper).features(samples).transpose(1, 2)
    assert actual.shape == expected.shape == (1, 80, 200)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_whispers_frames_are_those_of_the_library(whisper: str) -> None:
    ours = encoder(whisper)
    features = ours.features(speech(30.0))
    expected = transformers.WhisperModel.from_pretrained(whisper, dtype=torch.float32).eval()
    theirs = expected.encoder(features.transpose(1, 2)).last_hidden_state
    actual = ours.encoder(features, torch.tensor([1500]))
    torch.testing.assert_close(actual, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_whisper_hears_more_than_its_thirty_seconds(whisper: str) -> None:
    ours = encoder(whisper)
    features = ours.features(torch.cat([speech(30.0), speech(12.0, 1)], dim=1))
    both = ours.encoder(features, torch.tensor([2100]))
    alone = ours.encoder(features[:, 3000:], torch.tensor([600]))
    # But for the convolutions, which see a window across the seam.
    torch.testing.assert_close(both[:, 1500:].mean(), alone.mean(), rtol=0, atol=0.05)
    assert both.shape == (1, 2100, 16)
    assert both.isfinite().all()


@torch.no_grad()
def test_a_waveforms_frames_are_those_of_the_library(checkpoint: str) -> None:
    ours = encoder(checkpoint)
    if ours.spectral:
        pytest.skip("not a waveform encoder")
    samples = speech(1.2)
    theirs = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    normalised = (samples - samples.mean()) / samples.std(unbiased=False)
    expected = theirs(torch.nn.functional.pad(normalised, (40, 40))).last_hidden_state
    actual = ours.encoder(ours.features(samples), torch.tensor([60]))
    assert actual.shape == expected.shape == (1, 60, 16)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_padding_is_not_heard(checkpoint: str) -> None:
    ours = encoder(checkpoint)
    short = speech(0.8)
    # Zeros are what batches are filled up with; the feature extractors of both kinds see across
    # the end of the speech, so that its last frames are not compared.
    joined = torch.cat([torch.nn.functional.pad(short, (0, 16_000)), speech(1.8, 1)])
    together, counts = ours(joined, torch.tensor([12_800, 28_800]), None)
    alone, _ = ours(short, torch.tensor([12_800]), None)
    assert counts.tolist() == [20, 45]
    assert together.shape == (2, 45, 16)
    if not checkpoint_normalises_in_groups(ours):
        torch.testing.assert_close(together[0, :14], alone[0, :14], rtol=0, atol=0.1)
    assert together.isfinite().all()


def checkpoint_normalises_in_groups(encoder: PretrainedAcousticEncoder) -> bool:
    """The base models of wav2vec 2.0 normalise over time, padding included, as published."""
    return any(isinstance(m, torch.nn.GroupNorm) for m in encoder.modules())


def test_half_frames_and_nothing_are_heard(checkpoint: str) -> None:
    frames, counts = encoder(checkpoint)(torch.zeros(2, 700), torch.tensor([700, 0]), None)
    assert frames.shape == (2, 2, 16)
    assert counts.tolist() == [2, 0]
    assert frames.isfinite().all()


# The two that export differently; an export takes ten seconds.
@pytest.mark.parametrize("checkpoint", ["whisper", "wav2vec2-stable"], indirect=True)
def test_a_model_with_it_is_saved_exported_and_answers(checkpoint: str, tmp_path: Path) -> None:
    model = SpeechTagger(
        ModelConfig(
            acoustic=msgspec.structs.replace(CONFIG, checkpoint=checkpoint),
            fusion=FusionConfig(kind="cma", width=16, feed_forward=16),
        ),
        Vocabulary.build("南京市长江大桥"),
        LabelScheme.flat(["LOC"]),
        acoustic_architecture=acoustic_architecture(checkpoint),
    )
    assert isinstance(model.acoustic, PretrainedAcousticEncoder)
    load_acoustic(model.acoustic, checkpoint)
    save_checkpoint(tmp_path / "model", Checkpoint("heard", model, {}, {}))
    loaded = load_checkpoint(tmp_path / "model")
    for name, weight in loaded.model.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name])

    written = export_bundle(loaded, tmp_path / "bundle")
    assert written.acoustic_difference < 1e-3
    served = Model.load(tmp_path / "bundle", device="cpu")
    assert not served.bundle.geometry.streaming
    samples = speech(1.3)
    frames = served.encode_recording(samples[0].numpy())
    with torch.no_grad():
        expected, counts = loaded.model.acoustic(samples, torch.tensor([samples.shape[1]]), None)
    assert len(frames) == counts.item()
    np.testing.assert_allclose(frames, expected[0].numpy(), rtol=1e-3, atol=1e-3)


def test_streaming_is_refused(whisper: str) -> None:
    streaming = msgspec.structs.replace(CONFIG, streaming=True)
    with pytest.raises(ConfigError, match="streaming = false"):
        PretrainedAcousticEncoder(streaming, acoustic_architecture(whisper))


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"whisper.*got 'bert'"):
        acoustic_architecture(str(tmp_path))
    with pytest.raises(ConfigError, match=r"model\.acoustic\.checkpoint"):
        acoustic_architecture(str(tmp_path / "nothing"))


def test_frames_of_another_length_are_refused(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(conv_stride=(5, 2, 2, 2, 2, 2, 4))
    with pytest.raises(ConfigError, match="20 ms, got 40 ms"):
        PretrainedAcousticEncoder(CONFIG, str(config.to_json_string()))
