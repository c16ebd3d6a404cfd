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


def test_a_code_s_sample_has_that_code() -> None:
    codes = np.arange(256, dtype=np.uint8)
    found = encode_mulaw(MULAW[codes])
    expected = codes.copy()
    expected[0x7F] = 0xFF  # both are zero
    assert found.tolist() == expected.tolist()


def test_a_sample_is_at_most_half_a_step_from_its_code() -> None:
    samples = np.linspace(-1.2, 1.2, 20_001)
    codes = encode_mulaw(samples)
    clipped = np.clip(samples, MULAW.min(), MULAW.max())
    ordered = np.unique(MULAW)
    place = np.searchsorted(ordered, MULAW[codes])
    gaps = np.pad(np.diff(ordered), 1, mode="edge")
    step = np.maximum(gaps[place], gaps[place + 1])
    # Samples are rounded to 16 bits first.
    assert (np.abs(clipped - MULAW[codes]) <= step / 2 + 1 / 32768).all()
