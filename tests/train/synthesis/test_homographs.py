from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis import homographs
from cnerta.train.synthesis.homograph_phrases import FAMILIES
from cnerta.train.synthesis.homographs import HomographPair, Reading, homograph_pairs
from cnerta.train.synthesis.marked_words import read_words

TRAIN = homograph_pairs(600, split="train")
DEV = homograph_pairs(200, split="dev")
BOTH = TRAIN + DEV

# Characters whose pronunciation may decide; everything else must sound the same in both readings.
DECISIVE_CHARACTERS = set("长乐曾查解盖应任种过召占纪折洗")


def boundaries(pair: HomographPair) -> tuple[set[int], set[int]]:
    found: list[set[int]] = []
    for reading in (pair.first, pair.second):
        offset = 0
        decisive: set[int] = set()
        for word in reading.words:
            offset += len(word.text)
            if word.following == "decisive":
                decisive.add(offset)
        found.append(decisive)
    return found[0], found[1]


def test_readings_share_the_text_and_differ_in_entities() -> None:
    for pair in BOTH:
        assert pair.first.text == pair.second.text == pair.text
        assert pair.first.entities != pair.second.entities
        assert len(pair.first.readings) == len(pair.second.readings) == len(pair.text)


def test_spans_lie_in_the_text_and_nest() -> None:
    for pair in BOTH:
        for entities in (pair.first.entities, pair.second.entities):
            assert entities == tuple(sorted(entities))
            assert len(set(entities)) == len(entities)
            for one in entities:
                assert 0 <= one.start < one.end <= len(pair.text)
                assert one.label in {"PER", "LOC", "ORG"}
                for other in entities:
                    crossing = one.start < other.start < one.end < other.end
                    assert not crossing, pair


def test_entities_end_where_words_do() -> None:
    """An entity that cut a word in two could not be heard in that reading."""
    for pair in BOTH:
        for reading in (pair.first, pair.second):
            edges = {0}
            offset = 0
            for word in reading.words:
                offset += len(word.text)
                edges.add(offset)
            outer = [
                s
                for s in reading.entities
                if not any(
                    o != s and o.start <= s.start and s.end <= o.end for o in reading.entities
                )
            ]
            for span in outer:
                assert {span.start, span.end} <= edges, (pair.identifier, span)


def test_what_differs_is_what_the_kind_says() -> None:
    for pair in BOTH:
        different = {
            character
            for character, one, other in zip(
                pair.text, pair.first.readings, pair.second.readings, strict=True
            )
            if one != other
        }
        if pair.kind == "paused":
            assert not different
            one, other = boundaries(pair)
            assert one != other, "without a pause in another place nothing tells the readings apart"
        else:
            assert different
            assert different <= DECISIVE_CHARACTERS


def test_splits_share_no_name_no_carrier_and_no_text() -> None:
    def names(pairs: tuple[HomographPair, ...]) -> set[str]:
        return {name for pair in pairs for name in pair.names}

    assert not names(TRAIN) & names(DEV)
    assert not {p.carrier for p in TRAIN} & {p.carrier for p in DEV}
    assert not {p.text for p in TRAIN} & {p.text for p in DEV}
    assert {p.split for p in TRAIN} == {"train"}
    assert {p.split for p in DEV} == {"dev"}


def test_splits_are_the_same_for_every_seed() -> None:
    other = homograph_pairs(300, seed=7, split="dev")
    trained = {name for pair in TRAIN for name in pair.names}
    assert not trained & {name for pair in other for name in pair.names}
    assert {p.text for p in other} != {p.text for p in DEV}


def test_every_family_is_in_both_splits() -> None:
    train, dev = Counter(p.family for p in TRAIN), Counter(p.family for p in DEV)
    assert set(train) == set(dev)
    assert len(train) >= 12
    assert min(train.values()) >= 20
    assert len(train) == len(set(train) & set(dev))


def test_pairs_are_distinct_and_repeatable() -> None:
    assert len({p.text for p in TRAIN}) == len(TRAIN)
    assert len({p.identifier for p in TRAIN}) == len(TRAIN)
    assert homograph_pairs(50, split="train") == TRAIN[:50]
    assert homograph_pairs(0) == ()


def test_annotation_follows_cnerta() -> None:
    """A city with 市 is one place beside the next; an organisation holds the place in its name."""
    by_family: dict[str, list[HomographPair]] = {}
    for pair in BOTH:
        by_family.setdefault(pair.family, []).append(pair)
    for pair in by_family["mayor"]:
        area, place, person = pair.names
        start = pair.text.index(area)
        first = set(pair.first.entities)
        assert Span(start, start + len(area) + 1, "LOC") in first
        assert Span(start, start + len(area), "LOC") not in first
        begin = pair.text.index(place)
        assert Span(begin, begin + len(place), "LOC") in first
        assert pair.second.entities == (
            Span(start, start + len(area), "LOC"),
            Span(begin + 1, begin + 1 + len(person), "PER"),
        )
    for pair in by_family["company"]:
        area, industry, _ = pair.names
        start = pair.text.index(area + industry)
        assert pair.first.entities == (
            Span(start, start + len(area), "LOC"),
            Span(start, start + len(area + industry), "ORG"),
        )
        assert pair.second.entities == (Span(start, start + len(area), "LOC"),)


def test_the_mayor_is_said_zhang_and_the_river_chang() -> None:
    for pair in BOTH:
        if pair.family in ("mayor", "chief", "downtown"):
            at = pair.text.index(pair.names[1])
            assert pair.text[at] == "长"
            assert (pair.first.readings[at], pair.second.readings[at]) == ("chang2", "zhang3")


def test_notation() -> None:
    words = read_words("南京/市长(shi4 zhang3)|180江大桥")
    assert [(w.text, w.pinyin, w.following, w.pause_ms) for w in words] == [
        ("南京", ("nan2", "jing1"), "optional", None),
        ("市长", ("shi4", "zhang3"), "decisive", 180.0),
        ("江大桥", ("jiang1", "da4", "qiao2"), "none", None),
    ]
    assert read_words("") == ()


@pytest.mark.parametrize(
    ("marked", "complaint"),
    [
        ("南京abc", "expected a Chinese word"),
        ("南京(nan2)", "expected 2 syllables"),
        ("|南京", "expected a Chinese word"),
    ],
)
def test_bad_notation_is_refused(marked: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_words(marked)


def test_more_pairs_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    roads = tuple(f for f in FAMILIES if f.__name__ == "_road")
    monkeypatch.setattr(homographs, "FAMILIES", roads)
    with pytest.raises(DataError, match="expected 5000 homograph pairs"):
        homograph_pairs(5000, split="dev")


# --- what a seed gives is kept: recordings were made from it --------------------------------------


def plain_values(pair: HomographPair) -> list[Any]:
    """All of a pair but the pronunciations, of which pypinyin's dictionary may change some."""
    sides = [
        [*([w.text, w.following, w.pause_ms] for w in reading.words), *entities(reading)]
        for reading in (pair.first, pair.second)
    ]
    return [pair.identifier, pair.kind, list(pair.names), pair.carrier, *sides]


def entities(reading: Reading) -> list[list[Any]]:
    return [[s.start, s.end, s.label] for s in reading.entities]


def marked(reading: Reading) -> str:
    marks = {"none": "", "optional": "/", "decisive": "|"}
    return " ".join(f"{w.text}({' '.join(w.pinyin)}){marks[w.following]}" for w in reading.words)


@pytest.mark.parametrize(
    ("split", "seed", "count", "digest"),
    [
        ("train", 0, 1100, "ee4ea3c3107aaf61"),
        ("dev", 0, 40, "edf715f8797f5c3c"),
        ("train", 1, 700, "26db20c7f9db6617"),
        ("train", 5, 800, "d8bf71537d71ff3c"),
    ],
)
def test_a_seed_gives_what_it_always_gave(
    split: homographs.Split, seed: int, count: int, digest: str
) -> None:
    pairs = homograph_pairs(count, seed=seed, split=split)
    content = json.dumps([plain_values(p) for p in pairs], ensure_ascii=False)
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == digest


def test_the_first_pairs_are_the_kept_ones() -> None:
    def pairs() -> Iterator[HomographPair]:
        yield from homograph_pairs(26)
        yield from homograph_pairs(13, split="dev")
        yield from homograph_pairs(13, seed=5)

    kept = json.loads((Path(__file__).parent / "first_homographs.json").read_bytes())
    assert len(kept) == 52
    for pair, row in zip(pairs(), kept, strict=True):
        assert row == {
            "identifier": pair.identifier,
            "carrier": pair.carrier,
            "names": list(pair.names),
            "first": marked(pair.first),
            "first_entities": entities(pair.first),
            "second": marked(pair.second),
            "second_entities": entities(pair.second),
        }
