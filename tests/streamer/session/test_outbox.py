from __future__ import annotations

from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import Entity

ENTITY = Entity(
    id="e1",
    version=1,
    status="tentative",
    label="LOC",
    text="北京",
    start=0,
    end=2,
    start_utf16=0,
    end_utf16=2,
    parent=None,
    start_ms=None,
    end_ms=None,
    time_source="none",
    confidence=0.5,
    audio_used=False,
)


def upsert(entity_id: str, version: int, parent: str | None = None) -> EntityUpsert:
    changed = Entity(
        **{f: getattr(ENTITY, f) for f in ENTITY.__struct_fields__}
        | {"id": entity_id, "version": version, "parent": parent}
    )
    return EntityUpsert(seq=0, utterance="u", revision=1, entity=changed, behind_live_ms=0)


def retract(entity_id: str) -> EntityRetract:
    return EntityRetract(
        seq=0, utterance="u", revision=1, id=entity_id, reason="withdrawn", behind_live_ms=0
    )


def final(utterance: str) -> UtteranceFinal:
    return UtteranceFinal(
        seq=0,
        utterance=utterance,
        revision=1,
        text="北京",
        entities=[],
        characters=[],
        time_source="none",
        audio_used=False,
        behind_live_ms=0,
    )


def drain(outbox: Outbox) -> list[ServerMessage]:
    messages = []
    while (message := outbox.pop()) is not None:
        messages.append(message)
    return messages


def test_events_are_numbered_when_they_leave_and_only_events() -> None:
    outbox = Outbox(10**6)
    for message in (upsert("e1", 1), AudioAck(received_ms=1), retract("e2"), final("u")):
        outbox.put(message)
    outbox.put(upsert("e3", 1))
    events = [m for m in drain(outbox) if not isinstance(m, AudioAck)]
    assert [m.seq for m in events] == [1, 2, 3]
    outbox.put(retract("e3"))
    assert [m.seq for m in drain(outbox)] == [4]


def test_only_the_newest_state_of_an_entity_waits() -> None:
    outbox = Outbox(10**6)
    for version in range(1, 50):
        outbox.put(upsert("e1", version))
        outbox.put(AudioAck(received_ms=version))
        outbox.put(WarningMessage(name="audio_clipped", detail=str(version)))
    messages = drain(outbox)
    assert len(messages) == 3
    assert messages[0].entity.version == 49
    assert messages[1].received_ms == 49
    assert messages[2].detail == "49"


def test_an_entity_that_came_and_went_unheard_is_not_mentioned() -> None:
    outbox = Outbox(10**6)
    outbox.put(upsert("e1", 1))
    outbox.put(retract("e1"))
    assert drain(outbox) == []


def test_a_retraction_of_a_known_entity_takes_the_place_of_its_changes() -> None:
    outbox = Outbox(10**6)
    outbox.put(upsert("e1", 1))
    drain(outbox)
    outbox.put(upsert("e1", 2))
    outbox.put(retract("e1"))
    (message,) = drain(outbox)
    assert isinstance(message, EntityRetract)


def test_at_the_bound_changes_go_and_finals_stay() -> None:
    outbox = Outbox(20_000)
    for number in range(100):
        outbox.put(upsert(f"e{number}", 1))
        if number % 10 == 0:
            outbox.put(final(f"u{number}"))
    assert not outbox.is_over
    assert outbox.dropped_changes > 0
    messages = drain(outbox)
    assert sum(isinstance(m, UtteranceFinal) for m in messages) == 10
    assert len(messages) <= 20
    assert [m.seq for m in messages] == list(range(1, len(messages) + 1))


def test_finals_alone_can_go_over_the_bound() -> None:
    outbox = Outbox(20_000)
    for number in range(30):
        outbox.put(final(f"u{number}"))
    assert outbox.is_over
    outbox.clear()
    assert not outbox.is_over
    assert drain(outbox) == []


def told(outbox: Outbox) -> list[str]:
    ids = []
    while (message := outbox.pop()) is not None:
        assert isinstance(message, EntityUpsert)
        ids.append(f"{message.entity.id} v{message.entity.version}")
    return ids


def test_an_inner_entity_leaves_after_the_one_around_it() -> None:
    outbox = Outbox(100_000)
    outbox.put(upsert("outer", 1))
    outbox.put(upsert("inner", 1, "outer"))
    outbox.put(upsert("innermost", 1, "inner"))
    outbox.put(upsert("outer", 2))  # goes to the end, as what is new
    assert told(outbox) == ["outer v2", "inner v1", "innermost v1"]
    outbox.put(upsert("inner", 2, "outer"))
    outbox.put(upsert("outer", 3))
    assert told(outbox) == ["inner v2", "outer v3"], "the client knows the outer one already"


def test_without_the_one_around_it_an_inner_entity_waits_for_the_final() -> None:
    outbox = Outbox(2_500)
    outbox.put(upsert("outer", 1))
    outbox.put(upsert("inner", 1, "outer"))
    outbox.put(upsert("other", 1))  # the oldest change, that of the outer one, goes
    assert told(outbox) == ["other v1"]
    assert outbox.dropped_changes == 2
