"""A connection that one server hands to another, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cnerta.streamer.access.callers import ANYBODY
from cnerta.streamer.access.ledger import OwnLedger
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.serving.tls import CertificateFiles
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import ResumeRequest

from ..certificates import write_certificate
from ..speaking_client import Client


class Two:
    """Two servers that know of each other: a stub of what processes do with channels."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.handed: list[tuple[str, Handed]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.met: dict[str, str] = {}
        self.parted = 0


class Group:
    """One of them, as it sees both."""

    size = 2

    def __init__(self, two: Two, name: str, folder: Path) -> None:
        self.two, self.name = two, name
        self.ledger = OwnLedger()
        self.metrics_folder = folder
        self._issued = 0

    def process_ids(self) -> list[int]:
        return [os.getpid()]

    def new_token(self) -> str:
        self._issued += 1
        return f"{self.name}.{self._issued}"

    def has_session_of(self, token: str) -> str | None:
        name, dot, _ = token.partition(".")
        return name if dot and name != self.name and name in "ab" else None

    def hand_over(self, to: str, end: socket.socket, handed: Handed) -> bool:
        copy = socket.socket(fileno=os.dup(end.fileno()))
        task = asyncio.create_task(self.two.servers[to].adopt(copy, handed))
        self.two.tasks.add(task)
        self.two.handed.append((to, handed))
        return True

    def meet(self, key: str, *, is_here: bool) -> str | None:
        found = self.two.met.setdefault(key, self.name)
        return None if is_here or found == self.name else found

    def part(self, key: str) -> None:
        self.two.parted += 1

    def why_not_ready(self, own: str | None) -> str | None:
        return own

    def why_not_healthy(self, own: str | None) -> str | None:
        return own


@contextlib.asynccontextmanager
async def both(model: Any, folder: Path, **options: Any) -> AsyncIterator[Two]:
    """Two servers; each listens on a port of its own, which stands for the one that they share."""
    two = Two()
    async with contextlib.AsyncExitStack() as stack:
        for name in "ab":
            made = Server(model, ServerOptions(**options), group=Group(two, name, folder))  # type: ignore[arg-type]
            server = await stack.enter_async_context(made)
            (folder / name).mkdir()
            await server.start_behind("127.0.0.1", folder / name)
            two.servers[name] = server
        yield two


@contextlib.asynccontextmanager
async def visiting(
    server: Server, tls: ssl.SSLContext | None = None, path: str = "/v1/stream"
) -> AsyncIterator[Client]:
    """A client whose connection somebody else has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        loop = asyncio.get_running_loop()

        async def accept() -> None:
            end, _ = await loop.sock_accept(listening)
            await server.adopt(end)

        accepting = asyncio.create_task(accept())
        where = f"127.0.0.1:{listening.getsockname()[1]}{path}"
        url = f"{'ws' if tls is None else 'wss'}://{where}"
        async with connect(url, proxy=None, compression=None, ssl=tls) as made:
            await accepting
            yield Client(made)


def final(text: str, utterance: str) -> Transcript:
    return Transcript(utterance=utterance, revision=1, final=True, text=text)


def resuming(ready: SessionReady, last_seq: int) -> SessionStart:
    assert ready.resume is not None
    return SessionStart(resume=ResumeRequest(token=ready.resume.token, last_seq=last_seq))


async def until_parked(server: Server) -> None:
    async with asyncio.timeout(60):
        while not len(server._lot):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_session_goes_on_at_another_server(
    model: Any, kit: SimpleNamespace, tmp_path: Path, encrypted: bool
) -> None:
    options: dict[str, Any] = {}
    trusting = None
    if encrypted:
        options["tls"] = CertificateFiles(*write_certificate(tmp_path, "ours")).context
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with both(model, tmp_path, **options) as two:
        a, b = two.servers["a"], two.servers["b"]
        async with visiting(a, trusting) as first:
            await first.send(SessionStart(), kit.speak("他在北京"), final("他在北京", "u1"))
            ready = await first.until(SessionReady)
            assert ready.resume.token.startswith("a.")
            await first.until(UtteranceFinal)
            first.vanish()
        await until_parked(a)
        async with visiting(b, trusting) as second:
            # All at once: what comes behind the request goes the same way.
            await second.send(resuming(ready, first.last_seq))
            again = await second.until(SessionReady)
            assert (again.recovered, again.session) == (True, ready.session)
            at = 2 * again.audio_received_samples
            spoken = kit.speak("他在北京") + kit.speak("她去上海")
            await second.send(spoken[at:], final("她去上海", "u2"))
            answer = await second.until(UtteranceFinal)
            assert answer.audio_used
            assert a.count_open == 1
            carried = 1 if encrypted else 0
            assert (b.count_open, b.count_sessions) == (carried, carried)
            assert await (await second.socket.ping()) >= 0
            await second.send(SessionFinish())
            messages = await second.rest()
            assert isinstance(messages[-1], SessionSummary)
            assert messages[-1].utterances == 2
            assert second.socket.close_code == 1000
        assert [to for to, _ in two.handed] == ["a"]
        assert two.handed[0][1].place.caller is ANYBODY
        async with asyncio.timeout(60):
            while a.count_sessions + b.count_sessions:
                await asyncio.sleep(0.01)
        for server in (a, b):
            assert server.admission.why_not_ready(asyncio.get_running_loop().time()) is None
            assert server._group is not None
            assert server._group.ledger.places.count("") == 0


async def test_frames_that_came_with_the_request_are_not_lost(model: Any, tmp_path: Path) -> None:
    async with both(model, tmp_path) as two:
        async with visiting(two.servers["a"]) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            first.vanish()
        await until_parked(two.servers["a"])
        async with visiting(two.servers["b"]) as second:
            many = [final("他在北京", f"u{n}") for n in range(40)]
            await second.send(resuming(ready, 0), *many, bytes(6_000), SessionFinish())
            messages = await second.rest()
            answered = [m.utterance for m in messages if isinstance(m, UtteranceFinal)]
            assert answered == [f"u{n}" for n in range(40)]
            assert len(two.handed[0][1].opening) > 200


async def test_a_session_that_is_gone_is_a_new_one_where_it_was_asked_for(
    model: Any, tmp_path: Path
) -> None:
    async with both(model, tmp_path) as two, visiting(two.servers["b"]) as second:
        start = SessionStart(resume=ResumeRequest(token="a.99", last_seq=0))
        await second.send(start, final("他在北京", "u1"))
        ready = await second.until(SessionReady)
        assert (ready.recovered, ready.lost.reason) == (False, "unknown_token")
        assert ready.resume.token.startswith("a."), "it was handed over once, and stays"
        assert await second.until(UtteranceFinal)


async def test_a_connection_that_has_begun_is_never_handed_over(model: Any, tmp_path: Path) -> None:
    async with both(model, tmp_path) as two, visiting(two.servers["b"]) as stream:
        await stream.send(SessionStart())
        await stream.until(SessionReady)
        start = SessionStart(resume=ResumeRequest(token="a.1", last_seq=0))
        await stream.send(start)
        messages = await stream.rest()
        assert isinstance(messages[-1], ErrorMessage)
        assert not two.handed


async def test_whoever_was_handed_over_is_sent_away_with_all_others(
    model: Any, tmp_path: Path
) -> None:
    async with both(model, tmp_path) as two:
        async with visiting(two.servers["a"]) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            first.vanish()
        await until_parked(two.servers["a"])
        async with visiting(two.servers["b"]) as second:
            await second.send(resuming(ready, 0))
            assert (await second.until(SessionReady)).recovered
            await two.servers["a"].stop()
            kinds = [type(message) for message in await second.rest()]
            assert kinds == [SessionGoingAway, ErrorMessage]
            assert second.socket.close_code == 1001
        late, other = socket.socketpair()
        with other:
            await two.servers["a"].adopt(late)
            assert other.recv(1) == b"", "nobody is taken any more"


async def test_a_page_and_its_overlay_meet_wherever_they_came_to(
    model: Any, tmp_path: Path
) -> None:
    path = "/v1/overlay?key=abcdefghijklmnop"
    async with both(model, tmp_path) as two:
        async with (
            visiting(two.servers["a"], path=f"{path}&show=1") as page,
            visiting(two.servers["b"], path=path) as overlay,
        ):
            await page.socket.send("what is shown")
            async with asyncio.timeout(60):
                assert await overlay.socket.recv() == "what is shown"
        assert [to for to, _ in two.handed] == ["a"]
        async with asyncio.timeout(60):
            while two.parted < 2:
                await asyncio.sleep(0.01)
