"""Checkpoint to bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnerta.export.chosen_graphs import ChosenGraphs
from cnerta.export.graphs import (
    AcousticGraph,
    Graph,
    ReadingsGraph,
    TaggerGraph,
    UtteranceGraph,
    write_graph,
)
from cnerta.export.halve import HALF_TOLERANCE, halve_graph
from cnerta.export.parity import check_parity
from cnerta.export.quantise import quantise_graph, tag_agreement
from cnerta.models.networks.checkpoint import Checkpoint
from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.bundle import (
    ACOUSTIC_FILE,
    AUDIO_FIT_BOUND,
    BLANK_PENALTY,
    READINGS_FILE,
    TAGGER_FILE,
    Bundle,
    write_bundle,
)
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.listening import Listening
from cnerta.models.runtime.self_test import SELF_TEST_FILE, record_self_test
from cnerta.models.text.normalisation import NORMALISATION

__all__ = ["Export", "export_bundle"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        bundle: The bundle.
        acoustic_difference: Largest difference between torch and ``acoustic.onnx``.
        tagger_difference: Largest difference between torch and ``tagger.onnx``, and
            ``readings.onnx`` where there is one, before weights were quantised.
        agreement: With 8-bit weights in the tagger the share of characters with torch's best tag,
            over the random inputs of the check, 0 to 1.
    """

    bundle: Bundle
    acoustic_difference: float
    tagger_difference: float
    agreement: float | None = None


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    *,
    audio_fit_bound: float = AUDIO_FIT_BOUND,
    blank_penalty: float = BLANK_PENALTY,
    listening: Listening | None = None,
    int8: ChosenGraphs = ChosenGraphs.NONE,
    half: ChosenGraphs = ChosenGraphs.NONE,
    seed: int = 0,
) -> Export:
    """Write the graphs, check them against torch, describe them, then let them answer.

    The description comes after the graphs: a folder whose export failed is not a bundle. What the
    bundle answers to a made-up sound and a sentence is kept in it, so that whoever loads it can
    tell whether it still does.

    Args:
        checkpoint: The trained model.
        out: Folder, made if missing.
        audio_fit_bound: Alignment scores below this mean that the audio is not of the text.
        blank_penalty: Of the alignment, see :func:`cnerta.models.runtime.alignment.align`.
        listening: How far answers follow audio that fits its text badly; None: as any other.
        int8: Graphs that get 8-bit weights once they were checked.
        half: Graphs that get weights and products of 16 bits once they were checked, and are
            checked again; others than those of 8 bits.
        seed: Of the random inputs of the check.

    Raises:
        ParityError: A graph does not compute what torch computes.
        ValueError: A graph is to have 8 and 16 bits.
    """
    if int8.overlaps(half):
        raise ValueError(
            f"expected other graphs with 16 bits than with 8, got {half.value} and {int8.value}"
        )
    out.mkdir(parents=True, exist_ok=True)
    model = checkpoint.model
    generator = torch.Generator().manual_seed(seed)

    geometry = model.acoustic.geometry
    acoustic = AcousticGraph(model) if geometry.streaming else UtteranceGraph(model)
    chunk = model.acoustic.config.chunk_frames
    logger.info("writing %s", ACOUSTIC_FILE)
    write_graph(acoustic, acoustic.example(2, chunk, generator), out / ACOUSTIC_FILE)
    sizes = [(1, 1), (1, chunk), (2, chunk), (3, 1), (5, 2 * chunk + 1)]
    sounds = [acoustic.example(*s, generator) for s in sizes]
    acoustic_difference = check_parity(acoustic, out / ACOUSTIC_FILE, sounds)
    if half.has_acoustic:
        acoustic_difference = _halve(acoustic, out / ACOUSTIC_FILE, sounds)

    tagger = TaggerGraph(model)
    logger.info("writing %s", TAGGER_FILE)
    write_graph(tagger, tagger.example(3, 7, 20, generator), out / TAGGER_FILE)
    shapes = [(1, 1, 1), (1, 12, 60), (2, 1, 9), (4, 31, 2), (8, 20, 150)]
    examples = [tagger.example(*s, generator) for s in shapes]
    tagger_difference = check_parity(tagger, out / TAGGER_FILE, examples)
    if half.has_tagger:
        tagger_difference = _halve(tagger, out / TAGGER_FILE, examples)

    is_text_only = model.config.audio_use == "none"
    has_readings = model.config.ctc.units == "pronunciations" and not is_text_only
    if has_readings:
        tagger_difference = max(tagger_difference, write_readings(model, out, generator))

    agreement = None
    if int8.has_tagger:
        logger.info("quantising %s", TAGGER_FILE)
        quantise_graph(out / TAGGER_FILE)
        agreement = tag_agreement(tagger, out / TAGGER_FILE, examples)
    if int8.has_acoustic:
        logger.info("quantising %s", ACOUSTIC_FILE)
        pretrained = isinstance(model.acoustic, StreamingWhisperEncoder)
        quantise_graph(out / ACOUSTIC_FILE, in_blocks=pretrained)

    bundle = Bundle(
        path=out,
        name=checkpoint.name,
        scheme=model.scheme,
        vocabulary=model.vocabulary,
        geometry=geometry,
        crf=model.crf.parameters_as_values(),
        max_characters=model.text.max_characters,
        audio_fit_bound=audio_fit_bound,
        blank_penalty=blank_penalty,
        normalisation=NORMALISATION,
        provenance=checkpoint.provenance,
        scores=checkpoint.scores,
        has_readings=has_readings,
        audio_use=model.config.audio_use,
        lexicon=model.lexicon,
        listening=listening,
    )
    write_bundle(bundle)
    logger.info("writing %s", SELF_TEST_FILE)
    record_self_test(Model.load(out, device="cpu", check=False))
    return Export(bundle, acoustic_difference, tagger_difference, agreement)


def _halve(graph: Graph, path: Path, examples: Sequence[tuple[Tensor, ...]]) -> float:
    """Give a graph 16 bits.

    Returns:
        Largest difference between torch and the graph.

    Raises:
        ParityError: The graph does not compute what torch computes.
    """
    logger.info("halving %s", path.name)
    halve_graph(path, hears=not isinstance(graph, TaggerGraph))
    return check_parity(graph, path, examples, tolerance=HALF_TOLERANCE)


def write_readings(model: SpeechTagger, out: Path, generator: torch.Generator) -> float:
    """Write the graph that decides which pronunciation was spoken.

    Returns:
        Largest difference between torch and the graph.

    Raises:
        ParityError: The graph does not compute what torch computes.
    """
    graph = ReadingsGraph(model)
    logger.info("writing %s", READINGS_FILE)
    write_graph(graph, graph.example(20, 7, generator), out / READINGS_FILE)
    sizes = [(1, 1), (60, 12), (2, 31)]
    return check_parity(graph, out / READINGS_FILE, [graph.example(*s, generator) for s in sizes])
