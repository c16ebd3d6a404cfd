"""Tokens from a file: one a line, or, in a ``.toml`` file, each with a name and limits.

Such as::

[captions]
token = "…"                     # or a list, while one takes the place of another
sessions = 20
audio_minutes_per_hour = 600

[archive]
sha256 = "…"                    # of a token that is not to stand here
sessions = 2
audio_rate = 4.0
megabytes_per_hour = 2000
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.tokens import KnownToken, digest

__all__ = ["QuotaKeys", "read_tokens"]

_SHORTEST: Final = 16
_Positive = Annotated[float, Meta(gt=0)]


class QuotaKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one caller; see :class:`cnerta.streamer.access.callers.Quota`."""

    sessions: Annotated[int, Meta(ge=1)] | None = None
    audio_rate: _Positive | None = None
    audio_minutes_per_hour: _Positive | None = None
    megabytes_per_hour: _Positive | None = None

    def quota(self) -> Quota:
        """What they come to."""
        return Quota(
            self.sessions, self.audio_rate, self.audio_minutes_per_hour, self.megabytes_per_hour
        )


class _Entry(QuotaKeys, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file."""

    token: str | list[str] = []
    sha256: str | list[str] = []


def read_tokens(path: Path) -> tuple[KnownToken, ...]:
    """The tokens of a file; see the module.

    Blank lines, and those that begin with ``#``, are left out.

    Raises:
        ConfigError: It cannot be read, holds no token, one that is too short to be secret, one
            twice, or a key or value that is none. Tokens are never quoted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigError(f"expected a file with tokens at {path}, got: {reason}") from error
    found = tuple(_named(text, path) if path.suffix == ".toml" else _listed(text, path))
    if not found:
        form = "a table with a token" if path.suffix == ".toml" else "a token a line"
        raise ConfigError(f"expected {form} in {path}, got none")
    if len({token.digest for token in found}) < len(found):
        raise ConfigError(f"expected each token once in {path}, got one twice")
    return found


def _listed(text: str, path: Path) -> Iterator[KnownToken]:
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            _check(line, f"in line {number} of {path}")
            yield KnownToken.unnamed(line)


def _named(text: str, path: Path) -> Iterator[KnownToken]:
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML in {path}, got: {error}") from error
    for name, table in tables.items():
        where = f"[{name}] of {path}"
        try:
            entry = msgspec.convert(table, _Entry)
        except msgspec.ValidationError as error:
            raise ConfigError(f"expected a token and its limits in {where}, got: {error}") from None
        caller = Caller(name, entry.quota())
        digests = [*_digests_of(entry.token, where), *_digests_given(entry.sha256, where)]
        if not digests:
            raise ConfigError(f"expected token or sha256 in {where}, got neither")
        for each in digests:
            yield KnownToken(each, caller)


def _digests_of(tokens: str | list[str], where: str) -> Iterator[bytes]:
    for token in [tokens] if isinstance(tokens, str) else tokens:
        _check(token, f"in {where}")
        yield digest(token)


def _digests_given(values: str | list[str], where: str) -> Iterator[bytes]:
    for value in [values] if isinstance(values, str) else values:
        try:
            made = bytes.fromhex(value)
        except ValueError:
            made = b""
        if len(made) != len(digest("")):
            raise ConfigError(f"expected 64 hexadecimal digits as sha256 in {where}, got others")
        yield made


def _check(token: str, where: str) -> None:
    if len(token) < _SHORTEST or " " in token:
        raise ConfigError(
            f"expected a token of at least {_SHORTEST} characters without blanks {where}, got "
            f"{len(token)} characters"
        )
