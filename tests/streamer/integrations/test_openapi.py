"""Schemathesis makes requests from the description, and checks what comes of them.

It is too much for the ``dev`` extra: ``make test-integrations`` has it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from cnerta.streamer.serving.server import Server

from ..conftest import FakeModel

schemathesis = pytest.importorskip("schemathesis")
positive_data_acceptance = pytest.importorskip(
    "schemathesis.specs.openapi.checks"
).positive_data_acceptance

BEYOND_A_SCHEMA = ("invalid_audio", "invalid_glossary", "unknown_label", "unsupported_readings")
"""What no schema can say: which bytes are a sound file, which labels the model knows, and so on."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server in a thread of its own: schemathesis waits for its answers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> Server:
        server = Server(FakeModel())
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield server.port
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_every_answer_is_one_that_is_described(port: int) -> None:
    description = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operations = [found.ok() for found in description.get_all_operations()]
    assert [operation.path for operation in operations] == ["/v1/entities"]
    for operation in operations:

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(timeout=30)
            refused = answer.status_code == 422 and answer.json()["name"] in BEYOND_A_SCHEMA
            excluded = [positive_data_acceptance] if refused else []
            case.validate_response(answer, excluded_checks=excluded)

        check()
