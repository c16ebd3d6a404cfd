from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.crf_search import NumpySearch, allowed_scores
from cnerta.models.runtime.decoding import CrfDecoder, CrfParameters, SpanHint
from cnerta.models.runtime.labels import LabelScheme, Span

SCHEME = LabelScheme.nested([([Span(0, 3, "A"), Span(0, 2, "B")], 3)])


def parameters(generator: np.random.Generator) -> CrfParameters:
    k = len(SCHEME)
    return CrfParameters(
        generator.normal(size=k).astype(np.float32),
        generator.normal(size=(k, k)).astype(np.float32),
        generator.normal(size=k).astype(np.float32),
    )


def all_paths(emissions: np.ndarray, crf: CrfParameters) -> dict[tuple[int, ...], float]:
    """Score of every allowed tag sequence, by enumeration."""
    allowed = SCHEME.allowed_transitions()
    starts, ends = SCHEME.allowed_starts(), SCHEME.allowed_ends()
    scores = {}
    for path in product(range(len(SCHEME)), repeat=len(emissions)):
        legal = starts[path[0]] and ends[path[-1]]
        if legal and all(allowed[a, b] for a, b in pairwise(path)):
            score = crf.start[path[0]] + crf.end[path[-1]]
            score += sum(emissions[i, t] for i, t in enumerate(path))
            score += sum(crf.transitions[a, b] for a, b in pairwise(path))
            scores[path] = float(score)
    return scores


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_best_path_and_span_marginals_against_enumeration(length: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    crf = parameters(generator)
    emissions = generator.normal(scale=2.0, size=(length, len(SCHEME))).astype(np.float32)
    paths = all_paths(emissions, crf)
    decoder = CrfDecoder(SCHEME, crf)

    best = max(paths, key=lambda p: paths[p])
    search = NumpySearch(allowed_scores(SCHEME, crf))
    assert search.best_paths(emissions[None], [length]) == [list(best)]

    total = np.logaddexp.reduce(list(paths.values()))
    (found,) = decoder.decode(emissions[None], [length])
    assert [s.span for s in found] == SCHEME.decode(best)
    for scored in found:
        holding = [v for p, v in paths.items() if scored.span in SCHEME.decode(p)]
        expected = np.exp(np.logaddexp.reduce(holding) - total)
        assert scored.confidence == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("span", [Span(0, 3, "A"), Span(1, 3, "B"), Span(2, 3, "A")])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hint_raises_what_holds_its_entity_by_its_strength(span: Span, seed: int) -> None:
    generator = np.random.default_rng(seed)
    crf = parameters(generator)
    emissions = generator.normal(size=(3, len(SCHEME))).astype(np.float32)
    decoder = CrfDecoder(SCHEME, crf)
    hint = SpanHint(span.start, span.end, span.label, 6.0)
    before = all_paths(emissions, crf)
    after = all_paths(decoder.with_hints(emissions, [hint]), crf)
    assert before.keys() == after.keys()
    for path, score in before.items():
        spans = SCHEME.decode(path)
        starts = any((s.start, s.label) == (span.start, span.label) for s in spans)
        ends = any((s.end, s.label) == (span.end, span.label) for s in spans)
        if span in spans:
            assert after[path] == pytest.approx(score + 6.0, abs=1e-4)
        elif not starts and not ends:
            assert after[path] == pytest.approx(score, abs=1e-4)
        else:
            assert after[path] <= score + 6.0 + 1e-4


def test_a_batch_gives_what_its_sentences_give_alone() -> None:
    generator = np.random.default_rng(3)
    decoder = CrfDecoder(SCHEME, parameters(generator))
    lengths = [5, 0, 9, 1]
    emissions = generator.normal(size=(4, 9, len(SCHEME))).astype(np.float32)
    together = decoder.decode(emissions, lengths)
    for i, n in enumerate(lengths):
        assert together[i] == decoder.decode(emissions[i : i + 1, :n], [n])[0]


def test_emissions_of_any_size_stay_finite() -> None:
    decoder = CrfDecoder(SCHEME, parameters(np.random.default_rng(4)))
    emissions = np.zeros((1, 200, len(SCHEME)), np.float32)
    emissions[0, :, 1::2] = 500.0
    (found,) = decoder.decode(emissions, [200])
    assert found
    assert all(0.0 <= s.confidence <= 1.0 for s in found)


def test_parameters_of_another_scheme_are_refused() -> None:
    crf = parameters(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="expected CRF parameters"):
        CrfDecoder(LabelScheme.flat("A"), crf)


OTHER_SCHEMES = {
    "plain bio": LabelScheme.flat("AB", "bio", well_formed=False),
    "well-formed bio": LabelScheme.flat("AB", "bio"),
    "plain bilou": LabelScheme.flat("A", well_formed=False),
    "nested bio": LabelScheme.nested(
        [([Span(0, 3, "A"), Span(0, 2, "B")], 3)], 1, "bio", well_formed=False
    ),
}


def drawn(scheme: LabelScheme, length: int, seed: int) -> tuple[CrfParameters, np.ndarray]:
    generator, k = np.random.default_rng(seed), len(scheme)
    crf = CrfParameters(
        generator.normal(size=k).astype(np.float32),
        generator.normal(size=(k, k)).astype(np.float32),
        generator.normal(size=k).astype(np.float32),
    )
    return crf, generator.normal(scale=2.0, size=(length, k)).astype(np.float32)


def enumerated(
    scheme: LabelScheme, crf: CrfParameters, emissions: np.ndarray
) -> dict[tuple[int, ...], float]:
    """Score of every tag sequence that the scheme allows."""
    starts, ends = scheme.allowed_starts(), scheme.allowed_ends()
    allowed = scheme.allowed_transitions()
    scores = {}
    for path in product(range(len(scheme)), repeat=len(emissions)):
        if starts[path[0]] and ends[path[-1]] and all(allowed[a, b] for a, b in pairwise(path)):
            score = crf.start[path[0]] + crf.end[path[-1]]
            score += sum(emissions[i, t] for i, t in enumerate(path))
            score += sum(crf.transitions[a, b] for a, b in pairwise(path))
            scores[path] = float(score)
    return scores


@pytest.mark.parametrize("name", OTHER_SCHEMES)
@pytest.mark.parametrize("length", [1, 2, 4])
def test_spans_of_other_encodings_are_as_probable_as_their_sequences(
    name: str, length: int
) -> None:
    scheme = OTHER_SCHEMES[name]
    found_any = False
    for seed in range(6):
        crf, emissions = drawn(scheme, length, seed)
        paths = enumerated(scheme, crf, emissions)
        total = np.logaddexp.reduce(list(paths.values()))
        (found,) = CrfDecoder(scheme, crf).decode(emissions[None], [length])
        assert [s.span for s in found] == scheme.decode(max(paths, key=lambda p: paths[p]))
        for scored in found:
            found_any = True
            holding = [v for p, v in paths.items() if scored.span in scheme.decode(p)]
            expected = np.exp(np.logaddexp.reduce(holding) - total)
            assert scored.confidence == pytest.approx(expected, abs=1e-6)
    assert found_any


@pytest.mark.parametrize(
    "span", [Span(0, 3, "A"), Span(1, 3, "B"), Span(1, 2, "A"), Span(3, 4, "B")]
)
def test_a_hint_in_bio_raises_what_holds_its_entity(span: Span) -> None:
    scheme = OTHER_SCHEMES["well-formed bio"]
    crf, emissions = drawn(scheme, 4, 0)
    decoder = CrfDecoder(scheme, crf)
    hint = SpanHint(span.start, span.end, span.label, 6.0)
    before = enumerated(scheme, crf, emissions)
    after = enumerated(scheme, crf, decoder.with_hints(emissions, [hint]))
    for path, score in before.items():
        spans = scheme.decode(path)
        shared = sum((s.start, s.label) == (span.start, span.label) for s in spans)
        shared += sum((s.end, s.label) == (span.end, span.label) for s in spans)
        assert after[path] == pytest.approx(score + 3.0 * shared, abs=1e-4)
