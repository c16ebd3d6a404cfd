"""The Autobahn test cases of WebSocket, against an echo in this server's own settings.

    python -m tests.suites.autobahn

``kosoku`` runs the cases. The echo is mounted in :class:`Server` itself, in the place of a session,
so that compression, sizes, metering and everything else about the sockets is what is served with.
Every case that does not pass has to be explained in :data:`DEVIATIONS`; a case that is listed there
and passes fails the run, too.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection
from cnerta.streamer.serving.server import Server
from cnerta.streamer.wire.asyncapi import STREAM_PATH

from .report import run, table

__all__ = ["DEVIATIONS", "NON_STRICT", "EchoServer", "Verdict", "main", "run_cases", "surprises"]

_TOO_LARGE: Final = "1009: over four times the largest frame, 4 MiB"
_TOO_MANY: Final = "1009: 4 MiB in more fragments than the library takes for one message"
_NO_COMPRESSION: Final = "compression is off: it gains little on audio, and costs each connection"
DEVIATIONS: Final[Mapping[str, str]] = {
    "7.1.5": "1002: a close between the fragments of a message leaves the message incomplete",
    "9.1.[56]": _TOO_LARGE,
    "9.2.[56]": _TOO_LARGE,
    "9.3.[12]": _TOO_MANY,
    "9.4.[12]": _TOO_MANY,
    "12.*": _NO_COMPRESSION,
    "13.*": _NO_COMPRESSION,
}
"""Cases that do not pass, as patterns of their ids, and why that is meant to be so."""
NON_STRICT: Final[Mapping[str, str]] = {
    "3.*": "the echo of what came before the broken frame is not awaited before the close",
    "4.*": "as 3.*",
    "5.15": "as 3.*",
    "6.4.*": "text that is not UTF-8 is refused when its message is complete, not before",
}
"""Cases that pass, though not in the strictest reading, and why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case.

    Attributes:
        case: Its id, such as ``6.4.1``.
        behaviour: Of the messages: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED.
        closing: Of the closing handshake: OK, INFORMATIONAL, UNCLEAN or another failure.
        passed: Whether both will do.
        said: What the runner says of it.
    """

    case: str
    behaviour: str
    closing: str
    passed: bool
    said: str

    @property
    def is_strict(self) -> bool:
        """Whether it passed without any reserve."""
        return self.passed and self.behaviour != "NON-STRICT"

    @property
    def pattern(self) -> str:
        """What explains it; empty if nothing does."""
        known = NON_STRICT if self.passed else DEVIATIONS
        return next((p for p in known if fnmatch.fnmatch(self.case, p)), "")

    @property
    def explained(self) -> str:
        """Why it deviates; empty if nothing says so."""
        return (NON_STRICT if self.passed else DEVIATIONS).get(self.pattern, "")


class EchoServer(Server):
    """The server, but that it sends every message back."""

    async def _handle(self, connection: ws.ServerConnection) -> None:
        assert isinstance(connection, MeteredConnection), "they are made so"
        try:
            async for frame in connection:
                began = time.thread_time()
                await connection.send(frame)
                pause_s = connection.spend(time.thread_time() - began)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        except ConnectionClosed:
            pass


async def run_cases(cases: Sequence[str] | None, excluded: Sequence[str] | None) -> list[Verdict]:
    """Run cases, by patterns of their ids; None: all."""
    import kosoku

    async with EchoServer(Model.load(find_bundle(None), device="cpu")) as server:
        await server.start()
        url = f"ws://127.0.0.1:{server.port}{STREAM_PATH}"
        chosen = None if cases is None else list(cases)
        results: Sequence[Any]
        try:
            results = await kosoku.run_fuzzingclient(
                url, chosen, None if excluded is None else list(excluded), concurrency=4
            )
            failed: Sequence[Any] = ()
        except kosoku.FailureError as failure:
            results, failed = (), failure.results
    return [
        Verdict(r.case_id, r.behavior.value, r.behavior_close.value, r.passed,
                f"{r.result} {r.result_close}")
        for r in (*results, *failed)
    ]  # fmt: skip


def report(verdicts: Sequence[Verdict]) -> str:
    """How many cases of each chapter came to what, and each one that did not pass."""
    kinds = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]
    chapters: dict[int, Counter[str]] = {}
    for verdict in verdicts:
        counts = chapters.setdefault(int(verdict.case.partition(".")[0]), Counter())
        is_kind = verdict.passed or verdict.behaviour == "UNIMPLEMENTED"
        counts[verdict.behaviour if is_kind else "FAILED"] += 1
    rows = [[n, *(counts[k] for k in kinds)] for n, counts in sorted(chapters.items())]
    found: dict[tuple[str, str], int] = {}
    for verdict in verdicts:
        if verdict.is_strict:
            continue
        reason = verdict.explained or "NOT EXPLAINED"
        pattern = verdict.pattern or verdict.case
        found[pattern, reason] = found.get((pattern, reason), 0) + 1
    deviating = [[pattern, count, why] for (pattern, why), count in found.items()]
    return "\n\n".join(
        [table(["chapter", *kinds], rows), table(["cases", "how many", "why"], deviating)]
    )


def main(
    cases: Annotated[str, typer.Option(help="Ids or patterns, parted by commas.")] = "*",
    exclude: Annotated[str, typer.Option(help="Those to leave out.")] = "",
) -> None:
    """Run the Autobahn cases."""
    logging.disable(logging.CRITICAL)
    verdicts = asyncio.run(run_cases(cases.split(","), exclude.split(",") if exclude else None))
    print(report(verdicts))
    wrong = surprises(verdicts)
    print("\n".join(wrong))
    if wrong:
        raise typer.Exit(1)


def surprises(verdicts: Sequence[Verdict]) -> list[str]:
    """Cases that are not as this module says."""
    wrong = []
    for verdict in verdicts:
        listed = any(fnmatch.fnmatch(verdict.case, pattern) for pattern in DEVIATIONS)
        if verdict.passed and listed:
            wrong.append(f"{verdict.case}: expected a deviation, got none")
        elif not verdict.explained and not verdict.is_strict:
            wrong.append(f"{verdict.case}: {verdict.said}")
    return wrong


if __name__ == "__main__":
    run(main)
