"""When each character of a recording is spoken, as a trained bundle hears it.

Real recordings come with texts but without times. What a bundle's forced alignment says of them is
good enough to teach another encoder by: a cross-entropy on frames needs a tenth of the steps that
CTC needs from a random start, and does not let the outputs shrink to single frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cnerta.models.errors import DataError
from cnerta.models.runtime.boundaries import character_times, sound_levels
from cnerta.models.runtime.geometry import HOP_SAMPLES
from cnerta.models.runtime.inference import Model
from cnerta.models.text.normalisation import normalise
from cnerta.train.data.audio import read_audio

__all__ = ["align_manifest", "aligned_row", "character_edges"]

Times = list[tuple[float, float]]


def align_manifest(
    model: Model, manifest: Path, out: Path, *, least_score: float | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a manifest with the times of their characters, where the audio fits the text.

    Args:
        model: The bundle that listens.
        manifest: JSON lines with ``audio`` and ``text``.
        out: Where the rows will be written: their ``audio`` is relative to its folder.
        least_score: Alignment score below which a row gets no times; the bundle's own bound if
            None. See :class:`cnerta.models.runtime.alignment.Alignment`.

    Raises:
        DataError: A row has no audio or no text, or a recording cannot be read.
    """
    bound = model.bundle.audio_fit_bound if least_score is None else least_score
    for number, line in enumerate(manifest.read_bytes().splitlines(), 1):
        row = msgspec.json.decode(line, type=dict[str, Any])
        if not (row.get("audio") and row.get("text")):
            raise DataError(f"{manifest}, line {number}: expected audio and text, got {set(row)}")
        yield aligned_row(model, row, manifest.parent, out.parent, bound)


def aligned_row(
    model: Model, row: dict[str, Any], folder: Path, target: Path, bound: float
) -> dict[str, Any]:
    """A row with ``characters``, the start and end of each in ms; without where it does not fit."""
    audio = folder / str(row["audio"])
    changed = {**row, "audio": os.path.relpath(audio, target)}
    samples = read_audio(audio)
    text = normalise(str(row["text"]))
    (tagged,) = model.tag([text.text], [model.encode_recording(samples)])
    alignment = tagged.alignment
    if alignment is None or alignment.score < bound:
        return changed
    whole = np.pad(samples, (0, -len(samples) % HOP_SAMPLES))
    times = character_times(alignment, 0, sound_levels(whole), model.bundle.geometry)
    spans = (text.normalised_range(i, i + 1) for i in range(len(text.original)))
    changed["characters"] = character_edges(times.tolist(), spans)
    return changed


def character_edges(spoken: list[list[float]], spans: Iterable[tuple[int, int]]) -> Times:
    """Times of written characters from those of the spoken ones.

    Args:
        spoken: Start and end of each spoken character, in ms.
        spans: For each written character the spoken ones it stands for, first and one past the
            last; none for what is not spoken, which gets no length.
    """
    edges: Times = []
    at = 0.0
    for first, last in spans:
        start, end = (spoken[first][0], spoken[last - 1][1]) if first < last else (at, at)
        edges.append((round(start, 1), round(max(start, end), 1)))
        at = edges[-1][1]
    return edges
