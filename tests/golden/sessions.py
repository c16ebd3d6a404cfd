"""Sessions and texts whose answers are kept, and how they are run: no threads, sockets or clock.

Everything said here is from the two recordings of the demo, which this project synthesised: one
sentence in its two readings, with the time of each character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.commands.demo import DEMO_FOLDER, Recording, load_recordings
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import LANES, Lane
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import SessionFinish, SessionStart, SessionUpdate, Transcript
from cnerta.streamer.wire.parts import AudioFormat, GlossaryEntry

BUNDLES: Final = ("fast", "accurate")
FOLDER: Final = Path(__file__).parent
FRAME_MS: Final = 40

TEXTS: Final = (
    "各位观众今天我们来认识一下南京市长江大桥",
    "中国国家主席习近平昨天在北京人民大会堂会见了美国国务卿",
    "上海浦东发展银行的张三说，2019年北京大学招生人数增长了5%。",
    "NBA球星姚明出生在上海市徐汇区第六医院",
    "好",
    "",
    "左小蕾认为房地产市场的调整还没有结束",
    "台湾歌手周杰伦Jay Chou在臺北小巨蛋开演唱会",
)

WRONG_TEXT: Final = "中国国家主席习近平昨天在北京人民大会堂会见了美国国务卿"


@dataclass(frozen=True)
class Clip:
    """A recording of the demo as samples. shape: (samples,)"""

    about: Recording
    samples: npt.NDArray[np.float32]
    rate: int

    def at(self, rate: int) -> npt.NDArray[np.float32]:
        """Every n-th sample, for the formats of telephones."""
        assert self.rate % rate == 0
        return self.samples[:: self.rate // rate]


def clips() -> dict[str, Clip]:
    """The recordings by name."""
    found = {}
    for about in load_recordings(DEMO_FOLDER):
        samples, rate = soundfile.read(DEMO_FOLDER / about.audio, dtype="float32")
        found[about.audio.removesuffix(".flac")] = Clip(about, samples, rate)
    return found


def pcm(samples: npt.NDArray[np.float32]) -> bytes:
    """As 16-bit integers."""
    return bytes((samples * 32767).round().astype("<i2").tobytes())


class Driver:
    """One session and an engine that is always at once done."""

    def __init__(self, model: Model, limits: ConnectionLimits | None = None) -> None:
        self.now = 100.0
        self.engine = Engine(model)
        served = ServedModel(model.bundle, "CPUExecutionProvider")
        self.protocol = ServerProtocol(served, limits or ConnectionLimits(), "golden", self.now)
        self.sent: list[str] = []

    def receive(self, frame: str | bytes) -> None:
        """A frame from the client, and all that comes of it."""
        self.protocol.receive(frame, self.now)
        self.work()

    def send(self, message: Any) -> None:
        """A message from the client."""
        self.receive(encode(message).decode())

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.protocol.tick(self.now)
        self.work()

    def work(self) -> None:
        """Do all there is to do, then read all messages."""
        while any(self._run(lane) for lane in LANES):
            pass
        while (message := self.protocol.next_message()) is not None:
            self.sent.append(encode(message).decode())

    def _run(self, lane: Lane) -> bool:
        work = self.protocol.next_work(lane, self.now)
        if work is None:
            return False
        result = self.engine.run(work)
        assert not isinstance(result, Exception), result
        self.protocol.work_done(work, result, self.now)
        return True

    def say(
        self,
        clip: Clip,
        utterance: str,
        *,
        text: str | None = None,
        times: bool = True,
        shift_ms: int = 0,
        block_ms: int = FRAME_MS,
        encoder: Callable[[npt.NDArray[np.float32]], bytes] = pcm,
        rate: int | None = None,
        every: int = 4,
    ) -> None:
        """Stream a recording and its growing transcript as a recogniser would write it."""
        text = clip.about.text if text is None else text
        rate = rate or clip.rate
        samples = clip.at(rate)
        began_ms = self.audio_ms
        ends = [end for _, end in clip.about.characters]
        revision, shown = 0, 0

        def message(characters: int, *, final: bool) -> Transcript:
            given: dict[str, int] = {}
            if times:
                given["start_ms"] = max(0, round(began_ms + clip.about.characters[0][0]) + shift_ms)
                last = min(characters, len(ends)) - 1
                given["end_ms"] = max(given["start_ms"], round(began_ms + ends[last]) + shift_ms)
            return Transcript(
                utterance=utterance, revision=revision, final=final, text=text[:characters], **given
            )

        for start in range(0, len(samples), rate * block_ms // 1000):
            block = samples[start : start + rate * block_ms // 1000]
            self.now += len(block) / rate
            self.receive(encoder(block))
            self.audio_ms += 1000 * len(block) / rate
            heard = sum(end + 200 <= self.audio_ms - began_ms for end in ends)
            if heard - shown >= every and heard < len(text):
                revision, shown = revision + 1, heard
                self.send(message(heard, final=False))
            if not start % (rate // 5):
                self.wait(0.0)
        revision += 1
        self.send(message(len(text), final=True))
        self.wait(0.3)

    audio_ms: float = 0.0

    def pause(self, milliseconds: int, rate: int) -> None:
        """Silence."""
        for _ in range(milliseconds // FRAME_MS):
            self.now += FRAME_MS / 1000
            self.receive(bytes(2 * rate * FRAME_MS // 1000))
            self.audio_ms += FRAME_MS

    def finish(self) -> list[str]:
        """End the session; all that it said."""
        self.send(SessionFinish())
        return self.sent


def _format(rate: int, encoding: Any = "pcm_s16le") -> AudioFormat:
    return AudioFormat(encoding=encoding, sample_rate=rate)


def _both_readings(driver: Driver, spoken: dict[str, Clip]) -> None:
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate)))
    for name in ("bridge", "mayor"):
        driver.say(spoken[name], name)
        driver.pause(800, rate)


def _no_times(driver: Driver, spoken: dict[str, Clip]) -> None:
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate), readings=True, max_delay_ms=0))
    for name in ("mayor", "bridge"):
        driver.say(spoken[name], name, times=False, block_ms=100, every=2)
        driver.pause(400, rate)


def _flat_places(driver: Driver, spoken: dict[str, Clip]) -> None:
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate), nested=False, labels=["LOC"]))
    driver.say(spoken["bridge"], "flat")
    driver.send(SessionUpdate(nested=True, labels=["LOC", "PER", "ORG"], max_delay_ms=200))
    driver.say(spoken["mayor"], "nested")


def _late_clock(driver: Driver, spoken: dict[str, Clip]) -> None:
    """Times that are 0.6 s off: the audio is found elsewhere, and the offset learnt."""
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate)))
    for i in range(8):
        driver.say(spoken["bridge" if i % 2 else "mayor"], f"u{i}", shift_ms=-600)
        driver.pause(600, rate)


def _wrong_text(driver: Driver, spoken: dict[str, Clip]) -> None:
    """Audio of another text: the answer is from text alone."""
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate)))
    driver.say(spoken["bridge"], "wrong", text=WRONG_TEXT)
    driver.pause(400, rate)
    driver.say(spoken["bridge"], "wrong-untimed", text=WRONG_TEXT, times=False)
    driver.say(spoken["mayor"], "right")


def _glossary(driver: Driver, spoken: dict[str, Clip]) -> None:
    rate = spoken["bridge"].rate
    names = [
        GlossaryEntry(text="江大桥", label="PER", pronunciation="jiang1 da4 qiao2"),
        GlossaryEntry(text="南京市", label="LOC"),
        GlossaryEntry(text="蒋大桥", label="PER"),
    ]
    driver.send(SessionStart(audio=_format(rate), glossary=names))
    for name in ("bridge", "mayor"):
        driver.say(spoken[name], name)
    driver.say(spoken["mayor"], "homophone", text="各位观众今天我们来认识一下南京市长蒋大桥")


def _telephone(driver: Driver, spoken: dict[str, Clip]) -> None:
    driver.send(SessionStart(audio=_format(8_000)))
    driver.say(spoken["mayor"], "telephone", rate=8_000, block_ms=20)


def _text_only(driver: Driver, spoken: dict[str, Clip]) -> None:
    driver.send(SessionStart(interim=False))
    long = "".join(t for t in TEXTS if t) * 3
    for i, text in enumerate((*TEXTS, long)):
        driver.send(Transcript(utterance=f"t{i}", revision=1, final=True, text=text))
        driver.wait(0.1)


def _warnings(driver: Driver, spoken: dict[str, Clip]) -> None:
    """What a client gets told: late revisions, a final said twice, partial samples, clipping."""
    rate = spoken["bridge"].rate
    driver.send(SessionStart(audio=_format(rate)))
    driver.say(spoken["bridge"], "once")
    driver.send(Transcript(utterance="once", revision=99, final=True, text="又一次"))
    driver.send(Transcript(utterance="two", revision=5, final=False, text="北京"))
    driver.send(Transcript(utterance="two", revision=4, final=False, text="北京大学"))
    driver.receive(b"\x00" * 3)
    driver.send(Transcript(utterance="two", revision=6, final=True, text="北京大学"))
    driver.wait(1.0)
    driver.send(Transcript(utterance="three", revision=1, final=False, text="上海"))


SESSIONS: Final[dict[str, Callable[[Driver, dict[str, Clip]], None]]] = {
    "both readings": _both_readings,
    "no times": _no_times,
    "flat places": _flat_places,
    "late clock": _late_clock,
    "wrong text": _wrong_text,
    "glossary": _glossary,
    "telephone": _telephone,
    "text only": _text_only,
    "warnings": _warnings,
}


def load(bundle: str) -> Model:
    """A bundle that comes along, on the CPU."""
    return Model.load(find_bundle(Path(bundle)), device="cpu")


def session_events(model: Model, name: str) -> list[str]:
    """All that a session says, as JSON, but for the session's greeting."""
    driver = Driver(model)
    SESSIONS[name](driver, clips())
    return driver.finish()[1:]


def answers(model: Model) -> Iterator[dict[str, Any]]:
    """What the model says of texts alone and of both recordings."""
    for text in TEXTS:
        normalised = normalise(text).text
        (tagged,) = model.tag([normalised], [np.zeros((0, model.bundle.geometry.width), "f4")])
        yield _described(text, tagged)
    for name, clip in clips().items():
        rate = 8_000
        frames = model.encode_recording(np.repeat(clip.at(rate), 2))
        (tagged,) = model.tag([clip.about.text], [frames])
        yield _described(name, model.read(clip.about.text, frames, tagged))


def _described(what: str, tagged: Any) -> dict[str, Any]:
    aligned = tagged.alignment
    return {
        "of": what,
        "spans": [[s.start, s.end, s.label, float(s.confidence)] for s in tagged.spans],
        "starts": None if aligned is None else aligned.starts.tolist(),
        "ends": None if aligned is None else aligned.ends.tolist(),
        "score": None if aligned is None else float(aligned.score),
        "readings": [[r.index, [[n, float(p)] for n, p in r.readings]] for r in tagged.readings],
    }
