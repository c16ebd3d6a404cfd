"""The streaming ears that come along for training are read, and tell the demo's two readings apart."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cnerta.models.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.streaming_whisper import StreamingWhisperEncoder  # noqa: E402
from cnerta.models.tagger import SpeechTagger  # noqa: E402
from cnerta.train.audio import read_audio  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
EARS = REPOSITORY / "models" / "checkpoints" / "whisper_streaming"


@pytest.fixture(scope="module")
def model() -> SpeechTagger:
    loaded = load_checkpoint(EARS)
    assert isinstance(loaded.model.acoustic, StreamingWhisperEncoder)
    return loaded.model


@pytest.mark.parametrize(("name", "reading"), [("mayor", "zhang3"), ("bridge", "chang2")])
@torch.no_grad()
def test_the_demo_is_heard(model: SpeechTagger, name: str, reading: str) -> None:
    samples = torch.from_numpy(read_audio(REPOSITORY / "streamer" / "demo" / f"{name}.flac").copy())
    frames, _ = model.acoustic(samples[None], torch.tensor([len(samples)]), 16)
    best = model.ctc.all_units(frames)[0].argmax(dim=1).tolist()
    heard = " ".join(model.vocabulary.units[unit - 1] for unit, _ in groupby(best) if unit)
    assert f"nan2 jing1 shi4 {reading} jiang1 da4 qiao2" in heard
