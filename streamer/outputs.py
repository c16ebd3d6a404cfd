"""Everything a session is shown to and written to, as one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from cnerta.streamer.client_errors import OutputError
from cnerta.streamer.messages import ServerMessage
from cnerta.streamer.sources import Revision
from cnerta.streamer.view import Presenter

__all__ = ["Outputs"]

log = logging.getLogger(__name__)


class Outputs:
    """A `Presenter` that tells others.

    One that fails with an `OutputError` is told nothing more, and the session goes on: a full disk
    must not end what is still seen elsewhere. The first failure is raised when all is over.

    Args:
        view: What a person sees. It is entered last, so that what is said before stays readable,
            and what it raises ends the session.
        others: The rest, such as caption files.
    """

    def __init__(self, view: Presenter, others: Sequence[Presenter] = ()) -> None:
        self._view = view
        self._others = list(others)
        self._entered = contextlib.ExitStack()
        self._failure: OutputError | None = None

    def on_audio(self, block: bytes, heard_ms: float) -> None:
        """Tell it to all."""
        self._view.on_audio(block, heard_ms)
        self._tell(lambda output: output.on_audio(block, heard_ms))

    def on_revision(self, revision: Revision) -> None:
        """Tell it to all."""
        self._view.on_revision(revision)
        self._tell(lambda output: output.on_revision(revision))

    def on_message(self, message: ServerMessage) -> None:
        """Tell it to all."""
        # The files first: the view may raise because nobody reads it any more.
        self._tell(lambda output: output.on_message(message))
        self._view.on_message(message)

    def _tell(self, tell: Callable[[Presenter], None]) -> None:
        for output in tuple(self._others):
            try:
                tell(output)
            except OutputError as error:
                log.error("%s; the session goes on without it", error)
                self._others.remove(output)
                self._failure = self._failure or error

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as entering:
            for output in (*self._others, self._view):
                entering.enter_context(output)
            self._entered = entering.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered.__exit__(kind, error, trace)
        if self._failure is not None and error is None:
            raise self._failure
