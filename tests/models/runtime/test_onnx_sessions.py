from __future__ import annotations

from pathlib import Path

import pytest

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.crf_search import LATTICE_FILE, SCORES_FILE
from cnerta.models.runtime.onnx_sessions import open_sessions

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
    with pytest.raises(InferenceError, match="expected a CUDA runtime, got one with"):
        open_sessions([SCORES_FILE], use_cuda=True)
    (session,) = open_sessions([SCORES_FILE], use_cuda=None)
    assert session.get_providers() == ["CPUExecutionProvider"]
