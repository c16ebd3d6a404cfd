"""One stream of events, whatever sessions they come from."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from cnerta.streamer.client.continuity import Continuity
from cnerta.streamer.wire.messages import (
    AudioAck,
    CaptionUpdate,
    EntityRetract,
    WarningMessage,
)

from .. import server_messages as wire

CITY = wire.entity("LOC", "北京", 2)
FINAL = structs.replace(CITY, version=2, status="final")


def retract(seq: int, entity_id: str) -> EntityRetract:
    return EntityRetract(
        seq=seq, utterance="u", revision=1, id=entity_id, reason="withdrawn", behind_live_ms=40
    )


def test_without_another_session_nothing_changes() -> None:
    messages: list[Any] = [
        wire.upsert("u", 1, CITY, seq=1),
        AudioAck(received_ms=1_000),
        retract(2, CITY.id),
        WarningMessage(name="audio_clipped", detail="x"),
        wire.upsert("u", 2, FINAL, seq=3),
        wire.final("u", 2, "他在北京", FINAL, seq=4),
        wire.summary(),
    ]
    stream = Continuity()
    assert [m for message in messages for m in stream.received(message)] == messages


def test_what_comes_twice_is_told_once() -> None:
    stream = Continuity()
    event = wire.upsert("u", 1, CITY, seq=1)
    assert stream.received(event) == [event]
    assert stream.received(event) == []
    assert stream.last_seq == 1


def test_another_session_goes_on_in_numbers_times_and_names() -> None:
    stream = Continuity()
    stream.received(wire.upsert("u", 1, CITY, seq=1))
    inner = wire.entity("PER", "北", 2, parent=CITY.id)
    stream.received(wire.upsert("u", 1, inner, seq=2))
    stream.received(AudioAck(received_ms=5_000))
    told = stream.new_session(16 * 4_000, 4_000)
    assert [(m.seq, m.id, m.reason) for m in told] == [  # type: ignore[union-attr]
        (3, inner.id, "withdrawn"),
        (4, CITY.id, "withdrawn"),
    ]
    assert stream.last_seq == 0
    (again,) = stream.received(wire.upsert("u", 1, CITY, seq=1))
    assert (again.seq, again.entity.id) == (5, f"{CITY.id}~1")  # type: ignore[union-attr]
    assert again.entity.start_ms == 4_300  # type: ignore[union-attr]
    assert stream.received(AudioAck(received_ms=500)) == [AudioAck(received_ms=5_000)]
    assert stream.received(AudioAck(received_ms=1_500)) == [AudioAck(received_ms=5_500)]
    (gone,) = stream.received(retract(2, CITY.id))
    assert gone.id == f"{CITY.id}~1"  # type: ignore[union-attr]
    placed = structs.replace(inner, status="final")
    stream.received(wire.upsert("u", 2, FINAL, seq=3))
    stream.received(wire.upsert("u", 2, placed, seq=4))
    answer = structs.replace(
        wire.final("u", 2, "他在北京", FINAL, placed, seq=5), characters=[(0, 100), (100, 200)]
    )
    *shown, final = stream.received(answer)
    assert [m.seq for m in (*shown, final)] == [7, 8, 9]  # type: ignore[union-attr]
    assert final.characters == [(4_000, 4_100), (4_100, 4_200)]  # type: ignore[union-attr]
    assert [e.id for e in final.entities] == [f"{CITY.id}~1", f"{inner.id}~1"]  # type: ignore[union-attr]
    assert final.entities[1].parent == f"{CITY.id}~1"  # type: ignore[union-attr]
    (summary,) = stream.received(wire.summary(7))
    assert (summary.utterances, summary.entities, summary.audio_ms) == (1, 2, 6_300)  # type: ignore[union-attr]


def test_a_final_entity_is_shown_with_its_answer_so_that_it_never_has_to_go() -> None:
    stream = Continuity()
    stream.received(wire.upsert("u", 1, CITY, seq=1))
    assert stream.received(wire.upsert("u", 2, FINAL, seq=2)) == []
    (gone,) = stream.new_session(0, 0)
    assert gone.id == CITY.id  # type: ignore[union-attr]
    assert gone.seq == 2  # type: ignore[union-attr]
    final = wire.final("u", 2, "他在北京", seq=1)
    (told,) = stream.received(final)
    assert told.seq == 3  # type: ignore[union-attr]


def test_what_is_answered_is_not_retracted() -> None:
    stream = Continuity()
    stream.received(wire.upsert("u", 1, CITY, seq=1))
    stream.received(wire.final("u", 2, "他在北京", FINAL, seq=2))
    stream.received(wire.upsert("v", 1, CITY, seq=3))
    stream.received(structs.replace(retract(4, CITY.id), utterance="v"))
    assert stream.new_session(0, 0) == []


def test_captions_are_those_of_the_whole_stream() -> None:
    stream = Continuity()
    stream.names_utterances = True
    update = CaptionUpdate(utterance="s1", revision=1, text="他在北京", entities=[CITY], held=0)
    assert stream.received(update) == [update]
    stream.new_session(16 * 4_000, 4_000)
    (told,) = stream.received(update)
    assert isinstance(told, CaptionUpdate)
    assert told.utterance == "s1~1"
    assert [(e.id, e.start_ms) for e in told.entities] == [(f"{CITY.id}~1", 4_300)]
