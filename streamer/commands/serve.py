"""``cnerta-serve``: the server from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from cnerta.models.command_line import VersionOption, fail, log_lines, make_app
from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import find_bundle, load_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.client.connection import TOKEN_VARIABLE
from cnerta.streamer.commands.configuration import (
    CheckConfigOption,
    ConfigOption,
    Configuration,
)
from cnerta.streamer.commands.serve_options import (
    AllowedHostOption,
    DeviceOption,
    EngineOption,
    InsecureOption,
    JwtAudienceOption,
    JwtKey,
    JwtPublicKeyOption,
    JwtSecretFileOption,
    MaxBatchOption,
    MaxFinalWaitOption,
    MaxSessionsPerAddressOption,
    MaxWaitingPerAddressOption,
    MaxYoungSessionsOption,
    MetricsAddressOption,
    OriginOption,
    ResidentStreamsOption,
    Secrets,
    SessionTokenSecretFileOption,
    TlsCertOption,
    TlsKeyOption,
    TokenFileOption,
    TrustedProxyOption,
    access_options,
    parse_engine,
    parse_metrics_address,
)
from cnerta.streamer.commands.serve_process import (
    EXIT_LOST_FINALS,
    end_by_force,
    exit_code,
    force_after,
    read_anew,
    run_loop,
    share_gil,
    spare_collector,
    watch,
)
from cnerta.streamer.commands.serve_ray import (
    PlanTaker,
    RayAddressOption,
    RayOption,
    RayReplicasOption,
    RayStreamsOption,
    check_ray,
    serve_on_ray,
)
from cnerta.streamer.commands.serve_workers import (
    RetireOption,
    WorkerPlan,
    WorkersOption,
    nurse,
    parse_workers,
    watch_over,
)
from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.recording.recorder import RecordingFolder
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.sources import LineTranscript, TranscriptSource, make_transcript_source
from cnerta.streamer.wire.addresses import is_loopback
from cnerta.streamer.workers.membership import Membership
from cnerta.streamer.workers.nursery import channel_to_front

__all__ = ["app", "main"]

logger = logging.getLogger(__name__)


LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
_LEVELS: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PARKING: Final = ParkingOptions()
_EXIT_OPTIONS: Final = 2

app = make_app()


@app.command(
    epilog="Exit codes: 0 stopped by a signal · 2 wrong options · 3 the address is taken or not "
    "this machine's · 5 the recogniser cannot be had · 8 the bundle cannot be used · 9 the ONNX "
    "runtime is missing or cannot run it · 10 stopped by a signal, by force: something hung · 12 "
    "stopped by a signal, and final answers were left behind."
)
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8765,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a model, one that comes along (fast, the default, or accurate), or "
            "hf:OWNER/NAME of the Hugging Face hub."
        ),
    ] = None,
    device: DeviceOption = "auto",
    resident_streams: ResidentStreamsOption = None,
    engine: EngineOption = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the engine.")] = 1,
    max_batch: MaxBatchOption = 16,
    max_sessions: Annotated[int, typer.Option(min=1, help="Most connections at once.")] = 512,
    memory_mb: Annotated[
        int,
        typer.Option(
            min=16,
            help="What all sessions together may hold, in megabytes. Near it no new ones are "
            "taken; beyond it those that hold most lose their oldest audio.",
        ),
    ] = 1024,
    max_ahead_s: Annotated[
        float, typer.Option(min=1, help="How far audio may run ahead of real time.")
    ] = 60.0,
    idle_timeout_s: Annotated[
        float, typer.Option(min=1, help="Silence after which a connection is closed.")
    ] = 30.0,
    origin: OriginOption = None,
    allowed_host: AllowedHostOption = None,
    token_file: TokenFileOption = None,
    insecure: InsecureOption = False,
    jwt_secret_file: JwtSecretFileOption = None,
    jwt_public_key: JwtPublicKeyOption = None,
    jwt_audience: JwtAudienceOption = None,
    session_token_secret_file: SessionTokenSecretFileOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    max_final_wait_ms: MaxFinalWaitOption = 500,
    max_young_sessions: MaxYoungSessionsOption = 32,
    max_sessions_per_address: MaxSessionsPerAddressOption = 256,
    max_waiting_per_address: MaxWaitingPerAddressOption = 64,
    trusted_proxy: TrustedProxyOption = None,
    metrics_address: MetricsAddressOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:WHERE][,key=value]",
            help="A recogniser that writes the transcript for clients that send audio alone, such "
            "as sherpa-onnx:FOLDER or funasr:ws://127.0.0.1:10095; see cnerta-stream --help.",
        ),
    ] = None,
    max_recognised: Annotated[
        int, typer.Option(min=1, help="With --source: most sessions whose speech is recognised.")
    ] = 16,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="RECORD every session there: audio, transcripts and messages, in one file each. "
            "Clients are told. Off unless given.",
        ),
    ] = None,
    record_limit_mb: Annotated[
        int, typer.Option(min=1, help="Most of one recorded session, in megabytes.")
    ] = 1024,
    resume_s: Annotated[
        int,
        typer.Option(
            min=0,
            help="How long a session waits for its client after a disconnect, in seconds; 0: no "
            "session can be resumed.",
        ),
    ] = _PARKING.ttl_s,
    resume_sessions: Annotated[
        int, typer.Option(min=0, help="Most sessions that wait so at once.")
    ] = _PARKING.most,
    drain_s: Annotated[
        float,
        typer.Option(min=0, help="How long a stop waits for final answers that are owed."),
    ] = 10.0,
    grace_s: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long it waits before that for utterances in progress to become final; half "
            "of --drain-s at most.",
        ),
    ] = 2.0,
    workers: WorkersOption = "1",
    retire_s: RetireOption = 600.0,
    ray: RayOption = False,
    ray_replicas: RayReplicasOption = "1",
    ray_streams: RayStreamsOption = 32,
    ray_address: RayAddressOption = None,
    record_total_limit_mb: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most of all recordings in DIR together, in megabytes. [default: any]",
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = "info",
    log_format: Annotated[
        LogFormat,
        typer.Option(
            help="Lines for a person, or an object each for a program. Never text or tokens."
        ),
    ] = "text",
    config: ConfigOption = None,
    check_config: CheckConfigOption = False,
    version: VersionOption = False,
) -> None:
    """Serve named-entity events over WebSocket at /v1/stream.

    Beside it over HTTP: /healthz, /readyz, /metrics (Prometheus), /asyncapi.json and
    /v1/sessions, which gives tokens for one session each.
    SIGTERM and SIGINT stop it: utterances in progress have --grace-s to become final, answers that
    are owed are given within --drain-s, and clients are told to go on elsewhere. SIGHUP reads
    tokens and certificate anew; with --workers it starts new workers, with everything as it is by
    then, and the old ones end with their sessions.
    """
    configuration = Configuration.of(context)
    log_lines(_LEVELS[log_level], as_json=log_format == "json")
    front = channel_to_front()
    for unknown in () if front is not None else configuration.unknown:
        logger.warning("%s", unknown)
    with configuration.naming_origins():
        jwt = JwtKey.of(jwt_secret_file, jwt_public_key, jwt_audience)
        secrets = Secrets.of(
            host,
            token_file,
            jwt,
            session_token_secret_file,
            tls_cert,
            tls_key,
            insecure=insecure,
        )
        options = ServerOptions(
            limits=ConnectionLimits(
                idle_timeout_s=idle_timeout_s, max_audio_ahead_ms=round(1000 * max_ahead_s)
            ),
            max_sessions=max_sessions,
            max_batch=max_batch,
            memory_mb=memory_mb,
            origins=tuple(origin or ()),
            drain_timeout_s=drain_s,
            grace_s=grace_s,
            parking=ParkingOptions(ttl_s=resume_s, most=resume_sessions),
            tokens=secrets.tokens(),
            token_signer=secrets.token_signer(),
            access=access_options(
                allowed_hosts=allowed_host,
                trusted_proxies=trusted_proxy,
                max_sessions_per_address=max_sessions_per_address,
                max_waiting_per_address=max_waiting_per_address,
                max_final_wait_ms=max_final_wait_ms,
                max_young_sessions=max_young_sessions,
            ),
            tls=None if secrets.certificate is None else secrets.certificate.context,
            metrics_address=parse_metrics_address(metrics_address),
        )
        if record is not None and not (record.is_dir() and os.access(record, os.W_OK)):
            raise typer.BadParameter(
                f"expected --record DIR to be a folder to write in, got {record}"
            )
        count = parse_workers(workers, threads)
        triton = parse_engine(engine)
    if (
        front is None
        and secrets.tokens()
        and not (options.tls or trusted_proxy or is_loopback(host))
    ):
        logger.warning(
            "tokens cross the network to %s in clear text: expected --tls-cert, or "
            "--trusted-proxy for one that speaks TLS, got neither",
            host,
        )
    if check_config:
        _print_configuration(configuration, bundle)
        return
    recogniser: TranscriptSource | None = None

    @contextlib.contextmanager
    def serving(model: Model, group: Membership | None = None) -> Iterator[Server]:
        """A server, and what it needs as long as it lives."""
        size = 1 if group is None else group.size
        with contextlib.ExitStack() as stack:
            new_connection = None
            if record is not None:
                folder = RecordingFolder(
                    record,
                    record_limit_mb * 2**20,
                    None if record_total_limit_mb is None else record_total_limit_mb * 2**20,
                    writers=size,
                )
                new_connection = stack.enter_context(folder).open
            writer = None
            if source is not None:
                made = recogniser or _recogniser(source)
                writer = Recogniser(made, math.ceil(max_recognised / size))
                stack.callback(writer.close)
            yield Server(model, options, new_connection, writer, group)

    plan = WorkerPlan(
        host=host,
        port=port,
        bundle=bundle,
        device=device,
        resident_streams=resident_streams,
        triton=triton,
        threads=threads,
        count=count,
        retire_s=retire_s,
        options=options,
        secrets=secrets,
        serving=serving,
    )
    if isinstance(context.obj, PlanTaker):
        context.obj.plan = plan  # a replica of Ray runs it
        return
    try:
        if ray:
            with configuration.naming_origins():
                check_ray(plan, insecure=insecure)
                serve_on_ray(
                    plan,
                    configuration,
                    replicas=ray_replicas,
                    streams=ray_streams,
                    address=ray_address,
                )
            return
        if front is not None:
            nurse(front, plan)
            return
        if count > 1:
            status = watch_over(plan)
            if status:
                raise typer.Exit(status)
            return
        share_gil()
        # Whether there is one, before a model is loaded.
        recogniser = None if source is None else _recogniser(source)
        with serving(plan.load()) as server:
            run_loop(_run(server, host, port, secrets))
        if server.has_hung:
            # At an ordinary end the runtime waits for the thread that hangs, or falls over it.
            end_by_force()
    except CnertaError as error:
        fail("cnerta-serve", error, exit_code(error))
    if server.lost_finals:
        raise typer.Exit(EXIT_LOST_FINALS)


def _print_configuration(configuration: Configuration, bundle: Path | None) -> None:
    """What ``--check-config`` prints.

    Raises:
        typer.Exit: Something of it cannot be used.
    """
    for line in configuration.lines():
        typer.echo(line)
    if os.environ.get(TOKEN_VARIABLE):
        typer.echo(f"# {TOKEN_VARIABLE} is a token (not shown)")
    try:
        load_bundle(find_bundle(bundle))
    except CnertaError as error:
        fail("cnerta-serve", error, exit_code(error))
    if configuration.unknown:
        raise typer.Exit(_EXIT_OPTIONS)


def _recogniser(source: str) -> TranscriptSource:
    """What writes transcripts for clients.

    Raises:
        TranscriptError: It cannot be had, or needs somebody who types.
    """
    made = make_transcript_source(source)
    if isinstance(made, LineTranscript):
        raise TranscriptError("expected a recogniser as --source of a server, got lines")
    return made


async def _run(server: Server, host: str, port: int, secrets: Secrets) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Where there are no signal handlers (Windows), Ctrl-C ends the program at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    with contextlib.suppress(NotImplementedError, AttributeError):
        loop.add_signal_handler(signal.SIGHUP, read_anew, server, secrets)
    await server.start(host, port)
    spare_collector()
    watching = asyncio.create_task(watch(secrets))
    await stop.wait()
    watching.cancel()
    call_off = force_after(server.stop_timeout_s)
    try:
        await server.stop()
    finally:
        call_off()


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
