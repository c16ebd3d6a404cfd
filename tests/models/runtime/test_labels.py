from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.errors import ConfigError, DataError
from cnerta.models.runtime.labels import LabelScheme, Span, outermost, parents

LENGTH = 12


def spans(types: str = "AB", most: int = 6) -> st.SearchStrategy[list[Span]]:
    bounds = st.tuples(st.integers(0, LENGTH - 1), st.integers(1, LENGTH)).filter(
        lambda b: b[0] < b[1]
    )
    one = st.builds(lambda b, t: Span(b[0], b[1], t), bounds, st.sampled_from(types))
    return st.lists(one, max_size=most, unique=True)


@given(spans())
def test_nested_round_trip_of_any_annotation(annotated: list[Span]) -> None:
    # Crossing spans and two types on one stretch included.
    scheme = LabelScheme.nested([(annotated, LENGTH), ([Span(0, 1, "A"), Span(0, 1, "B")], 1)])
    assert set(scheme.decode(scheme.encode(annotated, LENGTH))) == set(annotated)


@given(spans())
def test_encoded_sequences_use_allowed_transitions_only(annotated: list[Span]) -> None:
    scheme = LabelScheme.nested([(annotated, LENGTH), ([Span(0, 1, "A"), Span(0, 1, "B")], 1)])
    tags = scheme.encode(annotated, LENGTH)
    assert scheme.allowed_starts()[tags[0]]
    assert scheme.allowed_ends()[tags[-1]]
    assert scheme.allowed_transitions()[tags[:-1], tags[1:]].all()


@given(spans())
def test_flat_encoding_keeps_the_outermost(annotated: list[Span]) -> None:
    scheme = LabelScheme.flat("AB")
    decoded = scheme.decode(scheme.encode(annotated, LENGTH))
    assert decoded == outermost(annotated)
    assert not any(a.start < b.end and b.start < a.end for a in decoded for b in decoded if a != b)


@given(st.data())
def test_every_tag_sequence_decodes(data: st.DataObject) -> None:
    nested = [Span(0, 4, "A"), Span(0, 2, "B"), Span(2, 4, "A")]
    scheme = LabelScheme.nested([(nested, 4)])
    tags = data.draw(st.lists(st.integers(0, len(scheme) - 1), max_size=LENGTH))
    for span in scheme.decode(tags):
        assert 0 <= span.start < span.end <= len(tags)


@given(st.data())
def test_allowed_sequences_survive_decoding_and_encoding(data: st.DataObject) -> None:
    # Walk the allowed transitions: what comes back must be a well-formed annotation.
    nested = [Span(0, 4, "A"), Span(0, 2, "B"), Span(2, 4, "A")]
    scheme = LabelScheme.nested([(nested, 4)])
    allowed = scheme.allowed_transitions()
    tags = [data.draw(st.sampled_from(np.flatnonzero(scheme.allowed_starts()).tolist()))]
    for _ in range(data.draw(st.integers(0, 8))):
        tags.append(data.draw(st.sampled_from(np.flatnonzero(allowed[tags[-1]]).tolist())))
    decoded = scheme.decode(tags)
    labels = sum(t.count("B-") + t.count("U-") for t in (scheme.tags[i] for i in tags))
    assert len(decoded) <= labels


def test_priority_rules_of_section_4_2() -> None:
    # 南京市长江大桥: a bridge in a city in an organisation's name, longest first.
    annotated = [Span(0, 2, "LOC"), Span(0, 7, "ORG"), Span(3, 7, "LOC")]
    scheme = LabelScheme.nested([(annotated, 7)])
    tags = [scheme.tags[i] for i in scheme.encode(annotated, 7)]
    assert tags == [
        "B-ORG|B-LOC", "I-ORG|L-LOC", "I-ORG", "I-ORG|B-LOC", "I-ORG|I-LOC", "I-ORG|I-LOC",
        "L-ORG|L-LOC",
    ]  # fmt: skip


def test_spans_whose_joint_tag_is_unknown_are_left_out_deepest_first() -> None:
    scheme = LabelScheme.nested([([Span(0, 3, "A")], 3)])
    assert scheme.decode(scheme.encode([Span(0, 3, "A"), Span(1, 2, "A")], 3)) == [Span(0, 3, "A")]


@pytest.mark.parametrize(
    "span", [Span(2, 2, "A"), Span(-1, 2, "A"), Span(0, 9, "A"), Span(0, 1, "?")]
)
def test_impossible_spans_are_refused(span: Span) -> None:
    with pytest.raises(DataError, match="expected"):
        LabelScheme.flat("A").encode([span], 5)


@pytest.mark.parametrize("tags", [("B-A",), ("O", "O"), ("O", "X-A"), ("O", "B-A|B-B"), ()])
def test_impossible_inventories_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        LabelScheme("flat", tags)


def test_parents_are_the_shortest_containers() -> None:
    chain = [Span(0, 9, "ORG"), Span(0, 4, "LOC"), Span(0, 2, "LOC"), Span(5, 6, "PER")]
    assert parents(chain) == [None, 0, 1, 0]


@given(spans(most=10))
def test_parents_against_comparing_all_with_all(annotated: list[Span]) -> None:
    in_order = sorted(annotated, key=lambda s: (s.start, -s.end, s.label))
    for span, parent in zip(in_order, parents(in_order), strict=True):
        around = [s.end - s.start for s in in_order if s.contains(span)]
        if parent is None:
            assert not around
        else:
            assert in_order[parent].contains(span)
            assert in_order[parent].end - in_order[parent].start == min(around)


def properly_nested(annotated: list[Span]) -> list[Span]:
    """What is left when crossing spans are taken out."""
    kept: list[Span] = []
    for span in annotated:
        if all(
            span.end <= k.start or k.end <= span.start or span.contains(k) or k.contains(span)
            for k in kept
        ):
            kept.append(span)
    return kept


@given(spans())
def test_bio_round_trip_of_any_annotation_that_does_not_cross(annotated: list[Span]) -> None:
    nested = properly_nested(annotated)
    scheme = LabelScheme.nested(
        [(nested, LENGTH), ([Span(0, 1, "A"), Span(0, 1, "B")], 1)], 1, "bio"
    )
    tags = scheme.encode(nested, LENGTH)
    assert set(scheme.decode(tags)) == set(nested)
    assert scheme.allowed_starts()[tags[0]]
    assert scheme.allowed_ends()[tags[-1]]
    assert scheme.allowed_transitions()[tags[:-1], tags[1:]].all()
    flat = LabelScheme.flat("AB", "bio")
    assert flat.decode(flat.encode(annotated, LENGTH)) == outermost(annotated)


def test_the_papers_example_in_bio() -> None:
    annotated = [Span(0, 2, "LOC"), Span(0, 7, "ORG"), Span(3, 7, "LOC")]
    scheme = LabelScheme.nested([(annotated, 7)], 1, "bio")
    assert [scheme.tags[i] for i in scheme.encode(annotated, 7)] == [
        "B-ORG|B-LOC", "I-ORG|I-LOC", "I-ORG", "I-ORG|B-LOC", "I-ORG|I-LOC", "I-ORG|I-LOC",
        "I-ORG|I-LOC",
    ]  # fmt: skip


def conll_chunks(tags: list[str]) -> set[Span]:
    """Chunks as conlleval counts them: written down anew from its two rules."""
    found, start = set(), None
    before = "O"
    for place, tag in enumerate([*tags, "O"]):
        kind, old = tag[2:], before[2:]
        starts = tag[0] == "B" or (tag[0] == "I" and (before == "O" or kind != old))
        ends = before != "O" and (tag[0] in "BO" or kind != old)
        if ends and start is not None:
            found.add(Span(start, place, old))
        if starts:
            start = place
        before = tag
    return found


@given(st.data())
def test_an_ill_formed_bio_sequence_means_what_conlleval_counts(data: st.DataObject) -> None:
    scheme = LabelScheme.flat("AB", "bio", well_formed=False)
    tags = data.draw(st.lists(st.integers(0, len(scheme) - 1), max_size=LENGTH))
    assert set(scheme.decode(tags)) == conll_chunks([scheme.tags[i] for i in tags])


def test_a_plain_scheme_forbids_nothing() -> None:
    for encoding in ("bilou", "bio"):
        plain = LabelScheme.flat("AB", encoding, well_formed=False)
        assert plain.allowed_starts().all()
        assert plain.allowed_ends().all()
        assert plain.allowed_transitions().all()
    strict = LabelScheme.flat("A", "bio")
    allowed = strict.allowed_transitions()
    pairs = {(a, b): bool(allowed[i, j]) for i, a in enumerate(strict.tags)
             for j, b in enumerate(strict.tags)}  # fmt: skip
    assert [p for p, ok in pairs.items() if not ok] == [("O", "I-A")]
    with pytest.raises(ConfigError, match="expected BIO labels"):
        LabelScheme("flat", ("O", "U-A"), "bio")
