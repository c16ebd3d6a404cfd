"""Whole texts and recordings without an event loop of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer import (
    AudioFile,
    GlossaryEntry,
    LocalConnection,
    SessionRefusedError,
    StreamOptions,
    Tagger,
    TimedTranscript,
    UtteranceFinal,
    load,
    stream,
)
from cnerta.streamer.errors import AudioFileError

DEMO = Path(__file__).parents[3] / "streamer" / "demo"
TEXT = "各位观众今天我们来认识一下南京市长江大桥"


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return load("fast", device="cpu")


def found(answer: Any) -> list[tuple[str, str]]:
    return [(e.label, e.text) for e in answer]


def test_a_recording_decides_between_two_readings(tagger: Tagger) -> None:
    mayor = tagger.tag(TEXT, DEMO / "mayor.flac")
    bridge = tagger.tag(TEXT, str(DEMO / "bridge.flac"))
    assert found(mayor) == [("LOC", "南京"), ("PER", "江大桥")]
    assert found(bridge) == [("LOC", "南京市"), ("LOC", "长江大桥"), ("LOC", "长江")]
    assert mayor.audio_used
    assert len(mayor.characters) == len(TEXT)
    text_only = tagger.tag(TEXT)
    assert not text_only.audio_used
    assert text_only.characters == ()
    assert len(text_only) == len(text_only.entities)


async def test_the_answer_is_that_of_a_session_and_a_running_loop_is_no_obstacle(
    tagger: Tagger,
) -> None:
    audio = AudioFile(DEMO / "mayor.flac", paced=False)
    transcript = TimedTranscript.untimed(TEXT, audio.duration_ms)
    options = StreamOptions(readings=True)
    model = Model.load(find_bundle(None), device="cpu")
    async with LocalConnection(model) as connection:
        messages = [m async for m in stream(connection, audio, transcript, options)]
    (final,) = [m for m in messages if isinstance(m, UtteranceFinal)]
    ours = tagger.tag(TEXT, DEMO / "mayor.flac", readings=True)
    assert [(e.text, e.start_ms, e.end_ms, e.confidence) for e in ours] == [
        (e.text, e.start_ms, e.end_ms, e.confidence) for e in final.entities
    ]
    assert [list(times) for times in ours.characters] == [list(t) for t in final.characters]
    assert ours.readings
    assert list(ours.readings) == final.readings


def test_samples_are_heard_as_their_file_is(tagger: Tagger) -> None:
    samples, rate = soundfile.read(DEMO / "mayor.flac", dtype="float32")
    ours = tagger.tag(TEXT, samples, sample_rate=rate)
    file = tagger.tag(TEXT, DEMO / "mayor.flac")
    assert [(e.text, e.start_ms) for e in ours] == [(e.text, e.start_ms) for e in file]
    # Beyond what a live session would remember.
    long = np.concatenate([np.zeros(70 * rate, np.float32), samples, np.zeros(70 * rate, "f4")])
    late = tagger.tag(TEXT, long, sample_rate=rate)
    assert found(late) == found(file)
    assert late.entities[0].start_ms == pytest.approx(70_000 + file.entities[0].start_ms, abs=60)


def test_options_are_those_of_a_session(model: Any) -> None:
    tagger = Tagger(model)
    assert found(tagger.tag("他在北京大学"))
    assert found(tagger.tag("他在北京大学", labels=["PER"])) == []
    assert found(tagger.tag("")) == []
    glossary = [GlossaryEntry(text="立江", label="PER")]
    assert ("PER", "立江") in found(load("fast").tag("我们请立江来说", glossary=glossary))


def test_what_cannot_be_used_is_said(model: Any, tmp_path: Path) -> None:
    tagger = Tagger(model)
    with pytest.raises(SessionRefusedError, match="expected at most 4096 characters, got 4097"):
        tagger.tag("字" * 4097)
    with pytest.raises(SessionRefusedError, match="XYZ"):
        tagger.tag("他", labels=["XYZ"])
    with pytest.raises(AudioFileError, match="got no such file"):
        tagger.tag("他", tmp_path / "none.wav")
    silence = np.zeros(100, np.float32)
    with pytest.raises(AudioFileError, match="expected sample_rate from 8000 to 48000"):
        tagger.tag("他", silence)
    with pytest.raises(AudioFileError, match="an array of 2 dimensions"):
        tagger.tag("他", silence[None], sample_rate=16_000)
    with pytest.raises(AudioFileError, match="int16"):
        tagger.tag("他", silence.astype("<i2"), sample_rate=16_000)
    with pytest.raises(SessionRefusedError, match="finite"):
        tagger.tag("他", silence * np.nan, sample_rate=16_000)


def test_as_a_string_it_is_the_text_with_its_entities_in_brackets(tagger: Tagger) -> None:
    bridge = tagger.tag(TEXT, DEMO / "bridge.flac")
    assert str(bridge) == "各位观众今天我们来认识一下[LOC 南京市][LOC [LOC 长江]大桥]"
    assert repr(bridge) == f"<TaggedUtterance {bridge}>"
    assert str(tagger.tag("好的")) == "好的"


def test_a_notebook_draws_the_text_with_its_entities_underlined(tagger: Tagger) -> None:
    drawn = tagger.tag("<" + TEXT, DEMO / "bridge.flac")._repr_html_()
    assert re.sub("<[^>]*>", "", drawn.replace("LOC", "")) == "&lt;" + TEXT
    # Three names; the outer line lies below the inner one.
    assert drawn.count("<sub") == 3
    assert drawn.index("padding-bottom:0.18em") < drawn.rindex("padding-bottom:0.00em")
