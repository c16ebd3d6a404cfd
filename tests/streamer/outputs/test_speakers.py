"""Captions that say who speaks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pysubs2
import pytest
import webvtt
from rich.console import Console

from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.masking import MaskRule, NameMask
from cnerta.streamer.outputs.obs import ObsTextFile
from cnerta.streamer.outputs.session_outputs import OutputOptions, make_outputs
from cnerta.streamer.outputs.speakers import lead_of, voice_of
from cnerta.streamer.outputs.withholding import Withholding
from cnerta.streamer.sources import Revision
from cnerta.streamer.terminal.view import PlainView
from cnerta.streamer.wire.messages import UtteranceFinal

from .. import server_messages as wire

SENTENCE = "他在北京大学见到了江大桥"
PER = wire.entity("PER", "江大桥", 9, status="final")


def answered(speaker: str, *, number: int = 1, text: str = SENTENCE, **said: Any) -> UtteranceFinal:
    times = [(5_000 * number + 200 * i, 5_000 * number + 200 * i + 200) for i in range(len(text))]
    entities = [PER] if text == SENTENCE else []
    message = wire.final(f"u{number}", 1, text, *entities)
    return msgspec.structs.replace(message, characters=times, speaker=speaker, **said)


def written(folder: Path, *finals: UtteranceFinal, name_speakers: bool = False) -> dict[str, str]:
    """What each format has of some answers."""
    forms = ("vtt", "srt", "ttml", "metadata.vtt", "rttm")
    options = OutputOptions(
        captions=tuple(folder / f"talk.{form}" for form in forms),
        hls=folder / "hls",
        is_paced=False,
        name_speakers=name_speakers,
    )
    for output in make_outputs(options, "talk", Highlighter(), {}):
        with output:
            for message in (wire.ready(), *finals, wire.summary()):
                output.on_message(message)
    files = {form: (folder / f"talk.{form}").read_text(encoding="utf-8") for form in forms}
    segments = sorted((folder / "hls").glob("*.vtt"))
    return {**files, "hls": "".join(path.read_text(encoding="utf-8") for path in segments)}


def test_a_cue_of_a_known_speaker_is_a_voice(tmp_path: Path) -> None:
    files = written(tmp_path, answered("主持人"), answered("A & <B>", number=2))
    cues = webvtt.read(str(tmp_path / "talk.vtt"))
    assert [cue.voice for cue in cues] == ["主持人", "A &amp; &lt;B&gt;"]
    assert [cue.text for cue in cues] == [SENTENCE, SENTENCE]
    assert "<v 主持人>他在北京大学见到了<c.PER>江大桥</c></v>" in files["vtt"]
    assert "<v 主持人>" in files["hls"]
    for form in ("srt", "ttml"):
        assert "主持人" not in files[form], "names stand there only where they are asked for"


def test_names_stand_before_the_words_where_they_are_asked_for(tmp_path: Path) -> None:
    long = "一二三四五六七八九十" * 4
    finals = (answered("主持人"), answered("嘉宾", number=2, text=long))
    files = written(tmp_path, *finals, name_speakers=True)
    shown = [event.plaintext.split("\n") for event in pysubs2.load(str(tmp_path / "talk.srt"))]
    assert shown[0] == [f"主持人：{SENTENCE}"]
    assert shown[1][0].startswith("嘉宾：一二"), "only the first cue of an utterance"
    assert "".join("".join(cue) for cue in shown[1:]) == f"嘉宾：{long}"
    assert all(len(line) <= 16 for cue in shown for line in cue)
    for form in ("vtt", "hls", "ttml"):
        text = re.sub(r"<[^>]*>", "", files[form])
        assert f"主持人：{SENTENCE}" in text, form
    assert "江大桥</font>" in files["srt"], "marks are moved with the words"


def test_metadata_and_entity_lists_have_speaker_and_channel(tmp_path: Path) -> None:
    files = written(tmp_path, answered("主持人", channel=1))
    (cue,) = webvtt.read(str(tmp_path / "talk.metadata.vtt"))
    told = json.loads(cue.text)
    assert (told["speaker"], told["channel"], told["text"]) == ("主持人", 1, SENTENCE)
    assert files["rttm"].splitlines()[1].split()[:3] == ["ENTITY", "talk", "2"]


@pytest.mark.parametrize(
    ("speaker", "channel", "voice"),
    [
        ("主持人", 1, "主持人"),
        (msgspec.UNSET, 0, "channel 0"),
        (None, None, ""),
        (msgspec.UNSET, msgspec.UNSET, ""),
        ("a\n\t b\x1b", None, "a b\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_voice_is_named_by_its_speaker_or_its_channel(
    speaker: Any, channel: Any, voice: str
) -> None:
    assert voice_of(speaker, channel) == voice


def test_long_names_leave_room_for_words() -> None:
    assert lead_of("", 32) == ""
    assert lead_of("主持人", 32) == "主持人："
    assert lead_of("长" * 20, 32) == "长" * 7 + "…："


def test_obs_and_the_terminal_name_speakers(tmp_path: Path) -> None:
    path = tmp_path / "live.txt"
    console = Console(record=True, width=100, color_system=None)
    for name_speakers, lead in ((True, "主持人："), (False, "")):
        obs = ObsTextFile(path, name_speakers=name_speakers)
        view = PlainView(console, name_speakers=name_speakers)
        with obs:
            for output in (obs, view):
                output.on_message(wire.ready())
                output.on_revision(Revision("u1", 1, SENTENCE, True, speaker="主持人"))
                output.on_message(answered("主持人"))
            assert path.read_text(encoding="utf-8") == f"{lead}他在北京大学见到了【江大桥】"
        assert console.export_text().startswith(f"{lead}他在北京大学见到了[PER 江大桥]")


def test_a_hidden_name_is_hidden_in_the_name_of_who_speaks() -> None:
    withholding = Withholding(NameMask(MaskRule(frozenset({"PER"})), ["任萍"]))
    for speaker, shown in (("任萍", "＊＊"), ("主持人", "主持人")):
        told = withholding.message(answered(speaker))
        assert isinstance(told, UtteranceFinal)
        assert told.speaker == shown
        assert withholding.revision(Revision("u1", 1, "", False, speaker=speaker)).speaker == shown
    told = withholding.message(answered("江大桥"))
    assert isinstance(told, UtteranceFinal)
    assert told.speaker == "＊＊＊", "it was found in what is said"
