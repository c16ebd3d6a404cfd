"""How far an answer follows the audio: to the text's side where the audio fits badly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnerta.models.runtime.bundle import find_bundle, load_bundle, write_bundle
from cnerta.models.runtime.inference import Floats, Model
from cnerta.models.runtime.listening import Listening

TEXT = "北京大学张三"


def test_the_share_grows_with_the_fit() -> None:
    listening = Listening(-2.0, -0.5)
    scores = [-9.0, -2.0, -1.25, -0.5, 0.0]
    assert [listening.share(s) for s in scores] == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected none_at below full_at, got -0\.5 and -2"):
        Listening(-0.5, -2.0)


def test_scores_lie_on_the_line_between_both_answers() -> None:
    heard, alone = np.float32([[4.0, 0.0]]), np.float32([[0.0, 2.0]])
    listening = Listening(-2.0, -1.0)
    for score, wanted in ((-2.0, [0.0, 2.0]), (-1.75, [1.0, 1.5]), (-1.0, [4.0, 0.0])):
        np.testing.assert_allclose(listening.combined(heard, alone, score), [wanted])


@pytest.fixture
def sound() -> Floats:
    return np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


def told(model: Model, frames: Floats) -> list[tuple[int, int, str, float]]:
    (tagged,) = model.tag([TEXT], [frames])
    return [(s.start, s.end, s.label, round(s.confidence, 4)) for s in tagged.spans]


def with_bounds(model: Model, listening: Listening | None) -> Model:
    model.bundle = replace(model.bundle, listening=listening)
    return model


def test_a_model_follows_audio_only_as_far_as_it_fits(tiny_bundle: Path, sound: Floats) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    frames = model.encode_recording(sound)
    (heard,) = with_bounds(model, None).tag([TEXT], [frames])
    assert heard.alignment is not None
    score = heard.alignment.score
    heard_spans, text_spans = told(model, frames), told(model, frames[:0])
    assert heard_spans != text_spans

    fits = with_bounds(model, Listening(score - 2, score - 1))
    assert told(fits, frames) == heard_spans
    unheard = with_bounds(model, Listening(score + 1, score + 2))
    assert told(unheard, frames) == text_spans
    # Where the characters are does not depend on how far they are believed.
    (tagged,) = unheard.tag([TEXT], [frames])
    assert tagged.alignment is not None
    assert tagged.alignment.score == score


def test_texts_of_a_batch_do_not_mix(tiny_bundle: Path, sound: Floats) -> None:
    model = Model.load(tiny_bundle, device="cpu")
    frames = model.encode_recording(sound)
    (heard,) = model.tag([TEXT], [frames])
    assert heard.alignment is not None
    score = heard.alignment.score
    model = with_bounds(model, Listening(score - 0.5, score + 0.5))
    texts, audio = ["张三", TEXT, "北京", TEXT], [frames, frames, frames[:0], frames[:0]]
    together = model.tag(texts, audio)
    for tagged, text, own in zip(together, texts, audio, strict=True):
        (alone,) = model.tag([text], [own])
        assert [s.span for s in tagged.spans] == [s.span for s in alone.spans]
        assert [s.confidence for s in tagged.spans] == pytest.approx(
            [s.confidence for s in alone.spans], abs=1e-4
        )


def test_a_bundle_keeps_its_bounds(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.listening is None
    try:
        write_bundle(replace(bundle, listening=Listening(-2.0, -0.5)))
        assert load_bundle(tiny_bundle).listening == Listening(-2.0, -0.5)
    finally:
        write_bundle(bundle)


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_the_built_in_bundles_have_bounds(name: str) -> None:
    assert load_bundle(find_bundle(Path(name))).listening == Listening(-2.0, -0.5)
