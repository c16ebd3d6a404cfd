"""G.711 (ITU-T 1988): the 8-bit codes of telephone audio, μ-law and A-law."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ALAW", "MULAW", "encode_mulaw"]

Floats = npt.NDArray[np.float32]

_BIAS: Final = 0x84
_CLIP: Final = 0x7FFF - _BIAS


def _mulaw_table() -> Floats:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    exponent, mantissa = (code >> 4) & 7, code & 0x0F
    magnitude = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw_table() -> Floats:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, code & 0x0F
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, (linear + 0x100) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


MULAW: Final = _mulaw_table()
"""Each μ-law code's sample, -1 to 1. shape: (256,)"""
ALAW: Final = _alaw_table()
"""Each A-law code's sample, -1 to 1. shape: (256,)"""


def encode_mulaw(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """The μ-law codes of samples; louder ones than -1 to 1 are clipped.

    Args:
        samples: shape: (samples,)

    Returns:
        shape: (samples,)
    """
    scaled = np.rint(np.asarray(samples, np.float64) * 32768)
    magnitude = np.minimum(np.abs(scaled), _CLIP).astype(np.int64) + _BIAS
    # The position of the highest bit, 7 to 14, is the exponent.
    exponent = np.frexp(magnitude.astype(np.float64))[1] - 8
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    code = np.where(scaled < 0, 0x80, 0) | (exponent << 4) | mantissa
    encoded: npt.NDArray[np.uint8] = (~code & 0xFF).astype(np.uint8)
    return encoded
