from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.networks.filterbank import FilterBank  # noqa: E402
from cnerta.train.batches.augment import other_voices, spec_augment  # noqa: E402
from cnerta.train.recipe import Augmentation  # noqa: E402

BINS = 80


@pytest.fixture
def bank() -> FilterBank:
    made = FilterBank(BINS)
    made.mean.copy_(torch.linspace(5.0, 12.0, BINS))
    made.deviation.copy_(torch.linspace(2.0, 4.0, BINS))
    return made


def vowel(*hertz: float) -> torch.Tensor:
    """Half a second of pure tones. shape: (1, 8000)"""
    ticks = torch.arange(8_000) / 16_000
    return sum(0.1 * torch.sin(2 * math.pi * f * ticks) for f in hertz)[None]  # type: ignore[index]


def peaks(features: torch.Tensor, bank: FilterBank) -> list[int]:
    """The filters that stand out from their neighbours, in order."""
    row = (features * bank.deviation + bank.mean)[0, 20]
    higher = (row[1:-1] > row[:-2]) & (row[1:-1] > row[2:]) & (row[1:-1] > row.max() - 4)
    return (1 + torch.nonzero(higher)[:, 0]).tolist()


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_longer_or_shorter_vocal_tract_moves_formants_by_its_factor(
    bank: FilterBank, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rand() is 0 or 1: the most there is, either way.
    monkeypatch.setattr(
        torch, "rand", lambda n, dtype: torch.full((n,), float(factor > 1)).to(dtype)
    )
    spoken = bank(vowel(700.0, 1_600.0, 2_900.0))
    moved = other_voices(spoken, Augmentation(vocal_tract=0.15), bank)
    expected = peaks(bank(vowel(700.0 * factor, 1_600.0 * factor, 2_900.0 * factor)), bank)
    found = peaks(moved, bank)
    assert len(expected) == len(found) == 3
    assert all(abs(a - b) <= 1 for a, b in zip(expected, found, strict=True))
    assert found != peaks(spoken, bank)


def test_the_highest_frequencies_stay(bank: FilterBank) -> None:
    torch.manual_seed(0)
    features = torch.randn(6, 9, BINS)
    moved = other_voices(features, Augmentation(vocal_tract=0.2), bank)
    assert moved.shape == features.shape
    torch.testing.assert_close(moved[:, :, -1], features[:, :, -1], atol=0.6, rtol=0)
    assert float((moved - features).abs().max()) > 1


def test_timbre_is_one_smooth_curve_for_all_of_an_utterance_and_its_own(bank: FilterBank) -> None:
    torch.manual_seed(0)
    features = torch.randn(40, 7, BINS)
    changed = other_voices(features, Augmentation(timbre_db=3.0), bank)
    curves = ((changed - features) * bank.deviation) * 10 / math.log(10)
    torch.testing.assert_close(curves, curves[:, :1].expand_as(curves), atol=1e-3, rtol=0)
    curves = curves[:, 0]
    assert float(curves.diff(dim=1).abs().max()) < 2.0
    # Four parts of 3 dB; a cosine has half of its square on average.
    assert float(curves.square().mean().sqrt()) == pytest.approx(3.0 * 2**0.5, rel=0.2)
    assert float(curves.std(dim=0).min()) > 0.5


def test_nothing_happens_unless_asked_for(bank: FilterBank) -> None:
    features = torch.randn(2, 7, BINS)
    assert other_voices(features, Augmentation(), bank) is features


def test_masks_of_the_release_are_a_share_of_the_recording() -> None:
    torch.manual_seed(0)
    release = Augmentation(
        speeds=(1.0,), gain_db=0.0, time_mask_windows=100, time_mask_share=0.05,
        frequency_mask_bins=12,
    )  # fmt: skip
    for windows, most in ((400, 20), (3000, 100)):
        masked = spec_augment(torch.ones(200, windows, 40), release) == 0
        times = masked.all(dim=2).sum(dim=1)
        bands = masked.all(dim=1).sum(dim=1)
        # Two masks each, which may touch.
        assert most < int(times.max()) <= 2 * most
        assert 12 < int(bands.max()) <= 24
