"""A small deterministic model and a driver that runs a session without threads or sockets.

The model's "speech" is made of tones that are constant over a frame: every character has a level,
and is spoken as three frames of it and one of silence. So what the fake acoustic graph and the
fake aligner find can be known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cnerta.models.config import AudioUse
from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.decoding import CrfParameters, ScoredSpan, SpanHint
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.inference import AcousticState, Tagged
from cnerta.models.runtime.labels import LabelScheme, Span
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import LANES, Lane, Work
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Entity

Floats = npt.NDArray[np.float32]

HOP = 640
FRAME_MS = 40
CHARACTER_MS = 4 * FRAME_MS
LEXICON = {
    "北京": "LOC",
    "北京大学": "ORG",
    "上海": "LOC",
    "张三": "PER",
    "李四": "PER",
    "南京": "LOC",
    "南京市": "LOC",
    "长江大桥": "LOC",
    "江大桥": "PER",
}


# Some of the lexicon's characters, and others that sound like them.
PRONOUNCED = {
    "北": ["bei3"],
    "京": ["jing1"],
    "背": ["bei4", "bei1"],
    "景": ["jing3"],
    "惊": ["jing1"],
    "上": ["shang4", "shang3"],
    "尚": ["shang4"],
    "海": ["hai3"],
    "他": ["ta1"],
    "她": ["ta1"],
    "在": ["zai4"],
}


def level(character: str) -> float:
    """How loud a character is spoken: 97 steps well above silence."""
    return 0.1 + 0.008 * (ord(character) % 97)


class FakeModel:
    """Finds the lexicon's words, all of them, nested or not."""

    def __init__(
        self,
        *,
        fit_bound: float = -5.0,
        max_characters: int = 100,
        streaming: bool = True,
        audio_use: AudioUse = "aligned",
    ) -> None:
        types = ["PER", "LOC", "ORG"]
        scheme = LabelScheme.nested([([Span(0, 2, t)], 2) for t in types])
        tags = len(scheme)
        self.bundle = Bundle(
            path=Path("fake"),
            name="fake",
            scheme=scheme,
            vocabulary=Vocabulary.build(PRONOUNCED, PRONOUNCED),
            geometry=FrameGeometry(
                layers=1, heads=1, width=2, left_frames=4, chunk_frames=8, streaming=streaming
            ),
            crf=CrfParameters(np.zeros(tags), np.zeros((tags, tags)), np.zeros(tags)),
            max_characters=max_characters,
            audio_fit_bound=fit_bound,
            blank_penalty=0.0,
            normalisation="bare",
            provenance={},
            scores={},
            audio_use=audio_use,
        )
        self.device = "fake"
        self.lexicon = dict(LEXICON)
        self.confidence = 0.9
        self.encoded_samples = 0
        self.encode_batches: list[tuple[int, int]] = []
        self.utterances: list[int] = []  # frames of each, with full context
        self.tag_calls: list[tuple[str, int]] = []
        self.poison = ""
        self.hinted: dict[str, list[tuple[SpanHint, ...]]] = {}

    device_faults = 0

    def check(self) -> None:
        """There is nothing to compare with."""

    def reopen(self) -> None:
        """There is nothing to open."""

    def encode(
        self, samples: Floats, states: Sequence[AcousticState]
    ) -> list[tuple[Floats, AcousticState]]:
        assert samples.ndim == 2
        assert samples.shape[1] % HOP == 0
        self.encode_batches.append((samples.shape[0], samples.shape[1] // HOP))
        self.encoded_samples += samples.size
        results = []
        for row, state in zip(samples, states, strict=True):
            levels = row.reshape(-1, HOP).mean(axis=1)
            # The second column is the frame's number, as the state has carried it here.
            numbers = state.position + np.arange(len(levels))
            frames = np.stack([levels, numbers], axis=1).astype(np.float32)
            following = AcousticState(state.carry, state.cache, state.position + len(levels))
            results.append((frames, following))
        return results

    def encode_utterances(self, utterances: Sequence[Floats]) -> list[Floats]:
        found = []
        for samples in utterances:
            levels = samples.reshape(-1, HOP).mean(axis=1)
            self.utterances.append(len(levels))
            self.encoded_samples += len(samples)
            found.append(np.stack([levels, np.arange(len(levels))], axis=1).astype(np.float32))
        return found

    def tag(
        self,
        texts: Sequence[str],
        frames: Sequence[Floats],
        hints: Sequence[Sequence[SpanHint]] = (),
    ) -> list[Tagged]:
        if self.poison and any(self.poison in t for t in texts):
            raise ValueError(f"poisoned by {texts}")
        self.tag_calls += [(t, len(f)) for t, f in zip(texts, frames, strict=True)]
        told = hints or [()] * len(texts)
        for text, given in zip(texts, told, strict=True):
            self.hinted.setdefault(text, []).append(tuple(given))
        return [
            Tagged(self._spans(t, h), self._align(t, f))
            for t, f, h in zip(texts, frames, told, strict=True)
        ]

    def _spans(self, text: str, hints: Sequence[SpanHint] = ()) -> tuple[ScoredSpan, ...]:
        """All words of the lexicon, and all that is hinted at."""
        found = [
            ScoredSpan(i, i + len(word), label, self.confidence)
            for word, label in self.lexicon.items()
            for i in range(len(text))
            if text.startswith(word, i)
        ]
        found += {ScoredSpan(h.start, h.end, h.label, self.confidence) for h in hints} - set(found)
        return tuple(sorted(found, key=lambda s: (s.start, -s.end, s.label)))

    def _align(self, text: str, frames: Floats) -> Alignment | None:
        if len(frames) < len(text) or not text or self.bundle.audio_use != "aligned":
            return None
        starts, ends, at = [], [], 0
        for character in text:
            while at < len(frames) and abs(frames[at, 0] - level(character)) > 0.002:
                at += 1
            starts.append(at)
            while at < len(frames) and abs(frames[at, 0] - level(character)) <= 0.002:
                at += 1
            ends.append(at)
        fits = all(s < e for s, e in zip(starts, ends, strict=True))
        score = 0.0 if fits else -10.0
        return Alignment(
            starts=np.array(starts),
            ends=np.array(ends),
            peaks=(np.array(starts) + np.array(ends)) // 2,
            scores=np.full(len(text), score, np.float32),
            score=score,
        )


def speak(text: str, *, sample_rate: int = 16_000) -> bytes:
    """The fake speech of a text as pcm_s16le."""
    levels = [value for c in text for value in (level(c),) * 3 + (0.0,)]
    samples = np.repeat(np.array(levels), sample_rate * FRAME_MS // 1000)
    return (samples * 32768).round().astype("<i2").tobytes()


def silence(milliseconds: int, *, sample_rate: int = 16_000) -> bytes:
    return bytes(2 * (sample_rate * milliseconds // 1000))


class Driver:
    """A session with its engine, step by step."""

    def __init__(
        self,
        model: FakeModel,
        start: SessionStart | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.model = model
        self.engine = Engine(model)
        self.now = 1000.0
        self.seen: list[ServerMessage] = []
        self._away: dict[Lane, Work | None] = {}
        served = ServedModel(model.bundle, model.device)
        self.protocol = ServerProtocol(served, limits or ConnectionLimits(), "test", self.now)
        if start is not None:
            self.send(start)

    def send(self, message: Any) -> Driver:
        """A message, or a raw frame."""
        frame = message if isinstance(message, str | bytes) else encode(message).decode()
        self.protocol.receive(frame, self.now)
        return self

    def audio(self, data: bytes, *, frame_bytes: int = 1280, pace: bool = True) -> Driver:
        """Binary frames, at the pace of 16 kHz PCM, encoded as they come."""
        for at in range(0, len(data), frame_bytes):
            frame = data[at : at + frame_bytes]
            if pace:
                self.now += len(frame) / 32_000
            self.protocol.receive(frame, self.now)
            while self.step():
                pass
        return self

    def transcript(
        self, text: str, revision: int, *, utterance: str = "u1", final: bool = False, **times: int
    ) -> Driver:
        return self.send(
            Transcript(utterance=utterance, revision=revision, final=final, text=text, **times)
        )

    def take(self, lane: Lane) -> bool:
        """Have the engine's ``audio`` or ``text`` lane take work, unless some is away."""
        if self._away.get(lane) is None:
            self._away[lane] = self.protocol.next_work(lane, self.now)
        return self._away[lane] is not None

    def give(self, lane: Lane) -> None:
        """Do what the lane has taken and bring it back."""
        work = self._away.pop(lane, None)
        if work is not None:
            self.protocol.work_done(work, self.engine.run(work), self.now)

    def step(self) -> bool:
        """Run one round of work."""
        moved = [self.take("text"), self.take("preparation"), self.take("audio")]
        for lane in LANES:
            self.give(lane)
        return any(moved)

    def run(self) -> list[ServerMessage]:
        """Run all work there is; the messages that came of it."""
        while self.step():
            pass
        return self.drain()

    def wait(self, seconds: float) -> list[ServerMessage]:
        self.now += seconds
        self.protocol.tick(self.now)
        return self.run()

    def drain(self) -> list[ServerMessage]:
        new: list[ServerMessage] = []
        while (message := self.protocol.next_message()) is not None:
            new.append(message)
        self.seen += new
        return new

    @property
    def events(self) -> list[EntityUpsert | EntityRetract | UtteranceFinal]:
        return [
            m for m in self.seen if isinstance(m, EntityUpsert | EntityRetract | UtteranceFinal)
        ]

    @property
    def finals(self) -> dict[str, UtteranceFinal]:
        return {m.utterance: m for m in self.seen if isinstance(m, UtteranceFinal)}

    def named(self, kind: type, name: str) -> list[Any]:
        return [m for m in self.seen if isinstance(m, kind) and m.name == name]


def fold(messages: Sequence[ServerMessage]) -> dict[str, dict[str, Entity]]:
    """What a client that applies every delta knows: utterance → entity id → entity."""
    known: dict[str, dict[str, Entity]] = {}
    for message in messages:
        if isinstance(message, EntityUpsert):
            known.setdefault(message.utterance, {})[message.entity.id] = message.entity
        elif isinstance(message, EntityRetract):
            del known[message.utterance][message.id]
    return known


@pytest.fixture
def kit() -> SimpleNamespace:
    """The helpers of this file: test modules cannot import each other."""
    return SimpleNamespace(
        FakeModel=FakeModel,
        Driver=Driver,
        fold=fold,
        speak=speak,
        silence=silence,
        level=level,
        start=SessionStart,
        CHARACTER_MS=CHARACTER_MS,
        FRAME_MS=FRAME_MS,
    )


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def drive(model: FakeModel) -> Callable[..., Driver]:
    """Make a driver with a started session; keywords are those of session.start."""

    def make(limits: ConnectionLimits | None = None, **start: Any) -> Driver:
        driver = Driver(model, SessionStart(**start), limits)
        driver.drain()
        driver.seen.clear()
        return driver

    return make
