from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.bundle import find_bundle, load_bundle
from cnerta.streamer.errors import RecogniserMissingError
from cnerta.streamer.sources import make_transcript_source, rough
from cnerta.streamer.sources.rough import (
    LONGEST_FRAMES,
    SILENT_FRAMES,
    GreedySyllables,
    common_characters,
)
from cnerta.train.data.common_characters import common_characters as count_characters

from .collect import collect, finals

TEXTS = ("", "北", "京", "")
PAUSE = [0] * SILENT_FRAMES


def test_repetitions_are_one_and_blanks_part_them() -> None:
    greedy = GreedySyllables(TEXTS)
    assert greedy.add([0, 1, 1, 0, 2, 2]) == [("北京", False, 1, 6)]
    assert greedy.add([2, 0, 2]) == [("北京京", False, 1, 9)]
    assert greedy.add([3, 0]) == []
    assert greedy.add(PAUSE) == [("北京京", True, 1, 10)]
    assert greedy.add([0, 1]) == [("北", False, 27, 28)]
    assert greedy.end() == [("北", True, 27, 28)]
    assert greedy.end() == []


def test_without_a_pause_it_is_cut() -> None:
    said = GreedySyllables(TEXTS).add([1, 2] * LONGEST_FRAMES)
    assert [final for _, final, _, _ in said] == [True, True]


@given(st.text("0123", max_size=80), st.integers(1, 30))
def test_how_frames_are_handed_over_does_not_matter(units: str, step: int) -> None:
    whole = [int(unit) for unit in units]

    def ended(step: int) -> list[tuple[str, bool, int, int]]:
        greedy = GreedySyllables(TEXTS)
        pieces = (whole[start : start + step] for start in range(0, len(whole), step))
        said = [heard for piece in pieces for heard in greedy.add(piece)]
        return [heard for heard in [*said, *greedy.end()] if heard[1]]

    assert ended(step) == ended(len(whole) + 1)
    # The plain definition of CTC's best path: repetitions become one, blanks vanish.
    plain = "".join(
        TEXTS[unit] for unit, before in zip(whole, [0, *whole], strict=False) if unit != before
    )
    assert "".join(text for text, *_ in ended(step)) == plain


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_nearly_every_syllable_of_the_bundles_has_a_character_read_so(name: str) -> None:
    vocabulary = load_bundle(find_bundle(Path(name))).vocabulary
    known = common_characters()
    syllables = vocabulary.units[1:]
    assert sum(syllable in known for syllable in syllables) >= 0.99 * len(syllables)
    assert known["bei3"] == "北"
    readings = {
        character: {vocabulary.units[unit] for unit in units}
        for character, units in zip(vocabulary.characters, vocabulary.readings, strict=True)
    }
    both = [s for s in syllables if known.get(s) in readings]
    assert sum(s in readings[known[s]] for s in both) >= 0.95 * len(both)


def test_characters_are_counted_as_they_are_read_in_words(tmp_path: Path) -> None:
    dictionary = tmp_path / "dict.txt"
    dictionary.write_text("长江 50 ns\n市长 30 n\n常 40 d\n掌 20 v\nA股 99 n\n", encoding="utf-8")
    found = count_characters(dictionary)
    assert (found["chang2"], found["zhang3"], found["shi4"]) == ("长", "长", "市")
    assert "股" not in found.values()


async def test_noise_and_silence_are_borne(caplog: pytest.LogCaptureFixture) -> None:
    """What it makes of them is the model's business, but every utterance ends."""
    source = make_transcript_source("rough")
    assert "ROUGH" in caplog.text
    noise = np.random.default_rng(1).normal(0, 0.1, 24_000).astype(np.float32)
    got = await collect(source, np.concatenate([np.zeros(16_000, np.float32), noise]))
    finals(got)
    assert all(r.start_ms is not None and r.end_ms is not None for r in got)


def test_a_bundle_without_pronunciations(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = replace(load_bundle(find_bundle(None)), has_readings=False)
    monkeypatch.setattr(rough.Model, "load", lambda _: SimpleNamespace(bundle=bundle))
    with pytest.raises(RecogniserMissingError, match=r"expected a bundle with readings\.onnx"):
        make_transcript_source("rough")
