"""Who speaks, and in which channel: what a transcript says of it, its answers repeat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import UNSET

from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.codec import decode_client, encode
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    EntityUpsert,
    ErrorMessage,
    Transcript,
    UtteranceFinal,
)

from ..conftest import Driver

Drive = Callable[..., Driver]


def transcript(revision: int, **said: Any) -> str:
    whole = {"utterance": "u1", "revision": revision, "final": False, "text": "他在北京", **said}
    return json.dumps({"type": "transcript", **whole})


def voices(messages: list[Any]) -> list[tuple[type, Any, Any]]:
    told = (EntityUpsert, CaptionUpdate, UtteranceFinal)
    return [(type(m), m.speaker, m.channel) for m in messages if isinstance(m, told)]


def test_the_answers_repeat_what_their_revision_says(drive: Drive) -> None:
    driver = drive(hold_ms=0)
    driver.send(transcript(1, speaker="主持人", channel=1))
    assert voices(driver.run()) == [(EntityUpsert, "主持人", 1), (CaptionUpdate, "主持人", 1)]
    driver.send(transcript(2, final=True, speaker="嘉宾"))
    assert voices(driver.run()) == [(EntityUpsert, "嘉宾", UNSET), (UtteranceFinal, "嘉宾", UNSET)]


@pytest.mark.parametrize("unknown", [{}, {"speaker": None, "channel": None}])
def test_nothing_is_told_of_what_is_not_known(drive: Drive, unknown: dict[str, None]) -> None:
    driver = drive()
    driver.send(transcript(1, final=True, **unknown))
    messages = driver.run()
    assert {voice[1:] for voice in voices(messages)} == {(UNSET, UNSET)}
    assert "speaker" not in encode(messages[-1]).decode()
    assert "channel" not in encode(messages[-1]).decode()


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"speaker": ""}, r"length >= 1, got '' at \$\.speaker"),
        ({"speaker": "长" * 65}, r"length <= 64, got .* at \$\.speaker"),
        ({"speaker": 1}, r"got 1 at \$\.speaker"),
        ({"channel": -1}, r">= 0, got -1 at \$\.channel"),
        ({"channel": 256}, r"<= 255, got 256 at \$\.channel"),
    ],
)
def test_what_is_no_speaker_or_channel_is_refused(
    drive: Drive, said: dict[str, Any], complaint: str
) -> None:
    driver = drive()
    driver.send(transcript(1, **said))
    (error,) = [m for m in driver.run() if isinstance(m, ErrorMessage)]
    assert error.name == "invalid_message"
    assert re.search(complaint, error.detail), error.detail


def test_a_client_that_does_not_know_says_nothing() -> None:
    """A server of an earlier version refuses the fields."""
    sent = encode(Revision("u1", 1, "他", True).message()).decode()
    assert "speaker" not in sent
    assert "channel" not in sent
    known = Revision("u1", 1, "他", True, speaker="S1", channel=0).message()
    again = decode_client(encode(known))
    assert isinstance(again, Transcript)
    assert (again.speaker, again.channel) == ("S1", 0)
