"""Batches: examples to tensors, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cnerta.models.networks.ctc import BLANK
from cnerta.models.runtime.geometry import CARRY_SAMPLES, HOP_SAMPLES, SAMPLE_RATE
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import pad_matches
from cnerta.models.text.word_files import Words
from cnerta.train.batches.degrade import degrade
from cnerta.train.batches.flat_start import isolated_times
from cnerta.train.batches.mentions import Mentions
from cnerta.train.data.audio import AudioCache, change_speed
from cnerta.train.data.examples import Example
from cnerta.train.data.pronunciations import sentence_readings
from cnerta.train.recipe import Augmentation, Source, Stage

__all__ = ["Batch", "BatchBuilder", "Clip", "plan_clips", "plan_epoch"]

UNKNOWN_FRAME = -1
UNKNOWN_BREAK = -1
_JOIN_PAUSE_MS = (0, 250)
_HIDE_WORDS = 0.5  # share of utterances

Clip = tuple[Example, ...]
"""Examples to be joined to one utterance; usually one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances as tensors, padded to the longest.

    Attributes:
        characters: Ids. shape: (batch, length)
        counts: Valid characters. shape: (batch,)
        tags: Tag ids, 0 beyond the text. shape: (batch, length)
        samples: 16 kHz, -1 to 1. shape: (batch, samples)
        sample_counts: Valid samples, 0 where there is no audio. shape: (batch,)
        units: Column of each spoken unit in the unmasked CTC output. shape: (batch, spoken)
        unit_counts: Valid units. shape: (batch,)
        frame_units: Column each frame speaks, BLANK in pauses, UNKNOWN_FRAME where times are not
            known. shape: (batch, frames)
        breaks: Boundary heard after each character, 0 to 4, UNKNOWN_BREAK where it is not known.
            shape: (batch, length)
        matches: Words of the lexicon or gazetteer in each text, see
            :mod:`cnerta.models.text.lexicon`; padding only for a model without one.
            shape: (batch, matches, 3)
    """

    characters: Tensor
    counts: Tensor
    tags: Tensor
    samples: Tensor
    sample_counts: Tensor
    units: Tensor
    unit_counts: Tensor
    frame_units: Tensor
    breaks: Tensor
    matches: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        moved = {f: getattr(self, f).to(device) for f in self.__dataclass_fields__}
        return replace(self, **moved)


def plan_epoch(
    sources: Sequence[tuple[Source, Sequence[Example]]],
    stage: Stage,
    cache: AudioCache,
    generator: np.random.Generator,
    mentions: Mentions | None = None,
) -> list[list[Clip]]:
    """Divide an epoch into batches of similar length (or of any), in random order.

    Text-only and spoken utterances never share a batch, so that a text-only batch costs no
    acoustic encoding.

    Args:
        sources: The stage's data.
        stage: Its settings.
        cache: Recordings.
        generator: Draws.
        mentions: Names to exchange those of texts without audio for; none: they stay.
    """
    clips: list[Clip] = []
    for source, examples in sources:
        for _ in range(source.repeat):
            clips += _join(examples, source.join, generator)
    return plan_clips(clips, stage, cache, generator, mentions)


def plan_clips(
    clips: Sequence[Clip],
    stage: Stage,
    cache: AudioCache,
    generator: np.random.Generator,
    mentions: Mentions | None = None,
) -> list[list[Clip]]:
    """Divide clips into batches, see :func:`plan_epoch`."""
    spoken = [c for c in clips if c[0].audio is not None]
    written = [c for c in clips if c[0].audio is None]
    seconds = [sum(cache.seconds(e.audio) for e in c if e.audio is not None) for c in spoken]
    if mentions is not None:
        share = stage.exchange_names
        written = [tuple(mentions.exchanged(e, share, generator) for e in c) for c in written]
    batches: list[list[Clip]] = []
    # A little noise in the sort keys, so that batches differ from epoch to epoch.
    order = sorted(((s * generator.uniform(0.9, 1.1), i) for i, s in enumerate(seconds)))
    if not stage.by_length:
        generator.shuffle(order)
    batch: list[Clip] = []
    longest = 0.0
    for _, i in order:
        # In order of length the last is the longest, but for the noise.
        longest = seconds[i] if stage.by_length else max(longest, seconds[i])
        too_long = stage.batch_seconds and longest * (len(batch) + 1) > stage.batch_seconds
        if batch and (len(batch) == stage.batch_size or too_long):
            batches.append(batch)
            batch, longest = [], seconds[i]
        batch.append(spoken[i])
    if batch:
        batches.append(batch)
    by_length = sorted(
        ((len(c[0].text) + generator.uniform(0, 2), i) for i, c in enumerate(written))
    )
    if not stage.by_length:
        generator.shuffle(by_length)
    batches += [
        [written[i] for _, i in by_length[first : first + stage.batch_size]]
        for first in range(0, len(by_length), stage.batch_size)
    ]
    return [batches[i] for i in generator.permutation(len(batches))]


def _join(examples: Sequence[Example], most: int, generator: np.random.Generator) -> Iterator[Clip]:
    order = generator.permutation(len(examples))
    position = 0
    while position < len(order):
        taken = int(generator.integers(1, most + 1))
        yield tuple(examples[i] for i in order[position : position + taken])
        position += taken


class BatchBuilder:
    """Turns clips into tensors.

    Args:
        vocabulary: Of the model.
        scheme: Label scheme of the model.
        cache: Recordings.
        augmentation: None for evaluation.
        lexicon: Lexicon or gazetteer of the model, if it has one.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        scheme: LabelScheme,
        cache: AudioCache,
        augmentation: Augmentation | None,
        lexicon: Words | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.scheme = scheme
        self.cache = cache
        self.augmentation = augmentation
        self.lexicon = lexicon
        self._columns = {name: i + 1 for i, name in enumerate(vocabulary.units)}

    def build(
        self,
        clips: Sequence[Clip],
        generator: np.random.Generator,
        *,
        drop_audio: float = 0.0,
        drop_characters: float = 0.0,
        rows: slice = slice(None),
    ) -> Batch:
        """Build one batch.

        Args:
            clips: Utterances.
            generator: Decides augmentation.
            drop_audio: Probability of leaving an utterance's audio out.
            drop_characters: Probability of hiding a character from the text encoder, and with it
                the words that it is part of. A gazetteer, which knows what a word is but not which,
                keeps them in half of the utterances: there it pays to ask it.
            rows: The utterances to build; what is drawn for one does not depend on the others.
        """
        drawn = list(zip(clips, generator.spawn(len(clips)), strict=True))[rows]
        made = [self._utterance(c, own, drop_audio, drop_characters) for c, own in drawn]
        frames = max(1, *(-(-len(u.samples) // HOP_SAMPLES) for u in made))
        length = max(len(u.characters) for u in made)
        return Batch(
            characters=_pad([u.characters for u in made], PADDING_ID),
            counts=torch.tensor([len(u.characters) for u in made]),
            tags=_pad([u.tags for u in made], 0),
            samples=_pad([u.samples for u in made], 0, frames * HOP_SAMPLES),
            sample_counts=torch.tensor([len(u.samples) for u in made]),
            units=_pad([u.units for u in made], BLANK),
            unit_counts=torch.tensor([len(u.units) for u in made]),
            frame_units=_pad([u.frame_units for u in made], UNKNOWN_FRAME, frames),
            breaks=_pad([u.breaks for u in made], UNKNOWN_BREAK, length),
            matches=torch.from_numpy(pad_matches([u.matches for u in made])),
        )

    def _utterance(
        self,
        clip: Clip,
        generator: np.random.Generator,
        drop_audio: float,
        drop_characters: float,
    ) -> _Utterance:
        corpus = clip[0].corpus if len(clip) == 1 else ""
        text = corpus + "".join(e.text for e in clip)
        characters = self.vocabulary.encode(text)
        matches = self.lexicon.match(text) if self.lexicon else np.zeros((0, 3), np.int64)
        if drop_characters:
            hidden = generator.random(len(characters)) < drop_characters
            hidden[: len(corpus)] = False
            characters = np.where(hidden, UNKNOWN_ID, characters)
            if not isinstance(self.lexicon, Gazetteer) or generator.random() < _HIDE_WORDS:
                before = np.concatenate([[0], np.cumsum(hidden)])
                matches = matches[before[matches[:, 0]] == before[matches[:, 1]]]
        spans = clip[0].spans or () if len(clip) == 1 else ()
        known = [
            replace(s, start=s.start + len(corpus), end=s.end + len(corpus))
            for s in spans
            if s.label in self.scheme.types
        ]
        tags = np.array(self.scheme.encode(known, len(text)), np.int64)
        empty = np.zeros(0, np.int64)
        if clip[0].audio is None or generator.random() < drop_audio:
            silence = np.zeros(0, np.float32)
            return _Utterance(characters, tags, silence, empty, empty, empty, matches)
        samples, units, frame_units = self._speech(clip, generator)
        breaks = np.array(clip[0].breaks or () if len(clip) == 1 else (), np.int64)
        return _Utterance(characters, tags, samples, units, frame_units, breaks, matches)

    def _speech(
        self, clip: Clip, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        speed, gain = 1.0, 1.0
        if self.augmentation:
            speed = float(generator.choice(self.augmentation.speeds))
            decibels = generator.uniform(-self.augmentation.gain_db, self.augmentation.gain_db)
            gain = 10.0 ** (decibels / 20)
        pieces: list[npt.NDArray[np.float32]] = []
        columns: list[int] = []
        marks: list[tuple[float, float, int]] = []
        offset = 0.0
        for example in clip:
            assert example.audio is not None, "clips are either spoken or not"
            samples = change_speed(self.cache(example.audio), speed)
            readings = example.readings or sentence_readings(example.text)
            own = [self._column(r, c) for r, c in zip(readings, example.text or " ", strict=True)]
            pause = int(generator.integers(*_JOIN_PAUSE_MS)) if len(clip) > 1 else 0
            marks += _marks(example, samples, speed, own, (offset, pause))
            columns += own
            pieces += [samples, np.zeros(pause * SAMPLE_RATE // 1000, np.float32)]
            offset = 1000 * sum(map(len, pieces)) / SAMPLE_RATE
        joined = np.concatenate(pieces)
        if self.augmentation:
            joined = degrade(joined, self.augmentation, generator)
        joined = np.clip(joined * gain, -1.0, 1.0).astype(np.float32)
        frames = -(-len(joined) // HOP_SAMPLES)
        frame_units = np.full(frames, UNKNOWN_FRAME, np.int64)
        # A frame speaks for the centre of what it sees (see geometry.frame_start_ms).
        centre = (np.arange(frames) + 0.5) * HOP_SAMPLES - CARRY_SAMPLES / 2
        centre_ms = 1000 * centre / SAMPLE_RATE
        for start, end, column in marks:
            frame_units[(centre_ms >= start) & (centre_ms < end)] = column
        return joined, np.array(columns, np.int64), frame_units

    def _column(self, reading: str, character: str) -> int:
        """Column of a reading in the unmasked CTC output; of the character where units are such."""
        unknown = 1
        return self._columns.get(reading, self._columns.get(character, unknown))


def _marks(
    example: Example,
    samples: npt.NDArray[np.float32],
    speed: float,
    columns: Sequence[int],
    place: tuple[float, float],
) -> Iterator[tuple[float, float, int]]:
    """What is known of a recording's timing: (start in ms, end in ms, column).

    Args:
        example: With times of its own or a single word.
        samples: Its samples as they will be heard.
        speed: How much faster than recorded that is.
        columns: Of its characters.
        place: Where it begins in the utterance and how long the pause after it is, in ms.
    """
    offset, pause = place
    # The first frame is centred before the first sample.
    before = 0.0 if offset else -CARRY_SAMPLES / SAMPLE_RATE * 1000
    after = 1000 * len(samples) / SAMPLE_RATE + pause
    if example.times_ms is not None:
        times = tuple((start / speed, end / speed) for start, end in example.times_ms)
        edges = [before, *(edge for pair in times for edge in pair), after]
        gaps = list(zip(edges[::2], edges[1::2], strict=True))
    elif example.isolated and (found := isolated_times(samples, len(columns))):
        times = found
        gaps = [(before, times[0][0]), (times[-1][1], after)]
    else:
        return
    for start, end in gaps:
        yield (offset + start, offset + end, BLANK)
    for (start, end), column in zip(times, columns, strict=True):
        yield (offset + start, offset + end, column)


@dataclass(frozen=True, slots=True)
class _Utterance:
    characters: npt.NDArray[np.int64]
    tags: npt.NDArray[np.int64]
    samples: npt.NDArray[np.float32]
    units: npt.NDArray[np.int64]
    frame_units: npt.NDArray[np.int64]
    breaks: npt.NDArray[np.int64]
    matches: npt.NDArray[np.int64]


def _pad(
    rows: Sequence[npt.NDArray[np.int64] | npt.NDArray[np.float32]], value: int, length: int = 0
) -> Tensor:
    longest = max(length, 1, *(len(r) for r in rows))
    padded = np.full((len(rows), longest), value, rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(padded)
