"""What every process that serves does: its event loop, its turns with the GIL, and its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from cnerta.models.errors import BundleError, CnertaError, ConfigError, InferenceError
from cnerta.streamer.commands.serve_options import Secrets
from cnerta.streamer.errors import RecogniserMissingError, TranscriptError
from cnerta.streamer.serving.listening import AddressError
from cnerta.streamer.serving.server import Server

__all__ = [
    "EXIT_LOST_FINALS",
    "FORCED_EXIT",
    "TURN_S",
    "end_by_force",
    "exit_code",
    "force_after",
    "read_anew",
    "run_loop",
    "share_gil",
    "spare_collector",
    "watch",
]

logger = logging.getLogger(__name__)

_WATCH_S: Final = 5.0
TURN_S: Final = 0.0002
"""How long a thread keeps the GIL while others want it."""
EXIT_LOST_FINALS: Final = 12
"""Final answers were left behind by a stop."""
FORCED_EXIT: Final = 10
"""Exit code where something hangs."""

_EXIT_CODES: Final[dict[type[CnertaError], int]] = {
    AddressError: 3,
    TranscriptError: 5,
    RecogniserMissingError: 5,
    BundleError: 8,
    InferenceError: 9,
}


def exit_code(error: CnertaError) -> int:
    """What the process ends with after an error."""
    return _EXIT_CODES.get(type(error), 1)


def share_gil() -> None:
    """Let threads take turns more often than every 5 ms.

    An engine's thread gives the GIL up for every call of a graph and every large copy; with many
    sessions the event loop would keep it for a whole turn each time, a dozen times a batch.
    At 200 sessions this halves the time to a final answer (docs/history.md).
    """
    sys.setswitchinterval(TURN_S)


def spare_collector() -> None:
    """Have the garbage collector pass over all that is loaded by now: it is there for good.

    It looks through everything when what is new has grown to a quarter of the rest. So what
    connections leave in reference cycles, the WebSocket library's among them, waited for as long as
    modules and model are large; and every look at those kept the event loop.
    """
    gc.collect()
    gc.freeze()


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on the faster event loop where there is one (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def force_after(seconds: float) -> Callable[[], None]:
    """End the process after so long, whatever hangs, in Python or in the runtime.

    Returns:
        What calls that off.
    """
    forced = threading.Timer(seconds, end_by_force)
    forced.daemon = True
    forced.start()
    return forced.cancel


def end_by_force() -> None:
    """End the process now."""
    logger.error("something hangs: the process ends by force, with code %d", FORCED_EXIT)
    logging.shutdown()
    os._exit(FORCED_EXIT)


def read_anew(server: Server, secrets: Secrets) -> None:
    """Take tokens and certificate as they are now; what cannot be used changes nothing."""
    if secrets.certificate is not None:
        secrets.certificate.reload()
    try:
        tokens, signer = secrets.tokens(), secrets.token_signer()
    except ConfigError as error:
        logger.error("the tokens stay as they were: %s", error)
        return
    if server.admission.tokens and not tokens:
        logger.error("the tokens stay as they were: expected at least one, got none")
        return
    server.admission.tokens = tokens
    server.admission.session_tokens.signer = signer
    logger.info("tokens were read anew")


async def watch(secrets: Secrets) -> None:
    """Notice a certificate that was renewed."""
    while secrets.certificate is not None:
        await asyncio.sleep(_WATCH_S)
        secrets.certificate.reload_if_changed()
