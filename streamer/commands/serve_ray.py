"""``cnerta-serve --ray``, and what a ``serve`` configuration file of a Ray cluster names."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cnerta.models.errors import ConfigError
from cnerta.streamer.commands.configuration import Configuration
from cnerta.streamer.commands.serve_process import read_anew, share_gil, spare_collector
from cnerta.streamer.commands.serve_workers import WorkerPlan
from cnerta.streamer.commands.settings import Setting, read_table, settings_of
from cnerta.streamer.ray_serve.application import (
    HAPROXY_VARIABLE,
    RayOptions,
    Replicas,
    make_application,
    replicas_are_reachable,
)
from cnerta.streamer.ray_serve.cluster import Cluster, is_installed, run_on
from cnerta.streamer.ray_serve.replica import Hosted
from cnerta.streamer.serving.server import ServerOptions

__all__ = [
    "PlanTaker",
    "RayAddressOption",
    "RayOption",
    "RayReplicasOption",
    "RayStreamsOption",
    "build",
    "check_ray",
    "open_server",
    "serve_on_ray",
]

logger = logging.getLogger(__name__)

RayOption = Annotated[
    bool,
    typer.Option(
        "--ray/--no-ray",
        help="Have Ray Serve run servers as replicas, in a cluster on this machine. What bounds "
        "sessions holds for each of them. Needs the extra ray.",
    ),
]
RayReplicasOption = Annotated[
    str,
    typer.Option(
        metavar="N|MIN:MAX",
        help="With --ray: how many replicas; more of them the more streams there are.",
    ),
]
RayStreamsOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="With --ray: streams that a replica is to have on average; beyond that there are to "
        "be more replicas.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT|auto",
        help="With --ray: a cluster that is there, instead of one on this machine.",
    ),
]

_ANYWHERE: Final = "0.0.0.0"
_OWN: Final = frozenset(
    {"port", "ray", "ray_address", "ray_replicas", "ray_streams", "tls_cert", "tls_key", "workers"}
)
"""Settings that are not a replica's."""


@dataclass(slots=True)
class PlanTaker:
    """Takes what the command would run, and has it run nothing.

    Attributes:
        plan: It, once the command has come so far.
    """

    plan: WorkerPlan | None = None


def check_ray(plan: WorkerPlan, *, insecure: bool) -> None:
    """Refuse what does not go with ``--ray``, and a machine without it.

    Args:
        plan: What the options come to.
        insecure: Whether others than this machine may come without a token.

    Raises:
        typer.BadParameter: It is there.
    """
    if not is_installed():
        raise typer.BadParameter(
            "expected the extra ray for --ray, got none: pip install 'cnerta-stream[ray]'"
        )
    if plan.count > 1:
        raise typer.BadParameter("expected --ray-replicas with --ray, got --workers")
    if plan.options.metrics_address is not None:
        raise typer.BadParameter("expected Ray to give metrics, got --metrics-address with --ray")
    if not plan.port:
        raise typer.BadParameter("expected --port of its own with --ray, got 0")
    if replicas_are_reachable() and not (plan.options.tokens or insecure):
        raise typer.BadParameter(
            f"expected --token-file or --insecure with {HAPROXY_VARIABLE}, where replicas listen "
            "beyond this machine, got none"
        )


def serve_on_ray(
    plan: WorkerPlan,
    configuration: Configuration,
    *,
    replicas: str,
    streams: int,
    address: str | None,
) -> None:
    """Run replicas until a signal comes.

    Args:
        plan: What the options come to, for one server.
        configuration: The options.
        replicas: How many, see :class:`Replicas`.
        streams: How many each is to have.
        address: Of a cluster; None: one is started.

    Raises:
        CnertaError: They cannot be run.
        typer.BadParameter: That is not how many.
    """
    try:
        how_many = Replicas.parse(replicas)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--ray-replicas") from error
    given = {
        key: _portable(value)
        for key, value in configuration.values.items()
        if key not in _OWN and configuration.origin(key) != "default"
    }
    if replicas_are_reachable():
        given["host"] = _ANYWHERE
    options = _ray_options(plan, how_many, streams)
    certificate = configuration.values["tls_cert"]
    key = configuration.values["tls_key"] or certificate
    tls = None if certificate is None else (Path(str(certificate)), Path(str(key)))
    cluster = Cluster(address, plan.host, plan.port, tls)
    run_on(cluster, lambda: make_application(open_server, given, options), options)


def build(args: dict[str, Any]) -> Any:
    """The application of a ``serve`` configuration file.

    Args:
        args: The options of ``cnerta-serve`` that are not their defaults, as in its own file of
            configuration, with ``ray_replicas`` and ``ray_streams``.

    Raises:
        ConfigError: A key is none, or a value none of its key.
    """
    settings = _settings()
    given = {key: found.value for key, found in read_table(args, settings, "args").items()}
    values = {key: given.get(key, setting.default) for key, setting in settings.items()}
    options = RayOptions(
        Replicas.parse(values["ray_replicas"]),
        target_streams=values["ray_streams"],
        most_streams=values["max_sessions"],
        stop_timeout_s=ServerOptions(drain_timeout_s=values["drain_s"]).stop_timeout_s,
        cpus=values["threads"],
        gpus=_gpus(values["device"]),
    )
    own = {key: value for key, value in given.items() if key not in _OWN}
    # Where clients come says the file beside this; it is seldom this machine alone.
    return make_application(open_server, {"host": _ANYWHERE, **own}, options)


@contextlib.contextmanager
def open_server(options: Mapping[str, Any]) -> Iterator[Hosted]:
    """The server of a replica.

    Args:
        options: Those of the command that are not their defaults.

    Raises:
        CnertaError: It cannot be had.
    """
    plan = _plan_of(options)
    share_gil()
    with plan.serving(plan.load(), None) as server:
        spare_collector()
        yield Hosted(server, plan.host, partial(read_anew, server, plan.secrets))


def _plan_of(options: Mapping[str, Any]) -> WorkerPlan:
    """What the command makes of options.

    Raises:
        ConfigError: It refuses them.
    """
    from cnerta.streamer.commands.serve import app

    taker = PlanTaker()
    command = typer.main.get_command(app)
    try:
        command.main(
            list(_arguments(options, _settings())),
            prog_name="cnerta-serve",
            standalone_mode=False,
            obj=taker,
        )
    except typer.BadParameter as error:
        raise ConfigError(error.message) from error
    if taker.plan is None:
        raise ConfigError("expected options to serve with, got others")
    return taker.plan


def _settings() -> dict[str, Setting]:
    from cnerta.streamer.commands.serve import serve

    return settings_of(serve)


def _arguments(options: Mapping[str, Any], settings: Mapping[str, Setting]) -> Iterator[str]:
    """Options as a command line."""
    for key, value in options.items():
        option = settings[key].option
        if isinstance(value, bool):
            yield option if value else f"--no-{option.removeprefix('--')}"
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            yield f"{option}={each}"


def _portable(value: Any) -> Any:
    """A value for a process with another folder."""
    if isinstance(value, Path):
        return str(value.resolve() if value.exists() else value)
    return list(value) if isinstance(value, tuple) else value


def _ray_options(plan: WorkerPlan, replicas: Replicas, streams: int) -> RayOptions:
    return RayOptions(
        replicas,
        target_streams=streams,
        most_streams=plan.options.max_sessions,
        stop_timeout_s=plan.options.stop_timeout_s,
        cpus=plan.threads,
        gpus=_gpus(plan.device),
    )


def _gpus(device: str) -> int:
    """Ray hides GPUs from replicas that ask for none."""
    return int(device in ("cuda", "tensorrt"))
