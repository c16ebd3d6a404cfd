"""Opens ONNX graphs with onnxruntime: the device, its options, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.graph_session import GraphSession

__all__ = ["Device", "DeviceChoice", "choose_device", "offers_cuda", "open_graph", "open_sessions"]

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
ChosenDevice = Literal["cpu", "cuda", "tensorrt"]

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"
_CALLED: Final[dict[ChosenDevice, str]] = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """What the graphs are to run on.

    Attributes:
        device: Which.
        reason: Why this, and not another.
    """

    device: ChosenDevice
    reason: str

    @property
    def provider(self) -> str:
        """The runtime's name of it."""
        return {"cpu": _CPU, "cuda": _CUDA, "tensorrt": _TENSORRT}[self.device]

    def __str__(self) -> str:
        return f"{_CALLED[self.device]}: {self.reason}"


def choose_device(wanted: Device, offered: Sequence[str] | None = None) -> DeviceChoice:
    """What the graphs are to run on. Whether it works shows when they are opened.

    Args:
        wanted: ``auto`` takes a GPU if the runtime offers it. It never takes TensorRT, which builds
            an engine for every new shape, and texts and windows come in all shapes.
        offered: Providers that the runtime was built with; None: ask it.

    Raises:
        InferenceError: onnxruntime is missing, or was built without what is wanted.
    """
    offered = _runtime().get_available_providers() if offered is None else offered
    if wanted == "cpu":
        return DeviceChoice("cpu", "as asked for")
    if wanted == "auto":
        if _CUDA in offered:
            return DeviceChoice("cuda", "this onnxruntime offers it")
        return DeviceChoice(
            "cpu",
            "this onnxruntime offers no CUDA, cnerta-stream[gpu] in place of [cpu] brings one "
            "that does",
        )
    choice = DeviceChoice(wanted, "as asked for")
    if choice.provider not in offered:
        raise InferenceError(
            f"expected a runtime with {_CALLED[wanted]}, got one with {list(offered)}: install "
            "cnerta-stream[gpu] in place of [cpu]"
        )
    return choice


def offers_cuda() -> bool:
    """Whether the runtime that is installed can use a GPU; False where there is none."""
    try:
        return choose_device("auto").device == "cuda"
    except InferenceError:
        return False


def open_sessions(
    graphs: Sequence[Path], *, device: Device = "cpu", threads: int = 1
) -> list[GraphSession]:
    """A session for each graph.

    Args:
        graphs: Files.
        device: What to run them on; where ``auto`` finds a GPU that does not work, it is the CPU.
        threads: CPU threads of one call.

    Raises:
        InferenceError: onnxruntime is missing, has not the device that was asked for, or refuses
            the graphs.
    """
    choice = choose_device(device)
    try:
        sessions = [
            GraphSession(
                graph.name,
                partial(_open, graph, choice.device, threads),
                use_gpu=choice.device != "cpu",
            )
            for graph in graphs
        ]
    except Exception as error:
        # onnxruntime raises its own unexported exception types.
        raise InferenceError(f"expected graphs onnxruntime can run, got: {error}") from error
    for session in sessions:
        found = session.get_providers()[0]
        if device != "auto" and found != choice.provider:
            raise InferenceError(f"expected {_CALLED[choice.device]} to work, got {found}")
    return sessions


def open_graph(graph: bytes, device: ChosenDevice, threads: int = 1) -> Any:
    """The runtime's own session of a graph in memory.

    Raises:
        Exception: What the runtime raises.
    """
    return _session(graph, device, threads)


def _open(graph: Path, device: ChosenDevice, threads: int, use_gpu: bool) -> Any:
    return _session(str(graph), device if use_gpu else "cpu", threads)


def _session(graph: str | bytes, device: ChosenDevice, threads: int) -> Any:
    ort = _runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads save microseconds and take a core from all other threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena keeps what its largest call has taken for good, and saves nothing on ordinary calls
    # (tests/benchmarks/arenas.py).
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    # The default tries every convolution algorithm at every new shape, and texts and windows come
    # in all shapes: with it a final took six times as long.
    cuda = (_CUDA, {"cudnn_conv_algo_search": "HEURISTIC"})
    providers: dict[ChosenDevice, list[Any]] = {
        "cpu": [_CPU],
        "cuda": [cuda, _CPU],
        "tensorrt": [_TENSORRT, cuda, _CPU],
    }
    return ort.InferenceSession(graph, options, providers=providers[device])


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InferenceError(
            "expected onnxruntime, got no such package: install cnerta-stream[cpu] or "
            "cnerta-stream[gpu]"
        ) from error
    return onnxruntime
