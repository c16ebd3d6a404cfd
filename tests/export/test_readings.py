"""The graph that tells readings, against torch and against the tagger's own scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.export.graphs import ReadingsGraph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.models.errors import BundleError  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.bundle import READINGS_FILE, load_bundle  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402

TEXT = "南京市长江大桥"


def test_it_agrees_with_torch(tiny_model: SpeechTagger, tiny_bundle: Path) -> None:
    graph, generator = ReadingsGraph(tiny_model), torch.Generator().manual_seed(2)
    check_parity(
        graph, tiny_bundle / READINGS_FILE, [graph.example(*s, generator) for s in [(3, 1), (1, 9)]]
    )


def test_it_agrees_with_the_taggers_masked_ctc(tiny_model: SpeechTagger, tiny_bundle: Path) -> None:
    """A character's score against the blank is the log-sum over its readings' scores.

    Which are kept in half precision.
    """
    model = Model.load(tiny_bundle, device="cpu")
    vocabulary = model.bundle.vocabulary
    frames = np.random.default_rng(3).normal(size=(20, model.bundle.geometry.width))
    frames = frames.astype(np.float32)
    ids = vocabulary.encode(TEXT)
    with torch.no_grad():
        masked = tiny_model.ctc(torch.from_numpy(frames)[None], torch.from_numpy(ids)[None])[0]
    for place, character in enumerate(ids.tolist()):
        units = np.array(vocabulary.units_of(character), np.int64)
        scores = model.score_units(frames, units)
        expected = np.logaddexp.reduce(scores[:, 1:], axis=1) - scores[:, 0]
        found = (masked[:, 1 + place] - masked[:, 0]).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_loaded_bundle_reads(tiny_bundle: Path) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    assert model.bundle.has_readings
    frames = model.encode_recording(
        0.1 * np.random.default_rng(0).normal(size=640 * 30).astype(np.float32)
    )
    (tagged,) = model.tag([TEXT], [frames])
    assert tagged.readings == ()
    (reading,) = model.read(TEXT, frames, tagged).readings
    assert TEXT[reading.index] == "长"
    assert {name for name, _ in reading.readings} == {"chang2", "zhang3"}
    assert sum(share for _, share in reading.readings) == pytest.approx(1.0)
    (alone,) = model.tag([TEXT], [frames[:0]])
    assert model.read(TEXT, frames[:0], alone) == alone


def test_a_bundle_that_lost_the_graph_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    for path in tiny_bundle.iterdir():
        if path.name != READINGS_FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match=READINGS_FILE):
        load_bundle(tmp_path)
