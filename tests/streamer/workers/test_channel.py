"""Messages between processes, with open files."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import asdict

from cnerta.streamer.access.admission import Place
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.session_tokens import SessionToken
from cnerta.streamer.workers.channel import Channel, Files, are_supported
from cnerta.streamer.workers.messages import Adopt, Ended, HandOver, Message, Stop


def test_messages_and_files_come_as_they_were_sent() -> None:
    assert are_supported()
    own, other = Channel.pair()
    far = Channel(other)
    token = SessionToken(b"key", Caller("captions", Quota(sessions=3)), 60.0, is_spent=True)
    place = Place(token.caller, "192.0.2.7", token)
    one, two = socket.socketpair()
    with one, two:
        assert own.send(HandOver("2", "192.0.2.1", place), [two.fileno()])
        assert own.send(Stop())
        message, files = far.receive() or (None, ())
        assert isinstance(message, HandOver)
        assert (message.to, message.remote) == ("2", "192.0.2.1")
        assert asdict(message.place) == asdict(place)
        with socket.socket(fileno=files[0]) as copy:
            copy.send(b"x")
            assert one.recv(1) == b"x"
    assert far.receive() == (Stop(), ())
    own.close()
    assert far.receive() is None
    assert not far.send(Ended(0)), "nobody is there"


def test_who_does_not_read_keeps_nobody_waiting() -> None:
    own, other = Channel.pair()
    with other:
        sent = 0
        while own.send(Ended(sent)):
            sent += 1
            assert sent < 1_000_000
        assert sent > 50


async def test_the_loop_hands_over_what_comes_and_tells_of_the_end() -> None:
    own, other = Channel.pair()
    far = Channel(other)
    seen: list[tuple[Message, Files]] = []
    ended = asyncio.Event()
    own.follow(lambda message, files: seen.append((message, files)), ended.set)
    with open(os.devnull) as file:
        assert far.send(Adopt("public"), [file.fileno()])
    for n in range(100):
        assert far.send(Ended(n))
    far.close()
    async with asyncio.timeout(60):
        await ended.wait()
    assert [message for message, _ in seen] == [Adopt("public"), *(Ended(n) for n in range(100))]
    os.close(seen[0][1][0])
