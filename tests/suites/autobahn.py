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
from cnerta.streamer.serving.metered_connection import MeteredConnection
from cnerta.streamer.serving.server import Server
from cnerta.streamer.wire.asyncapi import STREAM_PATH

from .report import run, table

__all__ = ["DEVIATIONS", "EchoServer", "Verdict", "main", "run_cases"]

DEVIATIONS: Final[Mapping[str, str]] = {}
"""Cases that do not pass, as patterns of their ids, and why that is meant to be so."""


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
    def explained(self) -> str:
        """Why it may deviate; empty if nothing says so."""
        return next((why for p, why in DEVIATIONS.items() if fnmatch.fnmatch(self.case, p)), "")


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
        counts[verdict.behaviour if verdict.passed else "FAILED"] += 1
    rows = [[n, *(counts[k] for k in kinds)] for n, counts in sorted(chapters.items())]
    deviating = [
        [v.case, v.behaviour, v.closing, v.explained or "NOT EXPLAINED"]
        for v in verdicts
        if not v.passed
    ]
    return "\n\n".join(
        [
            table(["chapter", *kinds], rows),
            table(["deviation", "messages", "close", "why"], deviating) if deviating else "",
        ]
    )


def main(
    cases: Annotated[str, typer.Option(help="Ids or patterns, parted by commas.")] = "*",
    exclude: Annotated[str, typer.Option(help="Those to leave out.")] = "",
) -> None:
    """Run the Autobahn cases."""
    logging.disable(logging.CRITICAL)
    verdicts = asyncio.run(run_cases(cases.split(","), exclude.split(",") if exclude else None))
    print(report(verdicts))
    unexplained = [v for v in verdicts if not v.passed and not v.explained]
    needless = [v.case for v in verdicts if v.passed and v.explained]
    for verdict in unexplained:
        print(f"{verdict.case}: {verdict.said}")
    if needless:
        print(f"these pass although a deviation is listed: {needless}")
    if unexplained or needless:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
