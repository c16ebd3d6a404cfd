"""The process that clients connect to: it accepts, and gives each connection to a worker.

It reads nothing of what comes, so it works the same with and without TLS, and a connection costs it
some microseconds when it comes and nothing after that: the worker gets the socket itself. As it
knows how many connections each worker has, they are spread evenly, which hashing (``SO_REUSEPORT``)
does by chance only; and while a worker is replaced, the port and those who wait at it stay.

A connection for a session that another worker has comes back with what was read of it, and is given
to that worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from cnerta.streamer.access.shared_ledger import SharedLedger
from cnerta.streamer.serving.listening import AddressError, explain_address, log_listening
from cnerta.streamer.serving.sharing.shared_metrics import forget_process, keep_in_files
from cnerta.streamer.workers.channel import Channel, Files
from cnerta.streamer.workers.front_metrics import FrontMetrics
from cnerta.streamer.workers.membership import LEDGER_FILE, METRICS_FOLDER
from cnerta.streamer.workers.messages import (
    Adopt,
    Died,
    Ended,
    HandOver,
    Loaded,
    Message,
    Retire,
    Setup,
    Status,
    Stop,
    TakeOver,
)
from cnerta.streamer.workers.nursery_process import NurseryProcess
from cnerta.streamer.workers.ports import listen
from cnerta.streamer.workers.roster import Backoff, Roster, WorkerState

__all__ = ["Front", "FrontOptions", "FrontResult"]

logger = logging.getLogger(__name__)

_MEMORY_FOLDER: Final = Path("/dev/shm")
_OWN_PLACE: Final = "front"
_TURN_S: Final = 0.5
_ACCEPT_AT_ONCE: Final = 64
_NO_FILES_S: Final = 0.5
_STOP_SLACK_S: Final = 3.0
_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """What the front has to know.

    Attributes:
        host: Where to listen.
        port: 0 takes a free one.
        metrics_address: Host and port for the metrics, if they have an address of their own.
        workers: How many there are.
        encrypts: Whether the workers speak TLS.
        stop_timeout_s: How long a worker's stop may take.
        retire_s: How long sessions of before a reload may go on.
    """

    host: str
    port: int
    metrics_address: tuple[str, int] | None
    workers: int
    encrypts: bool
    stop_timeout_s: float
    retire_s: float


@dataclass(slots=True)
class FrontResult:
    """How it ended.

    Attributes:
        failure: Exit status of what could not be started; None: it was started.
        lost_finals: Answers to finals that workers had to leave behind when they were stopped.
        forced: Whether something had to be killed.
    """

    failure: int | None = None
    lost_finals: int = 0
    forced: bool = False


class Front:
    """See the module.

    Attributes:
        port: What is listened on.
        metrics_port: Where the metrics are, if they have an address of their own.
    """

    def __init__(self, options: FrontOptions, command: Sequence[str]) -> None:
        """Begin; nothing runs yet.

        Args:
            options: What it has to know.
            command: Starts a nursery.
        """
        self.port = self.metrics_port = 0
        self._options = options
        self._command = command
        self._result = FrontResult()
        self._roster = Roster()
        self._channels: dict[WorkerState, Channel] = {}
        self._nurseries: dict[int, NurseryProcess] = {}
        self._generation = 0
        self._current = 0
        """The generation that serves; the newest may still be starting."""
        self._backoff = Backoff()
        self._coming = 0
        """Workers that are about to be forked in place of others."""
        self._deadlines: dict[WorkerState, float] = {}
        self._listening: dict[socket.socket, Literal["public", "operators"]] = {}
        self._is_accepting = self._is_stopping = False
        self._left_over: tuple[socket.socket, Literal["public", "operators"]] | None = None
        self._stopped = asyncio.Event()
        self._emptied = asyncio.Event()
        self._bundle = Loaded("", "")

    async def run(self) -> FrontResult:
        """Serve until a signal comes.

        Raises:
            AddressError: It cannot listen where it was told to.
        """
        where = _MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="cnerta-serve-", dir=where))
        try:
            self._open_ports()
            self._open_books()
            await self._serve()
        finally:
            for one in self._listening:
                one.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return self._result

    # --- from the beginning to the end ------------------------------------------------------------

    def _open_ports(self) -> None:
        options = self._options
        wanted: list[tuple[str, int, Literal["public", "operators"]]] = [
            (options.host, options.port, "public")
        ]
        if options.metrics_address is not None:
            wanted.append((*options.metrics_address, "operators"))
        for host, port, kind in wanted:
            try:
                opened = listen(host, port)
            except OSError as error:
                raise AddressError(explain_address(host, port, error)) from error
            self._listening.update(dict.fromkeys(opened, kind))
            found: int = opened[0].getsockname()[1]
            if kind == "public":
                self.port = found
            else:
                self.metrics_port = found
                logger.info("metrics on %s port %d", host, found)

    def _open_books(self) -> None:
        metrics = self._folder / METRICS_FOLDER
        metrics.mkdir()
        self._ledger = SharedLedger(self._folder / LEDGER_FILE, _OWN_PLACE)
        keep_in_files(metrics, _OWN_PLACE)
        self._metrics = FrontMetrics()
        self._setup = Setup(
            str(self._folder), secrets.token_bytes(32), self._options.workers, os.getpid()
        )

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._start_nursery()
        watching = asyncio.create_task(self._watch())
        await self._stopped.wait()
        self._is_stopping = True
        watching.cancel()
        self._stop_accepting()
        for one in self._listening:
            one.close()
        await self._stop_workers()
        nurseries = tuple(self._nurseries.values())
        for nursery in nurseries:
            nursery.leave()
        for nursery in nurseries:
            await asyncio.to_thread(nursery.wait)
        self._ledger.close()
        logger.info("stopped")

    async def _stop_workers(self) -> None:
        logger.info("stopping %d workers", len(self._roster))
        for worker in self._roster:
            self._end(worker)
        if not len(self._roster):
            self._emptied.set()
        try:
            async with asyncio.timeout(self._options.stop_timeout_s + _STOP_SLACK_S):
                await self._emptied.wait()
        except TimeoutError:
            self._result.forced = True
            for worker in self._roster:
                logger.error("worker %s did not end: it is killed", worker.name)
                self._kill(worker)

    def _fail(self, status: int) -> None:
        """What cannot be started cannot be served; the reason was printed where it was met."""
        self._result.failure = status
        self._stopped.set()

    @property
    def _is_starting(self) -> bool:
        return not self._current

    # --- generations ------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._generation != self._current:
            logger.warning("a reload is under way already")
            return
        logger.info("reload: new workers are started, those that serve go on until then")
        self._start_nursery()

    def _start_nursery(self) -> None:
        self._generation += 1
        nursery = NurseryProcess(self._generation, self._command, self._setup)
        self._nurseries[nursery.generation] = nursery
        nursery.channel.follow(
            partial(self._on_nursery_says, nursery), partial(self._on_nursery_gone, nursery)
        )

    def _on_nursery_says(self, nursery: NurseryProcess, message: Message, files: Files) -> None:
        match message:
            case Loaded():
                nursery.is_loaded, self._bundle = True, message
                for _ in range(self._options.workers):
                    self._fork(nursery)
            case Died(name, status):
                how = f"signal {-status}" if status < 0 else f"status {status}"
                level = logging.INFO if self._is_stopping and not status else logging.WARNING
                logger.log(level, "worker %s has ended with %s", name, how)
                if self._is_starting and not self._is_stopping:
                    self._fail(status if status > 0 else 1)
            case _:
                logger.error("expected a nursery's message, got %s", type(message).__name__)

    def _on_nursery_gone(self, nursery: NurseryProcess) -> None:
        nursery.is_gone = True
        self._nurseries.pop(nursery.generation, None)
        status = nursery.wait()  # it has ended already, or is about to
        if self._is_stopping:
            return
        if self._is_starting:
            self._fail(status if status > 0 else 1)
        elif nursery.generation == self._current:
            logger.error("the process that starts workers has ended: another one is started")
            if self._generation == self._current:
                asyncio.get_running_loop().call_later(_AGAIN_S, self._start_nursery)
        elif nursery.generation == self._generation:
            logger.error("reload failed with status %d: those that serve go on", status)
            self._give_up_generation(nursery.generation)

    def _give_up_generation(self, generation: int) -> None:
        """The newest generation does not come to serve."""
        for worker in self._roster:
            if worker.generation == generation:
                self._end(worker)
        self._generation = self._current

    def _fork(self, nursery: NurseryProcess) -> None:
        if nursery.is_gone or self._is_stopping:
            return
        worker = self._roster.add(nursery.generation, _now())
        folder = self._folder / worker.name
        folder.mkdir()
        channel = nursery.fork(worker.name, worker.place)
        self._channels[worker] = channel
        channel.follow(partial(self._on_worker_says, worker), partial(self._on_worker_gone, worker))

    def _on_generation_serves(self, generation: int) -> None:
        before, self._current = self._current, generation
        if not before:
            log_listening(
                logger,
                self._options.host,
                self.port,
                tls=self._options.encrypts,
                bundle=self._bundle.bundle,
                device=self._bundle.device,
                workers=self._options.workers,
            )
            return
        logger.info(
            "reload: new workers take the sessions that come",
            extra={"fields": {"event": "server.reloaded"}},
        )
        for worker in self._roster:
            if worker.generation != generation:
                self._retire(worker)
        self._tidy_nurseries()

    def _tidy_nurseries(self) -> None:
        """Those end whose workers are all gone."""
        needed = {worker.generation for worker in self._roster} | {self._generation, self._current}
        for nursery in tuple(self._nurseries.values()):
            if nursery.generation not in needed:
                del self._nurseries[nursery.generation]
                nursery.leave()
                asyncio.get_running_loop().run_in_executor(None, nursery.wait)

    # --- workers ----------------------------------------------------------------------------------

    def _on_worker_says(self, worker: WorkerState, message: Message, files: Files) -> None:
        try:
            match message:
                case Status():
                    self._on_status(worker, message)
                case HandOver():
                    self._on_hand_over(worker, message, files)
                case Ended(lost_finals):
                    worker.has_ended = worker.is_leaving = True
                    self._result.lost_finals += lost_finals
                case _:
                    logger.error("expected a worker's message, got %s", type(message).__name__)
        finally:
            for file in files:
                os.close(file)

    def _on_status(self, worker: WorkerState, status: Status) -> None:
        is_new = worker.status is None
        worker.hear(status, _now())
        if is_new and worker.generation != self._current and not self._is_stopping:
            serving = [w for w in self._roster if w.generation == worker.generation and w.status]
            if worker.generation == self._generation and len(serving) == self._options.workers:
                self._on_generation_serves(worker.generation)
        if self._current and not self._is_stopping:
            self._accept_again()

    def _on_hand_over(self, worker: WorkerState, message: HandOver, files: Files) -> None:
        """A connection for a session of another worker; where that is gone, it goes back."""
        order = TakeOver(message.remote, message.place)
        other = self._roster.find(message.to)
        if other is None or not self._channels[other].send(order, files):
            self._channels[worker].send(order, files)

    def _on_worker_gone(self, worker: WorkerState) -> None:
        self._roster.remove(worker)
        del self._channels[worker]
        self._deadlines.pop(worker, None)
        self._ledger.forget(worker.name, _now())
        forget_process(self._folder / METRICS_FOLDER, worker.place)
        shutil.rmtree(self._folder / worker.name, ignore_errors=True)
        if not worker.has_ended:
            self._result.forced |= self._is_stopping and not self._is_starting
        if self._is_stopping:
            if not len(self._roster):
                self._emptied.set()
            return
        self._tidy_nurseries()
        if worker.generation == self._current:
            if not worker.is_leaving or worker.has_ended:
                self._replace(worker)
        elif self._is_starting:
            return  # the nursery tells what it ended with
        elif worker.generation == self._generation and worker.status is None:
            logger.error("reload failed: a new worker ended; those that serve go on")
            self._give_up_generation(worker.generation)

    def _replace(self, worker: WorkerState) -> None:
        """A worker is gone that had not been told to go for good."""
        nursery = self._nurseries.get(self._current)
        if nursery is None:
            return  # another generation is on its way
        living = sum(w.generation == self._current and not w.is_leaving for w in self._roster)
        if living + self._coming >= self._options.workers:
            return
        pause_s = self._backoff.next_pause_s(_now() - worker.born_at)
        logger.error(
            "worker %s is gone: another one in %.1f s",
            worker.name,
            pause_s,
            extra={"fields": {"event": "worker.replaced", "worker": worker.name}},
        )
        self._metrics.replaced.inc()
        self._coming += 1
        asyncio.get_running_loop().call_later(pause_s, self._fork_again, nursery)

    def _fork_again(self, nursery: NurseryProcess) -> None:
        self._coming -= 1
        if nursery.generation == self._current:
            self._fork(nursery)

    def _retire(self, worker: WorkerState) -> None:
        worker.is_leaving = True
        self._channels[worker].send(Retire())
        self._deadlines[worker] = _now() + self._options.retire_s

    def _end(self, worker: WorkerState) -> None:
        worker.is_leaving = True
        if not self._channels[worker].send(Stop()):
            self._kill(worker, signal.SIGTERM)

    def _kill(self, worker: WorkerState, number: int = signal.SIGKILL) -> None:
        if worker.status is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.status.pid, number)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            now = _now()
            self._metrics.workers.set(sum(worker.status is not None for worker in self._roster))
            for worker, deadline in tuple(self._deadlines.items()):
                if now > deadline + self._options.stop_timeout_s:
                    self._kill(worker)
                elif now > deadline:
                    self._end(worker)
            for worker in self._roster:
                complaint = worker.complaint(now)
                if complaint == "silent":
                    logger.error("worker %s says nothing any more: it is killed", worker.name)
                    self._kill(worker)
                elif complaint == "unhealthy" and not worker.is_leaving:
                    logger.error("worker %s is of no use any more: it is replaced", worker.name)
                    self._deadlines[worker] = now
                    self._end(worker)
                    self._replace(worker)

    # --- connections ------------------------------------------------------------------------------

    def _accept_again(self) -> None:
        if self._left_over is not None:
            client, kind = self._left_over
            if not self._give(client, kind):
                return
            self._left_over = None
        if not self._is_accepting and not self._is_stopping:
            self._is_accepting = True
            loop = asyncio.get_running_loop()
            for one in self._listening:
                loop.add_reader(one.fileno(), self._accept, one)

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            loop = asyncio.get_running_loop()
            for one in self._listening:
                loop.remove_reader(one.fileno())
        if self._is_stopping and self._left_over is not None:
            self._left_over[0].close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if not self._is_accepting:
                return
            try:
                client, _ = listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                logger.error("connections wait: expected to accept one, got: %s", error)
                self._stop_accepting()
                asyncio.get_running_loop().call_later(_NO_FILES_S, self._accept_again)
                return
            kind = self._listening[listening]
            if not self._give(client, kind):
                # The others wait where they are until a worker says how it is.
                self._left_over = (client, kind)
                self._stop_accepting()

    def _give(self, client: socket.socket, kind: Literal["public", "operators"]) -> bool:
        """Give a connection to the least loaded worker. Returns whether one takes it."""
        worker = self._roster.least_loaded()
        if worker is None or not self._channels[worker].send(Adopt(kind), [client.fileno()]):
            return False
        worker.given += 1
        client.close()
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
