"""What a glossary finds, and what it wrongly finds: F1, recall of misspelt names, false alarms.

    python tests/benchmarks/glossary.py --data cnerta_dev20.json --names aishell_ner_clean.jsonl

Text alone, no audio. For each setting of the strengths (written, sounds so, sounds so but for
tones; the last one is so strong that whatever is found is tagged, as laying the names over the
decoded answer would):

* ``alarms``: entities that are not in the annotation and were not found without a glossary, for
  each thousand sentences, with 100 names that are in no annotation of the data; five draws from
  the entities of ``--names``, and one of persons of two characters only (the worst case); beside
  it F1 (nested) with these glossaries;
* ``known``: F1 where each sentence's own entities are in the glossary, together with 100 others;
* ``misspelt``: of entities (all, and those of three and more characters) of which one character was
  exchanged for a homophone (drawn by frequency; same tone, or another), how many are found exactly,
  with and without them and 100 others in the glossary; and what their mean confidence is.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.decoding import ScoredSpan
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.streamer.session.names.glossary import Glossary, GlossaryName, Strengths
from cnerta.train.data.examples import read_examples

SETTINGS: Final = (
    Strengths(),
    Strengths(inner=0.0),
    Strengths(inner=0.5),
    Strengths(4, 4, 3, inner=0.0),
    Strengths(14, 14, 12, inner=0.0),
    Strengths(40, 40, 40, inner=0.0),
)
BATCH: Final = 32
OTHERS: Final = 100
MISSPELT: Final = 1200
RARE: Final = 50


@dataclass(frozen=True)
class Misspelt:
    """A sentence with one wrong character in an entity."""

    text: str
    span: Span
    name: GlossaryName
    keeps_tone: bool


class Homophones:
    """Characters that sound like a character, as frequent as they are."""

    def __init__(self, model: Model, texts: Sequence[str]) -> None:
        self.vocabulary = model.bundle.vocabulary
        self.frequency = Counter("".join(texts))
        self.by_sound: dict[str, list[str]] = defaultdict(list)
        for character in self.vocabulary.characters:
            if self.frequency[character] >= RARE:
                for sound in self.sounds(character):
                    self.by_sound[sound].append(character)
                for sound in sorted({s[:-1] for s in self.sounds(character)}):
                    self.by_sound[sound].append(character)

    def sounds(self, character: str) -> list[str]:
        units = self.vocabulary.units_of(int(self.vocabulary.encode(character)[0]))
        return sorted({self.vocabulary.units[u] for u in units})

    def another(self, character: str, keeps_tone: bool, generator: random.Random) -> str | None:
        own = self.sounds(character)
        keys = own if keeps_tone else sorted({s[:-1] for s in own})
        pool = sorted({c for key in keys for c in self.by_sound[key]} - {character})
        if not keeps_tone:
            pool = [c for c in pool if not set(self.sounds(c)) & set(own)]
        if not pool:
            return None
        return generator.choices(pool, [self.frequency[c] for c in pool])[0]


def answers(
    model: Model,
    texts: Sequence[str],
    glossaries: Sequence[Glossary | None],
    without: Sequence[tuple[ScoredSpan, ...]] | None = None,
) -> list[tuple[ScoredSpan, ...]]:
    """What the model says of each text with its glossary.

    Args:
        model: The model.
        texts: The texts.
        glossaries: That of each.
        without: What it says without any, taken where the glossary finds nothing.
    """
    silence = np.zeros((0, model.bundle.geometry.width), np.float32)
    hints = [
        [] if glossary is None else [glossary.hint(m) for m in glossary.find(text)]
        for text, glossary in zip(texts, glossaries, strict=True)
    ]
    found = list(without) if without is not None else [()] * len(texts)
    open_ = [i for i, hinted in enumerate(hints) if hinted or without is None]
    open_.sort(key=lambda i: len(texts[i]))
    for start in range(0, len(open_), BATCH):
        batch = open_[start : start + BATCH]
        tagged = model.tag(
            [texts[i] for i in batch], [silence] * len(batch), [hints[i] for i in batch]
        )
        for i, each in zip(batch, tagged, strict=True):
            found[i] = each.spans
    return found


def f1(gold: Sequence[set[Span]], found: Sequence[Sequence[ScoredSpan]]) -> float:
    """F1 in percent."""
    right = sum(len(g & {s.span for s in f}) for g, f in zip(gold, found, strict=True))
    return 200 * right / (sum(map(len, gold)) + sum(map(len, found)))


def main(
    data: Annotated[Path, typer.Option(help="CNERTA's JSON lines.")],
    names: Annotated[Path, typer.Option(help="The same, for names that are not in the data.")],
    bundle: Annotated[Path, typer.Option(help="A folder, or fast or accurate.")] = Path("fast"),
) -> None:
    """Print a line for each setting."""
    model = Model.load(find_bundle(bundle), device="cpu")
    generator = random.Random(0)
    examples = read_examples(data)
    texts, gold = [e.text for e in examples], [set(e.spans or ()) for e in examples]
    known = {t[s.start : s.end] for t, spans in zip(texts, gold, strict=True) for s in spans}
    rows = [json.loads(line) for line in names.open(encoding="utf-8")]
    entities = {(text, label) for row in rows for _, _, text, label in row["entity"]}
    others = [
        GlossaryName(text, label)
        for text, label in sorted(entities)
        if 2 <= len(text) <= 8 and text not in known
    ]
    drawn = [generator.sample(others, OTHERS) for _ in range(5)]
    short = [n for n in others if len(n.text) == 2 and n.label == "PER"]
    drawn.append(generator.sample(short, OTHERS))

    homophones = Homophones(model, [row["sentence"] for row in rows])
    misspelt: list[Misspelt] = []
    for text, spans in zip(texts, gold, strict=True):
        for span in sorted(spans):
            for keeps_tone in (True, False):
                at = generator.randrange(span.start, span.end)
                other = homophones.another(text[at], keeps_tone, generator)
                if other is not None and span.end - span.start > 1:
                    name = GlossaryName(text[span.start : span.end], span.label)
                    wrong = text[:at] + other + text[at + 1 :]
                    misspelt.append(Misspelt(wrong, span, name, keeps_tone))
    misspelt = generator.sample(misspelt, MISSPELT)

    def recall(found: Sequence[Sequence[ScoredSpan]], keeps_tone: bool, least: int = 0) -> float:
        hits = [
            any(s.span == m.span for s in f)
            for m, f in zip(misspelt, found, strict=True)
            if m.keeps_tone == keeps_tone and m.span.end - m.span.start >= least
        ]
        return 100 * sum(hits) / len(hits)

    wrong_texts = [m.text for m in misspelt]
    base = answers(model, texts, [None] * len(texts))
    without = answers(model, wrong_texts, [None] * len(misspelt))
    print(
        f"no glossary: F1 {f1(gold, base):.2f}; misspelt {recall(without, True):.1f} "
        f"(same tone), {recall(without, False):.1f} (another); of three and more characters "
        f"{recall(without, True, 3):.1f}, {recall(without, False, 3):.1f}",
        flush=True,
    )
    for strengths in SETTINGS:
        alarms: list[str] = []
        for draw in drawn:
            glossary = Glossary(draw, model.bundle.vocabulary, strengths)
            found = answers(model, texts, [glossary] * len(texts), base)
            new = sum(
                len({s.span for s in f} - {s.span for s in b} - g)
                for f, b, g in zip(found, base, gold, strict=True)
            )
            alarms.append(f"{1000 * new / len(texts):.1f} ({f1(gold, found):.2f})")
        own = [
            Glossary(
                [GlossaryName(t[s.start : s.end], s.label) for s in sorted(spans)] + drawn[0],
                model.bundle.vocabulary,
                strengths,
            )
            for t, spans in zip(texts, gold, strict=True)
        ]
        right = f1(gold, answers(model, texts, own, base))
        expected = [
            Glossary([m.name, *drawn[0]], model.bundle.vocabulary, strengths) for m in misspelt
        ]
        corrected = answers(model, wrong_texts, expected, without)
        hinted = [
            (s.confidence, s.span == m.span)
            for m, f in zip(misspelt, corrected, strict=True)
            for s in f
            if s.label == m.span.label and (s.start, s.end) == (m.span.start, m.span.end)
        ]
        print(
            f"{strengths}: alarms {', '.join(alarms)}; known {right:.2f}; misspelt "
            f"{recall(corrected, True):.1f}, {recall(corrected, False):.1f}; of three and more "
            f"characters {recall(corrected, True, 3):.1f}, {recall(corrected, False, 3):.1f}; mean "
            f"confidence of those {np.mean([c for c, _ in hinted]):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
