"""Who may open a session."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.streamer.access.callers import ANYBODY, Caller
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest

TOKEN = "0123456789abcdef"


def request(path: str = "/v1/stream", **headers: str) -> Request:
    return Request(path, Headers([(k.replace("_", "-"), v) for k, v in headers.items()]))


@pytest.mark.parametrize(
    "sent",
    [
        request(Authorization=f"Bearer {TOKEN}"),
        request(Authorization=f"bearer  {TOKEN}"),
        request(Sec_WebSocket_Protocol=f"cnerta.v1, bearer.{TOKEN}"),
        request(f"/v1/stream?x=1&token={TOKEN}"),
        request(Authorization=f"Token {TOKEN}"),
        request(Sec_WebSocket_Protocol=f"token, {TOKEN}"),
        request(Sec_WebSocket_Protocol=f"Bearer,{TOKEN}"),
    ],
)
def test_the_ways_to_send_a_token(sent: Request) -> None:
    assert Tokens(["another-token-of-ours", TOKEN]).admit(sent)
    assert not Tokens(["another-token-of-ours"]).admit(sent)


@pytest.mark.parametrize(
    "sent",
    [
        request(),
        request(Authorization=f"Basic {TOKEN}"),
        request(Authorization=f"Bearer {TOKEN}x"),
        request(Authorization="Bearer "),
        request(Sec_WebSocket_Protocol=f"cnerta.v1, {TOKEN}"),
        request(Sec_WebSocket_Protocol=f"{TOKEN}, token"),
        request(Sec_WebSocket_Protocol=f"token, x, {TOKEN}"),
        request(f"/v1/stream?key={TOKEN}"),
        request("/v1/stream?token="),
        None,
    ],
)
def test_who_knows_none_stays_outside(sent: Request | None) -> None:
    assert Tokens([TOKEN]).admit(sent) is None
    assert Tokens().admit(sent) is ANYBODY, "nobody asks for one"


def test_a_token_tells_who_sent_it() -> None:
    named = Caller("captions")
    tokens = Tokens(["another-token-of-ours", KnownToken(digest(TOKEN), named)])
    assert tokens.admit(request(Authorization=f"Bearer {TOKEN}")) is named
    unnamed = tokens.admit(request(Authorization="Bearer another-token-of-ours"))
    assert unnamed is not None
    assert unnamed.identity.startswith("token-")
    assert unnamed == Tokens(["another-token-of-ours"]).admit(
        request("/v1/stream?token=another-token-of-ours")
    ), "the same whenever it comes"
    assert "another" not in repr(unnamed)
