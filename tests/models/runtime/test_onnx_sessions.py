from __future__ import annotations

from pathlib import Path

import pytest

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.crf_search import LATTICE_FILE, SCORES_FILE
from cnerta.models.runtime.onnx_sessions import Device, choose_device, open_sessions

onnxruntime = pytest.importorskip("onnxruntime")


def test_graphs_are_opened_in_order() -> None:
    scores, lattice = open_sessions([SCORES_FILE, LATTICE_FILE])
    assert [o.name for o in scores.get_outputs()] == ["scores"]
    assert "backward" in [o.name for o in lattice.get_outputs()]
    assert scores.get_providers() == ["CPUExecutionProvider"]


def test_a_damaged_graph_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(InferenceError, match="expected graphs onnxruntime can run, got: "):
        open_sessions([tmp_path / "a.onnx"])


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU"
)
def test_without_cuda_insisting_on_it_is_an_error_and_taking_it_is_not() -> None:
    with pytest.raises(InferenceError, match="expected a runtime with CUDA, got one with"):
        open_sessions([SCORES_FILE], device="cuda")
    (session,) = open_sessions([SCORES_FILE], device="auto")
    assert session.get_providers() == ["CPUExecutionProvider"]


ALL = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("wanted", "offered", "said"),
    [
        ("cpu", ALL, "the CPU: as asked for"),
        ("auto", ALL, "CUDA: this onnxruntime offers it"),
        ("auto", ALL[2:], "the CPU: this onnxruntime offers no CUDA, cnerta-stream[gpu] in place"),
        ("cuda", ALL[1:], "CUDA: as asked for"),
        ("tensorrt", ALL, "TensorRT: as asked for"),
    ],
)
def test_what_is_chosen_and_why(wanted: Device, offered: tuple[str, ...], said: str) -> None:
    choice = choose_device(wanted, offered)
    assert str(choice).startswith(said)
    assert choice.provider in offered


@pytest.mark.parametrize(("wanted", "called"), [("cuda", "CUDA"), ("tensorrt", "TensorRT")])
def test_what_is_not_offered_is_an_error(wanted: Device, called: str) -> None:
    with pytest.raises(InferenceError, match=rf"expected a runtime with {called}, got one with \["):
        choose_device(wanted, ALL[2:])
