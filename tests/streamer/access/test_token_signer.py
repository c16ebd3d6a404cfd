"""The file of secrets that sign tokens for one session, and what is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.token_signer import TokenSigner

CALLER = Caller("captions", Quota(sessions=3, audio_rate=1.5))


def test_secrets_stand_in_a_file_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_bytes(b"n" * 32 + b"\r\n\n" + b"k" * 40 + b"  \n")
    token = TokenSigner.read(path).sign(CALLER, 100.0)
    claims = TokenSigner([b"n" * 32]).read_claims(token, 99.0)
    assert claims is not None
    assert (claims.caller, claims.expires_at) == (CALLER, 100.0)
    assert TokenSigner([b"k" * 40]).read_claims(token, 99.0) is None, "the first one signs"
    old = TokenSigner([b"k" * 40]).sign(CALLER, 100.0)
    assert TokenSigner.read(path).read_claims(old, 99.0) is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "got none"), (b"k" * 32 + b"\nshort\n", "got a shorter one"), (None, "No such file")],
)
def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "secrets"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        TokenSigner.read(path)


def test_each_token_is_another_one() -> None:
    signer = TokenSigner([b"k" * 32])
    assert signer.sign(CALLER, 100.0) != signer.sign(CALLER, 100.0)


def test_a_signature_for_something_else_is_of_no_use() -> None:
    key = b"k" * 32
    body, _, _ = TokenSigner([key]).sign(CALLER, 100.0).rpartition(".")
    seal = base64.urlsafe_b64encode(hmac.new(key, body.encode(), hashlib.sha256).digest())
    assert TokenSigner([key]).read_claims(f"{body}.{seal.decode().rstrip('=')}", 0.0) is None


def test_claims_of_another_version_are_none() -> None:
    key = b"k" * 32
    purpose = b"cnerta token for one session, version 1\n"
    for claims in (b"{}", b"no json", b"\xff"):
        body = base64.urlsafe_b64encode(claims).decode().rstrip("=")
        made = hmac.new(key, purpose + body.encode(), hashlib.sha256).digest()
        seal = base64.urlsafe_b64encode(made).decode().rstrip("=")
        assert TokenSigner([key]).read_claims(f"{body}.{seal}", 0.0) is None
