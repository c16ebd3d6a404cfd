from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnerta.models.runtime.labels import Span
from cnerta.train.evaluation.breakdown import break_down, compare, known_entities
from cnerta.train.evaluation.differences import (
    differences_document,
    find_differences,
    mark_entities,
)
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.report import Other, make_report, write_report

TEXT = "北京大学的李明在南京"
UNIVERSITY, CITY = Span(0, 4, "ORG"), Span(0, 2, "LOC")
PERSON, SOUTH = Span(5, 7, "PER"), Span(8, 10, "LOC")
GOLD = (CITY, UNIVERSITY, PERSON, SOUTH)
KNOWN = known_entities([("在北京的北京大学", [Span(1, 3, "LOC"), Span(4, 8, "ORG")])])


def sentence(*found: Span) -> Prediction:
    return Prediction(TEXT, found, GOLD)


def test_scores_are_taken_apart() -> None:
    wrong_type, inside = Span(5, 7, "ORG"), Span(8, 9, "LOC")
    found = [sentence(UNIVERSITY, CITY, wrong_type, SOUTH, inside), sentence(UNIVERSITY, SOUTH)]
    nested = break_down(found, flat=False, known=KNOWN)
    assert (nested.scores.correct, nested.scores.predicted, nested.scores.gold) == (5, 7, 8)
    assert {t: (s.correct, s.predicted, s.gold) for t, s in nested.types.items()} == {
        "LOC": (3, 4, 4), "ORG": (2, 3, 2), "PER": (0, 0, 2),
    }  # fmt: skip
    assert nested.types["PER"].missed == 1, "the other one is a type error"
    assert nested.seen is not None
    assert nested.unseen is not None
    # 北京 LOC and 北京大学 ORG are known; 李明 is not, and as ORG not either.
    assert (nested.seen.correct, nested.seen.predicted, nested.seen.gold) == (3, 3, 4)
    assert (nested.unseen.correct, nested.unseen.predicted, nested.unseen.gold) == (2, 4, 4)
    outer, inner = nested.depths
    assert (outer.gold, outer.found, outer.predicted, outer.right) == (6, 4, 5, 4)
    # 南 LOC lies inside 南京 only among what was predicted.
    assert (inner.gold, inner.found, inner.predicted, inner.right) == (2, 1, 2, 1)
    assert (inner.precision, inner.recall) == (50.0, 50.0)
    assert nested.confusions == (("PER", "ORG", 1),)
    low, high = nested.interval
    assert low <= nested.scores.f1 <= high

    flat = break_down(found, flat=True)
    assert (flat.scores.correct, flat.scores.predicted, flat.scores.gold) == (4, 5, 6)
    assert (flat.seen, flat.unseen) == (None, None)
    assert [d.depth for d in flat.depths] == [0]


def test_a_word_of_another_type_in_training_is_unseen() -> None:
    other_type = known_entities([("南京", [Span(0, 2, "ORG")])])
    broken = break_down([sentence(SOUTH)], flat=False, known=other_type)
    assert broken.seen is not None
    assert broken.seen.gold == 0


def test_two_models_are_compared_on_the_same_sentences() -> None:
    ours = [sentence(*GOLD)] * 5
    theirs = [sentence(CITY, UNIVERSITY)] * 5
    difference = compare(ours, theirs, flat=False)
    assert difference.value == pytest.approx(100 - 200 * 2 / 6)
    assert (difference.low, difference.high) == pytest.approx((difference.value,) * 2)
    with pytest.raises(ValueError, match="same sentences"):
        compare(ours, [*theirs[:4], Prediction("南京", (), ())], flat=False)
    with pytest.raises(ValueError, match="predictions of '北京大学的李明在南京'"):
        find_differences([sentence()], [Prediction("南京", (), ())])


def test_entities_are_marked_where_they_are() -> None:
    assert mark_entities(TEXT, GOLD) == "[[北京]LOC 大学]ORG 的[李明]PER 在[南京]LOC"
    wrong = Span(8, 10, "ORG")
    assert mark_entities(TEXT, (PERSON, wrong), GOLD) == "北京大学的[李明]**PER** 在[南京]~~ORG~~"
    # Crossing ones close in the order of their ends; what means something in Markdown is escaped.
    assert mark_entities("a|b*", (Span(0, 2, "A"), Span(1, 4, "B"))) == r"[a[\|]A b\*]B"
    assert mark_entities("ab", (Span(0, 2, "A"), Span(0, 2, "B"))) == "[[ab]B ]A"


def test_differences_are_told_apart_and_the_clearest_come_first() -> None:
    ours = [sentence(*GOLD), sentence(*GOLD), sentence(), sentence(CITY), sentence(PERSON)]
    theirs = [sentence(CITY), sentence(), sentence(CITY), sentence(PERSON), sentence(PERSON)]
    differences = find_differences(ours, theirs)
    assert [c.gained for c in differences.fixed] == [4, 3]
    assert [c.gained for c in differences.regressed] == [-1]
    assert [(c.ours, c.theirs) for c in differences.unresolved] == [((CITY,), (PERSON,))]
    document = differences_document(differences, "m3t", "text", what="Speech", most=1)
    assert "## Fixed by Speech (2 sentences, 1 shown)" in document
    assert "## Regressed with Speech (1 sentences)" in document
    assert "| m3t | [[北京]**LOC** 大学]**ORG** 的[李明]**PER** 在[南京]**LOC** |" in document
    missed = "missed: 北京 LOC, 北京大学 ORG, 李明 PER, 南京 LOC"
    assert f"| text | {TEXT} — {missed} |" in document


def test_a_report_says_all_of_it(tmp_path: Path) -> None:
    found = [sentence(UNIVERSITY, CITY, Span(5, 7, "LOC")), sentence(*GOLD)]
    other = Other("text", [sentence(UNIVERSITY), sentence(UNIVERSITY)])
    report = make_report("m3t", "dev.jsonl", found, spoken=1, known=KNOWN, other=other)
    write_report(tmp_path / "r", report, found, other)
    written = (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert "# m3t on dev.jsonl" in written
    assert "2 sentences, 1 answered with speech" in written
    assert "| PER | 2 | 1 | 100.00 | 50.00 | 66.67 | 0 | 0 | 0 | 0 |" in written
    assert "| seen in training | 4 | 4 | 100.00 | 100.00 | 100.00 |" in written
    assert "Against text: Δ F1 +" in written
    assert "| 1 | 2 | 2 | 100.00 | 100.00 |" in written
    assert "Type errors: PER as LOC 1." in written
    assert "1 texts with several readings" not in written
    values = json.loads((tmp_path / "r" / "report.json").read_bytes())
    assert values["breakdowns"]["nested"]["types"]["PER"]["recall"] == 50.0
    assert values["differences"]["flat"]["value"] > 0
    assert (tmp_path / "r" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "Fixed by m3t" in (tmp_path / "r" / "differences.md").read_text(encoding="utf-8")

    alone = make_report("spacy", "dev.jsonl", found, spoken=0, nested=False)
    write_report(tmp_path / "alone", alone, found, None)
    written = (tmp_path / "alone" / "report.md").read_text(encoding="utf-8")
    assert "Nested" not in written
    assert "Against" not in written
    assert not (tmp_path / "alone" / "differences.md").exists()
