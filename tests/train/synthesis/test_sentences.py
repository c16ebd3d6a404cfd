from __future__ import annotations

from pathlib import Path

import pytest

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.sentences import Sentence, read_marked, read_sentences
from cnerta.train.synthesis.tasks import marked_tasks

from .sine_voice import CAST


def test_both_sentence_formats(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"sentence": "我在北京", "audio": "BAC1", "entity": [[2, 4, "北京", "LOC"]]}\n\n'
        '{"text": "你好", "audio": "sub/two.ogg", "entities": []}\n{"text": "再见"}\n'
    )
    assert read_sentences(path) == (
        Sentence("BAC1", "我在北京", (Span(2, 4, "LOC"),)),
        Sentence("two", "你好", ()),
        Sentence("in-000004", "再见", ()),
    )


@pytest.mark.parametrize("line", ["{", "[1]", '{"audio": "x"}', '{"sentence": "你", "entity": 3}'])
def test_bad_sentence_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "好"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"in\.jsonl:2"):
        read_sentences(path)
    with pytest.raises(DataError, match="cannot read"):
        read_sentences(tmp_path / "none.jsonl")


def test_marked_lines_are_said_as_marked(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("# two readings\n\nmayor\t南京|60市长(shi4 zhang3)|170江大桥\n")
    (task,) = marked_tasks(read_marked(path), CAST)
    assert task.key == "mayor"
    assert [w.pause_ms for w in task.script.words] == [60, 170, 0]
    assert [s.reading for s in task.script.syllables][2:4] == ["shi4", "zhang3"]
    path.write_text("no tab here\n")
    with pytest.raises(DataError, match=r"lines\.txt:1: expected `key<tab>marked text`"):
        read_marked(path)
    path.write_text("key\tLatin\n")
    with pytest.raises(DataError, match=r"lines\.txt:1: expected a Chinese word"):
        read_marked(path)
