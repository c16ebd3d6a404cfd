"""Runs a batch of work on the model. Pure computation: no asyncio, no sessions.

Chunks of one length go through the acoustic graph together. Texts go through the tagger together,
but not a short one with a long one, nor a short window with a long one, because the short one would
be padded to the long one's length; so do the utterances of a full-context model through its
acoustic graph. How many go together is bounded by the memory that they take. If a batch fails, its
items are run one by one, so that only the one at fault fails. What else takes time in proportion to
what a client sends is done here as well, beside the event loop: long texts are normalised,
glossaries compiled and searched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.buffers import joined
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.inference import AcousticState, Tagged
from cnerta.streamer.session.work import (
    CompileWork,
    EncodedAudio,
    EncodeWork,
    NormaliseWork,
    Result,
    TaggedText,
    TagWork,
    Work,
)
from cnerta.streamer.wire.errors import ProtocolError

__all__ = [
    "MOST_AREA",
    "MOST_UTTERANCE_AREA",
    "Engine",
    "Inference",
    "describe_failure",
    "padded_area",
    "prepare",
]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
_W = TypeVar("_W")
_R = TypeVar("_R")

_MOST_PADDING: Final = 1.5
"""How many times longer the longest window, or text, of a batch may be than the shortest."""
_SHORT_WINDOW_FRAMES: Final = 50
"""Windows up to this length always go together."""
_SHORT_TEXT_CHARACTERS: Final = 64
"""Texts up to this length always go together."""
MOST_AREA: Final = 2**20
"""Padded area of the texts that go together: a graph takes up to 180 bytes of memory for each unit,
so a batch some 200 MB at most. A minute of audio with 500 characters goes alone."""
_FRAMES_A_CHARACTER: Final = 400
_CHARACTERS_A_FRAME: Final = 45
"""A character without audio takes as much memory as one with so many frames, and the other way
round."""
_SWELLING_SHARE: Final = 4
MOST_UTTERANCE_AREA: Final = 1500**2
"""Of the whole utterances that go together: their number times the square of the longest one's
frames, which is what attention takes memory for. A minute goes alone."""


class Inference(Protocol):
    """What the engine needs of :class:`cnerta.models.runtime.inference.Model`."""

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""
        ...

    @property
    def device(self) -> str:
        """The execution provider in use."""
        ...

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        """See :meth:`cnerta.models.runtime.inference.Model.encode`."""
        ...

    def encode_utterances(self, utterances: Sequence[Floats]) -> list[Floats]:
        """See :meth:`cnerta.models.runtime.inference.Model.encode_utterances`."""
        ...

    def tag(
        self,
        texts: Sequence[str],
        frames: Sequence[Floats],
        hints: Sequence[Sequence[SpanHint]] = (),
    ) -> list[Tagged]:
        """See :meth:`cnerta.models.runtime.inference.Model.tag`."""
        ...

    def read(self, text: str, frames: Floats, tagged: Tagged) -> Tagged:
        """See :meth:`cnerta.models.runtime.inference.Model.read`."""
        ...

    def check(self) -> None:
        """See :meth:`cnerta.models.runtime.inference.Model.check`."""
        ...

    def reopen(self) -> None:
        """See :meth:`cnerta.models.runtime.inference.Model.reopen`."""
        ...

    @property
    def device_faults(self) -> int:
        """See :attr:`cnerta.models.runtime.inference.Model.device_faults`."""
        ...


class Engine:
    """Runs batches on a model.

    Attributes:
        model: The model.
        max_batch: Most items in one call of a graph.
        has_swollen: A large batch was run since somebody last set this to False: memory that it has
            taken and freed can be given back, see :func:`cnerta.models.runtime.memory.give_back`.
    """

    def __init__(self, model: Inference, *, max_batch: int = 16) -> None:
        self.model = model
        self.max_batch = max_batch
        self.has_swollen = False

    def run(self, work: Work) -> Result | Exception:
        """Do one piece of work alone."""
        result: Result | Exception
        if isinstance(work, EncodeWork):
            (result,) = self.encode([work])
        elif isinstance(work, TagWork):
            (result,) = self.tag([work])
        else:
            result = prepare(work)
        return result

    def encode(self, work: Sequence[EncodeWork]) -> list[EncodedAudio | Exception]:
        """Encode chunks or utterances. An item that cannot be encoded gets its exception."""
        if not self.model.bundle.geometry.streaming:
            hop = self.model.bundle.geometry.hop_samples
            classes = _length_classes((len(w.samples) // hop for w in work), _SHORT_WINDOW_FRAMES)
            return _in_groups(
                list(zip(work, classes, strict=True)),
                key=lambda pair: pair[1],
                fits=lambda group: (
                    len(group) <= self.max_batch
                    and len(group) * max(len(w.samples) // hop for w, _ in group) ** 2
                    <= MOST_UTTERANCE_AREA
                ),
                run=self._encode_utterances,
            )
        return _in_groups(
            work,
            key=lambda w: len(w.samples),
            fits=lambda group: len(group) <= self.max_batch,
            run=self._encode_group,
        )

    def prepare(self, work: Sequence[NormaliseWork | CompileWork]) -> list[Result | Exception]:
        """Do what needs no model. An item that cannot be done gets its exception."""
        return [prepare(item) for item in work]

    def tag(self, work: Sequence[TagWork]) -> list[TaggedText | Exception]:
        """Tag texts. An item that cannot be tagged gets its exception."""
        windows = _length_classes((len(w.frames) for w in work), _SHORT_WINDOW_FRAMES)
        lengths = _length_classes((len(w.text) for w in work), _SHORT_TEXT_CHARACTERS)
        # What has failed before is in a group of its own.
        alone = [n if w.is_alone else -1 for n, w in enumerate(work)]
        return _in_groups(
            list(zip(work, windows, lengths, alone, strict=True)),
            key=lambda item: item[1:],
            fits=lambda group: (
                len(group) <= self.max_batch and padded_area([w for w, *_ in group]) <= MOST_AREA
            ),
            run=lambda group: self._tag_group([w for w, *_ in group]),
        )

    def _tag_group(self, group: Sequence[TagWork]) -> list[TaggedText]:
        self.has_swollen |= padded_area(group) > MOST_AREA // _SWELLING_SHARE
        names = [() if w.glossary is None else w.glossary.find(w.text) for w in group]
        hints: list[tuple[SpanHint, ...]] = [
            () if w.glossary is None else tuple(map(w.glossary.hint, found))
            for w, found in zip(group, names, strict=True)
        ]
        texts, frames = [w.text for w in group], [w.frames for w in group]
        answers = (
            self.model.tag(texts, frames, hints) if any(hints) else self.model.tag(texts, frames)
        )
        return [
            TaggedText(len(w.text), self._with_readings(w, tagged), found)
            for w, tagged, found in zip(group, answers, names, strict=True)
        ]

    def _with_readings(self, work: TagWork, tagged: Tagged) -> Tagged:
        """Add the readings of characters where they were asked for."""
        if not (work.wants_readings and work.has_audio):
            return tagged
        return self.model.read(work.text, work.frames, tagged)

    def _encode_group(self, group: Sequence[EncodeWork]) -> list[EncodedAudio]:
        samples = joined(w.samples for w in group).reshape(len(group), -1)
        states = [w.state for w in group if w.state is not None]
        encoded = self.model.encode(samples, states)
        return [EncodedAudio(frames, state) for frames, state in encoded]

    def _encode_utterances(self, group: Sequence[tuple[EncodeWork, int]]) -> list[EncodedAudio]:
        self.has_swollen = True
        encoded = self.model.encode_utterances([w.samples for w, _ in group])
        return [EncodedAudio(frames, None) for frames in encoded]


def prepare(work: NormaliseWork | CompileWork) -> Result | Exception:
    """Do what needs no model; where it cannot be done, say why."""
    try:
        return work.run()
    except ProtocolError as error:  # of the client, whom it is told to
        return error
    except Exception as error:
        logger.error("a text could not be prepared: %s", describe_failure(error))
        return error


def padded_area(work: Sequence[TagWork]) -> int:
    """What texts take when they go together, all padded to the longest text and window."""
    longest_window = max(len(w.frames) for w in work)
    longest_text = max(len(w.text) for w in work)
    return len(work) * (longest_window + _FRAMES_A_CHARACTER) * (longest_text + _CHARACTERS_A_FRAME)


def _length_classes(lengths: Iterable[int], short: int) -> list[int]:
    """For each length the number of its class; what is of one class may go together."""
    values = list(lengths)
    classes: dict[int, int] = {0: 0}
    shortest = longest_of_class = 0
    for length in sorted(set(values) - {0}):
        if length > max(short, _MOST_PADDING * shortest) or not longest_of_class:
            shortest, longest_of_class = length, longest_of_class + 1
        classes[length] = longest_of_class
    return [classes[v] for v in values]


def _in_groups(
    work: Sequence[_W],
    *,
    key: Callable[[_W], Hashable],
    fits: Callable[[Sequence[_W]], bool],
    run: Callable[[Sequence[_W]], list[_R]],
) -> list[_R | Exception]:
    """Run work in groups of equal key that fit; results in the work's order.

    One item fits whatever it takes: how long a text and its audio may be is bounded elsewhere.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, item in enumerate(work):
        groups.setdefault(key(item), []).append(i)
    results: dict[int, _R | Exception] = {}
    for members in groups.values():
        while members:
            size = 1
            while size < len(members) and fits([work[i] for i in members[: size + 1]]):
                size += 1
            group, members = members[:size], members[size:]
            outcome = _run_group([work[i] for i in group], run)
            results.update(zip(group, outcome, strict=True))
    return [results[i] for i in range(len(work))]


def _run_group(
    group: Sequence[_W], run: Callable[[Sequence[_W]], list[_R]]
) -> list[_R | Exception]:
    # Whatever goes wrong in here must not end the worker thread or reach other sessions.
    try:
        results: list[_R | Exception] = [*run(group)]
    except Exception as error:
        logger.error("a batch of %d failed: %s", len(group), describe_failure(error))
        if len(group) == 1:
            return [error]
        return [outcome for item in group for outcome in _run_group([item], run)]
    return results


def describe_failure(error: BaseException) -> str:
    """What failed and where, without the exception's text, which may quote a client's text."""
    frames: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_qualname} ({code.co_filename}:{traceback.tb_lineno})")
        traceback = traceback.tb_next
    return f"{type(error).__name__} in {' > '.join(frames)}"
