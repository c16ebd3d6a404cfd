"""What figures and traditional characters cost: F1 of a bundle on a text and on ways to write it.

    python tests/benchmarks/normalisation.py --data cnerta_dev20.json --bundle fast

The sentences are as spoken. They are scored as they are; with numbers written as a recogniser
writes them (years, percentages, times, numbers of two figures and more); in traditional characters;
and with both, in the characters of Taiwan. Text alone, no audio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import opencc
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span, outermost
from cnerta.train.data.examples import Example, read_examples
from cnerta.train.evaluation.bundle_answers import bundle_predictions

FIGURES: Final = "零一二三四五六七八九"
NUMBERS: Final = re.compile(
    rf"百分之(?P<share>[{FIGURES}十百]+)(?:点(?P<rest>[{FIGURES}]+))?"
    rf"|(?P<year>[{FIGURES}]{{4}})(?=年)"
    rf"|(?P<hour>[{FIGURES}十]+)点(?P<minute>[{FIGURES}十]+)分"
    rf"|(?P<number>[{FIGURES}十两][{FIGURES}十百千]+)"
)


def figures(said: str) -> str:
    """A number in figures."""
    if set(said) <= set(FIGURES):
        return "".join(str(FIGURES.index(c)) for c in said)
    total = figure = 0
    for character in said:
        if character in FIGURES:
            figure = FIGURES.index(character)
        elif character == "两":
            figure = 2
        else:
            total += (figure or 1) * {"十": 10, "百": 100, "千": 1000}[character]
            figure = 0
    return str(total + figure)


def written(match: re.Match[str]) -> str:
    """How a recogniser writes a number."""
    if match["share"]:
        rest = f".{figures(match['rest'])}" if match["rest"] else ""
        return f"{figures(match['share'])}{rest}%"
    if match["hour"]:
        return f"{figures(match['hour'])}:{figures(match['minute']):0>2}"
    return figures(match["year"] or match["number"])


def with_figures(example: Example) -> Example:
    """The example with its numbers written; entities cover whatever they touch of one."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = length = 0
    for match in NUMBERS.finditer(example.text):
        for start, end, piece in (
            *((i, i + 1, example.text[i]) for i in range(at, match.start())),
            (match.start(), match.end(), written(match)),
        ):
            pieces.append(piece)
            starts += [length] * (end - start)
            length += len(piece)
            ends += [length] * (end - start)
        at = match.end()
    rest = len(example.text) - at
    pieces.append(example.text[at:])
    starts += range(length, length + rest)
    ends += range(length + 1, length + rest + 1)
    spans = {Span(starts[s.start], ends[s.end - 1], s.label) for s in example.spans or ()}
    return replace(example, text="".join(pieces), spans=tuple(sorted(spans)))


def with_characters(standard: str) -> Callable[[Example], Example]:
    """Examples in traditional characters, where each stands for one."""
    converter = opencc.OpenCC(standard)

    def convert(example: Example) -> Example:
        text = converter.convert(example.text)
        return replace(example, text=text) if len(text) == len(example.text) else example

    return convert


def score(gold: Sequence[Sequence[Span]], found: Sequence[Sequence[Span]]) -> float:
    """F1 in percent."""
    right = sum(len(set(g) & set(f)) for g, f in zip(gold, found, strict=True))
    return 200 * right / sum(len(set(spans)) for spans in [*gold, *found])


def main(
    data: Annotated[Path, typer.Option(help="CNERTA's JSON lines, or a manifest.")],
    bundle: Annotated[Path, typer.Option(help="A folder, or fast or accurate.")] = Path("fast"),
) -> None:
    """Print F1 for each way to write the text."""
    model = Model.load(find_bundle(bundle), device="cpu")
    examples = read_examples(data)
    taiwan = with_characters("s2tw")
    ways: dict[str, Callable[[Example], Example]] = {
        "as spoken": lambda example: example,
        "figures": with_figures,
        "traditional": with_characters("s2t"),
        "figures, traditional (Taiwan)": lambda example: taiwan(with_figures(example)),
    }
    for name, way in ways.items():
        changed = [way(e) for e in examples]
        gold = [list(e.spans or ()) for e in changed]
        found = list(bundle_predictions(model, changed, use_audio=False))
        flat = score([outermost(g) for g in gold], [outermost(f) for f in found])
        other = sum(a.text != b.text for a, b in zip(examples, changed, strict=True))
        print(
            f"{name}: {other} sentences changed, flat {flat:.2f}, nested {score(gold, found):.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
