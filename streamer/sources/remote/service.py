"""Where a recognition service is, and the key that it wants: the same for all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, urlencode, urlsplit

from cnerta.streamer.sources.remote.client import check_url
from cnerta.streamer.sources.remote.dialect import Address, read_key

__all__ = ["service_address"]


def service_address(
    where: str,
    default: str,
    variable: str,
    *,
    scheme: str = "Bearer ",
    asked: Mapping[str, str] = MappingProxyType({}),
    audio: Mapping[str, str] = MappingProxyType({}),
) -> Address:
    """Where a connection to a service goes, with the key.

    Args:
        where: The address that was given.
        default: That of the service itself, which lets nobody in without a key.
        variable: The environment variable that has the key.
        scheme: What stands before the key in ``Authorization``.
        asked: What the query asks for, where the address does not say it itself.
        audio: What the query says of the audio, whatever the address says.

    Raises:
        TranscriptError: The address is none, a key is missing, or it would cross the network in
            clear text.
    """
    parts = urlsplit(check_url(where, default))
    key = read_key(variable, where, urlsplit(default).hostname or "", os.environ)
    given = parse_qsl(parts.query, keep_blank_values=True)  # a name may come several times
    query = [
        *((name, value) for name, value in asked.items() if name not in dict(given)),
        *((name, value) for name, value in given if name not in audio),
        *audio.items(),
    ]
    url = parts._replace(query=urlencode(query)).geturl()
    return Address(url, headers={"Authorization": f"{scheme}{key}"} if key else {})
