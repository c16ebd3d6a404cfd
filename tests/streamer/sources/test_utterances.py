from __future__ import annotations

import pytest

from cnerta.streamer.sources import Revision
from cnerta.streamer.sources.utterances import CLOSED_KEPT, MAX_CHARACTERS, Hypothesis, Utterances


def test_only_what_is_new_is_passed_on() -> None:
    utterances = Utterances()
    said = [
        *utterances.update(Hypothesis("a", "", False), 0),
        *utterances.update(Hypothesis("a", "南 京", False, 100.4), 100),
        *utterances.update(Hypothesis("a", "南京", False), 200),
        *utterances.update(Hypothesis("b", "", True), 250),
        *utterances.update(Hypothesis("a", "南京市", True, None, 900), 300),
        *utterances.update(Hypothesis("a", "南京市长", True), 400),
        *utterances.update(Hypothesis("c", "好", True, 500, 400), 500),
    ]
    assert said == [
        Revision("u1", 1, "南京", False, 100),
        Revision("u1", 2, "南京市", True, 100, 900),
        Revision("u2", 1, "好", True, 500, 500),
    ]
    assert utterances.close_all() == []


def test_a_text_taken_back_ends_empty() -> None:
    utterances = Utterances()
    utterances.update(Hypothesis("a", "恩", False), 0)
    assert utterances.update(Hypothesis("a", "", True), 0) == [Revision("u1", 2, "", True)]


def test_what_is_silent_has_ended_and_goes_on_as_another() -> None:
    utterances = Utterances(silence_ms=1_000)
    utterances.update(Hypothesis("a", "南京市", False), 100)
    assert utterances.overdue(1_099) == []
    assert utterances.overdue(1_100) == [Revision("u1", 2, "南京市", True)]
    assert utterances.update(Hypothesis("a", "南京市", False), 1_200) == []
    assert utterances.update(Hypothesis("a", "南京市 长江", False), 1_300) == [
        Revision("u2", 1, "长江", False)
    ]
    assert utterances.update(Hypothesis("a", "南京市长江大桥", True), 1_400) == [
        Revision("u2", 2, "长江大桥", True)
    ]


@pytest.mark.parametrize("how", ["long", "many"])
def test_what_never_ends_is_ended(how: str) -> None:
    utterances = Utterances(longest_ms=10_000)
    text = "一" * (MAX_CHARACTERS if how == "many" else 3)
    utterances.update(Hypothesis("a", "一", False), 0)
    utterances.update(Hypothesis("a", text, False), 9_000)
    assert utterances.overdue(10_000 if how == "long" else 9_000) == [Revision("u1", 3, text, True)]
    assert utterances.update(Hypothesis("a", text + "二", True), 11_000) == [
        Revision("u2", 1, "二", True)
    ]


def test_another_recogniser_may_use_the_same_names() -> None:
    utterances = Utterances()
    utterances.update(Hypothesis("a", "一二", True), 0)
    utterances.update(Hypothesis("b", "三", False), 0)
    assert utterances.close_all() == [Revision("u2", 2, "三", True)]
    utterances.forget()
    assert utterances.update(Hypothesis("a", "四", False), 0) == [Revision("u3", 1, "四", False)]
    assert utterances.update(Hypothesis("b", "五", False), 0) == [Revision("u4", 1, "五", False)]


def test_what_is_remembered_is_bounded() -> None:
    utterances = Utterances()
    for number in range(3 * CLOSED_KEPT):
        utterances.update(Hypothesis(str(number), "一", True), 0)
    assert len(utterances._closed) == CLOSED_KEPT
