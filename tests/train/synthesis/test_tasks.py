from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.homographs import homograph_pairs
from cnerta.train.synthesis.sentences import MarkedLine, Sentence
from cnerta.train.synthesis.tasks import (
    Cast,
    Task,
    homograph_tasks,
    interleave,
    marked_tasks,
    may_pause,
    sentence_tasks,
)

from .sine_voice import CAST


@pytest.fixture
def tasks() -> list[Task]:
    return list(homograph_tasks(homograph_pairs(6, split="dev"), CAST))


def test_choices_depend_on_seed_and_key_only(tasks: list[Task]) -> None:
    pairs = homograph_pairs(6, split="dev")
    again = {t.key: t for t in homograph_tasks(reversed(pairs), CAST)}
    assert [again[t.key] for t in tasks] == tasks
    other = list(homograph_tasks(pairs, CAST, seed=1))
    assert [t.script for t in other] != [t.script for t in tasks]
    assert [t.script.text for t in other] == [t.script.text for t in tasks]


def test_pauses_at_decisive_boundaries() -> None:
    pairs = homograph_pairs(150, split="train")
    drawn: dict[str, list[float]] = {"paused": [], "pronounced": []}
    for pair, tasks in zip(pairs, _by_pair(homograph_tasks(pairs, CAST)), strict=True):
        for reading, task in zip((pair.first, pair.second), tasks, strict=True):
            assert task.entities == reading.entities
            for marked, said in zip(reading.words, task.script.words, strict=True):
                assert marked.text == "".join(s.character for s in said.syllables)
                if marked.following == "decisive":
                    drawn[pair.kind].append(said.pause_ms)
                elif marked.following == "none":
                    assert said.pause_ms == 0
    assert min(drawn["paused"]) >= 60
    assert max(drawn["paused"]) <= 300
    assert min(drawn["pronounced"]) == 0, "pronunciation tells: some are said without a pause"
    assert max(drawn["pronounced"]) <= 250


def _by_pair(tasks: Iterator[Task]) -> Iterator[tuple[Task, Task]]:
    return zip(tasks, tasks, strict=True)


def test_sentences_are_read_without_looking_at_entities() -> None:
    pytest.importorskip("jieba")
    text = "南京市长江大桥昨天举行了通车五十周年的纪念活动"
    bare = Sentence("a", text, ())
    labelled = Sentence("a", text, (Span(0, 3, "LOC"), Span(3, 7, "LOC")))
    (one,) = sentence_tasks([bare], CAST)
    (other,) = sentence_tasks([labelled], CAST)
    assert one.script == other.script
    assert other.entities == labelled.entities
    assert one.script.text == text
    assert all(s.reading[-1] in "12345" for s in one.script.syllables)


@pytest.mark.parametrize(
    ("left", "right", "may"),
    [
        ("有关部门/n", "和/c", True),
        ("粮食产量/n", "明显/d", True),
        ("的/uj", "报告/n", True),
        ("市长/n", "出席/v", True),
        ("公司/n", "将/d", True),
        # Inside what may be one name or one compound, whatever the segmenter says of it.
        ("人民/n", "广场/n", False),
        ("北京/ns", "公安局/nt", False),
        ("搜狐/nz", "体育/vn", False),
        ("广场/n", "站/v", False),
        ("三十八/m", "人/n", False),
        # Inside a phrase.
        ("已经/d", "公布/v", False),
        ("在/p", "北京/ns", False),
        ("参加/v", "比赛/n", False),
        ("看/v", "了/ul", False),
        ("的/uj", "时候/f", False),
    ],
)
def test_where_a_sentence_may_pause(left: str, right: str, may: bool) -> None:
    word, part = left.split("/")
    upcoming, next_part = right.split("/")
    assert may_pause((word, part), (upcoming, next_part)) == may


def test_sentences_pause_sometimes() -> None:
    pytest.importorskip("jieba")
    sentences = [
        Sentence(f"s{n}", "记者从有关部门了解到今年的粮食产量比去年明显提高", ()) for n in range(40)
    ]
    scripts = [t.script for t in sentence_tasks(sentences, CAST)]
    pauses = [w.pause_ms for script in scripts for w in script.words[:-1]]
    assert 0.05 < np.mean(np.array(pauses) > 0) < 0.5
    assert max(pauses) <= 380
    assert {script.voice for script in scripts} == set(CAST.speakers)
    assert min(s.speed for s in scripts) >= CAST.speeds[0]
    assert max(s.speed for s in scripts) <= CAST.speeds[1]


def test_sentences_with_latin_letters_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sentences = [Sentence("x", "他买了iphone手机", ()), Sentence("y", "二零一六年GDP", ())]
    with caplog.at_level(logging.WARNING):
        assert not list(sentence_tasks(sentences, CAST))
    assert "left out x" in caplog.text
    assert "left out y" in caplog.text


def test_blends_are_new_speakers() -> None:
    cast = Cast(("a", "b", "c"), blends=True)
    lines = [MarkedLine(f"k{n}", ()) for n in range(200)]
    voices = {t.script.voice for t in marked_tasks(lines, cast)}
    assert {"a", "b", "c"} < voices
    assert any(voice.count("*") == 2 for voice in voices)
    assert all("*" not in t.script.voice for t in marked_tasks(lines, CAST))


def test_interleave_keeps_the_ratio_and_loses_nothing(tasks: list[Task]) -> None:
    first, second = tasks[:7], tasks[7:10]
    mixed = list(interleave(first, second, ratio=3))
    assert mixed == [*first[:3], second[0], *first[3:6], second[1], first[6], second[2]]
    assert list(interleave([], second, ratio=3)) == second
    assert list(interleave(first, [], ratio=3)) == first
