from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

from cnerta.train.batches.degrade import add_noise, degrade, reverberate, telephone
from cnerta.train.recipe import Augmentation

RATE = 16_000
Samples = npt.NDArray[np.float32]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 1.0) -> Samples:
    ticks = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * ticks)).astype(np.float32)


def level_db(samples: npt.NDArray[np.floating]) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


def test_a_room_dies_away_in_its_reverberation_time() -> None:
    click = np.zeros(RATE, np.float32)
    click[1_000] = 0.5
    heard = reverberate(click, 0.5, 6.0, generator())
    assert int(np.abs(heard).argmax()) == 1_000, "the straight sound keeps its place"
    assert not np.abs(heard[:1_000]).max() > 1e-6, "nothing is heard before it"
    assert level_db(heard) == pytest.approx(level_db(click), abs=0.01)
    tail = heard[1_001:]
    straight_db = 10 * np.log10(heard[1_000] ** 2 / np.sum(tail.astype(np.float64) ** 2))
    assert straight_db == pytest.approx(6.0, abs=0.2)
    early, late = tail[800:1_600], tail[4_800:5_600]  # 250 ms apart: half of the time
    assert level_db(early) - level_db(late) == pytest.approx(30.0, abs=2.0)


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
@pytest.mark.parametrize("tilt", [0.0, 2.0])
def test_noise_has_the_level_and_the_colour_that_is_asked_for(snr_db: float, tilt: float) -> None:
    samples = tone(440.0, 4.0)
    noise = add_noise(samples, snr_db, tilt, generator()) - samples
    assert level_db(samples) - level_db(noise) == pytest.approx(snr_db, abs=0.1)
    power = np.abs(np.fft.rfft(noise.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    low = power[(hertz > 200) & (hertz < 400)].mean()
    high = power[(hertz > 3_200) & (hertz < 6_400)].mean()
    # Four octaves, 3 dB each for every unit of tilt.
    assert 10 * np.log10(low / high) == pytest.approx(12 * tilt, abs=1.5)


@pytest.mark.parametrize(
    ("hertz", "lowest", "highest"),
    [(60, -999, -12), (1_000, -1, 1), (3_000, -1, 1), (5_000, -999, -30)],
)
def test_a_telephone_carries_speech_only(hertz: float, lowest: float, highest: float) -> None:
    samples = tone(hertz)
    heard = telephone(samples)
    assert heard.shape == samples.shape
    gain_db = level_db(heard[1_000:-1_000]) - level_db(samples[1_000:-1_000])
    assert lowest < gain_db < highest


def test_a_telephone_does_not_delay() -> None:
    samples = np.zeros(RATE, np.float32)
    samples[4_000:8_000] = tone(1_000.0, 0.25)
    loud = np.flatnonzero(np.abs(telephone(samples)) > 0.05)
    assert loud[0] == pytest.approx(4_000, abs=32)
    assert loud[-1] == pytest.approx(8_000, abs=32)


def test_each_happens_as_often_as_is_set() -> None:
    samples = tone(440.0, 0.2)
    all_kinds = Augmentation(room=0.5, noise=0.25, telephone=0.1)
    untouched = sum(degrade(samples, all_kinds, generator(i)) is samples for i in range(400))
    assert untouched / 400 == pytest.approx(0.5 * 0.75 * 0.9, abs=0.07)


def test_the_same_seed_sounds_the_same() -> None:
    always = Augmentation(room=1.0, noise=1.0, telephone=1.0)
    one, other = (degrade(tone(440.0), always, generator(3)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, degrade(tone(440.0), always, generator(4)))


def test_by_default_nothing_is_drawn() -> None:
    own = generator()
    samples = tone(440.0)
    assert degrade(samples, Augmentation(), own) is samples
    assert own.random() == generator().random()


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(640, np.float32)])
def test_silence_is_no_problem(samples: Samples) -> None:
    always = Augmentation(room=1.0, noise=1.0, telephone=1.0)
    heard = degrade(samples, always, generator())
    assert heard.shape == samples.shape
    assert np.isfinite(heard).all()


def test_a_share_is_a_share() -> None:
    with pytest.raises(msgspec.ValidationError, match="<= 1"):
        msgspec.convert({"noise": 2.0}, Augmentation)
