"""Captions for OBS Studio: a text file that it reads, or its WebSocket.

Both show what is being said, as it is said: the last lines of the newest utterances, in which names
are put in brackets, since plain text has no colours. Only entities that hardly change any more
(stable and final ones) are.

The WebSocket speaks version 5 of obs-websocket, which has come with OBS since version 28:
https://github.com/obsproject/obs-websocket/blob/master/docs/generated/protocol.md
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import msgspec
import websockets.exceptions
from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from cnerta.models.files import write_atomically
from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.cues import DEFAULT_LAYOUT, CaptionLayout, clean, mark_line, roll_up
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.plain_marks import DEFAULT_MARKS, PlainMarks
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.speakers import lead_of
from cnerta.streamer.outputs.view_state import Caption, fitting
from cnerta.streamer.outputs.words import bundled_words
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.addresses import is_loopback, parse_address, redact
from cnerta.streamer.wire.messages import ServerMessage, SessionSummary

__all__ = ["ObsAddress", "ObsTextFile", "ObsWebSocket"]

log = logging.getLogger(__name__)

CLEARED_AFTER_MS: Final = 6_000
"""Text to which nothing was added for so much audio is taken off the screen."""
ANSWER_TIMEOUT_S: Final = 5.0
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 15.0
SHORTEST_INTERVAL_S: Final = 0.1
DRAIN_S: Final = 3.0
PASSWORD_VARIABLE: Final = "CNERTA_OBS_PASSWORD"
DEFAULT_PORT: Final = 4455
_REFUSALS: Final[Mapping[int, str]] = {
    4009: "the password is wrong",
    4010: "it speaks another version of its protocol",
}


class _LiveText(FoldingView):
    """Keeps the text that is on the screen; a base for what shows it.

    Args:
        marks: What opens and what closes a name: two characters, or none at all.
        highlighter: Chooses which names.
        layout: How much stands on the screen at once.
        name_speakers: Whether the name of whoever speaks stands before the words.
        mends: See `FoldingView`.

    Raises:
        OutputError: The marks are something else.
    """

    def __init__(
        self,
        *,
        marks: str = DEFAULT_MARKS,
        highlighter: Highlighter | None = None,
        layout: CaptionLayout = DEFAULT_LAYOUT,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__(highlighter=highlighter, name_speakers=name_speakers, mends=mends)
        self._marks = PlainMarks.parse(marks)
        self._layout = layout
        self._newest = ""
        self._changed_ms = 0.0
        self._gone: frozenset[str] = frozenset()
        """Utterances that were taken off the screen."""
        self.text = ""

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Take old text off the screen."""
        super().on_audio(block, audio_ms)
        if self.text and audio_ms - self._changed_ms > CLEARED_AFTER_MS:
            self._gone = frozenset(caption.utterance for caption in self.state.captions)
            self._set("")

    def on_revision(self, revision: Revision) -> None:
        """Show the text."""
        super().on_revision(revision)
        self._gone -= {revision.utterance}
        self._update()

    def on_message(self, message: ServerMessage) -> None:
        """Show the names; take everything off the screen at the end."""
        super().on_message(message)
        if isinstance(message, SessionSummary):
            self._set("")
        else:
            self._update()

    def _update(self) -> None:
        lines: list[str] = []
        for caption in reversed(self.state.shown):
            if caption.utterance not in self._gone:
                lines[:0] = self._lines(caption)
        newest = "\n".join(lines[-self._layout.lines :])
        if newest != self._newest:
            self._newest = newest
            self._changed_ms = self.state.audio_ms
            self._set(newest)

    def _lines(self, caption: Caption) -> list[str]:
        lead = lead_of(caption.voice, self._layout.line_columns) if caption.text else ""
        text = lead + clean(caption.text)
        by = len(lead)
        entities = [
            structs.replace(entity, start=entity.start + by, end=entity.end + by)
            for entity in fitting(caption)
            if entity.parent is None and entity.status != "tentative"
        ]
        spans = [(entity.start, entity.end) for entity in entities]
        return [
            self._marks.write(mark_line(text, start, end, entities))
            for start, end in roll_up(text, spans, self._layout.line_columns, bundled_words())
        ]

    def _set(self, text: str) -> None:
        if text != self.text:
            self.text = text
            self.show(text)

    def show(self, text: str) -> None:
        """Put a text on the screen, nothing if it is empty."""
        raise NotImplementedError


class ObsTextFile(_LiveText):
    """A `Presenter` that keeps the newest lines in a text file, for a text source of OBS.

    Whoever reads the file sees one state or the next, never half of one. It is emptied at the end.

    Args:
        path: The file.
        marks: See `ObsWebSocket`.
        highlighter: Chooses which names are marked.
        layout: How much stands on the screen at once.
        name_speakers: Whether the name of whoever speaks stands before the words.
        mends: See `FoldingView`.

    Raises:
        OutputError: The marks are not two characters or none.
    """

    def __init__(
        self,
        path: Path,
        *,
        marks: str = DEFAULT_MARKS,
        highlighter: Highlighter | None = None,
        layout: CaptionLayout = DEFAULT_LAYOUT,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__(
            marks=marks,
            highlighter=highlighter,
            layout=layout,
            name_speakers=name_speakers,
            mends=mends,
        )
        self._path = path

    def show(self, text: str) -> None:
        """Write the file.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            write_atomically(self._path, text.encode())
        except PermissionError as error:
            if os.name != "nt":
                raise self._failure(error) from error
            # OBS has it open just now; the next text comes soon.
            log.debug("%s is being read", self._path)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"expected to write {self._path}, got: {error.strerror or error}")

    def __enter__(self) -> Self:
        self.show("")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OutputError):  # What it was has been said when it happened.
            self._set("")


@dataclass(frozen=True, slots=True)
class ObsAddress:
    """Where obs-websocket listens.

    It has no TLS of its own. The password is not sent to it but proven (:func:`authentication`), so
    it may be used with ``ws://`` too.

    Attributes:
        url: ``ws://host:port``, without a password.
        password: What OBS shows under Tools, WebSocket Server Settings; empty if it wants none.
    """

    url: str
    password: str = ""

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str]) -> ObsAddress:
        """Read an address, with the password in it (``ws://:password@host:port``) or beside it.

        Raises:
            OutputError: It is none.
        """
        address = parse_address(url, ("ws", "wss"))
        if address is None:
            raise OutputError(
                f"expected the address of OBS such as ws://127.0.0.1:4455, got {redact(url)!r}"
            )
        port = address.port or DEFAULT_PORT
        assert address.hostname is not None, "an address has a host"
        host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
        password = unquote(address.password or "") or environment.get(PASSWORD_VARIABLE, "")
        return cls(f"{address.scheme}://{host}:{port}{address.path}", password)


class _RefusedError(Exception):
    """OBS will not have us, now or later."""


class ObsWebSocket(_LiveText):
    """A `Presenter` that sends the newest lines to OBS as they change.

    OBS may be started later or again: this connects when it can. Only the newest text is ever
    waiting, so a slow OBS costs nothing.

    Args:
        address: Where OBS listens.
        source: The text source that shows them; None to send them as captions of the stream
            (CEA-608, which has Latin letters only).
        marks: What opens and what closes a name: two characters, or none at all.
        highlighter: Chooses which names are marked.
        layout: How much stands on the screen at once.
        name_speakers: Whether the name of whoever speaks stands before the words.
        mends: See `FoldingView`.

    Raises:
        OutputError: The marks are something else.
    """

    def __init__(
        self,
        address: ObsAddress,
        source: str | None,
        *,
        marks: str = DEFAULT_MARKS,
        highlighter: Highlighter | None = None,
        layout: CaptionLayout = DEFAULT_LAYOUT,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__(
            marks=marks,
            highlighter=highlighter,
            layout=layout,
            name_speakers=name_speakers,
            mends=mends,
        )
        self._address = address
        self._source = source
        self._news = asyncio.Event()
        self._shown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._requests = 0
        self._last_warning = ""

    def show(self, text: str) -> None:
        """Have the text sent."""
        self._shown.clear()
        self._news.set()

    async def drain(self) -> None:
        """Wait until OBS has the last text, for a few seconds at most.

        Raises:
            OutputError: OBS refused the connection.
        """
        assert self._task is not None, "entered before"
        shown = asyncio.create_task(self._shown.wait())
        await asyncio.wait(
            {shown, self._task}, timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        shown.cancel()
        if self._task.done():
            self._task.result()

    async def _run(self) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            try:
                async with await self._connect() as socket:
                    await self._identify(socket)
                    log.info("connected to OBS at %s", self._address.url)
                    pause_s, self._last_warning = FIRST_RETRY_S, ""
                    self._news.set()  # It may be another OBS than the one before.
                    await self._send_news(socket)
            except _RefusedError as error:
                refusal = f"expected OBS at {self._address.url} to take captions, got: {error}"
                log.error("%s; the session goes on without it", refusal)
                raise OutputError(refusal) from error
            except (
                OSError,  # TimeoutError among them
                ValueError,
                KeyError,  # A message without what it should have.
                msgspec.MsgspecError,
                websockets.exceptions.WebSocketException,
            ) as error:
                reason = redact(str(error)) or type(error).__name__
                self._warn_once(f"expected OBS at {self._address.url}, got: {reason}; trying again")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    def _warn_once(self, warning: str) -> None:
        """Warn, but of the same thing only once."""
        if warning != self._last_warning:
            self._last_warning = warning
            log.warning("%s", warning)

    async def _connect(self) -> ClientConnection:
        return await connect(
            self._address.url,
            subprotocols=[Subprotocol("obswebsocket.json")],
            open_timeout=ANSWER_TIMEOUT_S,
            proxy=None if is_loopback(urlsplit(self._address.url).hostname or "") else True,
        )

    async def _identify(self, socket: ClientConnection) -> None:
        hello = await self._receive(socket, op=0)
        identify: dict[str, Any] = {"rpcVersion": 1, "eventSubscriptions": 0}
        challenge = hello.get("authentication")
        if challenge is not None:
            if not self._address.password:
                raise _RefusedError(f"it wants a password: set {PASSWORD_VARIABLE}")
            identify["authentication"] = authentication(
                self._address.password, challenge["salt"], challenge["challenge"]
            )
        await socket.send(msgspec.json.encode({"op": 1, "d": identify}), text=True)
        await self._receive(socket, op=2)

    async def _send_news(self, socket: ClientConnection) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            text = self.text
            self._requests += 1
            request_id = str(self._requests)
            request = {"requestId": request_id, **self._request(text)}
            await socket.send(msgspec.json.encode({"op": 6, "d": request}), text=True)
            answer: dict[str, Any] = {}
            while answer.get("requestId") != request_id:
                answer = await self._receive(socket, op=7)
            status = answer["requestStatus"]
            if not status["result"]:
                detail = status.get("comment") or f"code {status['code']}"
                self._warn_once(f"expected OBS to show captions, got: {detail}")
            if not self._news.is_set():
                self._shown.set()
            await asyncio.sleep(SHORTEST_INTERVAL_S)

    def _request(self, text: str) -> dict[str, Any]:
        if self._source is None:
            return {"requestType": "SendStreamCaption", "requestData": {"captionText": text}}
        data = {"inputName": self._source, "inputSettings": {"text": text}, "overlay": True}
        return {"requestType": "SetInputSettings", "requestData": data}

    async def _receive(self, socket: ClientConnection, *, op: int) -> dict[str, Any]:
        """Wait for the next message of one kind, and pass over others."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while True:
                    message = msgspec.json.decode(await socket.recv(), type=_ObsMessage)
                    if message.op == op:
                        return message.d
        except websockets.exceptions.ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in _REFUSALS:
                raise _RefusedError(_REFUSALS[error.rcvd.code]) from error
            raise

    def __enter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()


class _ObsMessage(msgspec.Struct, frozen=True):
    op: int
    d: dict[str, Any]


def authentication(password: str, salt: str, challenge: str) -> str:
    """Answer a challenge of obs-websocket: what proves that the password is known."""
    return _hashed(_hashed(password + salt) + challenge)


def _hashed(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
