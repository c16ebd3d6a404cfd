"""Captions from a page to its overlays: the newest to all, to nobody without the key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.serving.server import Server, ServerOptions

KEY = "0123456789abcdefABCDEF"
TOKEN = "a-token-that-nobody-guesses"


def overlay(server: Server, key: str = KEY, **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{server.port}/v1/overlay?key={key}", proxy=None, **options)


def page(server: Server, key: str = KEY, **options: Any) -> connect:
    url = f"ws://127.0.0.1:{server.port}/v1/overlay?key={key}&show=1"
    return connect(url, proxy=None, **options)


async def next_of(connection: ClientConnection) -> str | bytes:
    async with asyncio.timeout(60):
        return await connection.recv()


async def close_of(connecting: connect) -> tuple[int, str]:
    async with asyncio.timeout(60), connecting as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code is not None
        return connection.close_code, connection.close_reason or ""


@pytest.fixture
async def server(kit: Any) -> Any:
    async with Server(kit.FakeModel()) as server:
        await server.start()
        yield server


async def test_all_overlays_of_a_key_are_told_and_those_of_another_not(server: Server) -> None:
    async with overlay(server) as one, overlay(server) as two, overlay(server, KEY + "x") as other:
        async with page(server) as shows:
            await shows.send("南京")
            assert [await next_of(one), await next_of(two)] == ["南京", "南京"]
        # A page that is loaded anew goes on.
        async with page(server) as shows:
            await shows.send("上海")
            assert [await next_of(one), await next_of(two)] == ["上海", "上海"]
        async with page(server, KEY + "x") as shows:
            await shows.send("other")
            assert await next_of(other) == "other"


async def test_an_overlay_that_comes_later_sees_what_is_shown(server: Server) -> None:
    async with page(server) as shows:
        async with overlay(server) as first:
            await shows.send("one")
            assert await next_of(first) == "one"
        async with overlay(server) as again:
            assert await next_of(again) == "one"


async def test_an_overlay_that_does_not_read_holds_nobody_up(server: Server) -> None:
    async with (
        overlay(server, max_queue=1, close_timeout=0.1) as slow,
        overlay(server) as quick,
        page(server) as shows,
    ):
        last = ""
        for number in range(200):
            last = str(number) + " " * 30_000
            await shows.send(last)
            if number == 100:
                assert (await next_of(quick)) is not None
        while await next_of(quick) != last:
            pass
        assert not slow.close_code


async def test_what_is_no_caption_ends_the_connection(server: Server) -> None:
    for frame in ("x" * 40_000, b"audio"):
        async with page(server) as shows:
            await shows.send(frame)
            with pytest.raises(ConnectionClosed):
                await next_of(shows)
            assert shows.close_code == 1009
    async with overlay(server) as watches:
        await watches.send("anything")
        with pytest.raises(ConnectionClosed):
            await next_of(watches)
        assert watches.close_code == 1008


@pytest.mark.parametrize("key", ["", "short", "with/slash/in/the/middle", "a" * 65])
async def test_a_key_that_could_be_guessed_is_none(server: Server, key: str) -> None:
    code, why = await close_of(page(server, key))
    assert (code, why) == (1008, "expected a key of 16 to 64 letters and digits")


async def test_pages_of_other_servers_neither_show_nor_see(server: Server) -> None:
    foreign = {"origin": "https://elsewhere.example"}
    assert (await close_of(page(server, **foreign)))[0] == 1008
    async with page(server):
        assert (await close_of(overlay(server, **foreign)))[0] == 1008


async def test_where_tokens_are_asked_for_the_key_of_a_caller_opens_and_no_other(kit: Any) -> None:
    tokens = Tokens([KnownToken(digest(TOKEN), Caller("studio"))])
    bearer = {"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}
    async with Server(kit.FakeModel(), ServerOptions(tokens=tokens)) as server:
        await server.start()
        assert (await close_of(page(server)))[0] == 1008
        assert (await close_of(overlay(server)))[0] == 1013
        async with page(server, **bearer) as shows, overlay(server) as watches:
            await shows.send("南京")
            assert await next_of(watches) == "南京"


async def test_keys_and_overlays_are_counted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnerta.streamer.serving.overlays._MOST_KEYS", 1)
    monkeypatch.setattr("cnerta.streamer.serving.overlays._MOST_OVERLAYS", 1)
    async with page(server) as shows, overlay(server) as watches:
        await shows.send("one")
        assert await next_of(watches) == "one"
        assert (await close_of(overlay(server)))[0] == 1013
        assert (await close_of(page(server, KEY + "x")))[0] == 1013
    # Whoever leaves makes room.
    async with asyncio.timeout(60):
        while (await close_of(overlay(server, "")))[0] and server._overlays._showings:
            await asyncio.sleep(0.01)
    async with page(server, KEY + "x") as shows, overlay(server, KEY + "x") as watches:
        await shows.send("two")
        assert await next_of(watches) == "two"


async def test_a_stop_ends_them(kit: Any) -> None:
    async with Server(kit.FakeModel()) as server:
        await server.start()
        async with page(server) as shows, overlay(server) as watches:
            await shows.send("one")
            await next_of(watches)
            await server.stop()
            with pytest.raises(ConnectionClosed):
                await next_of(watches)
            assert watches.close_code == 1001
