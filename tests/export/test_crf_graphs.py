from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st

from cnerta.export.crf_graphs import crf_graphs
from cnerta.models.runtime.crf_search import (
    LATTICE_FILE,
    SCORES_FILE,
    CrfParameters,
    GraphSearch,
    NumpySearch,
    allowed_scores,
)
from cnerta.models.runtime.decoding import CrfDecoder
from cnerta.models.runtime.labels import LabelScheme, Span

SCHEME = LabelScheme.nested([([Span(0, 3, "A"), Span(0, 2, "B"), Span(3, 4, "B")], 5)])
_SESSIONS = [
    onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for file in (SCORES_FILE, LATTICE_FILE)
]


def graph_search(scores: CrfParameters) -> GraphSearch:
    return GraphSearch(scores, *_SESSIONS)


def parameters(generator: np.random.Generator) -> CrfParameters:
    k = len(SCHEME)
    return CrfParameters(
        generator.normal(size=k).astype(np.float32),
        generator.normal(size=(k, k)).astype(np.float32),
        generator.normal(size=k).astype(np.float32),
    )


def test_the_graphs_in_the_package_are_those_of_this_source() -> None:
    for file, expected in crf_graphs().items():
        assert onnx.load(file).graph == expected.graph


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any),
    deviation=st.sampled_from([0.1, 2.0, 50.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_graphs_and_numpy_find_the_same(lengths: list[int], deviation: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = allowed_scores(SCHEME, parameters(generator))
    ours, theirs = graph_search(scores), NumpySearch(scores)
    shape = (len(lengths), max(lengths), len(SCHEME))
    emissions = generator.normal(scale=deviation, size=shape).astype(np.float32)
    assert ours.best_paths(emissions, lengths) == theirs.best_paths(emissions, lengths)

    filled = [i for i, n in enumerate(lengths) if n]
    arguments = emissions[filled], [lengths[i] for i in filled]
    for got, want in zip(ours.lattices(*arguments), theirs.lattices(*arguments), strict=True):
        np.testing.assert_allclose(got.weights, want.weights)
        np.testing.assert_allclose(got.forward, want.forward, atol=1e-12)
        np.testing.assert_allclose(
            got.forward * got.backward, want.forward * want.backward, atol=1e-9
        )
        np.testing.assert_allclose(got.scale, want.scale)


def test_a_long_sentence_stays_finite_and_its_confidences_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    crf = parameters(generator)
    emissions = 100 * generator.normal(size=(1, 400, len(SCHEME))).astype(np.float32)
    graph = CrfDecoder(SCHEME, crf, search=graph_search)
    (expected,) = CrfDecoder(SCHEME, crf).decode(emissions, [400])
    (found,) = graph.decode(emissions, [400])
    assert expected
    assert [s.span for s in found] == [s.span for s in expected]
    np.testing.assert_allclose(
        [s.confidence for s in found], [s.confidence for s in expected], atol=1e-9
    )
