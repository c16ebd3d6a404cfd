"""Names of training texts are exchanged for others, and their annotation with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
soundfile = pytest.importorskip("soundfile")

from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.train.batches.batch import plan_epoch  # noqa: E402
from cnerta.train.batches.mentions import Mentions  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.recipe import Source, Stage  # noqa: E402

ROAD = Example("他住在济阳路", (Span(3, 5, "LOC"), Span(3, 6, "LOC")))
EXAMPLES = [
    ROAD,
    Example("解放路很长", (Span(0, 3, "LOC"),)),
    Example("王小明去长葛", (Span(0, 3, "PER"), Span(4, 6, "LOC"))),
    Example("李白来了", (Span(0, 2, "PER"),)),
    Example("没有名字", ()),
    Example("没有标注", None),
]


def exchanged(example: Example, probability: float = 0.5) -> set[Example]:
    generator = np.random.default_rng(0)
    mentions = Mentions(EXAMPLES)
    return {mentions.exchanged(example, probability, generator) for _ in range(200)}


def test_names_are_exchanged_whole_or_inside() -> None:
    found = {e.text: e.spans for e in exchanged(ROAD)}
    assert found == {
        "他住在济阳路": ROAD.spans,
        "他住在长葛路": (Span(3, 5, "LOC"), Span(3, 6, "LOC")),
        "他住在解放路": (Span(3, 6, "LOC"),),
    }


def test_only_for_others_of_the_type_and_length() -> None:
    (person,) = exchanged(EXAMPLES[3])
    assert person == EXAMPLES[3], "there is no other of two characters"
    places = {e.text for e in exchanged(EXAMPLES[2])}
    assert places == {"王小明去长葛", "王小明去济阳"}


def test_what_annotators_disagree_on_is_as_most_have_it() -> None:
    flat = replace(ROAD, spans=(Span(3, 6, "LOC"),))
    mentions = Mentions([ROAD, flat, flat, EXAMPLES[1]])
    generator = np.random.default_rng(0)
    found = {mentions.exchanged(EXAMPLES[1], 1.0, generator) for _ in range(50)}
    assert {e.text: e.spans for e in found} == {
        "解放路很长": (Span(0, 3, "LOC"),),
        "济阳路很长": (Span(0, 3, "LOC"),),
    }


@pytest.mark.parametrize("example", EXAMPLES[4:])
def test_texts_without_names_stay(example: Example) -> None:
    assert exchanged(example, 1.0) == {example}


def test_readings_of_another_name_are_not_kept() -> None:
    read = replace(EXAMPLES[2], readings=("wang2", "xiao3", "ming2", "qu4", "chang2", "ge3"))
    generator = np.random.default_rng(0)
    mentions = Mentions(EXAMPLES)
    for _ in range(20):
        other = mentions.exchanged(read, 0.5, generator)
        assert (other.readings is None) == (other.text != read.text)


def test_spoken_sentences_cannot_be_exchanged() -> None:
    spoken = replace(ROAD, audio=Path("x.wav"))
    with pytest.raises(AssertionError):
        Mentions(EXAMPLES).exchanged(spoken, 1.0, np.random.default_rng(0))


def test_an_epoch_has_other_names(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(8_000), 16_000)
    spoken = replace(ROAD, audio=tmp_path / "x.wav")
    source = Source(format="manifest", path="x", repeat=50)
    stage = Stage(name="s", task="entities", train=["x"], dev=[], epochs=1, exchange_names=0.5)
    given = [(source, [spoken, *EXAMPLES])]
    generator = np.random.default_rng(0)
    plan = plan_epoch(given, stage, AudioCache(), generator, Mentions(EXAMPLES))
    clips = [clip for batch in plan for clip in batch]
    assert len(clips) == 50 * (1 + len(EXAMPLES))
    assert {e for (e,) in clips if e.audio} == {spoken}
    written = {e.text for (e,) in clips if not e.audio}
    assert {"他住在长葛路", "他住在解放路", "王小明去济阳"} < written
    plain = plan_epoch(given, stage, AudioCache(), np.random.default_rng(0))
    assert {e for batch in plain for (e,) in batch} == {spoken, *EXAMPLES}
