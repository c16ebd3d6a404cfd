"""A little corpus of pure tones in which only the audio tells what a sentence means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

# Four "syllables"; 长 has two, and which one it is decides the entity.
TONES = {"nan2": 300, "shi4": 500, "chang2": 900, "zhang3": 1600}
RECIPE = """
name = "tones"
[augmentation]
speeds = [1.0]
[model.acoustic]
mel_bins = 40
conv_channels = 8
width = 32
layers = 1
heads = 2
feed_forward = 64
dropout = 0.0
[model.text]
embedding = 8
hidden = 16
dropout = 0.1
[model.fusion]
width = 32
heads = 2
feed_forward = 64
guided = true
pause_context = 2
context = 16
[model.ctc]
units = "pronunciations"
[data.tones]
format = "manifest"
path = "tones.jsonl"
[[stages]]
name = "acoustic"
task = "acoustic"
train = ["tones"]
dev = ["tones"]
epochs = 15
batch_size = 4
learning_rate = 0.005
warmup_steps = 5
[[stages]]
name = "tag"
task = "entities"
train = ["tones"]
dev = ["tones"]
epochs = 15
batch_size = 4
learning_rate = 0.01
warmup_steps = 5
"""


def write_tones(folder: Path) -> Path:
    """Write ``tones.jsonl``, its recordings and ``recipe.toml``."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(16):
        readings = ["nan2", "shi4", "chang2" if i % 2 else "zhang3"]
        pieces, times, clock = [], [], 0.0
        for reading in readings:
            seconds = 0.2 + 0.04 * generator.integers(0, 3)
            ticks = np.arange(int(seconds * 16_000)) / 16_000
            pieces.append(0.3 * np.sin(2 * np.pi * TONES[reading] * ticks))
            times.append([clock, clock + 1000 * seconds])
            clock += 1000 * seconds
        soundfile.write(folder / f"{i}.wav", np.concatenate(pieces), 16_000)
        entities = [[0, 3, "南市长", "LOC"]] if i % 2 else [[0, 1, "南", "LOC"]]
        row = {"audio": f"{i}.wav", "text": "南市长", "entities": entities}
        rows.append(row | {"characters": times, "readings": readings})
    (folder / "tones.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder
