"""Forced alignment: how long it takes, and how far character boundaries are off.

    python tests/benchmarks/alignment.py --words words_cmn/18k-abr/hsk

Time: ours against ``torchaudio.functional.forced_align`` on the same log-probabilities, in one run.

Error: single-word recordings are cut to their loud part and joined with known silences, so the
first and last character's outer boundaries of every word are known; the bundle aligns the joined
audio with the joined text.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from cnerta.models.alignment import align
from cnerta.models.bundle import default_bundle_path
from cnerta.models.geometry import SAMPLE_RATE
from cnerta.models.inference import Model
from cnerta.train.audio import AudioCache
from cnerta.train.data import Example, read_source
from cnerta.train.flat_start import loud_extent
from cnerta.train.recipe import Source


def time_against_torchaudio(repeats: int) -> list[dict[str, Any]]:
    """Median times of both on random input, alternating."""
    import torch
    from torchaudio.functional import forced_align

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    rows = []
    for frames, length, batch in ((75, 12, 1), (250, 40, 1), (250, 40, 32)):
        scores = generator.normal(size=(batch, frames, 1 + length)).astype(np.float32)
        log_probabilities = scores - np.logaddexp.reduce(scores, axis=2, keepdims=True)
        ids = [np.arange(1, 1 + length)] * batch
        tensor = torch.from_numpy(log_probabilities)
        targets = torch.arange(1, 1 + length)[None]
        ours, theirs = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            align(log_probabilities, [frames] * batch, ids)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            for i in range(batch):  # it takes one utterance at a time
                forced_align(tensor[i : i + 1], targets)
            theirs.append(time.perf_counter() - began)
        rows.append(
            {
                "frames": frames,
                "characters": length,
                "batch": batch,
                "ours_ms": round(1000 * float(np.median(ours)) / batch, 3),
                "torchaudio_ms": round(1000 * float(np.median(theirs)) / batch, 3),
            }
        )
    return rows


def joined(
    words: list[Example], cache: AudioCache, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float32], str, list[tuple[float, float]]]:
    """Join words. Returns samples, text, and each word's known start and end in ms."""
    pieces: list[npt.NDArray[np.float32]] = []
    extents = []
    clock = 0
    for word in words:
        assert word.audio is not None
        samples = cache(word.audio)
        start, end = (int(ms * SAMPLE_RATE / 1000) for ms in loud_extent(samples))
        silence = int(generator.integers(50, 300)) * SAMPLE_RATE // 1000
        pieces += [np.zeros(silence, np.float32), samples[start:end]]
        extents.append((clock + silence, clock + silence + end - start))
        clock += silence + end - start
    pieces.append(np.zeros(SAMPLE_RATE // 5, np.float32))
    text = "".join(w.text for w in words)
    return np.concatenate(pieces), text, [(s / 16, e / 16) for s, e in extents]


def boundary_errors(model: Model, folder: Path, utterances: int) -> dict[str, Any]:
    """Mean absolute error of word boundaries, in ms."""
    examples = read_source(Source(format="words", path=folder.name), folder.parent)
    words = [e for e in examples if 2 <= len(e.text) <= 4]
    generator = np.random.default_rng(0)
    cache, geometry = AudioCache(), model.bundle.geometry
    errors: list[float] = []
    failed = 0
    for _ in range(utterances):
        chosen = [words[i] for i in generator.choice(len(words), 6, replace=False)]
        samples, text, known = joined(chosen, cache, generator)
        (tagged,) = model.tag([text], [model.encode_recording(samples)])
        if tagged.alignment is None:
            failed += 1
            continue
        first = 0
        for word, (start, end) in zip(chosen, known, strict=True):
            last = first + len(word.text) - 1
            found_start = geometry.frame_start_ms(int(tagged.alignment.starts[first]))
            found_end = geometry.frame_start_ms(int(tagged.alignment.ends[last]))
            errors += [abs(found_start - start), abs(found_end - end)]
            first = last + 1
    return {
        "utterances": utterances,
        "failed": failed,
        "mean_absolute_error_ms": round(float(np.mean(errors)), 1),
        "median_ms": round(float(np.median(errors)), 1),
        "p90_ms": round(float(np.percentile(errors, 90)), 1),
    }


def main(
    words: Annotated[Path | None, typer.Option(help="Folder of single-word recordings.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    utterances: Annotated[int, typer.Option(help="Joined utterances of six words.")] = 100,
    repeats: Annotated[int, typer.Option(help="Timed repeats.")] = 30,
) -> None:
    """Measure alignment."""
    for row in time_against_torchaudio(repeats):
        typer.echo(json.dumps(row))
    if words:
        model = Model.load(bundle or default_bundle_path(), device="cpu")
        typer.echo(json.dumps(boundary_errors(model, words, utterances)))


if __name__ == "__main__":
    typer.run(main)
