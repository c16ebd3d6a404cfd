"""Where a server listens: why it cannot, and what the log says when it does."""

from __future__ import annotations

import errno
import logging
from typing import Any

from cnerta.models.errors import CnertaError

__all__ = ["AddressError", "explain_address", "log_listening"]


class AddressError(CnertaError):
    """The server cannot listen where it was told to."""


def explain_address(host: str, port: int, error: OSError) -> str:
    """Why an address cannot be listened on."""
    where = f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"expected {where} to be free, got a program that listens there already"
    if error.errno == errno.EACCES:
        return f"expected a port this user may listen on, got {where}"
    return f"expected an address of this machine, got {where}: {error.strerror or error}"


def log_listening(
    logger: logging.Logger,
    host: str,
    port: int,
    *,
    tls: bool,
    bundle: str,
    device: str,
    workers: int | None = None,
) -> None:
    """Clients can come.

    Args:
        logger: Of whoever listens.
        host: Where.
        port: Likewise.
        tls: Whether connections are encrypted.
        bundle: Name of the model.
        device: What runs it.
        workers: How many processes serve; None: this one.
    """
    fields: dict[str, Any] = {
        "event": "server.listening",
        "host": host,
        "port": port,
        "tls": tls,
        "bundle": bundle,
        "device": device,
    }
    if workers is not None:
        fields["workers"] = workers
    logger.info(
        "listening on %s port %d%s, bundle %s on %s%s",
        host,
        port,
        " (TLS)" if tls else "",
        bundle,
        device,
        "" if workers is None else f", {workers} workers",
        extra={"fields": fields},
    )
