from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from cnerta.export.cli import export  # noqa: E402
from cnerta.export.graphs import AcousticGraph, TaggerGraph  # noqa: E402
from cnerta.export.parity import TOLERANCE, check_parity  # noqa: E402
from cnerta.models.errors import BundleError, InferenceError, ParityError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.bundle import ACOUSTIC_FILE, TAGGER_FILE, load_bundle  # noqa: E402
from cnerta.models.runtime.decoding import CrfDecoder  # noqa: E402
from cnerta.models.runtime.inference import AcousticState, Model  # noqa: E402

from ..processor import adds_exactly  # noqa: E402

TEXT = "南京市长江大桥"


def stream(model: Model, samples: np.ndarray, chunks: list[int]) -> np.ndarray:
    state = AcousticState.initial(model.bundle.geometry)
    pieces, start = [], 0
    for frames in chunks:
        piece = samples[None, start : start + 640 * frames]
        ((out, state),) = model.encode(piece, [state])
        pieces.append(out)
        start += 640 * frames
    return np.concatenate(pieces)


def test_both_graphs_agree_with_torch_at_sizes_never_exported(
    tiny_model: SpeechTagger, tiny_bundle: Path
) -> None:
    generator = torch.Generator().manual_seed(1)
    acoustic, tagger = AcousticGraph(tiny_model), TaggerGraph(tiny_model)
    sizes = [(1, 7), (6, 1), (2, 33)]
    check_parity(
        acoustic,
        tiny_bundle / ACOUSTIC_FILE,
        [acoustic.example(*s, generator) for s in sizes],
    )
    shapes = [(1, 40, 3), (2, 1, 200), (9, 5, 1)]
    check_parity(tagger, tiny_bundle / TAGGER_FILE, [tagger.example(*s, generator) for s in shapes])


def test_another_model_fails_parity(tiny_model: SpeechTagger, tiny_bundle: Path) -> None:
    weight = tiny_model.emissions.bias
    with torch.no_grad():
        weight += 100 * TOLERANCE
    try:
        tagger = TaggerGraph(tiny_model)
        example = tagger.example(2, 5, 9, torch.Generator().manual_seed(0))
        with pytest.raises(ParityError, match="to agree with torch"):
            check_parity(tagger, tiny_bundle / TAGGER_FILE, [example])
    finally:
        with torch.no_grad():
            weight -= 100 * TOLERANCE


def test_a_stream_gives_what_torch_gives_offline(
    tiny_model: SpeechTagger, tiny_bundle: Path
) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    samples = 0.1 * np.random.default_rng(0).normal(size=640 * 20).astype(np.float32)
    frames = stream(model, samples, [4] * 5)
    with torch.no_grad():
        offline, counts = tiny_model.acoustic(
            torch.from_numpy(samples)[None], torch.tensor([len(samples)]), 4
        )
        ids = torch.from_numpy(tiny_model.vocabulary.encode(TEXT))[None]
        output = tiny_model(ids, torch.tensor([len(TEXT)]), offline, counts)
    np.testing.assert_allclose(frames, offline[0].numpy(), atol=1e-4)
    np.testing.assert_array_equal(
        model.encode_recording(samples[:-100]),
        stream(model, np.pad(samples[:-100], (0, 100)), [4] * 5),
    )
    assert model.encode_recording(samples[:0]).shape == (0, 16)
    decoder = CrfDecoder(tiny_model.scheme, tiny_model.crf.parameters_as_values())
    (expected,) = decoder.decode(output.emissions.numpy(), [len(TEXT)])
    (tagged,) = model.tag([TEXT], [frames])
    assert [s.span for s in tagged.spans] == [s.span for s in expected]
    assert tagged.alignment is not None
    assert tagged.alignment.ends[-1] <= 20


def test_streams_in_one_batch_do_not_touch_each_other(tiny_bundle: Path) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    generator = np.random.default_rng(0)
    audio = [0.1 * generator.normal(size=640 * 12).astype(np.float32) for _ in range(3)]
    alone = [stream(model, a, [4, 4, 4]) for a in audio]
    states = [AcousticState.initial(model.bundle.geometry)] * 3
    pieces: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, 640 * 12, 640 * 4):
        batch = np.stack([a[start : start + 640 * 4] for a in audio])
        for i, (out, state) in enumerate(model.encode(batch, states)):
            pieces[i].append(out)
            states[i] = state
    for i in range(3):
        np.testing.assert_allclose(np.concatenate(pieces[i]), alone[i], atol=1e-4)
    assert model.encoded_samples == 2 * 3 * 640 * 12


def test_answers_do_not_depend_on_batch_mates_and_may_lack_audio(tiny_bundle: Path) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    frames = stream(model, np.zeros(640 * 16, np.float32), [16])
    nothing = np.zeros((0, 16), np.float32)
    texts, audio = [TEXT, "", "北京大学", "完全陌生的字"], [frames, frames, nothing, frames[:2]]
    together = model.tag(texts, audio)
    for text, own, found in zip(texts, audio, together, strict=True):
        (alone,) = model.tag([text], [own])
        assert [s.span for s in alone.spans] == [s.span for s in found.spans]
        assert (alone.alignment is None) == (found.alignment is None)
    assert together[1].spans == ()
    assert together[2].alignment is None  # no audio
    assert together[3].alignment is None  # two frames for six characters


@pytest.fixture
def damaged(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))


def test_what_was_written_is_what_is_read(tiny_model: SpeechTagger, tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.scheme == tiny_model.scheme
    assert bundle.vocabulary == tiny_model.vocabulary
    assert bundle.nested
    np.testing.assert_array_equal(
        bundle.crf.transitions, tiny_model.crf.parameters_as_values().transitions
    )


def test_a_missing_bundle_or_file_is_named(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a folder"):
        load_bundle(tmp_path / "nowhere")
    (damaged / TAGGER_FILE).unlink()
    with pytest.raises(BundleError, match=r"expected tagger\.onnx"):
        load_bundle(damaged)


def test_a_truncated_graph_is_refused(damaged: Path) -> None:
    content = (damaged / ACOUSTIC_FILE).read_bytes()
    (damaged / ACOUSTIC_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="truncated or changed"):
        load_bundle(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=99), "schema version 2 or 3, got 99"),
        (lambda m: m.pop("crf"), "crf"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["labels"].update(tags=["B-X"]), "first tag"),
        (lambda m: m["vocabulary"].update(characters="ab"), "readings of 2 characters"),
        (lambda m: m["vocabulary"].update(sha256="0"), "vocabulary the model was trained with"),
        (lambda m: m.update(sha256={}), r"the sha256 of acoustic\.onnx"),
        (lambda m: m["sha256"].pop("tagger.onnx"), r"the sha256 of tagger\.onnx"),
        (lambda m: m["sha256"].update({"../elsewhere": "0"}), "files of a bundle"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(damaged: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    manifest = json.loads((damaged / "bundle.json").read_text())
    change(manifest)
    (damaged / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        load_bundle(damaged)


def test_scores_that_are_no_numbers_are_an_error_and_no_empty_answer(tiny_bundle: Path) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    tagger = model._tagger

    class Broken:
        def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
            emissions, log_probabilities = tagger.run(names, feed)
            emissions[0, 1, 0] = np.nan
            return [emissions, log_probabilities]

    model._tagger = Broken()
    none = np.zeros((0, model.bundle.geometry.width), np.float32)
    with pytest.raises(InferenceError, match="expected scores of tags between"):
        model.tag(["南京市"], [none])
    short, _ = model.tag(["南", "南京市"], [none, none])
    assert short.alignment is None, "what lies beyond a text does not count"


def test_a_manifest_that_is_no_json_is_refused(damaged: Path) -> None:
    (damaged / "bundle.json").write_text('{"schema_version": 2, "name": "x')
    with pytest.raises(BundleError, match=r"readable bundle\.json"):
        load_bundle(damaged)


def test_the_command_names_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    folder = tmp_path / "[red]none"
    refused = CliRunner().invoke(app, [str(folder), str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert f"CheckpointError: expected a checkpoint folder, got {folder}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def commanded(
    tiny_model: SpeechTagger, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder with what the command wrote, with 8-bit weights and for the hub; what it said."""
    folder = tmp_path_factory.mktemp("commanded")
    save_checkpoint(folder / "from", Checkpoint("tiny", tiny_model, {}, {"dev.nested_f1": 0.5}))
    app = typer.Typer()
    app.command()(export)
    wanted = [str(folder / "from"), str(folder / "out"), "--hub", str(folder / "hub")]
    about = ["--license", "mit", "--dataset", "owner/data", "--base-model", "owner/model"]
    done = CliRunner().invoke(app, [*wanted, *about, "--int8", "both"])
    assert done.exit_code == 0, done.output
    return folder, done.stderr


def test_the_command_writes_a_folder_for_the_hub_too(commanded: tuple[Path, str]) -> None:
    folder, said = commanded
    assert load_bundle(folder / "hub").name == "tiny"
    card = (folder / "hub" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert "value: 0.5" in card
    assert "- owner/data" in card
    assert "base_model:\n- owner/model" in card
    assert f"hf upload OWNER/NAME {folder / 'hub'}" in said


def test_8_bit_weights_are_smaller_and_say_nearly_the_same(
    commanded: tuple[Path, str], tiny_bundle: Path
) -> None:
    out = commanded[0] / "out"
    agreement = re.search(r"with 8-bit weights ([\d.]+)% of tags", commanded[1])
    assert agreement is not None
    assert float(agreement[1]) > 80
    for name in (ACOUSTIC_FILE, TAGGER_FILE):
        before, after = onnx.load(tiny_bundle / name), onnx.load(out / name)
        types = [i.data_type for i in after.graph.initializer]
        assert onnx.TensorProto.INT8 in types
        assert onnx.TensorProto.INT8 not in [i.data_type for i in before.graph.initializer]
    # The filter bank is left alone: its output has to stay exact.
    bank = [n for n in nodes(out / ACOUSTIC_FILE) if "filter_bank" in scopes(n)]
    assert bank
    assert not any("Integer" in n.op_type or "QuantizeLinear" in n.op_type for n in bank)
    samples = np.random.default_rng(0).normal(scale=0.1, size=16_000).astype(np.float32)
    exact, rounded = (Model.load(p, device="cpu") for p in (tiny_bundle, out))
    frames = exact.encode_recording(samples), rounded.encode_recording(samples)
    (tagged,) = rounded.tag([TEXT], [frames[1]])
    assert tagged.alignment is not None
    difference = np.abs(frames[0] - frames[1]).max()
    assert difference > 0
    if not adds_exactly():
        pytest.skip("without VNNI products of 8-bit weights are cut off: how near is not told here")
    assert difference < 0.3


def nodes(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(path).graph.node)


def scopes(node: onnx.NodeProto) -> str:
    return "".join(p.value for p in node.metadata_props)


def test_cuda_that_is_not_there_is_said(tiny_bundle: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InferenceError, match="cnerta-stream\\[gpu\\]"):
        Model.load(tiny_bundle, device="cuda")
