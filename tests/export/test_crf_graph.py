from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cnerta.export.crf_graph import crf_search_graph  # noqa: E402
from cnerta.models.crf_search import (  # noqa: E402
    GRAPH_FILE,
    CrfParameters,
    GraphSearch,
    NumpySearch,
    allowed_scores,
)
from cnerta.models.decoding import CrfDecoder  # noqa: E402
from cnerta.models.labels import LabelScheme, Span  # noqa: E402

SCHEME = LabelScheme.nested([([Span(0, 3, "A"), Span(0, 2, "B"), Span(3, 4, "B")], 5)])
SESSION = onnxruntime.InferenceSession(GRAPH_FILE, providers=["CPUExecutionProvider"])


def parameters(generator: np.random.Generator) -> CrfParameters:
    k = len(SCHEME)
    return CrfParameters(
        generator.normal(size=k).astype(np.float32),
        generator.normal(size=(k, k)).astype(np.float32),
        generator.normal(size=k).astype(np.float32),
    )


def test_the_graph_in_the_package_is_the_one_of_this_source() -> None:
    assert onnx.load(GRAPH_FILE).graph == crf_search_graph().graph


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any),
    deviation=st.sampled_from([0.1, 2.0, 50.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_graph_and_numpy_find_the_same(lengths: list[int], deviation: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    crf = parameters(generator)
    scores = allowed_scores(SCHEME, crf)
    shape = (len(lengths), max(lengths), len(SCHEME))
    emissions = generator.normal(scale=deviation, size=shape).astype(np.float32)
    expected = NumpySearch(scores)(emissions, lengths)
    found = GraphSearch(scores, SESSION)(emissions, lengths)
    for n, want, got in zip(lengths, expected, found, strict=True):
        assert got.path == want.path
        if n:
            ours, theirs = got.lattice(), want.lattice()
            np.testing.assert_allclose(ours.weights, theirs.weights)
            np.testing.assert_allclose(ours.forward, theirs.forward, atol=1e-12)
            np.testing.assert_allclose(
                ours.forward * ours.backward, theirs.forward * theirs.backward, atol=1e-9
            )
            np.testing.assert_allclose(ours.scale, theirs.scale)


def test_a_long_sentence_stays_finite_and_its_confidences_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    crf = parameters(generator)
    emissions = 100 * generator.normal(size=(1, 400, len(SCHEME))).astype(np.float32)
    graph = CrfDecoder(SCHEME, crf, search=partial(GraphSearch, session=SESSION))
    (expected,) = CrfDecoder(SCHEME, crf).decode(emissions, [400])
    (found,) = graph.decode(emissions, [400])
    assert expected
    assert [s.span for s in found] == [s.span for s in expected]
    np.testing.assert_allclose(
        [s.confidence for s in found], [s.confidence for s in expected], atol=1e-9
    )
