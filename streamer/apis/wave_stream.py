"""A WAV file as it arrives: the header tells the format, what follows is passed on.

Only what samples the protocol knows, in a file that was cut anywhere. Recorders that do not know
the length yet write 0 or the largest number in its place; then all that comes is audio.
"""

from __future__ import annotations

import struct
from typing import Final

from cnerta.streamer.wire.parts import AudioFormat, Encoding

__all__ = ["NotWaveError", "WaveStream"]

_RIFF: Final = 12
_CHUNK: Final = 8
_MOST_HEADER: Final = 65_536
_EXTENSIBLE: Final = 0xFFFE
_UNKNOWN_SIZES: Final = (0, 0xFFFFFFFF, 0x7FFFFFFF)
_ENCODINGS: Final[dict[tuple[int, int], Encoding]] = {
    (1, 16): "pcm_s16le",
    (3, 32): "pcm_f32le",
    (6, 8): "alaw",
    (7, 8): "mulaw",
}


class NotWaveError(Exception):
    """What arrives is no WAV file, or one of samples that are not known; the text says more."""


class WaveStream:
    """Takes a file apart.

    Attributes:
        audio_format: Once the header has come.
    """

    def __init__(self) -> None:
        self.audio_format: AudioFormat | None = None
        self._header = bytearray()
        self._left: int | None = None
        self._is_audio = False

    def add(self, data: bytes) -> bytes:
        """Take more of the file.

        Returns:
            The samples among it.

        Raises:
            NotWaveError: It is none that is known.
        """
        if not self._is_audio:
            self._header += data
            data = self._read_header()
        if self._left is None:
            return data
        audio = data[: self._left]
        self._left -= len(audio)
        return audio

    def _read_header(self) -> bytes:
        """Read as much of the header as is there; returns what is there of the samples."""
        header = self._header
        if not (b"RIFF".startswith(header[:4]) and b"WAVE".startswith(header[8:12])):
            raise NotWaveError("expected a WAV file, got something else")
        at = _RIFF
        while len(header) >= at + _CHUNK:
            name, size = struct.unpack_from("<4sI", header, at)
            if name == b"data":
                if self.audio_format is None:
                    raise NotWaveError("expected the format before the samples, got none")
                self._is_audio = True
                self._left = None if size in _UNKNOWN_SIZES else size
                samples = bytes(header[at + _CHUNK :])
                header.clear()
                return samples
            end = at + _CHUNK + size + size % 2
            if end > _MOST_HEADER:
                raise NotWaveError(f"expected a header of at most {_MOST_HEADER} bytes, got more")
            if name == b"fmt " and len(header) >= end and self.audio_format is None:
                self.audio_format = _read_format(bytes(header[at + _CHUNK : end]))
            at = end
        return b""


def _read_format(chunk: bytes) -> AudioFormat:
    if len(chunk) < 16:
        raise NotWaveError(f"expected a format of 16 bytes, got {len(chunk)}")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)
    encoding = _ENCODINGS.get((kind, bits))
    if encoding is None:
        raise NotWaveError(
            "expected a WAV file of 16-bit or float samples, mu-law or A-law, got format "
            f"{kind} of {bits} bits"
        )
    return AudioFormat(encoding=encoding, sample_rate=rate, channels=channels)
