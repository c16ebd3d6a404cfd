from __future__ import annotations

import pytest

from cnerta.streamer.sources.script import script_writer
from cnerta.streamer.sources.utterances import Hypothesis, Utterances


@pytest.mark.parametrize(
    ("script", "language", "written"),
    [
        ("auto", "zh", "长江大桥"),
        ("auto", "zh-CN", "长江大桥"),
        ("auto", "zh_Hans", "长江大桥"),
        ("auto", "zh-TW", "長江大橋"),
        ("auto", "yue", "長江大橋"),
        ("auto", "ja", "長江大橋"),
        ("auto", None, "長江大橋"),
        ("simplified", None, "长江大桥"),
        ("simplified", "zh-TW", "长江大桥"),
        ("as_written", "zh", "長江大橋"),
    ],
)
def test_the_script_follows_the_language_unless_told(
    script: str, language: str | None, written: str
) -> None:
    assert script_writer(script, language)("長江大橋") == written  # type: ignore[arg-type]


def test_an_utterance_that_was_closed_early_goes_on_in_the_same_script() -> None:
    utterances = Utterances(longest_ms=1_000, write=script_writer("simplified", None))
    first = utterances.update(Hypothesis("a", "乾 淨的長江", False), 0)
    assert [r.text for r in first] == ["干净的长江"]
    # The same in the other script is nothing new.
    assert utterances.update(Hypothesis("a", "干净的长江", False), 10) == []
    assert [r.text for r in utterances.overdue(1_500)] == ["干净的长江"]
    rest = utterances.update(Hypothesis("a", "乾淨的長江大橋", True), 1_600)
    assert [(r.utterance, r.text) for r in rest] == [("u2", "大桥")]
