"""Chaos in short; ``make chaos`` is the whole of it."""

from __future__ import annotations

from .chaos import SERVER_OPTIONS, report, run_streams
from .server_process import ServerProcess


async def test_an_application_loses_nothing_over_a_bad_network_and_a_killed_server() -> None:
    with ServerProcess(SERVER_OPTIONS) as server:
        found = await run_streams(server, 8, parallel=4, restarts=1, seed=3)
        assert len(server.exit_codes) == 1, "it was killed once"
    assert found.failures == []
    assert (found.lost, found.doubled, found.foreign) == (0, 0, 0)
    assert found.sent >= found.streams >= 8
    assert found.changes["lost"] > 0, "something did happen"
    assert "| lost finals | 0 |" in report(found, 1)
