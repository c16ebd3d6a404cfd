"""``cnerta-serve --workers``: the processes of one server, from the command's options."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from cnerta.models.command_line import fail
from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.onnx_sessions import Device, choose_device, offers_cuda
from cnerta.streamer.commands.serve_options import Secrets
from cnerta.streamer.commands.serve_process import (
    EXIT_LOST_FINALS,
    FORCED_EXIT,
    end_by_force,
    exit_code,
    force_after,
    run_loop,
    share_gil,
    watch,
)
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.serving.sharing.shared_metrics import keep_in_files
from cnerta.streamer.serving.triton.loading import load_from_triton
from cnerta.streamer.serving.triton.server import TritonAddress
from cnerta.streamer.workers.channel import Channel, are_supported
from cnerta.streamer.workers.cores import usable_cores, workers_for
from cnerta.streamer.workers.front import Front, FrontOptions, FrontResult
from cnerta.streamer.workers.membership import Membership
from cnerta.streamer.workers.messages import Fork, Loaded, Setup
from cnerta.streamer.workers.nursery import run_nursery
from cnerta.streamer.workers.nursery_process import own_command
from cnerta.streamer.workers.worker import WorkerLoop

__all__ = [
    "RetireOption",
    "WorkerPlan",
    "WorkersOption",
    "nurse",
    "parse_workers",
    "watch_over",
]

logger = logging.getLogger(__name__)

_AUTO: Final = "auto"
_MOST_WORKERS: Final = 256

WorkersOption = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Processes that share the port; auto: one for each usable core, or for as many as "
        "--threads says. What bounds all sessions together holds for all of them.",
    ),
]
RetireOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="With --workers: how long sessions go on that are there when SIGHUP starts new "
        "workers, in seconds.",
    ),
]


def parse_workers(text: str, threads: int) -> int:
    """How many workers an option means.

    Raises:
        typer.BadParameter: None, or several where the system has no means for that.
    """
    if text == _AUTO:
        return workers_for(usable_cores(), threads) if are_supported() else 1
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_WORKERS):
        raise typer.BadParameter(
            f"expected --workers auto, or 1 to {_MOST_WORKERS}, got {text!r}",
        )
    if int(text) > 1 and not are_supported():
        raise typer.BadParameter(
            "expected Linux for --workers beyond 1, got a system without SOCK_SEQPACKET or fork"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What the options come to.

    Attributes:
        host: Where to listen.
        port: Likewise.
        bundle: The model's.
        device: What runs it.
        resident_streams: Streams whose caches stay on it; None: all, where that is of use.
        triton: Or a server that does; None: this process.
        threads: Of each worker's engine.
        count: Workers.
        retire_s: How long sessions of before a reload go on.
        options: Of each server.
        secrets: What lies in files.
        serving: Makes a server of a model, as one of a group.
    """

    host: str
    port: int
    bundle: Path | None
    device: Device
    resident_streams: int | None
    triton: TritonAddress | None
    threads: int
    count: int
    retire_s: float
    options: ServerOptions
    secrets: Secrets
    serving: Callable[[Model, Membership | None], AbstractContextManager[Server]]

    @property
    def shares_memory(self) -> bool:
        """Whether a model that is loaded before a fork can be used after it."""
        uses_gpu = self.device != "cpu" and (self.device != "auto" or offers_cuda())
        return self.threads == 1 and not uses_gpu and self.triton is None

    def load(self) -> Model:
        """The model.

        Raises:
            CnertaError: It cannot be had.
        """
        bundle = find_bundle(self.bundle)
        if self.triton is not None:
            return load_from_triton(bundle, self.triton, threads=self.threads)
        streams = self.resident_streams
        if streams is None and choose_device(self.device).device == "cuda":
            streams = self.options.max_sessions
        return Model.load(
            bundle, device=self.device, threads=self.threads, resident_streams=streams
        )


def watch_over(plan: WorkerPlan) -> int:
    """Accept connections and give them to workers, until a signal comes. Returns the exit status.

    Raises:
        AddressError: The address is taken, or none of this machine's.
    """
    results: list[FrontResult] = []
    options = plan.options
    front_options = FrontOptions(
        host=plan.host,
        port=plan.port,
        metrics_address=options.metrics_address,
        workers=plan.count,
        encrypts=options.tls is not None,
        stop_timeout_s=options.stop_timeout_s,
        retire_s=plan.retire_s,
    )

    async def run() -> None:
        results.append(await Front(front_options, own_command()).run())

    run_loop(run())
    (result,) = results
    if result.failure is not None:
        return result.failure
    if result.forced:
        logger.error("a worker did not end in order")
        return FORCED_EXIT
    if result.lost_finals:
        logger.error("%d final answers were left behind by all workers", result.lost_finals)
        return EXIT_LOST_FINALS
    return 0


def nurse(front: Channel, plan: WorkerPlan) -> None:
    """Load the model and fork workers, as long as the front is there.

    Raises:
        CnertaError: The model cannot be had.
    """
    models: list[Model] = []

    def load() -> Loaded:
        if not plan.shares_memory:
            return Loaded(find_bundle(plan.bundle).name, plan.device)
        models.append(plan.load())
        return Loaded(models[0].bundle.name, models[0].device)

    def work(fork: Fork, setup: Setup, channel: Channel, watchers: tuple[int, ...]) -> int:
        try:
            return _work(plan, models[0] if models else plan.load(), fork, setup, channel, watchers)
        except CnertaError as error:
            with contextlib.suppress(typer.Exit):
                fail("cnerta-serve", error)
            return exit_code(error)

    run_nursery(front, load, work)


def _work(
    plan: WorkerPlan,
    model: Model,
    fork: Fork,
    setup: Setup,
    front: Channel,
    watchers: tuple[int, ...],
) -> int:
    """Serve as a worker. Returns the exit status."""
    share_gil()
    group = Membership(fork.name, setup, front, watchers)
    keep_in_files(group.metrics_folder, fork.place)
    with plan.serving(model, group) as server:
        folder = Path(setup.folder) / fork.name
        run_loop(_serve(WorkerLoop(server, group, front, plan.host, folder), server, plan.secrets))
    if server.has_hung:
        end_by_force()
    return EXIT_LOST_FINALS if server.lost_finals else 0


async def _serve(worker: WorkerLoop, server: Server, secrets: Secrets) -> None:
    watching = asyncio.create_task(watch(secrets))
    await worker.run(lambda: force_after(server.stop_timeout_s))
    watching.cancel()
