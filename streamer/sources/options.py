"""What stands behind the colon of ``--source NAME:WHERE,key=value,…``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from cnerta.streamer.errors import TranscriptError

__all__ = ["parse_source", "read_options"]

_T = TypeVar("_T", bound=msgspec.Struct)

# A comma within a value (JSON, an address) is not followed by a name and "=".
_SEPARATOR = re.compile(r",(?=[a-z][a-z0-9_]*=)")
_OPTION = re.compile(r"([a-z][a-z0-9_]*)=(.*)", re.DOTALL)


def parse_source(text: str) -> tuple[str, str | None, dict[str, str]]:
    """Split ``NAME[:[WHERE][,key=value …]]``.

    Returns:
        The name, what stands first if that is no option (a folder, an address, a model's name), and
        the options.

    Raises:
        TranscriptError: An option is given twice.
    """
    name, _, rest = text.partition(":")
    where: str | None = None
    options: dict[str, str] = {}
    for number, part in enumerate(_SEPARATOR.split(rest) if rest else ()):
        option = _OPTION.fullmatch(part.removeprefix(",") if number == 0 else part)
        if option is None:
            where = part or None
        elif option[1] in options:
            raise TranscriptError(f"expected {option[1]} once in --source {name}:…, got it twice")
        else:
            options[option[1]] = option[2]
    return name, where, options


def read_options(kind: type[_T], source: str, given: Mapping[str, str]) -> _T:
    """Read the options of a source, which come as strings.

    Args:
        kind: A struct with a field for every option.
        source: Name of the source, for messages.
        given: The options.

    Raises:
        TranscriptError: One is unknown or has a value of another type.
    """
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            raise TranscriptError(
                f"expected options of {source} ({', '.join(known)}), got {name!r}"
            )
    try:
        return msgspec.convert(dict(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise TranscriptError(f"options of {source}: {error}") from error
