"""A process that loads the model once and forks workers, which share its memory.

What is loaded before a fork is there once, however many workers there are: the system copies a page
only when somebody writes to it, and nobody writes to weights. That works as long as no thread but
one runs: so the model is loaded here only if its graphs use one thread of the CPU; else every
worker loads it for itself.

It has no event loop, and no part in serving. Where it is killed, the workers go on.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from cnerta.streamer.workers.channel import Channel
from cnerta.streamer.workers.messages import Died, Fork, Loaded, Setup

__all__ = ["NURSERY_VARIABLE", "Work", "channel_to_front", "run_nursery"]

logger = logging.getLogger(__name__)

NURSERY_VARIABLE: Final = "_CNERTA_NURSERY"
"""Of the environment: the descriptor of a nursery's channel."""
_FAILED: Final = 70

Work = Callable[[Fork, Setup, Channel, tuple[int, ...]], int]
"""Runs in a worker: what it is, what all share, its channel, who watches. Returns its exit code."""


def channel_to_front() -> Channel | None:
    """The channel, if this process was started to be a nursery."""
    descriptor = os.environ.pop(NURSERY_VARIABLE, None)
    return None if descriptor is None else Channel.of(int(descriptor))


def run_nursery(front: Channel, load: Callable[[], Loaded], work: Work) -> None:
    """Load, then fork as long as the front is there.

    Args:
        front: Asks for workers.
        load: Loads what they share.
        work: What each of them does.
    """
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    # The front decides; a terminal sends its signals to all processes.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    setup = front.receive()
    if setup is None:
        return
    assert isinstance(setup[0], Setup), "expected a front to begin with what all share"
    loaded = load()
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # What is here is here for good; the collector writes to whatever it looks at.
    gc.collect()
    gc.freeze()
    try:
        front.send(loaded)
        _fork_when_asked(front, woken, setup[0], work, others=(front, wake, woken))
    finally:
        # Workers may outlive this process, and end while it does: nobody is to be woken then. The
        # handler stays: Python prints an error of a signal that came just before it is taken away.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        signal.set_wakeup_fd(-1)


def _fork_when_asked(
    front: Channel,
    woken: socket.socket,
    setup: Setup,
    work: Work,
    others: tuple[Channel | socket.socket, ...],
) -> None:
    """Fork as long as the front is there.

    Args:
        front: Asks for workers.
        woken: Can be read from when a child has ended.
        setup: What all workers share.
        work: What each of them does.
        others: What a worker has no use for.
    """
    children: dict[int, str] = {}
    while True:
        ready, _, _ = select.select([front.fileno(), woken.fileno()], [], [])
        if woken.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(4_096)
            _tell_of_dead(children, front)
        if front.fileno() not in ready:
            continue
        received = front.receive()
        if received is None:
            return
        message, files = received
        assert isinstance(message, Fork), "expected a front to ask for workers"
        process_id = os.fork()
        if not process_id:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in others:
                each.close()
            _be_a_worker(message, setup, Channel.of(files[0]), work)
        children[process_id] = message.name
        os.close(files[0])


def _be_a_worker(fork: Fork, setup: Setup, front: Channel, work: Work) -> NoReturn:
    code = _FAILED
    try:
        watchers = (os.getppid(), setup.front)
        code = work(fork, setup, front, watchers)
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        # What the nursery has registered for its own end is not this process' matter.
        os._exit(code)


def _tell_of_dead(children: dict[int, str], front: Channel) -> None:
    while children:
        process_id, status = os.waitpid(-1, os.WNOHANG)
        if not process_id:
            return
        name = children.pop(process_id, None)
        if name is not None:
            front.send(Died(name, os.waitstatus_to_exitcode(status)))
