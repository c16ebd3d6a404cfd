"""Soft alignment and the fusion on top of it."""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.config import FusionConfig  # noqa: E402
from cnerta.models.networks.aligned_fusion import AlignedPooling, soft_alignment  # noqa: E402
from cnerta.models.networks.ctc import ctc_loss  # noqa: E402

Rows = list[list[float]]


def heard(path: list[int], length: int, same: tuple[int, int] | None = None) -> torch.Tensor:
    """What CTC would say, quite sure of itself, of frames that are character path[t] - 1 or blank.

    Args:
        path: Column of each frame, 0 the blank.
        length: Characters.
        same: Two characters that are equal, so that neither column says which of them it is.
    """
    scores = torch.zeros(1, len(path), 1 + length)
    for t, column in enumerate(path):
        alike = same if same and column - 1 in same else (column - 1,)
        scores[0, t, [1 + c for c in alike]] = 6.0
    return scores.log_softmax(dim=2)


def align(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count, frames = scores.shape[2] - 1, scores.shape[1]
    found = soft_alignment(scores, torch.tensor([count]), torch.tensor([frames]))
    return found.characters[0], found.gaps[0]


def naive(scores: Rows, length: int) -> tuple[Rows, Rows]:
    """The docstring of soft_alignment, a frame and a character at a time."""
    frames = len(scores)

    def places(shares: Rows, t: int, first_after: int, before: int) -> float:
        """Log-probability that those below ``before`` have been said, from ``first_after`` not."""
        total = 0.0
        for v in range(length):
            mass = sum(row[v] for row in shares)
            said = (sum(row[v] for row in shares[:t]) + shares[t][v] / 2) / max(mass, 1e-3)
            trust = min(1.0, mass)
            if v < before:
                total += trust * log(min(1.0, max(0.02, said)))
            if v >= first_after:
                total += trust * log(min(1.0, max(0.02, 1 - said)))
        return total

    def share(values: list[float], amount: float) -> list[float]:
        parts = [exp(v) for v in values]
        return [amount * p / sum(parts) for p in parts]

    order = [[0.0] * length for _ in scores]
    for _ in range(4):
        shares = [
            share([scores[t][1 + u] + order[t][u] for u in range(length)], 1 - exp(scores[t][0]))
            for t in range(frames)
        ]
        order = [[places(shares, t, u + 1, u) for u in range(length)] for t in range(frames)]
    gaps = [
        share([places(shares, t, g, g) for g in range(length + 1)], exp(scores[t][0]))
        for t in range(frames)
    ]
    return shares, gaps


def test_soft_alignment_is_what_its_docstring_says() -> None:
    torch.manual_seed(0)
    scores = (2 * torch.randn(1, 11, 5, dtype=torch.float64)).log_softmax(dim=2)
    found, found_gaps = align(scores)
    expected, expected_gaps = naive(scores[0].tolist(), 4)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found_gaps.numpy(), expected_gaps, atol=1e-5)
    np.testing.assert_allclose((found.sum(dim=1) + found_gaps.sum(dim=1)).numpy(), 1, atol=1e-5)


def test_equal_characters_are_told_apart_by_their_place() -> None:
    path = [0, 1, 1, 2, 2, 3, 0, 0, 0, 4, 4, 5, 5]
    found, gaps = align(heard(path, 5, same=(0, 3)))
    for t, column in enumerate(path):
        if column:
            assert found[t, column - 1] > 0.8, t
    # The silence of three frames is before the fourth character, the first before the first.
    assert gaps.sum(dim=0).argmax() == 3
    assert gaps[6:9, 3].min() > 0.8
    assert gaps[0, 0] > 0.8


def test_nothing_known_is_spaced_evenly() -> None:
    found, _ = align(torch.zeros(1, 40, 6).log_softmax(dim=2))
    centres = (torch.arange(40)[:, None] * found).sum(dim=0) / found.sum(dim=0)
    steps = centres.diff()
    assert steps.min() > 4
    assert steps.max() < 9
    assert centres[2] == pytest.approx(19.5, abs=0.01)


def test_an_unheard_character_does_not_stand_in_the_way() -> None:
    found, gaps = align(heard([1, 1, 0, 0, 0, 3, 3, 3], 3))
    assert found.sum(dim=0)[1] < 0.2
    assert found[:2, 0].min() > 0.8
    assert found[5:, 2].min() > 0.8
    # The silence is beside the character that nobody said, on both sides alike.
    assert gaps[2:5, 1:3].sum(dim=1).min() > 0.8


def test_soft_alignment_is_near_forward_backward() -> None:
    # The oracle: how often each column is passed is minus the gradient of the exact CTC loss.
    generator = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        time = torch.arange(len(a))[:, None]
        centres = [(time * x).sum(dim=0) / x.sum(dim=0) for x in (a, b)]
        return float((centres[0] - centres[1]).abs().mean())

    aligned, unordered = [], []
    for _ in range(30):
        kinds = torch.randint(0, 8, (12,), generator=generator)
        path: list[int] = []
        for character in range(12):
            path += [0] * (number(2, 12) if number(0, 4) == 0 else 0)
            path += [1 + character] * number(3, 8)
        evidence = torch.randn(len(path), 9, generator=generator)
        for t, column in enumerate(path):
            evidence[t, 0 if column == 0 else 1 + kinds[column - 1]] += 5
        used = torch.zeros(9, dtype=torch.bool)
        used[0] = used[1 + kinds] = True
        units = evidence.masked_fill(~used, -1e4).log_softmax(dim=1)
        scores = torch.cat([units[:, :1], units[:, 1 + kinds]], dim=1)[None]

        leaf = scores.double().requires_grad_()
        loss = ctc_loss(
            leaf, torch.arange(1, 13)[None], torch.tensor([len(path)]), torch.tensor([12])
        )
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        exact = -gradient[0, :, 1:]
        aligned.append(distance(align(scores)[0], exact))
        unordered.append(distance(scores[0, :, 1:].exp(), exact))
    assert np.mean(aligned) < 0.5  # frames
    assert np.mean(unordered) > 5


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 9, 4).log_softmax(dim=2)
    counts, frames = torch.tensor([3]), torch.tensor([9])
    padded = torch.nn.functional.pad(scores, (0, 4), value=-1e4)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, 6), value=-0.5)
    alone, filled = soft_alignment(scores, counts, frames), soft_alignment(padded, counts, frames)
    torch.testing.assert_close(filled.characters[:, :9, :3], alone.characters)
    torch.testing.assert_close(filled.gaps[:, :9, :4], alone.gaps)
    assert float(filled.characters[:, 9:].abs().max()) == 0
    assert float(filled.gaps[:, 9:].abs().max()) == 0


def test_pooling_is_what_its_docstring_says() -> None:
    torch.manual_seed(0)
    config = FusionConfig(kind="aligned", width=6, feed_forward=8)
    fusion = AlignedPooling(config, 5, 4).eval()
    text, frames = torch.randn(1, 3, 5), torch.randn(1, 10, 4)
    scores = torch.randn(1, 10, 4).log_softmax(dim=2)
    counts, frame_counts = torch.tensor([3]), torch.tensor([10])
    with torch.no_grad():
        found = fusion(text, counts, frames, frame_counts, scores)
        shares, gaps = align(scores)
        values = fusion.value(frames)[0]
        for u in range(3):
            own = fusion.null_value[:6] + sum(shares[t, u] * values[t, :6] for t in range(10))
            length = float(shares[:, u].sum())
            parts, lengths = [own / (1 + length)], [length]
            for g in (u, u + 1):
                gap = fusion.null_value[6:] + sum(gaps[t, g] * values[t, 6:] for t in range(10))
                lengths.append(float(gaps[:, g].sum()))
                parts.append(gap / (1 + lengths[-1]))
            fit = sum(float(shares[t, u] * max(-10.0, scores[0, t, 1 + u])) for t in range(10))
            numbers = [*map(log1p, lengths), fit / (1 + length) / 10]
            sound = torch.cat([*parts, torch.tensor(numbers)])
            fused = fusion.heard_norm(fusion.query(text[0, u]) + fusion.output(sound))
            expected = fusion.feed_forward_norm(fused + fusion.feed_forward(fused))
            torch.testing.assert_close(found[0, u], expected, atol=1e-5, rtol=1e-5)


def test_a_longer_pause_is_seen() -> None:
    torch.manual_seed(0)
    fusion = AlignedPooling(FusionConfig(kind="aligned", width=6, feed_forward=8), 5, 4).eval()
    text = torch.randn(1, 2, 5)
    answers = []
    for pause in (2, 3, 12):
        path = [1, 1, 1, *[0] * pause, 2, 2, 2]
        frames = torch.ones(1, len(path), 4)
        with torch.no_grad():
            answers.append(
                fusion(text, torch.tensor([2]), frames, torch.tensor([len(path)]), heard(path, 2))
            )
    # Equal frames throughout: nothing but the length differs.
    assert (answers[0] - answers[2]).abs().mean() > 2 * (answers[0] - answers[1]).abs().mean() > 0
