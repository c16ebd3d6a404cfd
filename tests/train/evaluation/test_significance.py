from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from cnerta.train.evaluation.significance import paired_bootstrap

Counts = npt.NDArray[np.int64]


def some_counts(generator: np.random.Generator, gold: Counts, right: float) -> Counts:
    """Of one seed: what a model finds that gets each gold entity with a probability."""
    correct = generator.binomial(gold, right)
    predicted = correct + generator.binomial(2, 0.2, size=len(gold))
    return np.stack([correct, predicted, gold], axis=1)


@pytest.fixture
def pair() -> tuple[Counts, Counts]:
    generator = np.random.default_rng(1)
    gold = generator.integers(0, 4, size=120)
    ours = np.stack([some_counts(generator, gold, 0.7) for _ in range(2)])
    return ours, some_counts(generator, gold, 0.6)[None]


def test_against_drawing_sentence_by_sentence(pair: tuple[Counts, Counts]) -> None:
    """An independent bootstrap, in the plainest Python there is."""
    ours, theirs = pair
    draw = random.Random(7)

    def f1(counts: Counts, chosen: list[int]) -> float:
        scores = []
        for seed in counts.tolist():
            correct = sum(seed[i][0] for i in chosen)
            precision = correct / sum(seed[i][1] for i in chosen)
            recall = correct / sum(seed[i][2] for i in chosen)
            scores.append(200 * precision * recall / (precision + recall))
        return sum(scores) / len(scores)

    everything = list(range(120))
    draws = sorted(
        f1(ours, chosen) - f1(theirs, chosen)
        for chosen in (draw.choices(everything, k=120) for _ in range(3000))
    )
    found = paired_bootstrap(ours, theirs, samples=3000)
    assert found.value == pytest.approx(f1(ours, everything) - f1(theirs, everything))
    # The ends of two intervals of 3000 draws differ by a few hundredths of their width.
    width = draws[2925] - draws[75]
    assert found.low == pytest.approx(draws[75], abs=0.06 * width)
    assert found.high == pytest.approx(draws[2925], abs=0.06 * width)
    below = sum(d <= 0 for d in draws) / 3000
    assert found.p_value == pytest.approx(2 * below, abs=0.02)


def test_the_other_way_round_and_again(pair: tuple[Counts, Counts]) -> None:
    ours, theirs = pair
    forth, back = paired_bootstrap(ours, theirs), paired_bootstrap(theirs, ours)
    assert (back.value, back.low, back.high) == pytest.approx(
        (-forth.value, -forth.high, -forth.low)
    )
    assert back.p_value == forth.p_value
    assert paired_bootstrap(ours, theirs) == forth, "the draws follow from the seed"
    other = paired_bootstrap(ours, theirs, seed=1)
    assert (other.low, other.high) != (forth.low, forth.high)
    wider = paired_bootstrap(ours, theirs, level=0.99)
    assert wider.low < forth.low < forth.high < wider.high


def test_draws_that_do_not_fit_memory_are_the_same(
    pair: tuple[Counts, Counts], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = paired_bootstrap(*pair, samples=500)
    monkeypatch.setattr("cnerta.train.evaluation.significance._AT_ONCE", 1000)
    assert paired_bootstrap(*pair, samples=500) == whole


def test_the_same_model_twice_differs_by_nothing(pair: tuple[Counts, Counts]) -> None:
    same = paired_bootstrap(pair[0], pair[0])
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_other_sentences_cannot_be_compared(pair: tuple[Counts, Counts]) -> None:
    ours, theirs = pair
    with pytest.raises(ValueError, match="same sentences, got 120 and 119"):
        paired_bootstrap(ours, theirs[:, 1:])
    with pytest.raises(ValueError, match="same gold"):
        paired_bootstrap(ours, theirs[:, ::-1])
