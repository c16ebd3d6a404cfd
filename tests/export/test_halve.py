"""Graphs of 16 bits, computed by the CPU, which rounds as a GPU does where numbers are stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from cnerta.export import ChosenGraphs, export_bundle  # noqa: E402
from cnerta.export import write as writing  # noqa: E402
from cnerta.export.cli import export  # noqa: E402
from cnerta.export.graphs import AcousticGraph, TaggerGraph  # noqa: E402
from cnerta.export.halve import HALF_TOLERANCE, halve_graph  # noqa: E402
from cnerta.export.parity import check_parity, run_both  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.bundle import ACOUSTIC_FILE, TAGGER_FILE  # noqa: E402
from cnerta.models.runtime.inference import Model  # noqa: E402

from ..conftest import TINY_TEXT  # noqa: E402


@pytest.fixture
def acoustic(tiny_bundle: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(tiny_bundle / ACOUSTIC_FILE, tmp_path))
    halve_graph(path, hears=True)
    return path


def element_types(path: Path) -> tuple[set[int], set[int]]:
    """Of what is stored, and of what goes in and comes out."""
    graph = onnx.load(path).graph
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    outside = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    return {i.data_type for i in graph.initializer} & floats, outside & floats


def test_a_stream_stays_near_torch_however_far_it_is(
    tiny_model: SpeechTagger, acoustic: Path
) -> None:
    graph, generator = AcousticGraph(tiny_model), torch.Generator().manual_seed(0)
    examples = [graph.example(*s, generator) for s in [(1, 1), (1, 4), (3, 9)]]
    # Two hours in: an angle of 16 bits would know the position to the next 500 only.
    late = [(samples, carry, 720_000 + at, *c) for samples, carry, at, *c in examples]
    assert check_parity(graph, acoustic, examples, tolerance=HALF_TOLERANCE) > 0
    check_parity(graph, acoustic, late, tolerance=HALF_TOLERANCE)
    inside, outside = element_types(acoustic)
    assert onnx.TensorProto.FLOAT16 in inside
    assert outside == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("loudness", [1e-5, 1.0])
def test_what_is_heard_is_not_rounded(
    tiny_model: SpeechTagger, acoustic: Path, loudness: float
) -> None:
    graph, generator = AcousticGraph(tiny_model), torch.Generator().manual_seed(0)
    samples, carry, *rest = graph.example(2, 8, generator)
    example = (loudness * samples, loudness * carry, *rest)
    (((frames, kept, _), (halved_frames, halved_kept, _)),) = run_both(graph, acoustic, [example])
    assert np.array_equal(kept, halved_kept), "what the next chunk begins with"
    assert np.abs(frames - halved_frames).max() < HALF_TOLERANCE


def test_a_tagger_is_half_as_large_and_stays_near_torch(
    tiny_model: SpeechTagger, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(tiny_bundle / TAGGER_FILE, tmp_path))
    before = sum(len(i.raw_data) for i in onnx.load(path).graph.initializer)
    halve_graph(path, hears=False)
    after = sum(len(i.raw_data) for i in onnx.load(path).graph.initializer)
    assert after < 0.6 * before
    graph, generator = TaggerGraph(tiny_model), torch.Generator().manual_seed(0)
    examples = [graph.example(*s, generator) for s in [(1, 1, 1), (3, 20, 150), (2, 40, 1500)]]
    assert check_parity(graph, path, examples, tolerance=HALF_TOLERANCE) > 0


def test_a_bundle_of_16_bits_answers_alike_and_keeps_its_caches_on_a_device(
    tiny_model: SpeechTagger, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These graphs were exported before.
    monkeypatch.setattr(writing, "write_graph", lambda _g, _e, to: shutil.copy(
        tiny_bundle / to.name, to
    ))  # fmt: skip
    checkpoint = Checkpoint("tiny", tiny_model, {}, {})
    written = export_bundle(checkpoint, tmp_path, half=ChosenGraphs.BOTH)
    assert 1e-4 < max(written.acoustic_difference, written.tagger_difference) < HALF_TOLERANCE
    samples = np.random.default_rng(0).normal(scale=0.1, size=32_000).astype(np.float32)
    whole, halved, resident = (
        Model.load(path, device="cpu", resident_streams=streams)
        for path, streams in ((tiny_bundle, 0), (tmp_path, 0), (tmp_path, 4))
    )
    frames = halved.encode_recording(samples)
    assert np.abs(frames - whole.encode_recording(samples)).max() < HALF_TOLERANCE
    assert np.abs(frames - resident.encode_recording(samples)).max() < 1e-5
    answers = [model.tag([TINY_TEXT], [frames])[0] for model in (whole, halved)]
    exact, rounded = ([s.span for s in answer.spans] for answer in answers)
    assert exact
    assert exact == rounded


def test_a_graph_has_8_bits_or_16(tiny_model: SpeechTagger, tmp_path: Path) -> None:
    checkpoint = Checkpoint("tiny", tiny_model, {}, {})
    with pytest.raises(ValueError, match="expected other graphs with 16 bits than with 8"):
        export_bundle(
            checkpoint, tmp_path / "out", int8=ChosenGraphs.TAGGER, half=ChosenGraphs.BOTH
        )
    assert not (tmp_path / "out").exists()
    app = typer.Typer()
    app.command()(export)
    wanted = ["none", "out", "--int8", "acoustic", "--half", "acoustic"]
    refused = CliRunner().invoke(app, wanted)
    assert refused.exit_code == 2
    assert "expected other graphs with --half" in " ".join(refused.stderr.split())
