from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cnerta.export.write import export_bundle  # noqa: E402
from cnerta.models.config import AcousticConfig, CtcConfig, FusionConfig, ModelConfig  # noqa: E402
from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.pretrained_acoustic import acoustic_architecture  # noqa: E402
from cnerta.models.networks.streaming_whisper import (  # noqa: E402
    SinusoidalPositions,
    StreamingWhisperEncoder,
    WhisperFilterBank,
    load_streaming_whisper,
)
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.geometry import CARRY_SAMPLES, HOP_SAMPLES  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.batches.augment import other_voices  # noqa: E402
from cnerta.train.recipe import Augmentation  # noqa: E402

from . import acoustic_checkpoint  # noqa: E402

CONFIG = AcousticConfig(
    width=12, layers=2, dropout=0.0, chunk_frames=4, left_frames=6, encoder="pretrained",
    checkpoint="somewhere",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return acoustic_checkpoint.write(tmp_path_factory.mktemp("acoustic"), "whisper")


def encoder(checkpoint: str, config: AcousticConfig = CONFIG) -> StreamingWhisperEncoder:
    torch.manual_seed(1)
    built = StreamingWhisperEncoder(config, acoustic_architecture(checkpoint))
    load_streaming_whisper(built, checkpoint)
    return built.eval()


def speech(frames: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, frames * HOP_SAMPLES, generator=generator)


def streamed(
    model: StreamingWhisperEncoder, samples: torch.Tensor, sizes: list[int], first: int = 0
) -> torch.Tensor:
    """Encode in chunks of these many frames, the stream being at frame ``first``, with no past."""
    geometry, batch = model.geometry, len(samples)
    layers, kinds, *shape = geometry.cache_shape
    caches = torch.zeros(layers * kinds, batch, *shape)
    carry = torch.zeros(batch, CARRY_SAMPLES)
    edges = np.cumsum([0, *sizes])
    pieces = []
    for start, end in pairwise(edges.tolist()):
        part = samples[:, start * HOP_SAMPLES : end * HOP_SAMPLES]
        position = torch.full((batch,), first + start)
        frames, carry, new = model.forward_chunk(part, carry, position, *caches)
        new = new.reshape(layers * kinds, *new.shape[2:])
        for i in range(end - start):
            caches[:, :, :, (first + start + i) % geometry.left_frames] = new[:, :, :, i]
        pieces.append(frames)
    return torch.cat(pieces, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_streamed_frames_are_those_of_a_masked_utterance(checkpoint: str, chunk: int) -> None:
    model = encoder(checkpoint)
    samples = speech(26, batch=2)
    expected, counts = model(samples, torch.tensor([samples.shape[1]] * 2), chunk)
    sizes = [chunk] * (26 // chunk) + [26 % chunk] * bool(26 % chunk)
    actual = streamed(model, samples, sizes)
    assert counts.tolist() == [26, 26]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_stream_goes_on_for_ever(checkpoint: str) -> None:
    """Positions begin anew after 700 frames, and what came before is not seen any more."""
    model = encoder(checkpoint)
    samples = speech(20)
    # Another six frames before two that are the same: the first frame's window sees these samples.
    pasts = [
        torch.cat([speech(6, seed), speech(2, 9), samples], dim=1)[:, : 28 * HOP_SAMPLES]
        for seed in (1, 2)
    ]
    for start in (700, 7 * 10**9):
        first, second = (streamed(model, past, [4] * 7, start - 8) for past in pasts)
        assert not torch.allclose(first[:, :8], second[:, :8])
        torch.testing.assert_close(first[:, 8:], second[:, 8:], rtol=0, atol=0)
    elsewhere = [streamed(model, past, [4] * 7, 300) for past in pasts]
    assert not torch.allclose(elsewhere[0][:, 8:12], elsewhere[1][:, 8:12])


@torch.no_grad()
def test_a_long_utterance_is_the_same_in_chunks(checkpoint: str) -> None:
    model = encoder(checkpoint)
    samples = speech(721)
    expected, _ = model(samples, torch.tensor([samples.shape[1]]), 16)
    actual = streamed(model, samples, [16] * 45 + [1])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_positions_are_whispers(checkpoint: str) -> None:
    theirs = transformers.WhisperModel.from_pretrained(checkpoint, dtype=torch.float32)
    table = theirs.encoder.embed_positions.weight.detach()
    ours = SinusoidalPositions(table.shape[1])(torch.arange(len(table))[None])[0]
    torch.testing.assert_close(ours, table, rtol=0, atol=2e-3)


@torch.no_grad()
def test_energies_are_those_of_whispers_extractor(checkpoint: str) -> None:
    # Loud enough that the extractor's floor, 8 decades below the loudest, is never reached.
    samples = speech(50)
    theirs = transformers.WhisperFeatureExtractor()(
        samples[0].numpy(), sampling_rate=16_000, return_tensors="pt", padding=False
    ).input_features[0]
    # Its windows are centred on every 160th sample, the first of ours on the 200th.
    ours = WhisperFilterBank(80)(samples[:, 160 * 3 - 200 :])[0]
    torch.testing.assert_close(ours, theirs.T[3 : 3 + len(ours)], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_layers_are_those_of_the_library(checkpoint: str) -> None:
    """With full context, Whisper's own positions and its own convolutions' input."""
    ours = encoder(checkpoint)
    theirs = transformers.WhisperModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    features = torch.randn(1, 3003, 80, generator=torch.Generator().manual_seed(2))
    # The library pads with zeros in both convolutions; away from the ends that is not seen.
    x = ours._embed(features)
    inside = theirs.encoder
    seen = torch.nn.functional.gelu(inside.conv1(features[:, 2:-1].transpose(1, 2)))
    seen = torch.nn.functional.gelu(inside.conv2(seen)).transpose(1, 2)
    torch.testing.assert_close(x[:, 1:-1], seen[:, 1:-1], rtol=1e-4, atol=1e-4)
    embedded = seen + inside.embed_positions.weight
    mask = torch.ones(1, 1, 1, 1500, dtype=torch.bool)
    mine = embedded
    for layer in ours.layers:
        mine, _, _ = layer(mine, None, mask)
    expected = inside(features[:, 2:-1].transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(ours.layers_norm(mine), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_is_not_heard(checkpoint: str) -> None:
    model = encoder(checkpoint)
    short = speech(9)
    both = torch.cat([torch.nn.functional.pad(short, (0, 11 * HOP_SAMPLES)), speech(20, 1)])
    for chunk in (None, 4):
        together, counts = model(both, torch.tensor([9 * HOP_SAMPLES, 20 * HOP_SAMPLES]), chunk)
        alone, _ = model(short, torch.tensor([9 * HOP_SAMPLES]), chunk)
        assert counts.tolist() == [9, 20]
        torch.testing.assert_close(together[0, :9], alone[0], rtol=1e-4, atol=1e-4)
    nothing, counts = model(torch.zeros(2, 700), torch.tensor([700, 0]), 4)
    assert nothing.isfinite().all()
    assert counts.tolist() == [2, 0]


def test_training_begins_anywhere_in_the_period(checkpoint: str) -> None:
    model = encoder(checkpoint).train()
    samples, counts = speech(10), torch.tensor([10 * HOP_SAMPLES])
    torch.manual_seed(0)
    first, _ = model(samples, counts, 4)
    again, _ = model(samples, counts, 4)
    torch.manual_seed(0)
    repeated, _ = model(samples, counts, 4)
    assert not torch.allclose(first, again)
    torch.testing.assert_close(first, repeated)


def test_fewer_layers_are_the_first_ones(checkpoint: str) -> None:
    all_layers = encoder(checkpoint)
    one = encoder(checkpoint, msgspec.structs.replace(CONFIG, layers=1))
    assert (one.geometry.layers, all_layers.geometry.layers) == (1, 2)
    own = one.layers[0].state_dict()
    for name, weight in all_layers.layers[0].state_dict().items():
        torch.testing.assert_close(own[name], weight)


def test_other_voices_bend_whispers_energies() -> None:
    bank = WhisperFilterBank(80)
    ramp = torch.linspace(-1.0, 1.0, 80).expand(3, 5, 80)
    torch.manual_seed(0)
    same = other_voices(ramp, Augmentation(vocal_tract=1e-9), bank)
    torch.testing.assert_close(same, ramp, rtol=0, atol=1e-4)
    bent = other_voices(ramp, Augmentation(vocal_tract=0.2, timbre_db=1.0), bank)
    assert bent.shape == ramp.shape
    assert not torch.allclose(bent, ramp, atol=0.01)
    places = bank.place(bank.centres_hz)
    torch.testing.assert_close(places, torch.arange(80, dtype=places.dtype))


def test_only_a_whisper_streams(tmp_path: Path) -> None:
    other = acoustic_checkpoint.write(tmp_path, "hubert")
    with pytest.raises(ConfigError, match=r"streaming = false.*'hubert'"):
        StreamingWhisperEncoder(CONFIG, acoustic_architecture(other))


def test_weights_of_another_size_are_refused(checkpoint: str, tmp_path: Path) -> None:
    config = transformers.WhisperConfig(
        vocab_size=20, d_model=8, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    transformers.WhisperModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="to fit"):
        load_streaming_whisper(encoder(checkpoint), str(tmp_path))


def test_a_model_with_it_is_saved_exported_and_streams(checkpoint: str, tmp_path: Path) -> None:
    model = SpeechTagger(
        ModelConfig(
            acoustic=msgspec.structs.replace(CONFIG, checkpoint=checkpoint),
            fusion=FusionConfig(kind="cma", width=16, feed_forward=16),
            ctc=CtcConfig(units="pronunciations"),
        ),
        Vocabulary.build("南京市长江大桥", {"长": ["chang2", "zhang3"], "江": ["jiang1"]}),
        LabelScheme.flat(["LOC"]),
        acoustic_architecture=acoustic_architecture(checkpoint),
    )
    assert isinstance(model.acoustic, StreamingWhisperEncoder)
    load_streaming_whisper(model.acoustic, checkpoint)
    save_checkpoint(tmp_path / "model", Checkpoint("heard", model, {}, {}))
    loaded = load_checkpoint(tmp_path / "model")

    written = export_bundle(loaded, tmp_path / "bundle")
    assert written.acoustic_difference < 1e-4
    served = Model.load(tmp_path / "bundle", device="cpu")
    assert served.bundle.geometry == model.acoustic.geometry
    samples = speech(33)
    with torch.no_grad():
        expected, _ = loaded.model.acoustic(samples, torch.tensor([samples.shape[1]]), 4)
    frames = served.encode_recording(samples[0].numpy())
    np.testing.assert_allclose(frames, expected[0].numpy(), rtol=1e-3, atol=1e-3)
