"""Forced alignment: how long it takes, and how far character boundaries are off.

    python tests/benchmarks/alignment.py --words words_cmn/18k-abr/hsk --exact manifest.jsonl

Time: ours against ``torchaudio.functional.forced_align`` on the same log-probabilities, in one run.

Error, each for the frames' own times and for those that the sound's level has moved:

* Words: single-word recordings are cut to their loud part (within 35 dB of the loudest 10 ms) and
  joined with known silences, so the first and last character's outer boundaries of every word are
  known; the bundle aligns the joined audio with the joined text. With nothing at all in the
  silences, and with pink noise over everything, so much below the speech: digital silence is
  easily told from any sound, and no microphone gives it. Only every second word is taken: the
  others served to set the constants of ``cnerta.models.runtime.boundaries``.
* Exact: recordings with ``characters`` [[start_ms, end_ms], …] in their manifest, such as the
  synthesised voice's (``cnerta-train synthesise``), which tells its durations; every boundary
  counts. All together, and each speaker with at least 30 characters.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from cnerta.models.runtime.alignment import align
from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME, character_times, sound_levels
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.models.runtime.inference import Model
from cnerta.models.text.normalisation import normalise
from cnerta.train.batches.degrade import add_noise
from cnerta.train.batches.flat_start import loud_extent
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, read_source
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


@dataclass(slots=True)
class Errors:
    """Signed errors in ms, of starts and of ends."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, found: npt.NDArray[np.float64], known: Sequence[Sequence[float]]) -> None:
        """Compare found [start, end] with known ones. shape of each: (count, 2)."""
        off = np.asarray(found) - np.asarray(known)
        self.starts += off[:, 0].tolist()
        self.ends += off[:, 1].tolist()

    def row(self) -> dict[str, float]:
        off = np.abs(self.starts + self.ends)
        return {
            "mean_absolute_error_ms": round(float(off.mean()), 1),
            "median_ms": round(float(np.median(off)), 1),
            "p90_ms": round(float(np.percentile(off, 90)), 1),
            "starts_ms": round(float(np.abs(self.starts).mean()), 1),
            "ends_ms": round(float(np.abs(self.ends).mean()), 1),
            "starts_bias_ms": round(float(np.mean(self.starts)), 1),
            "ends_bias_ms": round(float(np.mean(self.ends)), 1),
        }


def times(
    model: Model, text: str, samples: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """[start, end] of each character by frames alone and by the sound's level; None: no path."""
    geometry = model.bundle.geometry
    padded = np.pad(samples, (0, -len(samples) % geometry.hop_samples))
    (tagged,) = model.tag([text], [model.encode_recording(samples)])
    found = tagged.alignment
    if found is None:
        return None
    none = np.zeros((0, LEVELS_PER_FRAME), np.float32)
    return (
        character_times(found, 0, none, geometry),
        character_times(found, 0, sound_levels(padded), geometry),
    )


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


def with_noise(
    samples: npt.NDArray[np.float32], below_db: float, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Add pink noise, so much below the mean power of what is not silent."""
    silence_db = 10 * float(np.log10(np.mean(samples != 0)))
    return add_noise(samples, below_db + silence_db, 1.0, generator)


def word_errors(model: Model, folder: Path, utterances: int) -> Iterator[dict[str, Any]]:
    """Errors at the outer boundaries of joined words."""
    examples = read_source(Source(format="words", path=folder.name), folder.parent)
    words = [e for e in examples if 2 <= len(e.text) <= 4][1::2]
    cache = AudioCache()
    for below_db in (None, 40, 25):
        generator = np.random.default_rng(0)
        by_frames, by_level = Errors(), Errors()
        failed = 0
        for _ in range(utterances):
            chosen = [words[i] for i in generator.choice(len(words), 6, replace=False)]
            samples, text, known = joined(chosen, cache, generator)
            if below_db is not None:
                samples = with_noise(samples, below_db, generator)
            found = times(model, text, samples)
            if found is None:
                failed += 1
                continue
            after = np.cumsum([len(w.text) for w in chosen])
            first = after - [len(w.text) for w in chosen]
            for errors, own in zip((by_frames, by_level), found, strict=True):
                errors.add(np.stack([own[first, 0], own[after - 1, 1]], axis=1), known)
        noise = "none" if below_db is None else f"{below_db} dB below"
        for method, errors in (("frames", by_frames), ("level", by_level)):
            yield {"words": 6 * utterances, "noise": noise, "failed": failed, "by": method} | (
                errors.row()
            )


def exact_errors(model: Model, manifest: Path) -> Iterator[dict[str, Any]]:
    """Errors at every boundary of recordings whose character times are known."""
    cache = AudioCache()
    speakers: dict[str, tuple[Errors, Errors]] = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = normalise(row["text"]).text
        found = times(model, text, cache(manifest.parent / row["audio"]))
        if found is None or len(text) != len(row["characters"]):
            continue
        for name in ("all", row.get("speaker", "unknown")):
            for errors, own in zip(
                speakers.setdefault(name, (Errors(), Errors())), found, strict=True
            ):
                errors.add(own, row["characters"])
    for name, both in speakers.items():
        if len(both[0].starts) < 30:
            continue
        for method, errors in zip(("frames", "level"), both, strict=True):
            yield {"speaker": name, "characters": len(errors.starts), "by": method} | errors.row()


def main(
    words: Annotated[Path | None, typer.Option(help="Folder of single-word recordings.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    exact: Annotated[Path | None, typer.Option(help="Manifest with character times.")] = None,
    utterances: Annotated[int, typer.Option(help="Joined utterances of six words.")] = 100,
    repeats: Annotated[int, typer.Option(help="Timed repeats.")] = 30,
) -> None:
    """Measure alignment."""
    for row in time_against_torchaudio(repeats):
        typer.echo(json.dumps(row))
    model = Model.load(find_bundle(bundle), device="cpu")
    for row in word_errors(model, words, utterances) if words else ():
        typer.echo(json.dumps(row))
    for row in exact_errors(model, exact) if exact else ():
        typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
