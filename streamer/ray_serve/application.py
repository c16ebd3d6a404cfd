"""The Ray Serve application: replicas, how many of them, and how they are drained."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cnerta.models.errors import ConfigError
from cnerta.streamer.ray_serve.replica import Door, OpenServer, Replica

__all__ = [
    "DEPLOYMENT",
    "HAPROXY_VARIABLE",
    "RayOptions",
    "Replicas",
    "make_application",
    "replicas_are_reachable",
]

DEPLOYMENT: Final = "streams"
HAPROXY_VARIABLE: Final = "RAY_SERVE_ENABLE_HA_PROXY"
"""Where it is 1, Ray has HAProxy lead clients to replicas, which listen on all interfaces."""
_UPSCALE_DELAY_S: Final = 10.0
_SLACK_S: Final = 5.0
"""Ray looks every 2 s whether a replica has drained."""
_TRIES: Final = 3
_MOST_REPLICAS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many there are.

    Attributes:
        least: Always.
        most: When there are streams for them.
    """

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Replicas:
        """Read ``N`` or ``MIN:MAX``.

        Raises:
            ConfigError: It is neither.
        """
        found = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", text, re.ASCII)
        if found is not None:
            least = int(found[1])
            most = least if found[2] is None else int(found[2])
            if 1 <= least <= most <= _MOST_REPLICAS:
                return cls(least, most)
        raise ConfigError(f"expected N or MIN:MAX replicas, at least 1, got {text!r}")

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How Ray runs replicas.

    Attributes:
        replicas: How many.
        target_streams: Streams of a replica from which on another one is wanted.
        most_streams: Most that one takes.
        stop_timeout_s: How long one may take to give what it owes.
        cpus: Cores of each.
        gpus: GPUs of each, or a share of one.
    """

    replicas: Replicas
    target_streams: int
    most_streams: int
    stop_timeout_s: float
    cpus: float = 1
    gpus: float = 0

    def deployment(self) -> dict[str, Any]:
        """As Ray's own options of a deployment."""
        options: dict[str, Any] = {
            "name": DEPLOYMENT,
            # A connection is a request that goes on.
            "max_ongoing_requests": self.most_streams,
            "graceful_shutdown_timeout_s": self.stop_timeout_s + _SLACK_S,
            "max_constructor_retry_count": _TRIES,
            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus},
        }
        replicas = self.replicas
        if replicas.least == replicas.most:
            return {**options, "num_replicas": replicas.least}
        return {
            **options,
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "target_ongoing_requests": min(self.target_streams, self.most_streams),
                "upscale_delay_s": _UPSCALE_DELAY_S,
            },
        }


def make_application(
    open_server: OpenServer, server_options: Mapping[str, Any], options: RayOptions
) -> Any:
    """The application, for ``serve.run`` or ``serve deploy``.

    Args:
        open_server: Makes the server of a replica.
        server_options: Of it.
        options: How Ray runs replicas.
    """
    from ray import serve

    ingress = serve.ingress(Door())(Replica)
    made = serve.deployment(ingress).options(**options.deployment())
    return made.bind(open_server, dict(server_options))


def replicas_are_reachable() -> bool:
    """Whether Ray has replicas listen themselves, beyond this machine."""
    return os.environ.get(HAPROXY_VARIABLE) == "1"
