"""The checkpoints that come along to train on are the models that the bundles hold."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from cnerta.models.networks.checkpoint import load_checkpoint
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example
from cnerta.train.evaluation.bundle_answers import bundle_predictions
from cnerta.train.evaluation.predict import torch_predictions

REPOSITORY = Path(__file__).parents[3]
DEMO = REPOSITORY / "streamer" / "demo"
HOMOGRAPH = "南京市长江大桥"
TEXTS = (HOMOGRAPH, "李娜在北京大学见到了张伟", "上海交通大学附属瑞金医院", "今天天气不错")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    spoken = [Example(HOMOGRAPH, None, DEMO / f"{name}.flac") for name in ("mayor", "bridge")]
    return [*spoken, *(Example(text, None) for text in TEXTS)]


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_checkpoint_and_bundle_say_the_same(name: str, examples: list[Example]) -> None:
    checkpoint = load_checkpoint(REPOSITORY / "models" / "checkpoints" / name)
    bundle = Model.load(find_bundle(Path(name)), device="cpu")
    assert checkpoint.model.vocabulary.sha256 == bundle.bundle.vocabulary.sha256
    assert checkpoint.provenance == bundle.bundle.provenance
    found = torch_predictions(checkpoint.model, examples, AudioCache())
    expected = [list(spans) for spans in bundle_predictions(bundle, examples)]
    assert found == expected
    assert found[0] != found[1], "the two readings of one text are told apart"
    assert any(found[2:5])
    assert found[-1] == []


def test_the_checkpoint_to_come_tells_readings_apart(examples: list[Example]) -> None:
    found = []
    for name in ("fast-named", "fast-listens"):
        model = load_checkpoint(REPOSITORY / "models" / "checkpoints" / name).model
        found.append(torch_predictions(model, examples, AudioCache()))
    read, listens = found
    assert listens[0] != listens[1], "it listens"
    assert any(read[2:5])
    assert any(listens[2:5])
    assert read[-1] == listens[-1] == []
