"""A stream that survives its server, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.client.stream import stream
from cnerta.streamer.errors import (
    ServerUnreachableError,
    SessionRefusedError,
    StreamLostError,
)
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.sources import LiveAudio, Revision
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    ServerMessage,
    SessionReady,
    SessionStart,
    SessionSummary,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat

from .. import server_messages as wire
from ..fake_server import answering, server
from ..fault_proxy import FaultProxy
from .fakes import Said, Silence, said

TEXTS = ["他在北京", "她去上海", "张三李四", "在南京市"]
FAST = ReconnectOptions(give_up_s=10.0, silence_s=1.0, first_pause_s=0.01, longest_pause_s=0.1)


class Talk:
    """Utterances, spoken one after the other at many times the pace of speech."""

    def __init__(self, kit: SimpleNamespace, count: int, *, timed: bool, pace_s: float = 0.002):
        self.format = AudioFormat(sample_rate=16_000)
        self.paced, self.endless = False, False
        self.texts = [TEXTS[n % len(TEXTS)] for n in range(count)]
        self._audio = [kit.speak(text) + kit.silence(160) for text in self.texts]
        self._timed, self._pace_s = timed, pace_s

    async def blocks(self) -> AsyncIterator[bytes]:
        for audio in self._audio:
            for at in range(0, len(audio), 1_280):
                yield audio[at : at + 1_280]
                await asyncio.sleep(self._pace_s)

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        at_ms = 0
        for number, text in enumerate(self.texts):
            start_ms, end_ms = at_ms, at_ms + len(self._audio[number]) // 32
            at_ms = end_ms
            for length in range(1, len(text) + 1):
                await audio.reached(start_ms + 160 * length)
                final = length == len(text)
                if final:
                    await audio.reached(end_ms)
                times = (start_ms, end_ms) if self._timed and final else (None, None)
                yield Revision(f"u{number}", length, text[:length], final, *times)


class Watcher:
    """Keeps what becomes of a connection; moments of silence, which a busy machine has, apart."""

    def __init__(self) -> None:
        self.changes: list[ConnectionChange] = []
        self.silences: list[ConnectionChange] = []

    def on_connection(self, change: ConnectionChange) -> None:
        is_moment = change.state in ("silent", "heard")
        (self.silences if is_moment else self.changes).append(change)

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]


def check(messages: list[ServerMessage], talk: Talk) -> list[UtteranceFinal]:
    """The application has seen one session, and every final once, in order."""
    assert [type(m) for m in messages].count(SessionReady) == 1
    numbers = [m.seq for m in messages if hasattr(m, "seq")]
    assert numbers == list(range(1, len(numbers) + 1))
    finals = [m for m in messages if isinstance(m, UtteranceFinal)]
    assert [m.utterance for m in finals] == [f"u{n}" for n in range(len(talk.texts))]
    assert [m.text for m in finals] == talk.texts
    shown: dict[str, EntityUpsert] = {}
    for message in messages:
        if isinstance(message, EntityUpsert):
            before = shown.get(message.entity.id)
            assert before is None or before.entity.version < message.entity.version
            shown[message.entity.id] = message
        elif isinstance(message, EntityRetract):
            assert shown.pop(message.id).entity.status != "final"
        elif isinstance(message, UtteranceFinal):
            mine = [e.entity for e in shown.values() if e.utterance == message.utterance]
            assert sorted(e.id for e in mine) == sorted(e.id for e in message.entities)
    summary = messages[-1]
    assert isinstance(summary, SessionSummary)
    assert summary.utterances == len(talk.texts)
    return finals


async def run(
    urls: list[str],
    talk: Any,
    transcript: Any = None,
    *,
    options: ReconnectOptions = FAST,
    watcher: Watcher | None = None,
    on_message: Callable[[ServerMessage], None] = lambda message: None,
    limit_s: float = 40,
) -> list[ServerMessage]:
    messages: list[ServerMessage] = []
    async with (
        asyncio.timeout(limit_s),
        await ReconnectingConnection.open(urls, options=options, watcher=watcher) as connection,
    ):
        async for message in stream(connection, talk, transcript or talk):
            messages.append(message)
            on_message(message)
    return messages


@contextlib.asynccontextmanager
async def behind_proxy(model: Any, **options: Any) -> AsyncIterator[tuple[Server, FaultProxy, str]]:
    async with Server(model, ServerOptions(**options)) as serving:
        await serving.start()
        async with FaultProxy("127.0.0.1", serving.port) as proxy:
            yield serving, proxy, f"ws://127.0.0.1:{proxy.port}"


async def test_without_faults_it_is_a_connection_like_any_other(
    model: Any, kit: SimpleNamespace
) -> None:
    talk, watcher = Talk(kit, 4, timed=True), Watcher()
    async with behind_proxy(model) as (_, proxy, url):
        messages = await run([url], talk, watcher=watcher)
        assert proxy.opened == 1
    finals = check(messages, talk)
    assert all(m.audio_used for m in finals)
    assert watcher.changes == []
    assert messages[-1].audio_ms == 4 * (640 + 160)  # type: ignore[union-attr]


@pytest.mark.parametrize("timed", [True, False])
async def test_a_stream_goes_on_after_cuts_as_if_nothing_had_happened(
    model: Any, kit: SimpleNamespace, timed: bool
) -> None:
    talk, watcher = Talk(kit, 8, timed=timed), Watcher()
    async with behind_proxy(model) as (_, proxy, url):
        seen = 0

        def cut(message: ServerMessage) -> None:
            nonlocal seen
            if isinstance(message, UtteranceFinal):
                seen += 1
                if seen % 2:
                    # Somewhere in the next frames, in either direction.
                    proxy.cut_after(301 * seen, "down" if seen % 4 == 1 else "up")

        messages = await run([url], talk, watcher=watcher, on_message=cut)
        assert proxy.opened >= 4
        assert model.encoded_samples == 8 * 800 * 16, "nothing is sent twice"
    finals = check(messages, talk)
    assert all(m.audio_used for m in finals)
    for number, answer in enumerate(finals):
        assert abs(answer.characters[0][0] - 800 * number) < 100
    assert "resumed" in watcher.states
    assert "restarted" not in watcher.states
    assert messages[-1].audio_ms == 8 * 800  # type: ignore[union-attr]


@pytest.mark.parametrize("timed", [True, False])
async def test_a_server_that_dies_is_replaced_by_another(
    model: Any, kit: SimpleNamespace, timed: bool
) -> None:
    talk, watcher = Talk(kit, 8, timed=timed), Watcher()
    other = kit.FakeModel()
    async with (
        behind_proxy(model) as (_, one, first),
        behind_proxy(other) as (_, _two, second),
    ):

        def die(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u3":
                one.refuses = True
                one.cut_after(500, "up")

        messages = await run([first, second], talk, watcher=watcher, on_message=die)
    finals = check(messages, talk)
    assert all(m.audio_used for m in finals)
    for number, answer in enumerate(finals):
        assert abs(answer.characters[0][0] - 800 * number) < 100, "on the stream's own clock"
    assert "restarted" in watcher.states
    # Only what had no answer is encoded again.
    assert 4 * 800 * 16 <= other.encoded_samples <= 6 * 800 * 16
    assert messages[-1].audio_ms == 8 * 800  # type: ignore[union-attr]


async def test_a_session_that_expired_begins_anew_on_the_same_server(
    model: Any, kit: SimpleNamespace
) -> None:
    talk, watcher = Talk(kit, 4, timed=False), Watcher()
    async with behind_proxy(model, parking=ParkingOptions(most=0)) as (_, proxy, url):

        def cut(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance in ("u0", "u2"):
                proxy.cut()

        messages = await run([url], talk, watcher=watcher, on_message=cut)
    assert all(m.audio_used for m in check(messages, talk))
    assert watcher.states.count("restarted") == 2


async def test_entities_that_were_shown_are_retracted_before_they_are_found_anew(
    model: Any, kit: SimpleNamespace
) -> None:
    class Slow(Talk):
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            await audio.reached(640)
            yield Revision("u0", 1, "他在北京", final=False)
            await asyncio.wait_for(cut_was_made.wait(), 20)
            yield Revision("u0", 2, "他在北京", final=True)

    cut_was_made = asyncio.Event()
    talk, watcher = Slow(kit, 1, timed=False), Watcher()
    async with behind_proxy(model, parking=ParkingOptions(ttl_s=0)) as (_, proxy, url):

        def cut(message: ServerMessage) -> None:
            if isinstance(message, EntityUpsert) and proxy.opened == 1:
                proxy.cut()
                asyncio.get_running_loop().call_later(0.3, cut_was_made.set)

        messages = await run([url], talk, watcher=watcher, on_message=cut)
    check(messages, talk)
    retracted = [m for m in messages if isinstance(m, EntityRetract)]
    assert [(m.id, m.reason) for m in retracted] == [("u0-e1", "withdrawn")]
    ids = [m.entity.id for m in messages if isinstance(m, EntityUpsert)]
    assert set(ids) == {"u0-e1", "u0-e1~1"}


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_silent_server_is_noticed_and_left(
    model: Any, kit: SimpleNamespace, direction: Any
) -> None:
    talk, watcher = Talk(kit, 4, timed=True), Watcher()
    async with behind_proxy(model) as (_, proxy, url):

        def stall(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u1":
                proxy.stall(direction)

        messages = await run([url], talk, watcher=watcher, on_message=stall)
    check(messages, talk)
    lost = next(change for change in watcher.changes if change.state == "lost")
    assert "nothing for 1 s" in str(lost)
    assert str(watcher.silences[0]) == f"no answer from {url}/v1/stream for 0.5 s"


async def test_going_away_leads_to_the_next_address(model: Any, kit: SimpleNamespace) -> None:
    talk, watcher = Talk(kit, 6, timed=True), Watcher()
    async with Server(model) as one, Server(kit.FakeModel()) as two:
        await one.start()
        await two.start()
        stopping: list[asyncio.Task[None]] = []

        def stop(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u1":
                stopping.append(asyncio.create_task(one.stop()))

        urls = [f"ws://127.0.0.1:{s.port}" for s in (one, two)]
        messages = await run(urls, talk, watcher=watcher, on_message=stop)
        await asyncio.gather(*stopping)
        assert one.lost_finals == 0
    check(messages, talk)
    assert watcher.states == ["lost", "restarted"]


async def test_nobody_answers_in_time(model: Any, kit: SimpleNamespace) -> None:
    talk, watcher = Talk(kit, 6, timed=True), Watcher()
    options = ReconnectOptions(give_up_s=0.5, first_pause_s=0.01, longest_pause_s=0.1)
    async with behind_proxy(model) as (_, proxy, url):

        def die(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u1":
                proxy.refuses = True
                proxy.cut()

        with pytest.raises(StreamLostError, match=r"within 0\.5 s after a disconnect") as caught:
            await run([url], talk, options=options, watcher=watcher, on_message=die)
    left = caught.value.unanswered
    assert left is not None
    assert left.utterances[0] == "u2"
    assert left.audio_ms >= 1_600
    assert "u2" in str(caught.value)
    assert watcher.states[0] == "lost"
    assert "waiting" in watcher.states


@pytest.mark.parametrize(
    ("code", "name", "retryable"),
    [(4400, "unknown_label", False), (4401, "not_authorised", False), (4409, "superseded", False)],
)
async def test_what_the_client_did_wrong_is_not_tried_again(
    code: int, name: str, retryable: bool
) -> None:
    opened = 0

    async def refusing(connection: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        await connection.recv()
        error = ErrorMessage(code=code, name=name, retryable=retryable, detail="no")
        await connection.send(encode(error), text=True)
        await connection.close(code)

    async with server(refusing) as url:
        with pytest.raises(SessionRefusedError, match=f"{code} {name}"):
            await run([url], Silence(5), Said(said(1)))
    assert opened == 1


async def test_a_server_that_is_too_busy_is_asked_again() -> None:
    opened = 0

    async def busy(connection: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        if opened < 3:
            error = ErrorMessage(code=1013, name="try_again_later", retryable=True, detail="full")
            await connection.send(encode(error), text=True)
            await connection.close(1013)
        else:
            await answering(connection)

    async with server(busy) as url:
        messages = await run([url], Silence(5), Said(said(1)))
    assert opened == 3
    assert isinstance(messages[-1], SessionSummary)
    assert not [m for m in messages if isinstance(m, ErrorMessage)]


async def test_a_server_that_stays_too_busy_is_a_refusal() -> None:
    async def busy(connection: ServerConnection) -> None:
        error = ErrorMessage(code=1013, name="try_again_later", retryable=True, detail="full")
        await connection.send(encode(error), text=True)
        await connection.close(1013)

    options = ReconnectOptions(give_up_s=0.3, first_pause_s=0.01, longest_pause_s=0.05)
    async with server(busy) as url:
        with pytest.raises(SessionRefusedError, match="1013 try_again_later: full"):
            await run([url], Silence(5), Said(said(1)), options=options)


async def test_a_refused_token_is_not_tried_again() -> None:
    asked = 0

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal asked
        asked += 1
        return connection.respond(401, "no\n") if asked > 1 else None

    async def breaking(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(wire.ready()), text=True)
        connection.transport.abort()

    async with serve(breaking, "127.0.0.1", 0, process_request=refuse) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        with pytest.raises(ServerUnreachableError, match="401") as caught:
            await run([f"ws://127.0.0.1:{port}"], Silence(0, endless=True), Said(said(1)))
    assert asked == 2
    assert not caught.value.retryable


async def test_the_first_address_that_answers_is_taken() -> None:
    async with server(answering) as url:
        messages = await run(["ws://127.0.0.1:1", url], Silence(5), Said(said(1)))
        assert isinstance(messages[-1], SessionSummary)
    with pytest.raises(ServerUnreachableError, match="expected a server at ws://"):
        await run(["ws://127.0.0.1:1", "ws://127.0.0.1:2"], Silence(5), Said(said(1)))


async def test_a_text_that_breaks_every_server_does_not_go_on_for_ever(
    model: Any, kit: SimpleNamespace
) -> None:
    model.poison = "北京"
    talk = Talk(kit, 1, timed=True)
    options = ReconnectOptions(give_up_s=1.0, first_pause_s=0.01, longest_pause_s=0.1)
    async with behind_proxy(model) as (_, _proxy, url):
        with pytest.raises(StreamLostError, match="1011 internal") as caught:
            await run([url], talk, options=options)
    assert caught.value.unanswered is not None
    assert caught.value.unanswered.utterances == ("u0",)


async def test_leaving_in_the_middle_of_a_reconnect(model: Any, kit: SimpleNamespace) -> None:
    talk = Talk(kit, 50, timed=True)
    async with behind_proxy(model) as (serving, proxy, url):

        def die(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal):
                proxy.refuses = True
                proxy.cut()

        running = asyncio.create_task(run([url], talk, on_message=die))
        async with asyncio.timeout(10):
            while not proxy.refuses:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) < 20
        _ = serving


async def test_audio_waits_for_a_server_and_memory_is_bounded(
    model: Any, kit: SimpleNamespace
) -> None:
    limits = ConnectionLimits(max_audio_ahead_ms=None)
    async with (
        behind_proxy(model, limits=limits) as (_, proxy, url),
        await ReconnectingConnection.open([url], options=FAST) as connection,
    ):
        await connection.send(SessionStart())
        assert isinstance(await connection.receive(), SessionReady)
        kept = connection._log
        assert kept is not None
        proxy.stall("up")

        async def send() -> None:
            while True:
                await connection.send_audio(bytes(320_000))

        task = asyncio.create_task(send())
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert kept._kept_bytes <= kept.keep_bytes + 2 * 320_000
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
