"""Tokens from a file, plain and with limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.token_file import read_tokens
from cnerta.streamer.access.tokens import KnownToken, digest

TOKEN = "0123456789abcdef"
OTHER = "fedcba9876543210"


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# captions\n{TOKEN}\n\n  {OTHER} \n")
    assert read_tokens(path) == (KnownToken.unnamed(TOKEN), KnownToken.unnamed(OTHER))


def test_tokens_with_names_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f"""
        [captions]
        token = ["{TOKEN}", "another-token-of-ours"]
        sessions = 20
        audio_minutes_per_hour = 600
        [archive]
        sha256 = "{digest(OTHER).hex()}"
        audio_rate = 4
        megabytes_per_hour = 2000
        """
    )
    captions = Caller("captions", Quota(sessions=20, audio_minutes_per_hour=600))
    archive = Caller("archive", Quota(audio_rate=4, megabytes_per_hour=2000))
    assert read_tokens(path) == (
        KnownToken(digest(TOKEN), captions),
        KnownToken(digest("another-token-of-ours"), captions),
        KnownToken(digest(OTHER), archive),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# nothing\n", "a token a line"),
        (b"0123456789abcdef\nshort\n", "line 2 of"),
        (b"0123456789 abcdef\n", "without blanks in line 1"),
        (b"0123456789abcdef\n0123456789abcdef\n", "each token once"),
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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "a table with a token"),
        ("[a]\ntoken = 'short'\n", r"at least 16 characters .* in \[a\]"),
        ("[a]\nsessions = 3\n", r"token or sha256 in \[a\]"),
        ("[a]\nsha256 = 'short'\n", r"64 hexadecimal digits as sha256 in \[a\]"),
        ("[a]\nsession = 3\n", r"\[a\] of .* unknown field `session`"),
        ("[a]\nsessions = 0\n", r"\[a\] of .* >= 1 - at `\$.sessions`"),
        ("[a]\naudio_rate = 'short'\n", r"\[a\] of .*got `str` - at `\$.audio_rate`"),
        ("a = 'short'\n", r"\[a\] of .*got `str`"),
        ("[a]\ntoken\n", "expected TOML in .*line 2"),
    ],
)
def test_a_table_that_is_wrong_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_tokens(path)
    assert "short" not in str(caught.value), "tokens are not quoted"
