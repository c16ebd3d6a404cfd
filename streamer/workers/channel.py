"""A channel between two processes of this machine: messages, each with open files if need be.

A pair of Unix sockets that keep messages apart (``SOCK_SEQPACKET``) and tell when the other end is
gone, as a pipe does. Sending never waits: a message that finds no room is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from cnerta.streamer.workers.messages import Message

__all__ = ["Channel", "Files", "are_supported"]

Files = tuple[int, ...]
_MOST_BYTES: Final = 2**16
_MOST_FILES: Final = 2
_BUFFER_BYTES: Final = 2**20
_decode: Final = msgspec.msgpack.Decoder(Message).decode


def are_supported() -> bool:
    """Whether this system has such channels, and processes to be forked."""
    return hasattr(os, "fork") and hasattr(socket, "AF_UNIX") and hasattr(socket, "SOCK_SEQPACKET")


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        """Take one end of a pair of sockets."""
        self._socket = end
        self._is_followed = False

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A new one: this process' end, and the end to be given to another process."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (own, other):
            # One that has been away for a moment loses nothing.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        return cls(own), other

    @classmethod
    def of(cls, descriptor: int) -> Channel:
        """The end that was given to this process."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For waiting."""
        return self._socket.fileno()

    def send(self, message: Message, files: Sequence[int] = ()) -> bool:
        """Send a message, with files that the other end gets copies of.

        Returns:
            Whether it was sent: not if the other end is gone, or has left too many unread.
        """
        data = msgspec.msgpack.encode(message)
        try:
            if files:
                socket.send_fds(self._socket, [data], files, socket.MSG_DONTWAIT)
            else:
                self._socket.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[Message, Files] | None:
        """Wait for a message; None: the other end is gone."""
        try:
            data, files, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, _MOST_FILES)
        except ConnectionError:
            return None
        if not data:
            return None
        return _decode(data), tuple(files)

    def follow(
        self, on_message: Callable[[Message, Files], None], on_end: Callable[[], None]
    ) -> None:
        """Have the event loop hand over what comes.

        Args:
            on_message: Gets each message, and owns its files.
            on_end: The other end is gone.
        """
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._is_followed = True

        def read() -> None:
            try:
                received = self.receive()
            except BlockingIOError:
                return
            if received is None:
                self.close()
                on_end()
            else:
                on_message(*received)

        loop.add_reader(self._socket.fileno(), read)

    def close(self) -> None:
        """End it; the other end is told."""
        if self._is_followed:
            self._is_followed = False
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
