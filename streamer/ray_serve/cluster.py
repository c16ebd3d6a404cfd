"""Runs the application until a signal comes: on a cluster of its own, or one that is there."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cnerta.models.errors import CnertaError, InferenceError
from cnerta.streamer.ray_serve.application import RayOptions
from cnerta.streamer.serving.listening import AddressError, explain_address

__all__ = ["APPLICATION", "Cluster", "alone", "is_installed", "run_on"]

logger = logging.getLogger(__name__)

APPLICATION: Final = "cnerta"
_LOCAL: Final = "local"
_STORE_BYTES: Final = 2**27
"""Objects that are shared: messages of streams are too short to be any."""
_TOKEN_BYTES: Final = 32
_LOOK_S: Final = 0.2
_SLACK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the application runs.

    Attributes:
        address: Of a cluster; None: one is started on this machine.
        host: Where its proxies listen.
        port: Likewise.
        tls: Certificate and key with which they encrypt; None: they do not.
    """

    address: str | None
    host: str
    port: int
    tls: tuple[Path, Path] | None = None

    @property
    def http_options(self) -> dict[str, Any]:
        """As Ray's own."""
        options: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.tls is not None:
            certificate, key = map(str, self.tls)
            options |= {"ssl_certfile": certificate, "ssl_keyfile": key}
        return options


def alone() -> dict[str, str]:
    """Variables of a cluster that nobody else has a part in.

    Ray's own ports are open on the machine's address, whatever the proxies listen on. Who has the
    token may run anything there: only this process and its children do.
    """
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(_TOKEN_BYTES),
    }


def is_installed() -> bool:
    """Whether Ray is."""
    return importlib.util.find_spec("ray") is not None


def run_on(cluster: Cluster, make: Callable[[], Any], options: RayOptions) -> None:
    """Run the application until SIGTERM or SIGINT; SIGHUP replaces replicas, the old ones drain.

    Args:
        cluster: Where.
        make: Makes the application.
        options: How Ray runs replicas.

    Raises:
        AddressError: Its proxies cannot listen there.
        CnertaError: It does not start.
    """
    if cluster.address is None:
        _check_address(cluster.host, cluster.port)
        for variable, value in alone().items():
            os.environ.setdefault(variable, value)
    # Only now: it looks at its variables when it is imported.
    import ray
    from ray import serve

    _connect(ray, cluster)
    try:
        signals = _Signals()
        serve.start(http_options=cluster.http_options)
        _run(serve, make())
        logger.info(
            "listening on %s port %d: Ray Serve, %s replicas of at most %d sessions",
            cluster.host,
            cluster.port,
            options.replicas,
            options.most_streams,
        )
        while not signals.wait_for_stop():
            logger.info("new replicas start, with everything as it is now")
            with contextlib.suppress(InferenceError):
                _run(serve, make())
        logger.info("stopping")
        _delete(serve, options.stop_timeout_s + _SLACK_S)
        if cluster.address is None:
            serve.shutdown()
        logger.info("stopped")
    finally:
        ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> None:
    if cluster.address is not None:
        try:
            ray.init(address=cluster.address, namespace="serve")
        except ConnectionError as error:
            why = f"expected a Ray cluster at {cluster.address}, got: {error}"
            raise CnertaError(why) from error
        return
    ray.init(
        address=_LOCAL,
        namespace="serve",
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
    )


def _check_address(host: str, port: int) -> None:
    """Ray would try again and again, and log it elsewhere.

    Raises:
        AddressError: It cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        raise AddressError(explain_address(host, port, error)) from error


def _run(serve: Any, application: Any) -> None:
    """Deploy it, and wait until it runs.

    Raises:
        InferenceError: Its replicas do not start.
    """
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        logger.error("%s", error)
        why = "expected replicas that start, got failures: see above"
        raise InferenceError(why) from error


def _delete(serve: Any, timeout_s: float) -> None:
    """Take the application away, once its replicas have given what they owe."""
    serve.delete(APPLICATION, _blocking=False)
    ends = time.monotonic() + timeout_s
    while APPLICATION in serve.status().applications and time.monotonic() < ends:
        time.sleep(_LOOK_S)


class _Signals:
    """SIGTERM, SIGINT and SIGHUP, for the main thread."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._is_stop = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._renew)

    def wait_for_stop(self) -> bool:
        """Wait for a signal. Returns whether that is a stop."""
        self._came.wait()
        self._came.clear()
        return self._is_stop

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stop = True
        self._came.set()

    def _renew(self, number: int, frame: FrameType | None) -> None:
        self._came.set()
