"""The streaming ears that come along for training tell the demo's two readings apart."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.train.data.audio import read_audio  # noqa: E402

REPOSITORY = Path(__file__).parents[3]
EARS = REPOSITORY / "models" / "checkpoints" / "whisper_streaming"


@pytest.fixture(scope="module")
def model() -> SpeechTagger:
    loaded = load_checkpoint(EARS)
    assert isinstance(loaded.model.acoustic, StreamingWhisperEncoder)
    return loaded.model


@pytest.mark.parametrize(
    ("name", "said", "not_said"), [("mayor", "zhang3", "chang2"), ("bridge", "chang2", "zhang3")]
)
@torch.no_grad()
def test_the_demo_is_heard(model: SpeechTagger, name: str, said: str, not_said: str) -> None:
    samples = torch.from_numpy(read_audio(REPOSITORY / "streamer" / "demo" / f"{name}.flac").copy())
    frames, _ = model.acoustic(samples[None], torch.tensor([len(samples)]), 16)
    units = model.vocabulary.units
    loudest = model.ctc.all_units(frames)[0, :, 1:].amax(dim=0).exp()
    heard = {unit: float(loudest[i]) for i, unit in enumerate(units)}
    for unit in ("nan2", "jing1", "shi4", said, "jiang1", "da4"):
        assert heard[unit] > 0.4, unit
    assert heard[not_said] < 0.4
