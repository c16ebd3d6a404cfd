from __future__ import annotations

import numpy as np
import pytest

from cnerta.models.runtime.companding import ALAW, MULAW, encode_mulaw

# G.711, table 2a: decoder output values at the ends of the positive segments, in 14 bits.
MULAW_ENDS = {0x80: 8031, 0x8F: 4191, 0x9F: 2079, 0xAF: 1023, 0xBF: 495, 0xCF: 231, 0xDF: 99}


@pytest.mark.parametrize(("code", "value"), MULAW_ENDS.items())
def test_codes_have_the_values_of_the_recommendation(code: int, value: int) -> None:
    assert MULAW[code] * 8192 == value
    assert MULAW[code & 0x7F] * 8192 == -value


def test_silence_is_silent() -> None:
    assert MULAW[0xFF] == MULAW[0x7F] == 0
    assert abs(float(ALAW[0xD5])) == abs(float(ALAW[0x55])) == 8 / 32768


def test_every_code_is_its_own_sample_s() -> None:
    codes = np.arange(256, dtype=np.uint8)
    found = encode_mulaw(MULAW[codes])
    expected = codes.copy()
    expected[0x7F] = 0xFF  # both are zero
    assert found.tolist() == expected.tolist()


def test_a_sample_gets_the_nearest_code_but_for_rounding() -> None:
    samples = np.linspace(-1.2, 1.2, 20_001)
    decoded = MULAW[encode_mulaw(samples)]
    clipped = np.clip(samples, MULAW.min(), MULAW.max())
    nearest = MULAW[np.abs(clipped[:, None] - MULAW[None]).argmin(axis=1)]
    # The encoder cuts at 16-bit steps, which may put a border sample into the code beside.
    step = 1 / 32768
    assert (np.abs(clipped - decoded) <= np.abs(clipped - nearest) + 2 * step).all()
