"""A coverage-guided fuzzer of the decoder of clients' messages.

    python -m tests.suites.fuzz_decoder -runs=1000000

Atheris draws the bytes, led by which branches of ``codec.py`` they reach; options are libFuzzer's.
Whatever comes, the decoder gives a message or a named error with a short text, and what it took can
be written and read again. The short test drives :func:`check_decoding` with Hypothesis instead.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec

from cnerta.streamer.wire import codec
from cnerta.streamer.wire.codec import decode_client, encode
from cnerta.streamer.wire.errors import ProtocolError

from .fuzz_inputs import boundary_messages

__all__ = ["check_decoding", "main"]

_LONGEST_DETAIL = 500


def check_decoding(data: bytes) -> bool:
    """Decode a frame as a server would.

    Args:
        data: What came; text frames are UTF-8, which the transport has checked by then.

    Returns:
        Whether it was a message.
    """
    accepted = [_check(data)]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        pass
    else:
        accepted.append(_check(text))
        assert accepted[0] == accepted[1], "text and its bytes are the same"
    return accepted[0]


def _check(data: str | bytes) -> bool:
    refusal = None
    try:
        message = decode_client(data)
    except ProtocolError as error:
        refusal = error
    if refusal is None:
        assert decode_client(encode(message)) == message, "what was taken can be written"
        return True
    assert refusal.name.code == 4400, "a frame that cannot be read is a bad message"
    assert len(refusal.detail) < _LONGEST_DETAIL, "a client's frame is not sent back whole"
    assert msgspec.json.decode(encode(refusal.message())), "it can be told to the client"
    return False


def _one(data: bytes) -> None:
    check_decoding(data)


def main() -> None:
    """Fuzz until something is wrong, or for as many runs as the options say."""
    import atheris

    for name in ("_decode", "_explain", "_at", "_quote"):
        setattr(codec, name, atheris.instrument_func(getattr(codec, name)))
    with tempfile.TemporaryDirectory() as corpus:
        for number, message in enumerate(boundary_messages()):
            (Path(corpus) / str(number)).write_bytes(msgspec.json.encode(message))
        atheris.Setup([*sys.argv, corpus], _one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
