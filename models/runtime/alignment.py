"""Forced alignment: which frames belong to which character.

The best path through the CTC lattice (blank, c1, blank, c2, …, blank) of the given characters, as
in Kürzinger et al. (2020) and ``torchaudio.functional.forced_align``, which the tests compare with.

The path is searched character by character, all frames and utterances at once. Counted from the
path that is blank throughout, a blank costs nothing, so the best way to reach a frame in silence
after a character is a running maximum; and as a character goes on from frame to frame by adding up,
the best way to be in it is a running maximum too, of what had been reached less what it had added
up. So the only Python loop is over the characters, with two running maxima each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Alignment", "align"]

# Share of the blank penalty that silence before the first and after the last character costs. A bit
# less than between characters, so that a text is not spread over what was said before.
_OUTSIDE = 0.95

# The search adds up in whole numbers, so that no sum is rounded however long the utterance, and
# because numpy's running maximum (fmax, not maximum) is several times faster on them. A unit is
# 2^-20 of a natural logarithm; what a frame may be worth is bounded, so that sums do not overflow.
_UNIT = 2**20
_MOST_WORTH = 1e5
_IMPOSSIBLE = -(2**60)
# Utterances searched at once: more save calls, fewer stay in the processor's cache.
_GROUP = 8

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Alignment:
    """When each character of one utterance was spoken.

    Attributes:
        starts: First frame of each character. shape: (length,)
        ends: One past its last frame. shape: (length,)
        peaks: The best of its frames. shape: (length,)
        scores: Log-probability of each character there. shape: (length,)
        score: Their mean: how well the audio fits the text. A CTC output peaks once a character,
            so the best frame tells the right text from another one, where the mean over all frames
            hardly does (docs/model-card.md has the figures).
    """

    starts: Integers
    ends: Integers
    peaks: Integers
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
    found: list[Alignment | None] = []
    for at in range(0, len(characters), _GROUP):
        texts = characters[at : at + _GROUP]
        counts = [int(c) for c in frame_counts[at : at + _GROUP]]
        found += _align_group(log_probabilities[at : at + _GROUP], counts, texts, blank_penalty)
    return found


def _align_group(
    log_probabilities: Floats,
    frame_counts: Sequence[int],
    characters: Sequence[Integers],
    blank_penalty: float,
) -> list[Alignment | None]:
    """Align a few utterances at once; arguments as of :func:`align`."""
    batch, frames = len(characters), max(frame_counts)
    lengths = [len(c) for c in characters]
    most = max(lengths)
    if frames == 0 or most == 0:
        return [None] * batch
    log_probabilities = log_probabilities[:, :frames]

    # What a frame in a character is worth more than in a blank, added up from the first frame on.
    sums = np.zeros((most, batch, frames + 1), np.int64)
    worth = log_probabilities[:, :, :1] - blank_penalty
    worth = log_probabilities[:, :, 1 : most + 1] - worth
    np.clip(worth, -_MOST_WORTH, _MOST_WORTH, out=worth)
    worth *= _UNIT
    np.cumsum(worth.transpose(2, 0, 1).astype(np.int64), axis=2, out=sums[:, :, 1:])
    # Row u: is it the same character as the one before, so that a blank must lie between?
    repeats = np.zeros((most, batch), np.bool_)
    for i, ids in enumerate(characters):
        repeats[1 : len(ids), i] = ids[1:] == ids[:-1]

    # entered[u, i, t]: the best path that begins character u at frame t or before, without the sum
    # of u's frames. ended[u, i, t]: the best path with the characters before u done in t frames.
    relief = round((1 - _OUTSIDE) * blank_penalty * _UNIT)
    entered = np.empty((most, batch, frames), np.int64)
    ended = np.empty((most + 1, batch, frames + 1), np.int64)
    ended[0] = relief * np.arange(frames + 1)
    ended[1:, :, 0] = _IMPOSSIBLE
    has_repeat = [bool(row.any()) for row in repeats]
    for u in range(most):
        before, reach, own = ended[u], entered[u], sums[u]
        if has_repeat[u]:
            before = _one_blank_later(before, repeats[u])
        np.subtract(before[:, :-1], own[:, :-1], out=reach)
        np.fmax.accumulate(reach, axis=1, out=reach)
        after = ended[u + 1, :, 1:]
        np.add(reach, own[:, 1:], out=after)
        np.fmax.accumulate(after, axis=1, out=after)

    found: list[Alignment | None] = []
    for i, (length, count) in enumerate(zip(lengths, frame_counts, strict=True)):
        own_repeats = repeats[:length, i].tolist()
        if not length or count < length + sum(own_repeats):
            found.append(None)
            continue
        starts, ends = _trace(
            entered[:, i], ended[: length + 1, i, : count + 1], own_repeats, relief
        )
        found.append(_alignment(log_probabilities[i], starts, ends))
    return found


def _one_blank_later(ended: Integers, repeats: npt.NDArray[np.bool_]) -> Integers:
    """Ways to have ended a character, for ``repeats`` with a blank after it.

    Args:
        ended: shape: (batch, frames + 1)
        repeats: shape: (batch,)
    """
    later = ended.copy()
    later[repeats, 0] = _IMPOSSIBLE
    later[repeats, 1:] = ended[repeats, :-1]
    return later


def _trace(
    entered: Integers, ended: Integers, repeats: Sequence[bool], relief: int
) -> tuple[Integers, Integers]:
    """Follow the best path back. A running maximum was reached where it has its value first.

    Args:
        entered: shape: (length, frames)
        ended: Up to the frames that are valid. shape: (length + 1, frames + 1)
        repeats: Whether a blank must lie before each character. shape: (length,)
        relief: What a frame of silence after the last character is worth.

    Returns:
        First frame of each character and one past its last. shape of each: (length,)
    """
    length = len(repeats)
    starts, ends = np.empty(length, np.int64), np.empty(length, np.int64)
    end = int(np.argmax(ended[length] - relief * np.arange(ended.shape[1])))
    for u in range(length - 1, -1, -1):
        way = entered[u, :end]
        start = int(way.searchsorted(way[-1]))
        starts[u], ends[u] = start, end
        before = ended[u, : start + 1 - repeats[u]]
        end = int(before.searchsorted(before[-1]))
    return starts, ends


def _alignment(log_probabilities: Floats, starts: Integers, ends: Integers) -> Alignment:
    """Score a path. ``log_probabilities`` shape: (frames, 1 + length or more)."""
    used = ends - starts
    first = np.cumsum(used) - used
    which = np.repeat(np.arange(len(used)), used)
    where = np.arange(len(which)) + np.repeat(starts - first, used)
    along = log_probabilities[where, 1 + which]
    # Every character has a frame, so no group is empty.
    best = np.maximum.reduceat(along, first)
    at_best = np.flatnonzero(along == best[which])
    peaks = where[at_best[np.searchsorted(at_best, first)]]
    return Alignment(starts=starts, ends=ends, peaks=peaks, scores=best, score=float(best.mean()))
