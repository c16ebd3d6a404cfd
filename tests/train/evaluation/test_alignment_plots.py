from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from matplotlib import font_manager
from matplotlib import image as images

from cnerta.models.errors import ConfigError, DataError
from cnerta.models.networks.checkpoint import Checkpoint, save_checkpoint
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.train.data.examples import Example
from cnerta.train.evaluation import alignment_plots
from cnerta.train.evaluation.alignment_plots import (
    Utterance,
    draw_alignments,
    draw_utterance,
    find_cjk_font,
)
from cnerta.train.evaluation.bundle_answers import bundle_times
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.systems import Answers, answers_of_checkpoints

TEXT = "南京市长"
SPANS = (Span(0, 3, "LOC"), Span(0, 2, "LOC"), Span(3, 4, "PER"), Span(2, 4, "OTHER"))


@pytest.fixture
def utterance() -> Utterance:
    generator = np.random.default_rng(0)
    samples = (0.1 * generator.normal(size=16_000)).astype(np.float32)
    times = np.array([[100.0, 250.0], [250.0, 400.0], [400.0, 520.0], [700.0, 900.0]])
    return Utterance(TEXT, samples, times, {"gold": SPANS, "model": ()})


def test_an_utterance_is_drawn_with_all_its_parts(utterance: Utterance, tmp_path: Path) -> None:
    draw_utterance(tmp_path / "a.png", utterance)
    nothing = Utterance(TEXT, utterance.samples, utterance.times_ms, {"gold": (), "model": ()})
    draw_utterance(tmp_path / "b.png", nothing)
    picture, without = (images.imread(tmp_path / n) for n in ("a.png", "b.png"))
    # Two entities that overlap need a line more each, so the picture is higher.
    assert picture.shape[0] > without.shape[0] > 200
    assert picture.shape[1] == without.shape[1]


def test_without_a_chinese_font_pinyin_is_written(
    utterance: Utterance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    latin = [f for f in font_manager.fontManager.ttflist if f.name == "DejaVu Sans"]
    boxes = [f for f in font_manager.fontManager.ttflist if f.name.startswith("Last Resort")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*boxes, *latin])
    find_cjk_font.cache_clear()
    try:
        assert find_cjk_font() is None, "a font that has a box for every character is none"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # matplotlib's of missing characters
            draw_utterance(tmp_path / "a.png", utterance)
        assert "drawn in pinyin" in caplog.text
    finally:
        find_cjk_font.cache_clear()


def test_the_sentences_that_differ_most_are_drawn_first(
    utterance: Utterance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Utterance] = []
    monkeypatch.setattr(alignment_plots, "draw_utterance", lambda _, u: drawn.append(u))
    examples = []
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", utterance.samples, 16_000)
        # What is not spoken has no time: spans are of the normalised text.
        examples.append(Example("南京，市长", SPANS[:1], tmp_path / f"{name}.wav"))
    examples.append(Example(TEXT, SPANS))
    found = [[Span(0, 2, "LOC")], [], [Span(0, 4, "LOC"), Span(4, 5, "PER")], []]
    other = [Prediction(e.text, (Span(0, 2, "LOC"),), e.spans) for e in examples]
    answers = Answers("model", found, True, True, lambda _: utterance.times_ms)
    draw_alignments(tmp_path / "out", 2, answers, examples, other)
    assert [u.text for u in drawn] == [TEXT, TEXT]
    assert drawn[0].rows["model"] == [Span(0, 3, "LOC"), Span(3, 4, "PER")]
    assert drawn[0].rows["other"] == [Span(0, 2, "LOC")]
    assert drawn[1].rows["model"] == []
    too_short = Answers("model", found, True, True, lambda _: None)
    draw_alignments(tmp_path / "out", 2, too_short, examples)
    assert len(drawn) == 2
    with pytest.raises(ConfigError, match="a model that uses audio"):
        draw_alignments(tmp_path / "out", 2, Answers("m", found, True, False), examples)
    with pytest.raises(DataError, match="recordings to draw"):
        draw_alignments(tmp_path / "out", 2, answers, examples[3:])


def test_a_checkpoint_hears_characters_where_its_bundle_does(
    tiny_model: SpeechTagger, tiny_bundle: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    soundfile.write(tmp_path / "a.wav", 0.1 * generator.normal(size=32_000), 16_000)
    example = Example("南京市，长江大桥", None, tmp_path / "a.wav")
    save_checkpoint(tmp_path / "model", Checkpoint("tiny", tiny_model, {}, {}))
    answers = answers_of_checkpoints([tmp_path / "model"], [example], use_audio=True, device="cpu")
    assert answers.align is not None
    ours = answers.align(example)
    theirs = bundle_times(Model.load(tiny_bundle, device="cpu"), example)
    assert ours is not None
    assert ours.shape == (7, 2)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    silent = answers_of_checkpoints([tmp_path / "model"], [example], use_audio=False, device="cpu")
    assert silent.align is None
