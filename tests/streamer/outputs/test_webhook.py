from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.http_receiver import RetryPolicy, retry_after_s
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.session_outputs import Outputs
from cnerta.streamer.outputs.webhook import Webhook
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import WarningMessage

from ...http_server import HttpServer, QuietHandler
from .. import server_messages as wire

FAST = RetryPolicy(timeout_s=2.0, attempts=3, first_pause_s=0.01, longest_pause_s=0.05)
PER = wire.entity("PER", "江大桥", 0)


class Receiver:
    """A real HTTP server that answers with what it is told to."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(QuietHandler):
            def post(self, body: bytes) -> None:
                receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
                receiver.hold.wait(20)
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.answer(status, headers=headers)

            def get(self) -> None:
                self.post(b"{}")

        self.server = HttpServer(Handler)
        self.url = f"{self.server.url}/hook?key=secret"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of every delivery, in the order of their numbers; those sent again only once."""
        deliveries = {body["delivery"]: body["events"] for _, _, body in self.requests}
        return [event for number in sorted(deliveries) for event in deliveries[number]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.hold.set()
    made.server.close()


async def send(webhook: Webhook, count: int = 3) -> list[dict[str, Any]]:
    """A session with so many finals; the events as they should arrive."""
    messages = [
        wire.upsert("u1", 1, PER),
        *(wire.final(f"u{number}", 1, "江大桥", PER, seq=number) for number in range(count)),
        wire.summary(),
    ]
    async with Outputs(FoldingView(), [webhook]) as outputs:
        outputs.on_message(wire.ready())
        outputs.on_revision(Revision("u1", 1, "江大桥", True))
        outputs.on_audio(bytes(2), 0.0)
        outputs.on_message(WarningMessage(name="audio_clipped", detail="loud"))
        for message in messages:
            outputs.on_message(message)
            await asyncio.sleep(0.01)
    return [msgspec.json.decode(encode(message)) for message in messages]


async def test_events_arrive_in_order(receiver: Receiver) -> None:
    expected = await send(Webhook(receiver.url, token="abc", policy=FAST))
    assert receiver.events == expected
    path, headers, body = receiver.requests[0]
    assert path == "/hook?key=secret"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer abc"
    assert (body["session"], body["delivery"], body["lost"]) == ("s1", 1, 0)


async def test_what_is_refused_for_now_is_sent_again(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "1"}), (200, {})]
    expected = await send(Webhook(receiver.url, policy=FAST))
    assert receiver.events == expected
    numbers = [body["delivery"] for _, _, body in receiver.requests]
    assert numbers[:3] == [1, 1, 1]
    assert receiver.requests[0][2] == receiver.requests[1][2]
    assert "secret" not in caplog.text, "an address may be a password"
    assert "got: 503 Service Unavailable (attempt 1 of 3)" in caplog.text


@pytest.mark.parametrize("status", [400, 301, 307])
async def test_what_is_refused_for_good_is_not_sent_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Location": "/elsewhere"})]
    with pytest.raises(OutputError, match="to take every event, got 1 left over"):
        await send(Webhook(receiver.url, policy=FAST))
    assert [body["delivery"] for _, _, body in receiver.requests][:2] == [1, 2]
    assert receiver.requests[-1][2]["lost"] == 1
    assert {path for path, _, _ in receiver.requests} == {"/hook?key=secret"}


async def test_nobody_there(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.server.close()
    webhook = Webhook(receiver.url, policy=FAST)
    with pytest.raises(OutputError, match="got 5 left over"):
        await send(webhook)
    assert "Connection refused" in caplog.text


async def test_a_receiver_that_hangs_does_not_hold_up_the_session(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.hold.clear()
    policy = RetryPolicy(timeout_s=60.0, queue=10, drain_s=0.1)
    webhook = Webhook(receiver.url, policy=policy)
    with pytest.raises(OutputError, match="got 50 left over"):
        await send(webhook, count=48)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "does not keep up" in caplog.text


async def test_what_is_lost_first_is_not_final(receiver: Receiver) -> None:
    receiver.hold.clear()
    webhook = Webhook(receiver.url, policy=RetryPolicy(queue=6, first_pause_s=0.01))
    outputs = Outputs(FoldingView(), [webhook])
    await outputs.__aenter__()
    outputs.on_message(wire.ready())
    outputs.on_message(wire.summary())
    while not receiver.requests:  # The first delivery is on its way, and held.
        await asyncio.sleep(0.01)
    for number in range(5):
        outputs.on_message(wire.upsert(f"u{number}", 1, PER))
        outputs.on_message(wire.final(f"u{number}", 1, "江大桥"))
    outputs.on_message(wire.summary())
    receiver.hold.set()
    with pytest.raises(OutputError, match="got 5 left over"):
        await outputs.__aexit__(None, None, None)
    kinds = [event["type"] for event in receiver.events]
    assert kinds == ["session.summary", *["utterance.final"] * 5, "session.summary"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/secret",
        "secret",
        "http://",
        "http://user:secret@host/x",
        "https://secret@x",
        "http://[secret",
        "http://x/secret\n",
        "http://x/se cret",
        "http://x/秘secret",
    ],
)
def test_address_that_is_none(url: str) -> None:
    with pytest.raises(OutputError, match="expected a webhook") as refused:
        Webhook(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "token"), [("http://host/secret", "abc"), ("http://host/secret?token=secret", "")]
)
def test_a_token_is_not_sent_in_clear_text(url: str, token: str) -> None:
    with pytest.raises(OutputError, match="expected https:// for a webhook") as refused:
        Webhook(url, token=token)
    assert "secret" not in str(refused.value)
    Webhook(url.replace("http:", "https:"), token=token)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-3", 0.0),
        ("\N{SUPERSCRIPT TWO}", 0.0),
        ("Sun, 06 Nov 99999999 08:49:47 GMT", 0.0),
    ],
)
def test_how_long_a_receiver_asks_to_wait(header: str, seconds: float) -> None:
    now_s = 784_111_777.0  # The moment of the examples in RFC 9110, section 5.6.7.
    assert retry_after_s(header, now_s) == seconds


async def test_a_receiver_may_ask_to_wait_until_a_date(receiver: Receiver) -> None:
    # A day from now, which the longest pause cuts short.
    tomorrow = email.utils.formatdate(time.time() + 86_400, usegmt=True)
    receiver.answers = [(503, {"Retry-After": tomorrow})]
    policy = RetryPolicy(first_pause_s=0.01, longest_pause_s=60.0, drain_s=0.5)
    with pytest.raises(OutputError, match="got 5 left over"):
        await send(Webhook(receiver.url, policy=policy))
    assert len(receiver.requests) == 1, "waits, and tries nothing before"
