"""The soak in short; ``make soak`` is the whole of it."""

from __future__ import annotations

from .server_process import ServerProcess
from .slope import STRETCHES
from .soak import SERVER_OPTIONS, demo_clips, report, soak


async def test_sessions_come_and_go_and_every_final_is_answered() -> None:
    with ServerProcess(SERVER_OPTIONS) as server:
        before = server.usage()
        found = await soak(server, demo_clips(), 0.06, parallel=4, reading_s=0.004)
        after = server.usage()
        log = server.log()
    assert found.wrong == []
    assert found.sent == found.answered == len(found.delays)
    assert found.sent >= 0.06 * 3600 / 6, "a clip with its pause is under six seconds"
    assert found.sessions >= 4
    assert "ERROR" not in log
    assert len(found.readings) >= STRETCHES
    assert after.cpu_seconds > before.cpu_seconds
    assert {r.usage.threads for r in found.readings[-5:]} == {after.threads}
    assert "| finals sent, answered |" in report(found, 1.0)
