from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs import obs
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.outputs.obs import ObsAddress, ObsTextFile, ObsWebSocket, authentication
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.session_outputs import Outputs
from cnerta.streamer.sources import Revision

from .. import server_messages as wire

SENTENCE = "他在北京大学见到了江大桥"
ORG = wire.entity("ORG", "北京大学", 2, status="final")
INNER = wire.entity("LOC", "北京", 2, status="final", parent=ORG.id)
PER = wire.entity("PER", "江大桥", 9, status="final")

# From the protocol's description; the answer is what other clients give too.
PASSWORD = "supersecretpassword"
SALT = "lM1GncleQOaCu9lT1yeUZhFYnqhsLLP1G5lAGo3ixaI="
CHALLENGE = "+IxH4CnCiqpX1rM9scsNynZzbOe4KhDeYcTNS3PDaeY="
ANSWER = "1Ct943GAT+6YQUUX47Ia/ncufilbe6+oD6lY+5kaCu4="


# --- the text -------------------------------------------------------------------------------------


def test_the_text_is_there_before_it_is_final_and_names_when_they_are_steady(
    tmp_path: Path,
) -> None:
    path = tmp_path / "live.txt"
    with ObsTextFile(path) as file:
        assert path.read_text() == ""
        file.on_message(wire.ready())
        file.on_revision(Revision("u1", 1, SENTENCE, False))
        file.on_message(wire.upsert("u1", 1, wire.entity("PER", "江大桥", 9)))
        assert path.read_text(encoding="utf-8") == SENTENCE, "tentative"
        file.on_message(wire.upsert("u1", 1, wire.entity("PER", "江大桥", 9, status="stable")))
        assert path.read_text(encoding="utf-8") == "他在北京大学见到了【江大桥】"
        file.on_message(wire.final("u1", 1, SENTENCE, ORG, INNER, PER))
        assert path.read_text(encoding="utf-8") == "他在【北京大学】见到了【江大桥】"
    assert path.read_text() == "", "nothing stays on the screen"
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_two_lines_roll_up_over_utterances(tmp_path: Path) -> None:
    with ObsTextFile(tmp_path / "live.txt", marks="") as file:
        for number, text in enumerate(["第一句话", "第二句话", "第三句话"]):
            file.on_revision(Revision(f"u{number}", 1, text, True))
        assert file.text == "第二句话\n第三句话"
        file.on_revision(Revision("u3", 1, "这一句话长得一行放不下，" * 3, False))
        assert file.text == "这一句话长得一行放不下，\n这一句话长得一行放不下，"


def test_old_text_is_taken_off_the_screen(tmp_path: Path) -> None:
    with ObsTextFile(tmp_path / "live.txt") as file:
        file.on_revision(Revision("u1", 1, "第一句话", True))
        file.on_audio(b"", 5_000.0)
        assert file.text == "第一句话"
        file.on_audio(b"", 7_000.0)
        assert file.text == ""
        file.on_revision(Revision("u2", 1, "第二句话", False))
        assert file.text == "第二句话", "the first does not come back"


def test_control_characters_and_hidden_names(tmp_path: Path) -> None:
    highlighter = Highlighter(HighlightRule(share=0.0))
    with ObsTextFile(tmp_path / "live.txt", highlighter=highlighter) as file:
        file.on_revision(Revision("u1", 1, "江\x1b大\n桥", True))
        file.on_message(wire.final("u1", 1, "江大桥", wire.entity("PER", "江大桥", 0)))
        assert file.text == "江大桥"
        file.on_revision(Revision("u2", 1, "江\x1b大\n桥", True))
        assert file.text == "江大桥\n江\N{REPLACEMENT CHARACTER}大 桥"


def test_marks_are_a_pair(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="two characters around a name, or none, got '<b>'"):
        ObsTextFile(tmp_path / "live.txt", marks="<b>")


def test_text_file_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"live\.txt, got: No such file"),
        ObsTextFile(tmp_path / "none" / "live.txt"),
    ):
        pass


# --- the WebSocket --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("ws://127.0.0.1:4456", {}, ("ws://127.0.0.1:4456", "")),
        ("ws://obs.local", {"CNERTA_OBS_PASSWORD": "x"}, ("ws://obs.local:4455", "x")),
        ("ws://:a%2Fb@[::1]:1", {"CNERTA_OBS_PASSWORD": "x"}, ("ws://[::1]:1", "a/b")),
    ],
)
def test_addresses(url: str, environment: dict[str, str], expected: tuple[str, str]) -> None:
    address = ObsAddress.parse(url, environment)
    assert (address.url, address.password) == expected


@pytest.mark.parametrize("url", ["http://:secret@x", "127.0.0.1:4455", "ws://:secret@x:port"])
def test_address_that_is_none(url: str) -> None:
    with pytest.raises(OutputError, match="expected the address of OBS") as refused:
        ObsAddress.parse(url, {})
    assert "secret" not in str(refused.value)


def test_authentication_is_that_of_the_protocol() -> None:
    assert authentication(PASSWORD, SALT, CHALLENGE) == ANSWER


class FakeObs:
    """What obs-websocket 5 says, to a client that does everything in the right order."""

    def __init__(self, *, password: bool = False) -> None:
        self.password = password
        self.requests: list[dict[str, Any]] = []
        self.sources = ["subtitles"]
        self.connections = 0
        self.changed = asyncio.Event()
        self.port = 0

    async def talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        assert connection.subprotocol == "obswebsocket.json"
        hello: dict[str, Any] = {"obsWebSocketVersion": "5.5.0", "rpcVersion": 1}
        if self.password:
            hello["authentication"] = {"challenge": CHALLENGE, "salt": SALT}
        await connection.send(json.dumps({"op": 0, "d": hello}))
        frame = await connection.recv()
        assert PASSWORD not in str(frame), "it is proven, not sent"
        identify = json.loads(frame)
        assert identify["op"] == 1
        assert identify["d"]["rpcVersion"] == 1
        if identify["d"].get("authentication") != (ANSWER if self.password else None):
            await connection.close(4009, "Authentication failed.")
            return
        await connection.send(json.dumps({"op": 2, "d": {"negotiatedRpcVersion": 1}}))
        async for frame in connection:
            assert isinstance(frame, str), "text frames, not binary ones"
            message = json.loads(frame)
            assert message["op"] == 6
            await connection.send(json.dumps({"op": 5, "d": {"eventType": "unasked for"}}))
            await connection.send(json.dumps({"op": 7, "d": self.answer(message["d"])}))
            self.changed.set()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        status: dict[str, Any] = {"result": True, "code": 100}
        data = request["requestData"]
        if "inputName" in data and data["inputName"] not in self.sources:
            name = data["inputName"]
            comment = f"No source was found by the name of `{name}`."
            status = {"result": False, "code": 600, "comment": comment}
        return {
            "requestType": request["requestType"],
            "requestId": request["requestId"],
            "requestStatus": status,
        }

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    @property
    def texts(self) -> list[str]:
        return [request["requestData"]["inputSettings"]["text"] for request in self.requests]


@contextlib.asynccontextmanager
async def running(fake: FakeObs) -> AsyncIterator[str]:
    async with serve(
        fake.talk,
        "127.0.0.1",
        fake.port,
        subprotocols=["obswebsocket.json"],  # type: ignore[list-item]
    ) as listening:
        fake.port = next(iter(listening.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{fake.port}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obs, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(obs, "SHORTEST_INTERVAL_S", 0.01)


async def test_a_text_source_shows_what_is_said() -> None:
    fake = FakeObs(password=True)
    async with running(fake) as url:
        output = ObsWebSocket(ObsAddress(url, PASSWORD), "subtitles")
        async with Outputs(FoldingView(), [output]) as outputs:
            outputs.on_revision(Revision("u1", 1, SENTENCE, True))
            await fake.until(lambda: SENTENCE in fake.texts)
            outputs.on_message(wire.final("u1", 1, SENTENCE, ORG, INNER, PER))
            await fake.until(lambda: len(fake.texts) > 1 and "【" in fake.texts[-1])
            outputs.on_message(wire.summary())
    assert fake.texts[-2:] == ["他在【北京大学】见到了【江大桥】", ""]
    assert fake.requests[-1]["requestType"] == "SetInputSettings"
    assert fake.requests[-1]["requestData"] == {
        "inputName": "subtitles",
        "inputSettings": {"text": ""},
        "overlay": True,
    }


async def test_captions_of_the_stream() -> None:
    fake = FakeObs()
    async with (
        running(fake) as url,
        Outputs(FoldingView(), [ObsWebSocket(ObsAddress(url), None)]) as outputs,
    ):
        outputs.on_revision(Revision("u1", 1, "hello", True))
    assert fake.requests[-1]["requestType"] == "SendStreamCaption"
    assert fake.requests[-1]["requestData"] == {"captionText": "hello"}


async def test_obs_that_starts_later_and_again(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeObs()
    async with running(fake) as url:
        pass  # Only to know a free port.
    with ObsWebSocket(ObsAddress(url), "subtitles") as output:
        output.on_revision(Revision("u1", 1, "一", False))
        await asyncio.sleep(0.1)
        async with running(fake):
            await fake.until(lambda: fake.texts == ["一"])
        output.on_revision(Revision("u1", 2, "一二", False))
        async with running(fake):
            await fake.until(lambda: fake.texts[-1] == "一二")
    assert fake.connections >= 2
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings[0].startswith(f"expected OBS at {url}, got: ")


async def test_a_source_that_is_not_there_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeObs()
    async with running(fake) as url:
        with ObsWebSocket(ObsAddress(url), "titles") as output:
            for text in ("一", "一二"):
                output.on_revision(Revision("u1", 1, text, False))
                await fake.until(lambda text=text: fake.texts[-1:] == [text])
            await output.drain()
    assert caplog.text.count("No source was found by the name of `titles`.") == 1


@pytest.mark.parametrize(
    ("password", "complaint"),
    [("wrong", "the password is wrong"), ("", "it wants a password: set CNERTA_OBS_PASSWORD")],
)
async def test_wrong_password(password: str, complaint: str) -> None:
    fake = FakeObs(password=True)
    async with running(fake) as url:
        output = ObsWebSocket(ObsAddress(url, password), "subtitles")
        outputs = Outputs(FoldingView(), [output])
        await outputs.__aenter__()
        outputs.on_revision(Revision("u1", 1, "一", True))
        with pytest.raises(OutputError, match=complaint):
            await outputs.__aexit__(None, None, None)
    assert fake.connections == 1, "not tried again"
    assert fake.requests == []


async def test_whoever_answers_otherwise_does_not_end_the_session(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(connection: ServerConnection) -> None:
        await connection.send(json.dumps({"op": 0, "d": {"authentication": {"salt": 1}}}))

    monkeypatch.setattr(obs, "DRAIN_S", 0.2)
    fake = FakeObs()
    monkeypatch.setattr(fake, "talk", other)
    async with (
        running(fake) as url,
        Outputs(FoldingView(), [ObsWebSocket(ObsAddress(url, "x"), "a")]) as outputs,
    ):
        outputs.on_revision(Revision("u1", 1, "一", True))
    assert f"expected OBS at {url}, got: 'challenge'" in caplog.text
