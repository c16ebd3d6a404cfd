"""Who may open a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.models.errors import ConfigError
from cnerta.streamer.serving.tokens import Tokens, read_tokens

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
        request(f"/v1/stream?key={TOKEN}"),
        request("/v1/stream?token="),
        None,
    ],
)
def test_who_knows_none_stays_outside(sent: Request | None) -> None:
    assert not Tokens([TOKEN]).admit(sent)
    assert Tokens().admit(sent), "nobody asks for one"


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# captions\n{TOKEN}\n\n  fedcba9876543210 \n")
    assert read_tokens(path) == (TOKEN, "fedcba9876543210")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# nothing\n", "a token a line"),
        (b"0123456789abcdef\nshort\n", "line 2 of"),
        (b"0123456789 abcdef\n", "without blanks in line 1"),
        (b"\xff\xfe", "no UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_file_that_holds_none(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_tokens(path)
    assert "short" not in str(caught.value), "tokens are not quoted"
