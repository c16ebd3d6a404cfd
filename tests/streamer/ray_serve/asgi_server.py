"""An ASGI application served by uvicorn, as Ray's proxies do, in this event loop.

async with asgi_server(ingress) as port:
    url = f"ws://127.0.0.1:{port}"
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

__all__ = ["asgi_server"]

SECONDS = 20


@contextlib.asynccontextmanager
async def asgi_server(application: Any, **options: Any) -> AsyncIterator[int]:
    """Serve one; options are uvicorn's.

    Args:
        application: Of ASGI.
        options: Such as ``root_path``.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            application, lifespan="off", log_config=None, timeout_graceful_shutdown=1, **options
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
        serving = asyncio.create_task(server.serve([listening]))
        try:
            async with asyncio.timeout(SECONDS):
                while not server.started:
                    await asyncio.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
