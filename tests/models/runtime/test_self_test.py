"""Golden answers that travel in a bundle: wrong weights are refused, rounding is not."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnerta.models.errors import BundleError, InferenceError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.models.runtime.self_test import SELF_TEST_FILE, record_self_test

onnx = pytest.importorskip("onnx")

Weights = Any
ACOUSTIC, TAGGER = "acoustic.onnx", "tagger.onnx"


def zeros(weights: Weights, generator: np.random.Generator) -> Weights:
    return np.zeros_like(weights)


def shuffled(weights: Weights, generator: np.random.Generator) -> Weights:
    return generator.permutation(weights.reshape(-1)).reshape(weights.shape)


def huge(weights: Weights, generator: np.random.Generator) -> Weights:
    return weights * 1000 if weights.dtype.kind == "f" else weights


def rounded(weights: Weights, generator: np.random.Generator) -> Weights:
    """To the eleven bits of TF32."""
    if weights.dtype != np.float32:
        return weights
    return (weights.view(np.int32) & ~0x1FFF).view(np.float32)


def absurd(
    bundle: Path,
    graph: str,
    change: Callable[[Weights, np.random.Generator], Weights],
    *,
    only_largest: bool = False,
) -> None:
    """Change a graph's weights, and its hash as well."""
    proto = onnx.load(bundle / graph)
    generator = np.random.default_rng(0)
    wanted = [
        w for w in proto.graph.initializer if np.prod(w.dims) >= 64 and w.data_type in (1, 2, 3)
    ]
    if only_largest:
        wanted = [max(wanted, key=lambda w: np.prod(w.dims))]
    for weight in wanted:
        new = change(onnx.numpy_helper.to_array(weight).copy(), generator)
        weight.CopyFrom(onnx.numpy_helper.from_array(new, weight.name))
    onnx.save(proto, bundle / graph)
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    manifest["sha256"][graph] = hashlib.sha256((bundle / graph).read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle that ships."""
    return Path(shutil.copytree(find_bundle(None), tmp_path / "bundle"))


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_the_bundles_that_ship_answer_as_they_did(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = Model.load(find_bundle(Path(name)), device="cpu")
    assert model.encoded_samples == 0
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("graph", [ACOUSTIC, TAGGER])
@pytest.mark.parametrize("change", [zeros, huge, shuffled])
def test_absurd_weights_are_refused_at_load(
    bundle: Path, graph: str, change: Callable[..., Weights]
) -> None:
    absurd(bundle, graph, change)
    with pytest.raises(BundleError, match="expected the model of "):
        Model.load(bundle, device="cpu")


@pytest.mark.parametrize("graph", [ACOUSTIC, TAGGER])
def test_one_matrix_in_another_order_is_enough(bundle: Path, graph: str) -> None:
    absurd(bundle, graph, shuffled, only_largest=True)
    with pytest.raises(BundleError, match="its weights are wrong, or this machine"):
        Model.load(bundle, device="cpu")


@pytest.mark.parametrize("graph", [ACOUSTIC, TAGGER])
def test_the_rounding_of_other_machines_is_not_refused(bundle: Path, graph: str) -> None:
    absurd(bundle, graph, rounded)
    Model.load(bundle, device="cpu")


def test_entities_that_are_not_found_again_are_refused(bundle: Path) -> None:
    test = json.loads((bundle / SELF_TEST_FILE).read_text(encoding="utf-8"))
    assert test["from_text"]["entities"], "one of them is sure"
    test["from_text"]["entities"] = [[0, 1, "PER"]]
    (bundle / SELF_TEST_FILE).write_text(json.dumps(test), encoding="utf-8")
    with pytest.raises(BundleError, match="an answer without 1 of its entities"):
        Model.load(bundle, device="cpu")


def test_a_bundle_without_is_used_with_a_warning(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (bundle / SELF_TEST_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        model = Model.load(bundle, device="cpu")
    assert "has no self-test" in caplog.text
    assert record_self_test(model).from_text.entities
    caplog.clear()
    Model.load(bundle, device="cpu")
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@pytest.mark.parametrize("content", ["", "{}", '{"text": 1}'])
def test_golden_answers_that_cannot_be_read(bundle: Path, content: str) -> None:
    (bundle / SELF_TEST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"expected a readable self_test\.json"):
        Model.load(bundle, device="cpu")


def test_a_model_that_breaks_while_it_is_used_is_noticed(bundle: Path) -> None:
    model = Model.load(bundle, device="cpu")
    model.check()
    tagger = model._tagger

    class Broken:
        def run(self, names: Any, feed: Any) -> Any:
            return [0 * output for output in tagger.run(names, feed)]

    model._tagger = Broken()
    with pytest.raises(BundleError, match="the scores from text"):
        model.check()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_absurd_frames_are_an_error_and_no_frames(bundle: Path, value: float) -> None:
    model = Model.load(bundle, device="cpu", check=False)
    acoustic, geometry = model._acoustic, model.bundle.geometry

    class Broken:
        def run(self, names: Any, feed: Any) -> Any:
            frames, *rest = acoustic.run(names, feed)
            frames[-1, -1, -1] = value
            return [frames, *rest]

    model._encoder = HostEncoder(geometry, Broken())
    samples = np.zeros((1, geometry.chunk_samples), np.float32)
    with pytest.raises(InferenceError, match="expected frames between"):
        model.encode(samples, [AcousticState.initial(geometry)])
