"""What batching the Lattice-LSTM gains, in training and in inference.

    python tests/benchmarks/lattice.py --data text/cnerta_dev20.json

Three ways to compute the same from the same weights, checked against each other before anything is
timed, then timed in turn on the same batches (sentences of similar length, as training has them):

* ``batched``: `cnerta.models.networks.lattice.encoder`, one step a character for the whole batch.
* ``one at a time``: the same code, a sentence a call.
* ``published``: the scheme of the published implementation (Zhang and Yang 2018): a sentence at a
  time, a loop over its characters, once for each direction; the words that begin at a character
  are computed together when it is reached and wait at the characters where they end. The input's
  share of the character gates is computed for the whole sentence at once, which is kinder to it.

Training is forward and backward; its loss is the sum of the output. Times are those of the CPU, on
one thread, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from cnerta.models.config import TextConfig
from cnerta.models.networks.lattice.encoder import LatticeEncoder
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.lexicon import pad_matches, read_lexicon
from cnerta.train.data.examples import normalise_example, read_examples
from cnerta.train.data.word_lists import lexicon_paths

Inputs = tuple[Tensor, Tensor, Tensor]
"""Characters, counts and matches."""


def published(
    encoder: LatticeEncoder, characters: Tensor, matches: Sequence[Sequence[int]]
) -> Tensor:
    """One sentence. Returns shape: (length, width)."""
    x = encoder.embedding(characters)
    words = [(s, e - 1, w) for s, e, w in matches if w and e - s > 1]
    last = len(characters) - 1
    ahead = _one_way(encoder, 0, x, words)
    turned = [(last - e, last - s, w) for s, e, w in words]
    behind = _one_way(encoder, 1, x.flip(0), turned).flip(0)
    return torch.cat([ahead, behind], dim=1)


def _one_way(
    encoder: LatticeEncoder, way: int, x: Tensor, words: Sequence[tuple[int, int, int]]
) -> Tensor:
    lattice = encoder.lattice
    n = lattice.size
    from_x = torch.addmm(lattice.character_bias[way], x, lattice.character_weight[way])
    to_character = lattice.state_weight[way][:, : 4 * n]
    to_word = lattice.state_weight[way][:, 4 * n :]
    beginning: list[list[tuple[int, int]]] = [[] for _ in range(len(x))]
    for start, end, word in words:
        beginning[start].append((end, word))
    ending: list[list[Tensor]] = [[] for _ in range(len(x))]
    h, c = x.new_zeros(1, n), x.new_zeros(1, n)
    hidden = []
    for place, waiting in enumerate(ending):
        gates = torch.addmm(from_x[place : place + 1, : 4 * n], h, to_character)
        i, o, f = gates[:, : 3 * n].sigmoid().chunk(3, dim=1)
        candidate = gates[:, 3 * n :].tanh()
        if waiting:
            cells = torch.cat(waiting)
            into = from_x[place : place + 1, 4 * n :].expand(len(cells), n)
            heard = torch.addmm(into, cells, lattice.cell_weight[way]).sigmoid()
            weights = torch.cat([i, heard]).exp()
            c = (torch.cat([candidate, cells]) * weights / weights.sum(dim=0)).sum(
                dim=0, keepdim=True
            )
        else:
            c = f * c + i * candidate
        h = o * c.tanh()
        hidden.append(h)
        if beginning[place]:
            ids = torch.tensor([word for _, word in beginning[place]])
            embedded = encoder.words(ids)
            own = torch.addmm(lattice.word_bias[way], embedded, lattice.word_weight[way])
            own = own + h @ to_word
            word_i, word_f = own[:, : 2 * n].sigmoid().chunk(2, dim=1)
            cells = word_f * c + word_i * own[:, 2 * n :].tanh()
            for cell, (end, _) in zip(cells.split(1), beginning[place], strict=True):
                ending[end].append(cell)
    return torch.cat(hidden)


def ways(encoder: LatticeEncoder) -> dict[str, Callable[[Inputs], list[Tensor]]]:
    """The three ways; each gives the representation of every sentence of a batch."""

    def batched(inputs: Inputs) -> list[Tensor]:
        characters, counts, matches = inputs
        encoded = encoder(characters, counts, matches)
        return [row[:n] for row, n in zip(encoded, counts.tolist(), strict=True)]

    def one_at_a_time(inputs: Inputs) -> list[Tensor]:
        return [
            encoder(row[None, :n], torch.tensor([n]), found[None])[0]
            for row, n, found in zip(inputs[0], inputs[1].tolist(), _own(inputs[2]), strict=True)
        ]

    def as_published(inputs: Inputs) -> list[Tensor]:
        return [
            published(encoder, row[:n], found.tolist())
            for row, n, found in zip(inputs[0], inputs[1].tolist(), _own(inputs[2]), strict=True)
        ]

    return {"batched": batched, "one at a time": one_at_a_time, "published": as_published}


def _own(matches: Tensor) -> list[Tensor]:
    return [row[row[:, 2] > 0] for row in matches]


def check(encoder: LatticeEncoder, inputs: Inputs) -> None:
    """All ways must give the same, or there is nothing to compare."""
    with torch.no_grad():
        results = [torch.cat(way(inputs)) for way in ways(encoder).values()]
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-4, rtol=1e-4)


def measure(
    encoder: LatticeEncoder, batches: Sequence[Inputs], *, training: bool
) -> dict[str, list[float]]:
    """CPU seconds of each way for each batch, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways(encoder)}
    for inputs in batches:
        for name, way in ways(encoder).items():
            encoder.zero_grad(set_to_none=True)
            began = time.process_time()
            with torch.set_grad_enabled(training):
                encoded = way(inputs)
                if training:
                    torch.cat(encoded).sum().backward()
            seconds[name].append(time.process_time() - began)
    return seconds


def main(
    data: Annotated[Path, typer.Option(help="Sentences, as CNERTA's JSON lines.")],
    lexicon: Annotated[str, typer.Option(help="As model.text.lexicon.")] = "jieba",
    sizes: Annotated[str, typer.Option(help="Sentences of a batch.")] = "1,16,64",
    batches: Annotated[int, typer.Option(help="Batches of each size.")] = 12,
    hidden: Annotated[int, typer.Option(help="Of the lattice, both directions.")] = 300,
) -> None:
    """Measure the Lattice-LSTM."""
    torch.set_num_threads(1)
    texts = sorted({normalise_example(e).text for e in read_examples(data)} - {""}, key=len)
    config = TextConfig("lattice", lexicon=lexicon, hidden=hidden, dropout=0.0)
    words = read_lexicon(lexicon_paths(config, Path())).counted(texts)
    vocabulary = Vocabulary.build("".join(texts))
    torch.manual_seed(0)
    encoder = LatticeEncoder(config, len(vocabulary), words)
    generator = np.random.default_rng(0)
    for size in map(int, sizes.split(",")):
        chosen = []
        for first in generator.integers(0, max(1, len(texts) - size), batches).tolist():
            rows = texts[first : first + size]
            characters = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
            for row, text in zip(characters, rows, strict=True):
                row[: len(text)] = torch.from_numpy(vocabulary.encode(text))
            counts = torch.tensor([len(t) for t in rows])
            matches = torch.from_numpy(pad_matches([words.match(t) for t in rows]))
            chosen.append((characters, counts, matches))
        check(encoder, chosen[0])
        measure(encoder, chosen[:1], training=True)
        for training in (True, False):
            seconds = measure(encoder, chosen, training=training)
            row = {
                "task": "training" if training else "inference",
                "batch": size,
                "characters": round(
                    float(np.mean([float(c[1].float().mean()) for c in chosen])), 1
                ),
                "words": round(
                    float(np.mean([(c[2][..., 2] > 0).sum() / size for c in chosen])), 1
                ),
            }
            for name, values in seconds.items():
                row[f"{name}, ms a sentence"] = round(1000 * float(np.median(values)) / size, 2)
            for name in ("one at a time", "published"):
                ratios = np.array(seconds[name]) / np.array(seconds["batched"])
                row[f"times as fast as {name}"] = round(float(np.median(ratios)), 2)
            typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
