from __future__ import annotations

import nervaluate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.labels import Span, outermost
from cnerta.train.evaluation.metrics import (
    HomographScores,
    score_entities,
    score_homographs,
    score_spans,
    sentence_counts,
)

GOLD = [Span(0, 7, "ORG"), Span(0, 2, "LOC"), Span(9, 11, "PER")]


def test_counts_by_hand() -> None:
    predicted = [
        Span(0, 7, "ORG"),  # right
        Span(0, 3, "LOC"),  # wrong end: boundary
        Span(9, 11, "LOC"),  # wrong type
        Span(12, 13, "PER"),  # out of nothing: boundary too, as in the paper's Table 5
    ]
    scores = score_entities([GOLD], [predicted])
    nested = scores.nested
    assert (nested.correct, nested.predicted, nested.gold) == (1, 4, 3)
    assert nested.precision == pytest.approx(25.0)
    assert nested.recall == pytest.approx(100 / 3)
    assert nested.f1 == pytest.approx(200 / 7)
    assert (nested.boundary_errors, nested.type_errors, nested.spurious) == (2, 1, 1)
    # Flat: ORG and PER of gold; ORG, LOC and PER of the prediction.
    assert (scores.flat.correct, scores.flat.predicted, scores.flat.gold) == (1, 3, 2)


def test_nothing_is_zero_not_an_error() -> None:
    scores = score_entities([[]], [[]])
    assert scores.flat.f1 == scores.flat.precision == scores.flat.recall == 0.0
    with pytest.raises(ValueError, match="zip"):
        score_entities([[], []], [[]])


@st.composite
def annotations(draw: st.DrawFn) -> list[Span]:
    bounds = st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda b: b[0] < b[1])
    drawn = draw(st.lists(st.tuples(bounds, st.sampled_from("AB")), max_size=5))
    return [Span(s, e, t) for (s, e), t in drawn]


@given(st.lists(st.tuples(annotations(), annotations()), max_size=4))
def test_against_an_independent_count(pairs: list[tuple[list[Span], list[Span]]]) -> None:
    # Pool all sentences by position and use plain set arithmetic.
    scores = score_entities([g for g, _ in pairs], [p for _, p in pairs])
    for own, keep in ((scores.nested, list), (scores.flat, outermost)):
        gold = {(i, s) for i, (g, _) in enumerate(pairs) for s in keep(g)}
        found = {(i, s) for i, (_, p) in enumerate(pairs) for s in keep(p)}
        if gold and found and gold & found:
            precision = len(gold & found) / len(found)
            recall = len(gold & found) / len(gold)
            assert own.f1 == pytest.approx(200 * precision * recall / (precision + recall))
        else:
            assert own.f1 == 0.0
        types = {
            (i, s) for i, s in found - gold
            if any(j == i and (s.start, s.end) == (g.start, g.end) for j, g in gold)
        }  # fmt: skip
        assert own.type_errors == len(types)
        assert own.boundary_errors == len(found - gold - types)
        assert own.spurious <= own.boundary_errors


def test_homographs_count_only_if_every_reading_is_right() -> None:
    city, bridge, mayor = Span(0, 3, "LOC"), Span(3, 7, "LOC"), Span(4, 7, "PER")
    first, second = [city, bridge], [Span(0, 2, "LOC"), mayor]
    texts = ["南京市长江大桥", "南京市长江大桥", "他说", "他说", "北京"]
    gold = [first, second, [], [], [city]]
    # Both right; a text that has one reading only does not count, however often it occurs.
    assert score_homographs(texts, gold, gold) == HomographScores(1, 1, 1, 1)
    # The same answer to both, right for one: what a model that does not use audio gives.
    assert score_homographs(texts, gold, [first, first, [], [], []]) == HomographScores(1, 0, 0, 0)
    # Told apart, but one of them wrong.
    missed = [first, [mayor], [], [], []]
    assert score_homographs(texts, gold, missed) == HomographScores(1, 0, 0, 1)
    # Wrong about what is inside only.
    inner = [[*first, Span(3, 5, "LOC")], second, [], [], []]
    assert score_homographs(texts, gold, inner) == HomographScores(1, 0, 1, 1)


def only_flat(spans: list[Span]) -> list[dict[str, object]]:
    # nervaluate's ends are those of the last character.
    return [{"label": s.label, "start": s.start, "end": s.end - 1} for s in outermost(spans)]


@given(st.lists(st.tuples(annotations(), annotations()), min_size=1, max_size=4))
def test_flat_scores_against_nervaluate(pairs: list[tuple[list[Span], list[Span]]]) -> None:
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    evaluator = nervaluate.Evaluator(
        [only_flat(g) for g in gold],
        [only_flat(p) for p in predicted],
        tags=["A", "B"],
        loader="dict",
    )
    results = evaluator.evaluate()
    flat = score_entities(gold, predicted).flat
    theirs = results["overall"]["strict"]
    assert (flat.correct, flat.predicted, flat.gold) == (
        theirs.correct,
        theirs.actual,
        theirs.possible,
    )
    assert flat.f1 == pytest.approx(100 * theirs.f1)
    assert flat.precision == pytest.approx(100 * theirs.precision)
    assert flat.recall == pytest.approx(100 * theirs.recall)
    # Where only boundaries are asked for, what has the wrong type is right as well.
    exact = results["overall"]["exact"]
    assert flat.correct + flat.type_errors == exact.correct
    assert flat.type_errors + flat.boundary_errors == flat.predicted - flat.correct


@given(st.lists(st.tuples(annotations(), annotations()), max_size=3))
def test_missed_entities_are_those_no_error_is_about(
    pairs: list[tuple[list[Span], list[Span]]],
) -> None:
    # By characters in place of offsets.
    def characters(span: Span) -> set[int]:
        return set(range(span.start, span.end))

    missed = 0
    for gold, predicted in ((set(g), set(p)) for g, p in pairs):
        for g in gold - predicted:
            about = [
                p
                for p in predicted - gold
                if characters(p) == characters(g)
                or (p.label == g.label and characters(p) & characters(g))
            ]
            missed += not about
    scores = score_entities([g for g, _ in pairs], [p for _, p in pairs]).nested
    assert scores.missed == missed


def test_a_boundary_error_that_meets_nothing_of_its_type_is_spurious() -> None:
    scores = score_entities([GOLD], [[Span(12, 13, "PER"), Span(1, 3, "PER")]]).nested
    assert (scores.boundary_errors, scores.type_errors) == (2, 0)
    # One lies outside everything, one across a gold entity of another type.
    assert (scores.spurious, scores.missed) == (2, 3)


@given(st.lists(st.tuples(annotations(), annotations()), max_size=4))
def test_parts_add_up(pairs: list[tuple[list[Span], list[Span]]]) -> None:
    sides = [(set(g), set(p)) for g, p in pairs]
    whole = score_spans(sides)
    a, b = (score_spans(sides, lambda _, s, t=t: s.label == t) for t in "AB")  # type: ignore[misc]
    for field in ("correct", "predicted", "gold", "boundary_errors", "type_errors", "missed"):
        assert getattr(a, field) + getattr(b, field) == getattr(whole, field)
    first = score_spans(sides, lambda i, _: i == 0)
    assert first == score_spans(sides[:1])


@given(st.lists(st.tuples(annotations(), annotations()), max_size=4))
def test_counts_of_sentences_add_up(pairs: list[tuple[list[Span], list[Span]]]) -> None:
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    scores = score_entities(gold, predicted)
    for flat, own in ((True, scores.flat), (False, scores.nested)):
        counts = sentence_counts(gold, predicted, flat=flat)
        assert counts.shape == (len(pairs), 3)
        assert counts.sum(axis=0).tolist() == [own.correct, own.predicted, own.gold]
