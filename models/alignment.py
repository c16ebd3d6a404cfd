"""Forced alignment: which frames speak which character.

The best path through the CTC lattice (blank, c1, blank, c2, …, blank) of the given characters, as
in Kürzinger et al. (2020) and ``torchaudio.functional.forced_align``, which the tests compare with.
The dynamic program runs over all utterances and characters of a batch at once; the only Python
loop is the one over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Alignment", "align"]

_IMPOSSIBLE = np.float32(-1e30)
# Share of the blank penalty that silence before the first and after the last character costs. A bit
# less than between characters, so that a text is not torn apart to reach into what was said before.
_OUTSIDE = 0.95

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Alignment:
    """When each character of one utterance was spoken.

    Attributes:
        starts: First frame of each character. shape: (length,)
        ends: One past its last frame. shape: (length,)
        scores: Log-probability of each character at the best of its frames. shape: (length,)
        score: Their mean: how well the audio fits the text. A CTC output peaks once a character,
            so the best frame tells the right text from another one, where the mean over all frames
            hardly does (docs/model-card.md has the figures).
    """

    starts: Integers
    ends: Integers
    scores: Floats
    score: float


def align(
    log_probabilities: Floats,
    frame_counts: Sequence[int] | Integers,
    characters: Sequence[Integers],
    blank_penalty: float = 0.0,
) -> list[Alignment | None]:
    """Align each utterance's characters with its frames.

    Args:
        log_probabilities: Masked CTC output, column 0 the blank, column 1 + u the character u.
            shape: (batch, frames, 1 + length)
        frame_counts: Valid frames of each utterance. shape: (batch,)
        characters: Ids of each utterance's characters: two equal neighbours need a blank between.
        blank_penalty: Taken off the blank's log-probabilities, so that a character lasts until
            there is silence and not only while its posterior peaks (the effect of the label priors
            of Huang et al. 2024, as one number); a little less before the first and after the last
            character. 0 is the plain CTC path.

    Returns:
        One alignment an utterance; None where there are no characters or fewer frames than the
        characters need.
    """
    batch, frames, _ = log_probabilities.shape
    counts = np.asarray(frame_counts, dtype=np.int64)
    lengths = np.array([len(c) for c in characters], dtype=np.int64)
    if batch == 0 or frames == 0:
        return [None] * batch
    most = int(lengths.max(initial=0))
    states = 2 * most + 1

    emissions = np.empty((frames, batch, states), np.float32)
    emissions[:, :, 0::2] = log_probabilities[:, :, :1].transpose(1, 0, 2) - blank_penalty
    emissions[:, :, 1::2] = log_probabilities[:, :, 1 : most + 1].transpose(1, 0, 2)

    # What a step from two states back costs: only into a character, only from another character.
    skip = np.full((batch, states), _IMPOSSIBLE, np.float32)
    repeats = np.zeros(batch, np.int64)
    relief = (1 - _OUTSIDE) * blank_penalty
    emissions[:, :, 0] += relief
    for i, ids in enumerate(characters):
        emissions[:, i, 2 * len(ids)] += relief
        if len(ids) > 1:
            differs = ids[1:] != ids[:-1]
            skip[i, 3 : 2 * len(ids) : 2][differs] = 0.0
            repeats[i] = int(np.count_nonzero(~differs))

    # scores[t, :, 2 + s] is the best path that is in state s at frame t; the two columns before
    # the first state are walls, so that every step below is one slice.
    scores = np.full((frames, batch, states + 2), _IMPOSSIBLE, np.float32)
    scores[0, :, 2:4] = emissions[0, :, :2]
    step = np.empty((batch, states), np.float32)
    for t in range(1, frames):
        before = scores[t - 1]
        now = scores[t, :, 2:]
        np.add(before[:, :-2], skip, out=step)
        np.maximum(before[:, 2:], before[:, 1:-1], out=now)
        np.maximum(now, step, out=now)
        np.add(now, emissions[t], out=now)

    return [
        _trace(scores[:n, i, 2 : 2 * k + 3], emissions[:n, i], skip[i], int(k))
        if k and n >= k + r
        else None
        for i, (n, k, r) in enumerate(zip(counts.tolist(), lengths.tolist(), repeats, strict=True))
    ]


def _trace(scores: Floats, emissions: Floats, skip: Floats, length: int) -> Alignment:
    """Follow the best path back. ``scores`` shape: (frames, 2 * length + 1)."""
    frames = len(scores)
    path = np.empty(frames, np.int64)
    state = 2 * length if scores[-1, 2 * length] >= scores[-1, 2 * length - 1] else 2 * length - 1
    path[-1] = state
    for t in range(frames - 1, 0, -1):
        before = scores[t - 1]
        best, origin = before[state], state
        if state >= 1 and before[state - 1] > best:
            best, origin = before[state - 1], state - 1
        if state >= 2 and before[state - 2] + skip[state] > best:
            origin = state - 2
        state = origin
        path[t - 1] = state

    spoken = path % 2 == 1
    along = emissions[np.arange(frames), path]
    which = path[spoken] // 2
    used = np.bincount(which, minlength=length)
    where = np.flatnonzero(spoken)
    first = np.searchsorted(which, np.arange(length))
    starts = where[first]
    ends = starts + used
    # Every character has a frame, so no group is empty.
    best = np.maximum.reduceat(along[spoken], first)
    return Alignment(
        starts=starts.astype(np.int64),
        ends=ends.astype(np.int64),
        scores=best,
        score=float(best.mean()),
    )
