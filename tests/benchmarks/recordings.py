"""What having recordings at hand costs: decoded, from the cache, and as filter-bank energies.

    python tests/benchmarks/recordings.py FOLDER… [--clips 100] [--rounds 3]

For the recordings of each folder, as they are and rewritten as WAV: CPU seconds an hour of audio on
one core, the fastest of the rounds, which take turns. Beside them, what training does with an hour
of audio anyway: changing its speed, and one forward and backward pass of the acoustic encoder of
section 4.3 (batches of 16).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import torch
import typer

from cnerta.models.config import AcousticConfig
from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.train.data.audio import AudioCache, change_speed, read_audio
from cnerta.train.data.recordings import AUDIO_SUFFIXES, recording_seconds


def measure(files: list[Path], folder: Path, rounds: int) -> dict[str, float]:
    """CPU seconds of each way, for all files together."""
    for file in files:
        AudioCache(folder)(file)
    samples = [read_audio(f) for f in files]
    encoder = AcousticEncoder(AcousticConfig())
    bank = encoder.filter_bank

    def train() -> None:
        for first in range(0, min(len(samples), 32), 16):
            batch = samples[first : first + 16]
            longest = max(map(len, batch))
            padded = torch.from_numpy(np.stack([np.pad(s, (0, longest - len(s))) for s in batch]))
            frames, _ = encoder(padded, torch.tensor([len(s) for s in batch]), 16)
            frames.square().mean().backward()

    cache = AudioCache(folder)
    ways: dict[str, Callable[[], object]] = {
        "header": lambda: [soundfile.info(f) for f in files],
        "decode": lambda: [read_audio(f) for f in files],
        "from the cache": lambda: [cache(f) for f in files],
        "energies": lambda: [bank.energies(torch.from_numpy(s)[None]) for s in samples],
        "change of speed": lambda: [change_speed(s, 1.1) for s in samples],
        "encoder, there and back": train,
    }
    fastest = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            fastest[name] = min(fastest[name], time.process_time() - start)
    share = sum(map(len, samples[:32])) / sum(map(len, samples))
    fastest["encoder, there and back"] /= share
    return fastest


def main(
    folders: list[Path],
    clips: Annotated[int, typer.Option(help="Recordings of each folder.")] = 100,
    rounds: Annotated[int, typer.Option(help="The fastest counts.")] = 3,
) -> None:
    torch.set_num_threads(1)
    print("| recordings | CPU seconds an hour of audio |")
    print("|---|---|")
    for folder in folders:
        files = sorted(f for f in folder.iterdir() if f.suffix in AUDIO_SUFFIXES)[:clips]
        with tempfile.TemporaryDirectory() as temporary:
            rewritten = []
            for file in files:
                samples, rate = soundfile.read(file, dtype="int16")
                rewritten.append(Path(temporary) / f"{file.stem}.wav")
                soundfile.write(rewritten[-1], samples, rate)
            for kind in (files, rewritten):
                hours = sum(map(recording_seconds, kind)) / 3600
                found = measure(kind, Path(temporary) / "cache", rounds)
                figures = ", ".join(f"{n} {s / hours:.2f}" for n, s in found.items())
                print(f"| {folder.name}, {kind[0].suffix} | {figures} |")


if __name__ == "__main__":
    typer.run(main)
