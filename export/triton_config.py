"""Model configurations of NVIDIA Triton (``config.pbtxt``) for the graphs of a bundle.

The fields are those of ``ModelConfig`` in Triton's ``model_config.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.encoding.kept_graphs import SlotShape
from cnerta.models.runtime.model_repository import (
    CHARACTERS_STEP,
    FRAMES_STEP,
    MATCHES_STEP,
    MOST_BATCH,
    SHA256_PARAMETER,
    GraphKind,
    graph_sha256,
    model_name,
)

__all__ = ["TritonOptions", "model_config"]

_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_FLOAT = "TYPE_FP32"
_INT = "TYPE_INT64"


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How Triton is to run the graphs.

    Attributes:
        instances: Copies of each graph that run at the same time, on each GPU.
        max_streams: Streams whose cache it keeps at the same time.
        idle_s: After so long without audio it forgets a stream's cache.
        queue_us: How long a request waits for others to go with, in microseconds.
    """

    instances: int = 1
    max_streams: int = 4096
    idle_s: int = 600
    queue_us: int = 1000


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output without its first axis, the batch.

    Attributes:
        name: In the graph.
        kind: Of its numbers.
        dims: -1: any. None: the graph has one number a row.
        warm: The sizes to warm up with.
    """

    name: str
    kind: str
    dims: Sequence[int] | None
    warm: Sequence[int] = (1,)

    def described(self, word: str) -> str:
        """As an input or output."""
        # Triton has no tensors of the batch alone: it is told that the graph has.
        shape = "dims: [ 1 ] reshape { shape: [ ] }" if self.dims is None else _dims(self.dims)
        return f'{word} {{ name: "{self.name}" data_type: {self.kind} {shape} }}'

    def warmed(self) -> str:
        """As an input of a warm-up."""
        data = f"data_type: {self.kind} {_dims(self.warm)} zero_data: true"
        return f'  inputs {{ key: "{self.name}" value {{ {data} }} }}'


def model_config(bundle: Bundle, kind: GraphKind, options: TritonOptions) -> str:
    """The text of ``config.pbtxt`` for one graph of a bundle."""
    if kind == "tagger":
        inputs, outputs, batching = _tagger(bundle), _tagger_outputs(bundle), _dynamic(options)
    elif bundle.geometry.streaming:
        inputs, outputs, batching = _stream(bundle), _frames(bundle), _sequences(bundle, options)
    else:
        inputs, outputs, batching = _utterance(bundle), _frames(bundle), _dynamic(options)
    lines = [
        f'name: "{model_name(bundle, kind)}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {MOST_BATCH}",
        *(t.described("input") for t in inputs),
        *(t.described("output") for t in outputs),
        batching,
        f"instance_group {{ count: {options.instances} kind: KIND_AUTO }}",
        f'parameters {{ key: "{SHA256_PARAMETER}" '
        f'value {{ string_value: "{graph_sha256(bundle, kind)}" }} }}',
    ]
    # Triton warms a model of sequences up by itself at its first: the engine does that.
    if kind == "tagger" or not bundle.geometry.streaming:
        lines += [_warm_up(size, inputs) for size in _BUCKETS]
    return "\n".join(lines) + "\n"


def _stream(bundle: Bundle) -> list[_Tensor]:
    g = bundle.geometry
    return [
        _Tensor("samples", _FLOAT, (-1,), (g.chunk_samples,)),
        _Tensor("carry", _FLOAT, (g.carry_samples,), (g.carry_samples,)),
        _Tensor("first_frame", _INT, (1,)),
    ]


def _utterance(bundle: Bundle) -> list[_Tensor]:
    samples = FRAMES_STEP * bundle.geometry.hop_samples
    return [
        _Tensor("samples", _FLOAT, (-1,), (samples,)),
        _Tensor("frame_count", _INT, None),
    ]


def _frames(bundle: Bundle) -> list[_Tensor]:
    return [_Tensor("frames", _FLOAT, (-1, bundle.geometry.width))]


def _tagger(bundle: Bundle) -> list[_Tensor]:
    width = bundle.geometry.width
    inputs = [
        _Tensor("characters", _INT, (-1,), (CHARACTERS_STEP,)),
        _Tensor("character_count", _INT, None),
        _Tensor("frames", _FLOAT, (-1, width), (FRAMES_STEP, width)),
        _Tensor("frame_count", _INT, None),
    ]
    if bundle.lexicon is not None:
        inputs.append(_Tensor("matches", _INT, (-1, 3), (MATCHES_STEP, 3)))
    return inputs


def _tagger_outputs(bundle: Bundle) -> list[_Tensor]:
    return [
        _Tensor("emissions", _FLOAT, (-1, len(bundle.scheme))),
        _Tensor("log_probabilities", _FLOAT, (-1, -1)),
    ]


def _dynamic(options: TritonOptions) -> str:
    return (
        f"dynamic_batching {{ preferred_batch_size: {_numbers(_BUCKETS[2:])} "
        f"max_queue_delay_microseconds: {options.queue_us} }}"
    )


def _sequences(bundle: Bundle, options: TritonOptions) -> str:
    """Every stream is a sequence; its cache is the sequence's state, which no client sees."""
    s = SlotShape.of(bundle.geometry)
    dims = _dims((s.inputs, s.heads, s.ring, s.size))
    return f"""sequence_batching {{
  max_sequence_idle_microseconds: {1_000_000 * options.idle_s}
  oldest {{
    max_candidate_sequences: {options.max_streams}
    preferred_batch_size: {_numbers(_BUCKETS[2:])}
    max_queue_delay_microseconds: {options.queue_us}
  }}
  state {{
    input_name: "cache"
    output_name: "next_cache"
    data_type: {_FLOAT}
    {dims}
    initial_state {{ name: "nothing" data_type: {_FLOAT} {dims} zero_data: true }}
  }}
}}"""


def _warm_up(size: int, inputs: Sequence[_Tensor]) -> str:
    lines = [f'model_warmup {{ name: "{size} rows" batch_size: {size}']
    return "\n".join([*lines, *(t.warmed() for t in inputs), "}"])


def _dims(dims: Sequence[int]) -> str:
    return f"dims: {_numbers(dims)}"


def _numbers(numbers: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, numbers))} ]"
