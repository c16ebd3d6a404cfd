from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnerta.models.runtime.alignment import align

torch = pytest.importorskip("torch")


def random_case(seed: int, frames: int, ids: list[int]) -> np.ndarray:
    """Log-probabilities over the blank and the characters; equal characters, equal columns."""
    generator = np.random.default_rng(seed)
    distinct = sorted(set(ids))
    scores = generator.normal(scale=2.0, size=(frames, 1 + len(distinct)))
    log_probabilities = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    columns = [0] + [1 + distinct.index(i) for i in ids]
    return log_probabilities[:, columns].astype(np.float32)


@pytest.mark.parametrize("seed", range(20))
def test_path_agrees_with_torchaudio(seed: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, 9, size=generator.integers(1, 9)).tolist()
    frames = int(generator.integers(2 * len(ids), 60))
    log_probabilities = random_case(seed, frames, ids)
    (found,) = align(log_probabilities[None], [frames], [np.array(ids)])
    assert found is not None

    distinct = sorted(set(ids))
    first = [0] + [1 + ids.index(i) for i in distinct]
    reduced = torch.from_numpy(log_probabilities[:, first].copy())[None].contiguous()
    targets = torch.tensor([[1 + distinct.index(i) for i in ids]])
    path, scores = functional.forced_align(reduced, targets, blank=0)
    spans = functional.merge_tokens(path[0], scores[0].exp())
    assert found.starts.tolist() == [s.start for s in spans]
    assert found.ends.tolist() == [s.end for s in spans]
    best = [float(scores[0, s.start : s.end].max()) for s in spans]
    assert found.peaks.tolist() == [
        s.start + int(scores[0, s.start : s.end].argmax()) for s in spans
    ]
    assert found.scores.tolist() == pytest.approx(best, abs=1e-4)
    assert found.score == pytest.approx(sum(best) / len(best), abs=1e-4)


def worth_of(log_probabilities: np.ndarray, path: list[int], penalty: float) -> float:
    """Sum along a path of columns, a blank less its penalty, 95 % of it outside the text."""
    spoken = [t for t, column in enumerate(path) if column]
    worth = 0.0
    for t, column in enumerate(path):
        outside = t < spoken[0] or t > spoken[-1]
        worth += log_probabilities[t, column]
        worth -= 0.0 if column else penalty * (0.95 if outside else 1.0)
    return float(worth)


@pytest.mark.parametrize("penalty", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("ids", [[1], [1, 2], [1, 1], [1, 2, 2], [3, 1, 3]])
def test_no_path_is_better(ids: list[int], penalty: float) -> None:
    frames, length = 7, len(ids)
    for seed in range(3):
        log_probabilities = random_case(seed, frames, ids)
        (found,) = align(log_probabilities[None], [frames], [np.array(ids)], penalty)
        assert found is not None
        path = [0] * frames
        for u, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)):
            path[start:end] = [1 + u] * (end - start)

        def is_valid(columns: tuple[int, ...]) -> bool:
            runs = [c for c, _ in itertools.groupby(columns)]
            return [c for c in runs if c] == list(range(1, 1 + length)) and not any(
                a and b and ids[a - 1] == ids[b - 1] for a, b in itertools.pairwise(runs)
            )

        best = max(
            worth_of(log_probabilities, list(columns), penalty)
            for columns in itertools.product(range(1 + length), repeat=frames)
            if is_valid(columns)
        )
        assert is_valid(tuple(path))
        assert worth_of(log_probabilities, path, penalty) == pytest.approx(best, abs=1e-4)


def test_a_batch_gives_what_its_utterances_give_alone() -> None:
    cases = [(30, [1, 2, 2, 3]), (12, [4]), (3, [1, 2, 3, 4]), (50, [5, 5, 5, 6, 7, 5])] * 5
    longest = max(len(ids) for _, ids in cases)
    batch = np.zeros((len(cases), 50, 1 + longest), np.float32)
    for i, (frames, ids) in enumerate(cases):
        batch[i, :frames, : 1 + len(ids)] = random_case(i, frames, ids)
    found = align(batch, [f for f, _ in cases], [np.array(ids) for _, ids in cases])
    assert found[2] is None  # three frames cannot hold four characters
    for i, (frames, ids) in enumerate(cases):
        (alone,) = align(batch[i : i + 1, :frames, : 1 + len(ids)], [frames], [np.array(ids)])
        if alone is None:
            assert found[i] is None
            continue
        together = found[i]
        assert together is not None
        assert together.starts.tolist() == alone.starts.tolist()
        assert together.ends.tolist() == alone.ends.tolist()
        assert together.peaks.tolist() == alone.peaks.tolist()
        assert together.score == pytest.approx(alone.score)


def test_a_blank_penalty_makes_characters_last() -> None:
    # Peaks of one frame each at 5, 10 and 15; between them the blank is twice as likely.
    log_probabilities = np.full((30, 4), np.log(0.2), np.float32)
    log_probabilities[:, 0] = np.log(0.4)
    for u, peak in enumerate((5, 10, 15), 1):
        log_probabilities[peak] = np.log(0.01)
        log_probabilities[peak, u] = np.log(0.97)
    ids = np.array([1, 2, 3])
    (plain,) = align(log_probabilities[None], [30], [ids])
    (lasting,) = align(log_probabilities[None], [30], [ids], blank_penalty=2.0)
    assert plain is not None
    assert lasting is not None
    assert (plain.ends - plain.starts).tolist() == [1, 1, 1]
    assert lasting.starts[1] == lasting.ends[0], "no silence between neighbours"
    assert lasting.starts[2] == lasting.ends[1]
    assert lasting.score == pytest.approx(plain.score), "the best frames are the same"


def test_a_text_is_not_torn_apart_to_reach_what_was_said_before() -> None:
    # The first character fits a sound long before a little better than where it was said.
    log_probabilities = np.full((80, 3), np.log(1e-4), np.float32)
    log_probabilities[:, 0] = 0.0
    for frame, probabilities in ((3, (0.1, 0.9, 0)), (60, (0.2, 0.8, 0)), (63, (0.05, 0, 0.95))):
        log_probabilities[frame] = np.log(np.array(probabilities) + 1e-4)
    (found,) = align(log_probabilities[None], [80], [np.array([1, 2])], blank_penalty=2.0)
    assert found is not None
    assert found.starts[0] > 3


def test_times_rise_and_stay_inside() -> None:
    for seed in range(10):
        ids = [1, 2, 3, 3, 4, 1]
        (found,) = align(random_case(seed, 25, ids)[None], [20], [np.array(ids)])
        assert found is not None
        assert found.starts[0] >= 0
        assert found.ends[-1] <= 20
        assert (found.ends > found.starts).all()
        assert (found.starts[1:] >= found.ends[:-1]).all()


@pytest.mark.parametrize(("frames", "ids"), [(0, [1]), (5, []), (3, [1, 1])])
def test_what_cannot_be_aligned_is_none(frames: int, ids: list[int]) -> None:
    log_probabilities = np.zeros((1, 5, 1 + len(ids)), np.float32)
    expected_none = frames < len(ids) + sum(a == b for a, b in itertools.pairwise(ids))
    (found,) = align(log_probabilities, [frames], [np.array(ids, dtype=np.int64)])
    assert (found is None) == (expected_none or not ids)


def test_no_utterances() -> None:
    assert align(np.zeros((0, 3, 2), np.float32), [], []) == []
