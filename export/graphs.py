"""The graphs of a bundle as torch modules, and their ONNX files.

Names and shapes are the contract with :mod:`cnerta.models.runtime.inference`.
"""

from __future__ import annotations

import copy
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.models.networks.ctc import CtcHead, score_units
from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.geometry import HOP_SAMPLES, cache_inputs
from cnerta.models.text.lexicon import pad_matches

__all__ = [
    "AcousticGraph",
    "Graph",
    "GraphSignature",
    "ReadingsGraph",
    "TaggerGraph",
    "UtteranceGraph",
    "write_graph",
]

_OPSET = 18


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """Inputs and outputs of a graph.

    Attributes:
        inputs: Input names, in order, each with the names of its free dimensions by axis.
        outputs: The same of the outputs.
    """

    inputs: dict[str, dict[int, str]]
    outputs: dict[str, dict[int, str]]


class AcousticGraph(nn.Module):
    """Samples and stream state to frames and what is new in the stream's state."""

    def __init__(self, model: SpeechTagger) -> None:
        super().__init__()
        encoder = copy.deepcopy(model.acoustic)
        assert isinstance(encoder, AcousticEncoder | StreamingWhisperEncoder), "those that stream"
        # Weights that are put together only while the graph runs would stay floats, see quantise.
        encoder.merge_parameters()
        self.encoder = encoder
        # An input for each layer's keys and values: taking them out of one tensor would copy them.
        cache = cache_inputs(self.encoder.geometry.layers)
        self.signature = GraphSignature(
            {
                "samples": {0: "batch", 1: "samples"},
                "carry": {0: "batch"},
                "position": {0: "batch"},
                **{name: {0: "batch"} for name in cache},
            },
            {
                "frames": {0: "batch", 1: "new_frames"},
                "next_carry": {0: "batch"},
                "new_cache": {2: "batch", 4: "new_frames"},
            },
        )

    def forward(
        self, samples: Tensor, carry: Tensor, position: Tensor, *cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`cnerta.models.networks.acoustic_encoder.AcousticEncoder.forward_chunk`."""
        return self.encoder.forward_chunk(samples, carry, position, *cache)

    def example(self, batch: int, frames: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random inputs: every stream with another amount of history."""
        g = self.encoder.geometry
        cache = torch.randn((2 * g.layers, batch, *g.cache_shape[2:]), generator=generator)
        return (
            0.1 * torch.randn(batch, frames * g.hop_samples, generator=generator),
            0.1 * torch.randn(batch, g.carry_samples, generator=generator),
            torch.randint(0, 2 * g.left_frames, (batch,), generator=generator),
            *cache,
        )


class UtteranceGraph(nn.Module):
    """Samples of whole utterances to frames: the acoustic graph of a full-context model."""

    signature = GraphSignature(
        {"samples": {0: "batch", 1: "samples"}, "frame_count": {0: "batch"}},
        {"frames": {0: "batch", 1: "time"}},
    )

    def __init__(self, model: SpeechTagger) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.acoustic)
        if isinstance(self.encoder, AcousticEncoder):
            self.encoder.merge_parameters()

    def forward(self, samples: Tensor, frame_count: Tensor) -> Tensor:
        """See :meth:`cnerta.models.networks.acoustic_encoder.AcousticEncoder.encode`.

        Args:
            samples: Whole frames, filled up with zeros. shape: (batch, HOP_SAMPLES * time)
            frame_count: Valid frames of each utterance. shape: (batch,)
        """
        return self.encoder.encode(self.encoder.features(samples), frame_count, None)

    def example(self, batch: int, frames: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random utterances of mixed lengths."""
        counts = torch.randint(1, frames + 1, (batch,), generator=generator)
        counts[0] = frames
        samples = 0.1 * torch.randn(batch, frames * HOP_SAMPLES, generator=generator)
        samples[torch.arange(samples.shape[1]) >= HOP_SAMPLES * counts[:, None]] = 0
        return samples, counts


class TaggerGraph(nn.Module):
    """Characters and frames to emissions and masked CTC log-probabilities."""

    def __init__(self, model: SpeechTagger) -> None:
        super().__init__()
        # What only training keeps apart is put together, in a copy.
        self.model = model = copy.deepcopy(model)
        model.ctc.merge_parameters()
        if model.chosen_readings is not None:
            model.chosen_readings.merge_parameters()
        if model.audio_head is not None and model.audio_head.chosen_readings is not None:
            model.audio_head.chosen_readings.merge_parameters()
        inputs = {
            "characters": {0: "batch", 1: "length"},
            "character_count": {0: "batch"},
            "frames": {0: "batch", 1: "time"},
            "frame_count": {0: "batch"},
        }
        if model.lexicon is not None:
            inputs["matches"] = {0: "batch", 1: "matches"}
        self.signature = GraphSignature(
            inputs,
            {
                "emissions": {0: "batch", 1: "length"},
                "log_probabilities": {0: "batch", 1: "time", 2: "1 + length"},
            },
        )

    def forward(
        self,
        characters: Tensor,
        character_count: Tensor,
        frames: Tensor,
        frame_count: Tensor,
        matches: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`cnerta.models.networks.tagger.SpeechTagger.forward`."""
        output = self.model(characters, character_count, frames, frame_count, matches)
        return output.emissions, output.log_probabilities

    def example(
        self, batch: int, length: int, time: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Random inputs of mixed lengths, the last sentence without audio.

        With a lexicon up to two words a character, where they lie has nothing to do with the text.
        """
        width = self.model.config.acoustic.width
        known = len(self.model.vocabulary)
        counts = torch.randint(1, length + 1, (batch,), generator=generator)
        counts[0] = length
        characters = torch.randint(1, known, (batch, length), generator=generator)
        characters[torch.arange(length) >= counts[:, None]] = 0
        frame_counts = torch.randint(1, time + 1, (batch,), generator=generator)
        frame_counts[0] = time
        frame_counts[-1] = 0
        frames = torch.randn(batch, time, width, generator=generator)
        if self.model.lexicon is None:
            return characters, counts, frames, frame_counts
        matches = _random_matches(counts, len(self.model.lexicon), generator)
        return characters, counts, frames, frame_counts, matches


def _random_matches(counts: Tensor, words: int, generator: torch.Generator) -> Tensor:
    """Made-up matches in texts of the given lengths. shape: (batch, 2 * longest, 3)."""
    rows = []
    for length in counts.tolist():
        edges = torch.randint(0, length + 1, (2 * length, 2), generator=generator)
        ids = torch.randint(1, words + 1, (2 * length,), generator=generator)
        found = {
            (max(edge), min(edge)): word
            for edge, word in zip(edges.tolist(), ids.tolist(), strict=True)
            if edge[0] != edge[1]
        }
        triples = [(start, end, word) for (end, start), word in sorted(found.items())]
        rows.append(np.array(triples, np.int64).reshape(-1, 3))
    return torch.from_numpy(pad_matches(rows))


class ReadingsGraph(nn.Module):
    """Frames and acoustic units to the units' scores, to tell which pronunciation was heard."""

    signature = GraphSignature(
        {"frames": {0: "time"}, "units": {0: "count"}},
        {"scores": {0: "time", 1: "1 + count"}},
    )
    rows: Tensor

    def __init__(self, model: SpeechTagger) -> None:
        super().__init__()
        assert isinstance(model.ctc, CtcHead), "a model without audio hears no readings"
        self.blank = model.ctc.blank
        # Half precision: shares of a pronunciation are given to two digits.
        self.register_buffer("rows", model.ctc.unit_rows().detach().half())

    def forward(self, frames: Tensor, units: Tensor) -> Tensor:
        """Scores as in :meth:`CtcHead.all_units`, before they are normalised.

        Args:
            frames: shape: (time, width)
            units: Numbers of units. shape: (count,)

        Returns:
            Column 0 is the blank. shape: (time, 1 + count)
        """
        return score_units(frames, self.rows[units].float(), self.blank)

    def example(self, time: int, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random frames and units."""
        units, width = self.rows.shape
        return (
            torch.randn(time, width - 1, generator=generator),
            torch.randint(0, units, (count,), generator=generator),
        )


Graph = AcousticGraph | UtteranceGraph | TaggerGraph | ReadingsGraph


def write_graph(graph: Graph, example: tuple[Tensor, ...], path: Path) -> None:
    """Write a graph as one self-contained ONNX file.

    Args:
        graph: In evaluation mode.
        example: Inputs with every free dimension above 1, which the exporter would take for fixed.
        path: The file.
    """
    signature = graph.signature
    free = {
        name: torch.export.Dim(name, min=1)
        for axes in signature.inputs.values()
        for name in axes.values()
    }
    if "samples" in free:
        free["samples"] = HOP_SAMPLES * torch.export.Dim("new_frames", min=1)
    shapes: list[object] = [
        {a: free[n] for a, n in axes.items()} for axes in signature.inputs.values()
    ]
    if isinstance(graph, AcousticGraph):
        # The cache is one argument of many tensors.
        shapes[3:] = [tuple(shapes[3:])]
    # PyTorch 2.14 puts a loop in place of recurrent layers while it exports, but looks up what it
    # remembers of an earlier export in this process: without this the second has a fixed length.
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        # Without the fused fast path the traced graph is the plain mathematics.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                example,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                dynamic_shapes=tuple(shapes),
                opset_version=_OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None, "the exporter returns a program when it writes no file itself"
    proto = program.model_proto
    # The exporter notes the example's length beside a recurrent layer; the runtime would warn of it
    # at every other length. Free dimensions are said again here, inner notes are dropped.
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        for axis, name in signature.outputs[output.name].items():
            output.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(proto, path)
