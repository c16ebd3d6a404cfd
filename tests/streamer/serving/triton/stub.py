"""A server that speaks Triton's gRPC protocol and computes with onnxruntime.

It reads a model repository as Triton does, keeps the states of sequences as ``config.pbtxt`` says,
and refuses what Triton refuses, in its words.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

TYPES = {"FP32": np.float32, "INT64": np.int64}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
CONFIG_TYPES = {
    model_config_pb2.TYPE_FP32: np.float32,
    model_config_pb2.TYPE_INT64: np.int64,
}


def read_config(folder: Path) -> Any:
    """The configuration of a model, by the published schema."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


class RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


class Model:
    """One model of the repository."""

    def __init__(self, folder: Path) -> None:
        self.config = read_config(folder)
        assert self.config.name == folder.name
        assert self.config.platform == "onnxruntime_onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.states: dict[int, dict[str, np.ndarray]] = {}
        self.lock = threading.Lock()
        batching = self.config.sequence_batching
        graph_inputs = {i.name for i in self.session.get_inputs()}
        graph_outputs = {o.name for o in self.session.get_outputs()}
        states = batching.state
        assert {i.name for i in self.config.input} | {s.input_name for s in states} == graph_inputs
        assert {o.name for o in self.config.output} <= graph_outputs
        assert {s.output_name for s in states} <= graph_outputs

    def run(self, feed: dict[str, np.ndarray], names: list[str], place: Any) -> list[np.ndarray]:
        feed = dict(feed)
        for tensor in self.config.input:
            feed[tensor.name] = self._checked(tensor, feed)
        states = self.config.sequence_batching.state
        if not self.config.HasField("sequence_batching"):
            return list(self.session.run(names, feed))
        number, is_first, is_last = place
        if not number:
            raise invalid(
                f"inference request to model '{self.config.name}' must specify a "
                "non-zero or non-empty correlation ID"
            )
        if any(len(value) != 1 for value in feed.values()):
            raise invalid("sequence requests must have batch-size 1")
        with self.lock:
            if is_first:
                self.states[number] = {s.input_name: self._initial(s) for s in states}
            if number not in self.states:
                raise invalid(
                    f"inference request for sequence {number} to model '{self.config.name}' must "
                    "specify the START flag on the first request of the sequence"
                )
            outputs = [s.output_name for s in states]
            found = self.session.run([*names, *outputs], {**feed, **self.states[number]})
            for state, value in zip(states, found[len(names) :], strict=True):
                assert value.shape == (1, *state.dims), "a state keeps its shape"
                self.states[number][state.input_name] = value
            if is_last:
                del self.states[number]
        return list(found[: len(names)])

    def _initial(self, state: Any) -> np.ndarray:
        (initial,) = state.initial_state
        assert initial.zero_data
        assert list(initial.dims) == list(state.dims)
        return np.zeros((1, *state.dims), CONFIG_TYPES[state.data_type])

    def _checked(self, tensor: Any, feed: dict[str, np.ndarray]) -> np.ndarray:
        value = feed.get(tensor.name)
        if value is None:
            raise invalid(f"expected input '{tensor.name}' of model '{self.config.name}'")
        if value.dtype != CONFIG_TYPES[tensor.data_type]:
            raise invalid(f"inference input '{tensor.name}' data-type is wrong")
        batch, *shape = value.shape
        fits = len(shape) == len(tensor.dims) and all(
            want in (-1, got) for want, got in zip(tensor.dims, shape, strict=True)
        )
        if not fits:
            raise invalid(
                f"unexpected shape for input '{tensor.name}' for model '{self.config.name}'. "
                f"Expected {[-1, *tensor.dims]}, got {list(value.shape)}"
            )
        if batch > self.config.max_batch_size:
            raise invalid(
                f"inference request batch-size must be <= {self.config.max_batch_size} for "
                f"'{self.config.name}'"
            )
        if tensor.HasField("reshape"):
            value = value.reshape(batch, *tensor.reshape.shape)
        return value


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The service.

    Attributes:
        models: By name.
        calls: Requests that were computed, by model.
        shapes: Shapes of inputs that came, by model and input.
        delay_s: So long a request takes.
        losing: So many answers are computed and then lost on their way.
        crop: Answers are cut short.
    """

    def __init__(self, repository: Path) -> None:
        self.models = {f.name: Model(f) for f in sorted(repository.iterdir())}
        self.calls: Counter[str] = Counter()
        self.shapes: dict[tuple[str, str], set[tuple[int, ...]]] = {}
        self.delay_s = 0.0
        self.losing = 0
        self.crop = False

    def forget_sequences(self) -> None:
        for model in self.models.values():
            model.states.clear()

    @property
    def sequences(self) -> int:
        return sum(len(model.states) for model in self.models.values())

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelConfigResponse(config=self._model(request.name, context).config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        model = self._model(request.model_name, context)
        time.sleep(self.delay_s)
        feed = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            value = np.frombuffer(raw, TYPES[tensor.datatype]).reshape(tuple(tensor.shape))
            feed[tensor.name] = value
            self.shapes.setdefault((model.config.name, tensor.name), set()).add(value.shape)
        given = request.parameters
        place = (
            given["sequence_id"].int64_param,
            given["sequence_start"].bool_param,
            given["sequence_end"].bool_param,
        )
        names = [output.name for output in request.outputs]
        try:
            found = model.run(feed, names, place)
        except RefusedError as refusal:
            context.abort(refusal.code, f"[request id: <id_unknown>] {refusal}")
        self.calls[model.config.name] += 1
        if self.losing:
            self.losing -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if self.crop:
            found = [value[:, :1] for value in found]
        answer = service_pb2.ModelInferResponse(model_name=model.config.name, model_version="1")
        for name, value in zip(names, found, strict=True):
            kind = NAMES[value.dtype]
            answer.outputs.add(name=name, datatype=kind, shape=value.shape)
            answer.raw_output_contents.append(np.ascontiguousarray(value).tobytes())
        return answer

    def _model(self, name: str, context: Any) -> Model:
        if name not in self.models:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found"
            )
        return self.models[name]


@contextmanager
def serving(triton: Triton, port: int = 0) -> Iterator[int]:
    """Serve on the loopback interface; the port."""
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
        pool.shutdown()
