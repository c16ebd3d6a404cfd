"""The rules are broken on purpose: a checker that never complains proves nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import AudioAck, EntityRetract, ServerMessage, Transcript

from ..streamer import server_messages as wire
from .protocol_rules import ProtocolRules, RuleBrokenError

TEXT = "他在北京"


def entity(**changes: Any) -> Any:
    return msgspec.structs.replace(wire.entity("LOC", "北京", 2), **changes)


def upsert(seq: int, **changes: Any) -> ServerMessage:
    return wire.upsert("u1", 1, entity(**changes), seq=seq)


def final(seq: int, text: str = TEXT, **changes: Any) -> ServerMessage:
    return wire.final("u1", 1, text, entity(**{"status": "final", **changes}), seq=seq)


def retract(seq: int) -> ServerMessage:
    return EntityRetract(
        seq=seq, utterance="u1", revision=1, id="LOC2", reason="withdrawn", behind_live_ms=0
    )


def error(name: ErrorName) -> ServerMessage:
    return ProtocolError(name, "expected this, got that").message()


READY = wire.ready()
BROKEN: dict[str, list[ServerMessage]] = {
    "session.ready comes before events": [upsert(1)],
    "session.ready comes once": [READY, READY],
    "seq 2 follows 1": [READY, upsert(1), upsert(3, version=2)],
    "seq 1 follows 0": [READY, upsert(2)],
    "version rises": [READY, upsert(1), upsert(2)],
    "status only rises": [READY, upsert(1, status="stable"), upsert(2, version=2)],
    "a parent is known": [READY, upsert(1, parent="LOC0")],
    "offsets cut out the text": [READY, upsert(1, start=1)],
    "only what was shown is retracted": [READY, retract(1)],
    "a retracted id does not come back": [READY, upsert(1), retract(2), upsert(3, version=2)],
    "nothing follows utterance.final": [READY, final(1), upsert(2, version=2)],
    "the deltas add up": [READY, upsert(1, id="LOC9"), final(2)],
    "entities of a final are final": [READY, final(1, status="stable")],
    "the text is the one that was sent": [READY, final(1, "她在北京")],
    "audio.ack does not fall": [READY, AudioAck(received_ms=2), AudioAck(received_ms=1)],
    "nothing follows the error": [READY, error(ErrorName.IDLE), AudioAck(received_ms=1)],
    "every final is answered before the end": [READY, wire.summary(1)],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_seen(rule: str) -> None:
    rules = ProtocolRules()
    rules.on_sent(Transcript(utterance="u1", revision=1, final=True, text=TEXT))
    *before, last = BROKEN[rule]
    for message in before:
        rules.on_message(message)
    with pytest.raises(RuleBrokenError, match=rule):
        rules.on_message(last)


def test_a_session_in_order_breaks_none() -> None:
    rules = ProtocolRules()
    rules.on_sent(Transcript(utterance="u1", revision=1, final=True, text=TEXT))
    events = [upsert(1), upsert(2, version=2, status="final"), final(3, version=2)]
    for message in (READY, *events, AudioAck(received_ms=1), wire.summary(1)):
        rules.on_message(message)
    rules.on_close(1000)
    assert (rules.seq, rules.answered, rules.owed) == (3, {"u1"}, set())


def test_a_slow_reader_may_miss_changes_but_nothing_that_it_saw_is_gone() -> None:
    for is_gone in (False, True):
        rules = ProtocolRules()
        rules.changes_were_dropped = True
        for message in (READY, upsert(1, **({"id": "LOC9"} if is_gone else {}))):
            rules.on_message(message)
        if is_gone:
            with pytest.raises(RuleBrokenError, match="what was shown and not retracted"):
                rules.on_message(final(2))
        else:
            rules.on_message(final(2, version=7))


def test_closes_have_names() -> None:
    rules = ProtocolRules()
    rules.on_close(1009)
    with pytest.raises(RuleBrokenError, match="an error comes before the close 4408"):
        rules.on_close(4408)
    rules.on_message(error(ErrorName.IDLE))
    rules.on_close(4408)
    with pytest.raises(RuleBrokenError, match="4408 was announced, not 1000"):
        rules.on_close(1000)


def test_numbers_go_on_after_a_resume() -> None:
    rules = ProtocolRules()
    for message in (READY, upsert(1)):
        rules.on_message(message)
    rules.on_resumed()
    rules.on_message(READY)
    rules.on_message(upsert(2, version=2))
    with pytest.raises(RuleBrokenError, match="seq 3 follows 2"):
        rules.on_message(upsert(1, version=3))
