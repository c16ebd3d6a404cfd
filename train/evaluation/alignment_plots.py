"""An utterance as a picture: spectrogram, the time of each character, and the entities above it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cnerta.models.errors import ConfigError, DataError
from cnerta.models.fonts import find_cjk_font
from cnerta.models.label_colours import label_colour
from cnerta.models.runtime.geometry import SAMPLE_RATE, SHIFT_SAMPLES, WINDOW_SAMPLES
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.train.data.audio import read_audio
from cnerta.train.data.examples import Example
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.systems import Answers

__all__ = ["Utterance", "draw_alignments", "draw_utterance"]

logger = logging.getLogger(__name__)

_MEL_BINS = 80

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a picture shows.

    Attributes:
        text: Characters, normalised.
        samples: 16 kHz, -1 to 1. shape: (samples,)
        times_ms: Start and end of each character. shape: (length, 2)
        rows: Entities by who says so, from top to bottom: ``gold``, a model's name.
    """

    text: str
    samples: Floats
    times_ms: Times
    rows: Mapping[str, Sequence[Span]]


def draw_alignments(
    folder: Path,
    most: int,
    answers: Answers,
    examples: Sequence[Example],
    other: Sequence[Prediction] = (),
) -> None:
    """Draw some of the spoken sentences, into a file each.

    Args:
        folder: Where to, made if missing.
        most: How many.
        answers: What a system found in the examples.
        examples: Sentences.
        other: What another one found; then those come first where the two differ most, then those
            with entities.

    Raises:
        ConfigError: The system cannot tell when a character was heard.
        DataError: No sentence has a recording.
    """
    if answers.align is None:
        raise ConfigError(
            f"expected a model that uses audio, got {answers.name}: no character times"
        )
    spoken = [i for i, e in enumerate(examples) if e.audio is not None]
    if not spoken:
        raise DataError("expected recordings to draw, got none")

    def interest(i: int) -> tuple[int, bool]:
        differing = set(answers.found[i]) ^ set(other[i].found) if other else ()
        return len(differing), bool(examples[i].spans or answers.found[i])

    folder.mkdir(parents=True, exist_ok=True)
    chosen = sorted(spoken, key=interest, reverse=True)[:most]
    for number, i in enumerate(tqdm(chosen, desc="drawing", leave=False)):
        example = examples[i]
        assert example.audio is not None, "chosen among the spoken ones"
        times = answers.align(example)
        if times is None:
            logger.warning("%s is too short for its text: not drawn", example.audio)
            continue
        text = normalise(example.text)
        rows = {"gold": example.spans or (), answers.name: answers.found[i]}
        if other:
            rows["other"] = other[i].found
        utterance = Utterance(
            text=text.text,
            samples=read_audio(example.audio),
            times_ms=times,
            rows={name: _normalised(spans, text) for name, spans in rows.items()},
        )
        draw_utterance(folder / f"{number:03}-{Path(str(example.audio)).stem}.png", utterance)


def _normalised(spans: Iterable[Span], text: NormalisedText) -> list[Span]:
    ranges = [(*text.normalised_range(s.start, s.end), s.label) for s in spans]
    return [Span(start, end, label) for start, end, label in ranges if start < end]


def draw_utterance(path: Path, utterance: Utterance) -> None:
    """Draw into a file.

    Characters are written in pinyin where no font of the system has Chinese characters.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    font = find_cjk_font()
    if font is None:
        logger.warning(
            "expected a font with Chinese characters, got none: characters are drawn in pinyin "
            "(install one, such as fonts-noto-cjk, and remove matplotlib's font cache)"
        )
    families = ["DejaVu Sans", *([font] if font else [])]
    levels = {name: _levels(spans) for name, spans in utterance.rows.items()}
    lines = sum(max(1, len(own)) for own in levels.values())
    seconds = len(utterance.samples) / SAMPLE_RATE
    width = min(30.0, max(7.0, 0.32 * len(utterance.text), 1.6 * seconds))
    heights = (0.32 * lines, 0.4, 2.4)
    with mpl.rc_context({"font.family": families, "axes.unicode_minus": False}):
        figure, (bars, characters, spectrum) = plt.subplots(
            nrows=3,
            figsize=(width, sum(heights) + 0.6),
            height_ratios=heights,
            layout="constrained",
            sharex=True,
        )
        _draw_spectrum(spectrum, utterance.samples)
        _draw_characters(characters, utterance, has_font=font is not None)
        _draw_entities(bars, levels, utterance.times_ms / 1000)
        spectrum.set(xlim=(0, seconds), xlabel="seconds", ylabel="mel filter")
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _levels(spans: Iterable[Span]) -> list[list[Span]]:
    """Lines of entities that do not overlap, outer ones first."""
    lines: list[list[Span]] = []
    for span in sorted(set(spans), key=lambda s: (s.start, -s.end, s.label)):
        for line in lines:
            if line[-1].end <= span.start:
                line.append(span)
                break
        else:
            lines.append([span])
    return lines


def _draw_spectrum(axes: Any, samples: Floats) -> None:
    import torch

    from cnerta.models.networks.filterbank import FilterBank

    # Windows centred on whole shifts, so that time on the axis is time in the recording.
    padded = np.pad(samples, WINDOW_SAMPLES // 2)
    with torch.no_grad():
        energies = FilterBank(_MEL_BINS).energies(torch.from_numpy(padded)[None])[0].numpy()
    end = len(energies) * SHIFT_SAMPLES / SAMPLE_RATE
    half = SHIFT_SAMPLES / SAMPLE_RATE / 2
    axes.imshow(
        energies.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(-half, end - half, 0, _MEL_BINS),
        # What is 60 dB below the loudest is as good as silent.
        vmin=float(energies.max()) - 6 * np.log(10),
    )


def _draw_characters(axes: Any, utterance: Utterance, *, has_font: bool) -> None:
    labels: Sequence[str] = utterance.text
    if not has_font:
        from cnerta.train.data.pronunciations import sentence_readings

        labels = sentence_readings(utterance.text)
    for label, (start, end) in zip(labels, (utterance.times_ms / 1000).tolist(), strict=True):
        axes.axvspan(start, end, color="#dddddd", linewidth=0)
        for edge in (start, end):
            axes.axvline(edge, color="#888888", linewidth=0.6)
        place = {"ha": "center", "va": "center", "fontsize": 11 if has_font else 6}
        axes.text((start + end) / 2, 0.5, label, rotation=0 if has_font else 60, **place)
    axes.set(ylim=(0, 1), yticks=[])
    axes.tick_params(bottom=False)


def _draw_entities(axes: Any, levels: Mapping[str, list[list[Span]]], seconds: Times) -> None:
    ticks = []
    line = 0
    for name, own in levels.items():
        ticks.append((line + (max(1, len(own)) - 1) / 2, name))
        for spans in own or [[]]:
            for span in spans:
                start, end = seconds[span.start, 0], seconds[span.end - 1, 1]
                colour = label_colour(span.label).on_paper
                axes.barh(line, end - start, left=start, height=0.8, color=colour, alpha=0.55)
                axes.text((start + end) / 2, line, span.label, ha="center", va="center", size=8)
            line += 1
        axes.axhline(line - 0.5, color="#888888", linewidth=0.6)
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(line - 0.5, -0.5)
    axes.tick_params(bottom=False)
