"""The content of a request as a whole: within its bounds, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from cnerta.streamer.apis.entities_request import BadRequestError
from cnerta.streamer.serving.http.content import BrokenContentError, RequestContent

__all__ = ["drain_content", "read_content"]

_DRAIN_S: Final = 2.0


async def read_content(content: RequestContent, most_bytes: int, timeout_s: float) -> bytes:
    """Read all of it.

    Args:
        content: What comes.
        most_bytes: How much may.
        timeout_s: How long it may take.

    Raises:
        BadRequestError: It is too large, too slow, or broke off.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in content.pieces():
                data += piece
                if len(data) > most_bytes:
                    detail = f"expected at most {most_bytes} bytes, got more"
                    raise BadRequestError(413, "content_too_large", detail)
    except TimeoutError:
        detail = f"expected the content within {timeout_s:g} s, got a part"
        raise BadRequestError(408, "timeout", detail) from None
    except BrokenContentError as error:
        raise BadRequestError(400, "broken_content", str(error)) from error
    return bytes(data)


async def drain_content(content: RequestContent, most_bytes: int) -> None:
    """Pass over what is still coming: closed upon it, a connection loses the answer.

    Args:
        content: What comes.
        most_bytes: How much is passed over.
    """
    if content.wants_permission:
        return
    try:
        async with asyncio.timeout(_DRAIN_S):
            await _pass_over(content.pieces(), most_bytes)
    except (TimeoutError, BrokenContentError):
        return


async def _pass_over(pieces: AsyncIterator[bytes], most: int) -> None:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > most:
            return
