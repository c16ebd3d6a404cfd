"""Checkpoints that earlier versions wrote can still be read."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from cnerta.models.config import (  # noqa: E402
    AcousticConfig,
    CtcConfig,
    FusionConfig,
    FusionKind,
    ModelConfig,
    TextConfig,
)
from cnerta.models.errors import CheckpointError  # noqa: E402
from cnerta.models.networks.checkpoint import (  # noqa: E402
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402


def model(kind: FusionKind) -> SpeechTagger:
    torch.manual_seed(0)
    config = ModelConfig(
        acoustic=AcousticConfig(
            mel_bins=40, conv_channels=2, width=8, layers=1, heads=2, feed_forward=16
        ),
        text=TextConfig(embedding=4, hidden=8),
        fusion=FusionConfig(kind=kind, width=8, heads=2, feed_forward=8),
        ctc=CtcConfig(units="characters"),
    )
    vocabulary = Vocabulary.build("南京市", None)
    return SpeechTagger(config, vocabulary, LabelScheme("flat", ("O", "U-LOC")))


def write_old(folder: Path, kind: FusionKind, name: str) -> SpeechTagger:
    """A checkpoint with a parameter under the name that earlier versions gave it."""
    written = model(kind)
    save_checkpoint(folder, Checkpoint("old", written, {}, {}))
    weights = load_file(folder / "model.safetensors")
    weights["fusion.silence"] = weights.pop(name)
    save_file(weights, folder / "model.safetensors")
    return written


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cma", "fusion.null_key_value"),
        ("mmi", "fusion.null_frame"),
        ("aligned", "fusion.null_value"),
    ],
)
def test_the_old_name_of_a_parameter_is_read(tmp_path: Path, kind: FusionKind, name: str) -> None:
    written = write_old(tmp_path, kind, name)
    read = load_checkpoint(tmp_path).model.state_dict()
    assert set(read) == set(written.state_dict())
    for key, value in written.state_dict().items():
        assert torch.equal(read[key], value), key


def test_other_unknown_names_are_still_refused(tmp_path: Path) -> None:
    write_old(tmp_path, "cma", "fusion.null_key_value")
    weights = load_file(tmp_path / "model.safetensors")
    weights["fusion.quiet"] = weights.pop("fusion.silence")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"fusion\.quiet"):
        load_checkpoint(tmp_path)
