"""Opens ONNX graphs with onnxruntime: the device, its options, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.graph_session import GraphSession

__all__ = ["offers_cuda", "open_sessions"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


def offers_cuda() -> bool:
    """Whether the runtime that is installed can use a GPU; False where there is none."""
    try:
        import onnxruntime as ort
    except ImportError:
        return False
    return _CUDA in ort.get_available_providers()


def open_sessions(
    graphs: Sequence[Path], *, use_cuda: bool | None = False, threads: int = 1
) -> list[GraphSession]:
    """A session for each graph.

    Args:
        graphs: Files.
        use_cuda: Insist on a GPU; None: take one if the runtime offers it.
        threads: CPU threads of one call.

    Raises:
        InferenceError: onnxruntime is missing, has no CUDA where it was asked for, or refuses the
            graphs.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise InferenceError(
            "expected onnxruntime, got no such package: install cnerta-stream[cpu] or "
            "cnerta-stream[gpu]"
        ) from error
    available = ort.get_available_providers()
    if use_cuda and _CUDA not in available:
        raise InferenceError(
            f"expected a CUDA runtime, got one with {available}: install cnerta-stream[gpu] "
            "in place of [cpu]"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads save microseconds and take a core from all other threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena keeps what its largest call has taken for good, and saves nothing on ordinary calls
    # (tests/benchmarks/arenas.py).
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        sessions = [
            GraphSession(
                graph.name,
                partial(_open, ort, graph, options),
                use_gpu=use_cuda is not False and _CUDA in available,
            )
            for graph in graphs
        ]
    except Exception as error:
        # onnxruntime raises its own unexported exception types.
        raise InferenceError(f"expected graphs onnxruntime can run, got: {error}") from error
    if use_cuda and any(session.get_providers()[0] != _CUDA for session in sessions):
        raise InferenceError(f"expected CUDA to work, got {sessions[0].get_providers()[0]}")
    return sessions


def _open(ort: Any, graph: Path, options: Any, use_gpu: bool) -> Any:
    providers: list[str | tuple[str, dict[str, str]]] = [_CPU]
    if use_gpu:
        # The default tries every convolution algorithm at every new shape, and texts and
        # windows come in all shapes: with it a final took six times as long.
        providers.insert(0, (_CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}))
    return ort.InferenceSession(str(graph), options, providers=providers)
