"""Addresses of servers: what is one, and how the secrets in it are kept.

Passwords, keys and tokens stand in addresses (``wss://user:password@host/?token=…``) or are sent
beside them. They are never shown (:func:`redact`) and never cross a network in clear text
(:func:`exposes_secret`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

__all__ = ["exposes_secret", "is_loopback", "parse_address", "redact"]

_HIDDEN: Final = "***"
_ADDRESS: Final = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")
_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*://")
_USER_WITHOUT_SCHEME: Final = re.compile(r"(?<![^\s'\"])[^\s/:'\"]+:(?!//)[^\s'\"]+@")
_SECRET_WORDS: Final = frozenset(
    {
        *("accesskey", "accesstoken", "apikey", "auth", "authorization", "bearer", "credential"),
        *("credentials", "jwt", "key", "passwd", "password", "pwd", "secret", "sig", "signature"),
        "token",
    }
)
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")


def parse_address(text: str, schemes: Collection[str]) -> SplitResult | None:
    """Take an address apart; None if it is none.

    Args:
        text: Such as ``ws://127.0.0.1:8765``.
        schemes: Those that will do.
    """
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:
        return None
    if address.scheme not in schemes or not address.hostname or port == 0:
        return None
    return address


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself; no proxy is asked for these."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def exposes_secret(address: SplitResult, *, sends_key: bool = False) -> bool:
    """Whether a secret would cross a network in clear text.

    Args:
        address: Where it would go; it may hold a password or a token itself.
        sends_key: Whether one is sent beside it, as in a header.
    """
    if address.scheme in ("wss", "https") or is_loopback(address.hostname or ""):
        return False
    has_user = address.username is not None or address.password is not None
    names = (name for name, _ in parse_qsl(address.query, keep_blank_values=True))
    return sends_key or has_user or any(map(_names_a_secret, names))


def _names_a_secret(name: str) -> bool:
    """Whether a query parameter is one of ``token``, ``api_key``, ``X-Auth-Token`` and the like."""
    return any(word.lower() in _SECRET_WORDS for word in _WORD.findall(name))


def redact(text: str) -> str:
    """Take the secrets out of all addresses in a text, so that it can be shown.

    What stands before the host, all values of the query, and the fragment become ``***``: whoever
    reads a log cannot tell which of them are secret.
    """
    # An address that is shown by itself may be malformed, with spaces in its password.
    scheme = _SCHEME.match(text)
    if scheme and "@" in text:
        text = f"{scheme[0]}{_HIDDEN}@{text.rpartition('@')[2]}"
    text = _USER_WITHOUT_SCHEME.sub(f"{_HIDDEN}@", text)
    return _ADDRESS.sub(lambda found: _redact_address(found[0]), text)


def _redact_address(address: str) -> str:
    scheme, _, rest = address.partition("://")
    _, at, rest = rest.rpartition("@")
    rest, hash_mark, _ = rest.partition("#")
    place, question_mark, query = rest.partition("?")
    shown = scheme + "://" + (f"{_HIDDEN}@" if at else "") + place + question_mark
    if query:
        shown += "&".join(map(_redact_parameter, query.split("&")))
    return shown + (f"#{_HIDDEN}" if hash_mark else "")


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={_HIDDEN}" if equals else _HIDDEN
