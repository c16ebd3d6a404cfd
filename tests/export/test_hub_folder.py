"""A folder for the hub, read as the hub's own library reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

hub = pytest.importorskip("huggingface_hub")

from cnerta import models  # noqa: E402
from cnerta.export.hub_folder import (  # noqa: E402
    HubDescription,
    write_checkpoint_folder,
    write_hub_folder,
)
from cnerta.models.errors import CheckpointError, ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import checkpoint_files, load_checkpoint  # noqa: E402
from cnerta.models.runtime.bundle import (  # noqa: E402
    bundle_files,
    default_bundle_path,
    load_bundle,
)

SCORES = {"dev20.nested_f1": 0.7735, "dev20.flat_f1": 0.7486, "dev20.loss": 1.5}


def test_the_card_says_what_the_hub_wants_to_know(tmp_path: Path) -> None:
    bundle = replace(load_bundle(default_bundle_path()), scores=SCORES)
    about = HubDescription("apache-2.0", ("owner/data",), ("intfloat/multilingual-e5-small",))
    write_hub_folder(bundle, tmp_path / "hub", about)
    card = hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.language == "zh"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "cnerta-stream"
    assert card.data.pipeline_tag == "token-classification"
    assert "named-entity-recognition" in card.data.tags
    assert card.data.datasets == ["owner/data"]
    assert card.data.base_model == ["intfloat/multilingual-e5-small"]
    assert card.data.model_name == "cnerta-fast"
    results = {(r.dataset_name, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert results == {("dev20", "nested_f1"): 0.7735, ("dev20", "flat_f1"): 0.7486}
    assert "`LOC`, `ORG`, `PER`" in card.text
    assert "hf:OWNER/NAME" in card.text
    assert "| `dev20.loss` | 1.5 |" in card.text


def test_the_folder_is_a_bundle_and_nothing_else_of_its_own(tmp_path: Path) -> None:
    source = load_bundle(default_bundle_path())
    write_hub_folder(source, tmp_path, HubDescription())
    assert load_bundle(tmp_path).name == source.name
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*bundle_files(source.path), "README.md", ".gitattributes"}
    assert "*.onnx filter=lfs" in (tmp_path / ".gitattributes").read_text()
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "other"
    assert card.data.eval_results is None
    write_hub_folder(source, tmp_path, HubDescription("mit"))
    assert hub.ModelCard.load(tmp_path / "README.md").data.license == "mit"


def test_the_bundle_is_not_written_over(tmp_path: Path) -> None:
    source = load_bundle(default_bundle_path())
    with pytest.raises(ConfigError, match="expected another folder than the model's"):
        write_hub_folder(source, source.path, HubDescription())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"got .*file"):
        write_hub_folder(source, tmp_path / "file", HubDescription())


CHECKPOINT = Path(models.__file__).parent / "checkpoints" / "fast"


def test_a_checkpoint_becomes_a_folder_with_hashes(tmp_path: Path) -> None:
    write_checkpoint_folder(CHECKPOINT, tmp_path, HubDescription("mit"))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*checkpoint_files(CHECKPOINT), "README.md", ".gitattributes"}
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit"
    assert "safetensors" in card.data.tags
    assert "cnerta-train RECIPE --init hf:OWNER/NAME" in card.text
    loaded, source = load_checkpoint(tmp_path), load_checkpoint(CHECKPOINT)
    for name, weight in source.model.state_dict().items():
        assert loaded.model.state_dict()[name].equal(weight)
    for name in ("model.safetensors", "gazetteer.npz"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(CheckpointError, match=f"expected {name} with sha256"):
            load_checkpoint(tmp_path)
        (tmp_path / name).write_bytes(kept)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint folder"):
        write_checkpoint_folder(tmp_path / "none", tmp_path / "hub", HubDescription())
    with pytest.raises(ConfigError, match="expected another folder"):
        write_checkpoint_folder(CHECKPOINT, CHECKPOINT, HubDescription())
