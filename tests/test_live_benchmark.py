"""The load generator against a server that speaks another protocol."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from websockets.asyncio.server import ServerConnection, serve

LIVE = Path(__file__).parent / "benchmarks" / "live.py"

OTHER = """
import json

class Other:
    path = "/other"

    def start(self):
        return json.dumps({"hello": 1})

    def audio(self, pcm):
        return json.dumps({"samples": len(pcm) // 2})

    def transcript(self, utterance, revision, text, final):
        return json.dumps({"say": text, "name": [utterance, revision], "last": final})

    def finish(self):
        return json.dumps({"bye": 1})

    def events(self, message):
        found = json.loads(message)
        utterance, revision = found["name"]
        event = {"utterance": utterance, "revision": revision}
        if found["last"]:
            return [{**event, "type": "utterance.final", "entities": found["words"]}]
        return [
            {**event, "type": "entity.upsert", "entity": {"id": utterance + w, "label": w}}
            for w in found["words"]
        ]
"""


@pytest.fixture(scope="module")
def live() -> Any:
    specification = importlib.util.spec_from_file_location("live_benchmark", LIVE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["live_benchmark"] = module  # its dataclasses look their own module up
    specification.loader.exec_module(module)
    return module


async def test_another_server_is_measured_through_its_dialect(live: Any, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    dialect = live.load_dialect(f"{tmp_path / 'other.py'}:Other")
    got: list[dict[str, Any]] = []

    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            content = json.loads(message)
            got.append(content)
            if "say" in content:
                words = [c for c in content["say"] if c == "京"]
                name, last = content["name"], content["last"]
                await connection.send(json.dumps({"name": name, "last": last, "words": words}))
            if "bye" in content:
                return

    # 800 ms of audio; three characters, the last spoken at 700 ms.
    clip = live.Clip(bytes(2 * 12_800), "在北京", (150.0, 300.0, 700.0))
    async with serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(30):
            found = await live.measure(
                f"ws://127.0.0.1:{port}{dialect.path}", dialect, [clip, clip], 2, 0
            )
    assert found.errors == []
    assert (found.finals_sent, found.finals_received) == (2, 2)
    assert (found.final_entities, len(found.final)) == (2, 2)
    # The revision at 667 ms shows two characters, the final one all three: no 京 before it.
    said = [c["say"] for c in got if "say" in c]
    assert sorted(said) == ["在", "在", "在北", "在北", "在北京", "在北京"]
    # 1.8 s of clip and silence, at 16 kHz, for each of the two.
    assert sum(c["samples"] for c in got if "samples" in c) == 2 * 28_800
    row = live.report(2, found, None, None)
    assert row["finals"] == [2, 2]
    assert row["behind_live_ms"] == {}


def test_a_dialect_that_is_no_file_is_refused(live: Any) -> None:
    with pytest.raises(typer.BadParameter, match=r"path/to/file\.py:Name"):
        live.load_dialect("no-python:Other")
