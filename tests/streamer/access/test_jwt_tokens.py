"""Tokens that somebody else signs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.jwt_tokens import JwtVerifier
from cnerta.streamer.access.tokens import Tokens

SECRET = b"a-secret-of-thirty-two-bytes-or-more"
HOUR = 3_600


def signed(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    content = {"sub": "captions", "exp": time.time() + HOUR, **claims}
    return jwt.encode({k: v for k, v in content.items() if v is not None}, key, algorithm)


def pem(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def test_a_token_says_who_its_caller_is_and_what_it_may_take() -> None:
    verifier = JwtVerifier(SECRET, is_secret=True)
    assert verifier.caller(signed()) == Caller("jwt:captions")
    limits = {"sessions": 3, "audio_minutes_per_hour": 60}
    expected = Caller("jwt:captions", Quota(sessions=3, audio_minutes_per_hour=60))
    assert verifier.caller(signed(cnerta=limits)) == expected
    strange = verifier.caller(signed(sub="two\nlines"))
    assert strange is not None
    assert strange.identity.startswith("jwt-"), "nothing that could write lines of a log"


@pytest.mark.parametrize(
    "token",
    [
        signed(b"another-secret-of-thirty-two-bytes-or-more"),
        signed(exp=time.time() - HOUR),
        signed(exp=None),
        signed(sub=None),
        signed(nbf=time.time() + HOUR),
        signed(aud="somebody-else"),
        signed(cnerta={"sessions": 0}),
        signed(cnerta={"session": 1}),
        signed(cnerta=7),
        jwt.encode({"sub": "captions", "exp": time.time() + HOUR}, "", "none"),
        signed()[:-3],
        "a.b.c",
        "..",
        "no token at all",
        "\udcff.\udcff.\udcff",
    ],
    # Processes that share the tests want equal names, and times are in some tokens.
    ids=range(15),
)
def test_what_is_not_valid_opens_nothing(token: str) -> None:
    assert JwtVerifier(SECRET, is_secret=True).caller(token) is None


def test_tokens_for_an_audience() -> None:
    verifier = JwtVerifier(SECRET, is_secret=True, audience="captions.example")
    assert verifier.caller(signed(aud="captions.example")) is not None
    assert verifier.caller(signed(aud="another.example")) is None
    assert verifier.caller(signed()) is None


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (rsa.generate_private_key(public_exponent=65_537, key_size=2_048), "RS256"),
    ],
)
def test_a_public_key_checks_and_is_never_taken_for_a_secret(
    tmp_path: Path, key: Any, algorithm: str
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    verifier = JwtVerifier.read(path, is_secret=False)
    assert verifier.caller(signed(key, algorithm)) == Caller("jwt:captions")
    assert verifier.caller(signed()) is None
    with pytest.raises(ConfigError, match="a key in PEM"):
        JwtVerifier.read(path, is_secret=True)


@pytest.mark.parametrize(
    ("content", "is_secret", "expected"),
    [
        (None, True, "No such file"),
        (b"short\n", True, "at least 32 bytes"),
        (b"no key", False, "public key"),
    ],
)
def test_a_key_that_is_none_is_named(
    tmp_path: Path, content: bytes | None, is_secret: bool, expected: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        JwtVerifier.read(path, is_secret=is_secret)


def test_they_are_accepted_beside_others() -> None:
    tokens = Tokens(["0123456789abcdef"], JwtVerifier(SECRET, is_secret=True))

    def admitted(token: str) -> Caller | None:
        return tokens.admit(Request("/", Headers([("Authorization", f"Bearer {token}")])))

    assert tokens
    assert admitted(signed()) == Caller("jwt:captions")
    assert admitted("0123456789abcdef") is not None
    assert admitted("another") is None
    assert Tokens((), JwtVerifier(SECRET, is_secret=True)), "then one is asked for"
