"""Captions with names as the glossary writes them, marked as mended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pysubs2
import webvtt
from msgspec import UNSET
from rich.console import Console

from cnerta.streamer.client.continuity import Continuity
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.masking import MaskRule, NameMask
from cnerta.streamer.outputs.obs import ObsTextFile
from cnerta.streamer.outputs.session_outputs import OutputOptions, make_outputs
from cnerta.streamer.session.names.mending import mend
from cnerta.streamer.sources import Revision
from cnerta.streamer.terminal.view import LiveView, PlainView
from cnerta.streamer.wire.messages import EntityUpsert, UtteranceFinal

from .. import server_messages as wire

TEXT = "我是姜大侨的朋友"
NAME = wire.entity("PER", "姜大侨", 2, status="final", suggested_text="江大桥", glossary=True)


def answered() -> UtteranceFinal:
    times = [(5_000 + 200 * i, 5_200 + 200 * i) for i in range(len(TEXT))]
    message = wire.final("u1", 1, TEXT, NAME)
    mended = mend(TEXT, [NAME], times)
    assert mended is not None
    return msgspec.structs.replace(message, characters=times, mended=mended)


def test_captions_have_the_name_as_it_should_be_and_mark_it(tmp_path: Path) -> None:
    forms = ("vtt", "styled.vtt", "srt", "ttml", "metadata.vtt", "rttm", "jsonl")
    options = OutputOptions(captions=tuple(tmp_path / f"talk.{form}" for form in forms))
    for output in make_outputs(options, "talk", Highlighter(), {}):
        with output:
            for message in (wire.ready(), answered(), wire.summary()):
                output.on_message(message)
    files = {form: (tmp_path / f"talk.{form}").read_text(encoding="utf-8") for form in forms}
    assert "我是<c.PER.mended>江大桥</c>的朋友" in files["vtt"]
    assert "STYLE" not in files["vtt"]
    assert "::cue(.mended) { font-style: italic }" in files["styled.vtt"]
    assert re.search(r'<font color="[^"]*"><i>江大桥</i></font>', files["srt"])
    assert '<span style="of-PER mended">江大桥</span>' in files["ttml"]
    assert '<style xml:id="mended" tts:fontStyle="italic"/>' in files["ttml"]
    for form in ("vtt", "srt", "ttml", "rttm"):
        assert "姜大侨" not in files[form], form
    assert [event.plaintext for event in pysubs2.load(str(tmp_path / "talk.srt"))] == [
        "我是江大桥的朋友"
    ]
    (cue,) = webvtt.read(str(tmp_path / "talk.metadata.vtt"))
    (told,) = json.loads(cue.text)["entities"]
    assert (told["text"], told["original_text"]) == ("江大桥", "姜大侨")
    assert "suggested_text" not in told
    # Events are as the server says them.
    final = json.loads(files["jsonl"].splitlines()[1])
    assert (final["text"], final["mended"]["text"]) == (TEXT, "我是江大桥的朋友")


def test_without_it_captions_say_what_the_transcript_says(tmp_path: Path) -> None:
    options = OutputOptions(captions=(tmp_path / "talk.vtt",))
    (output,) = make_outputs(options, "talk", Highlighter(), {})
    with output:
        output.on_message(wire.ready())
        output.on_message(msgspec.structs.replace(answered(), mended=UNSET))
    written = (tmp_path / "talk.vtt").read_text(encoding="utf-8")
    assert "<c.PER>姜大侨</c>" in written
    assert "mended" not in written


def test_views_show_the_mended_text(tmp_path: Path) -> None:
    path = tmp_path / "live.txt"
    console = Console(record=True, width=100, color_system=None)
    obs, view = ObsTextFile(path), PlainView(console)
    with obs:
        for output in (obs, view):
            output.on_message(wire.ready())
            output.on_revision(Revision("u1", 1, TEXT, True))
            output.on_message(answered())
        assert path.read_text(encoding="utf-8") == "我是【江大桥】的朋友"
    shown = console.export_text()
    assert "我是[PER 江大桥]的朋友" in shown
    assert "姜大侨 → 江大桥 " in shown


def test_views_mend_text_that_still_grows(tmp_path: Path) -> None:
    path = tmp_path / "live.txt"
    (obs,) = make_outputs(OutputOptions(obs_text=path, mends=True), "talk", Highlighter(), {})
    console = Console(record=True, width=100, height=30, color_system=None)
    view = LiveView(console, mends=True)
    tentative = msgspec.structs.replace(NAME, status="tentative")
    stable = msgspec.structs.replace(NAME, status="stable")
    with obs:

        def shown() -> str:
            console.print(view.picture())
            return console.export_text()

        def tell(told: Revision | EntityUpsert) -> None:
            for output in (obs, view):
                output.on_revision(told) if isinstance(told, Revision) else output.on_message(told)

        tell(Revision("u1", 1, "我是姜大侨", False))
        tell(wire.upsert("u1", 1, tentative))
        assert path.read_text(encoding="utf-8") == "我是姜大侨", "it may well change"
        tell(wire.upsert("u1", 1, stable))
        assert path.read_text(encoding="utf-8") == "我是【江大桥】"
        assert "姜大侨 → 江大桥" in (picture := shown())
        assert "我是[PER 江大桥]" in picture
        # The name's place holds in the transcript's text, also where that goes on.
        tell(Revision("u1", 2, TEXT, False))
        assert path.read_text(encoding="utf-8") == "我是【江大桥】的朋友"
        # The recogniser has changed its mind: a name that is no more is not written.
        tell(Revision("u1", 3, "我是将大桥的朋友", False))
        assert path.read_text(encoding="utf-8") == "我是将大桥的朋友"


def test_growing_text_is_as_it_came_unless_it_is_to_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "live.txt"
    (obs,) = make_outputs(OutputOptions(obs_text=path), "talk", Highlighter(), {})
    with obs:
        obs.on_revision(Revision("u1", 1, TEXT, False))
        obs.on_message(wire.upsert("u1", 1, NAME))
        assert path.read_text(encoding="utf-8") == "我是【姜大侨】的朋友"


def test_a_hidden_name_is_hidden_in_the_mended_text_too() -> None:
    mask = NameMask(MaskRule(frozenset({"PER"})))
    final = mask.final(answered())
    assert final.mended is not UNSET
    assert (final.text, final.mended.text) == ("我是＊＊＊的朋友", "我是＊＊＊的朋友")
    said = msgspec.json.encode(final).decode()
    assert not set(said) & set("姜侨江桥")
    again = mask.final(wire.final("u2", 1, "江大桥说"))
    assert again.text == "＊＊＊说", "the glossary's spelling is hidden from then on"


def test_a_mended_text_that_lacks_a_hidden_name_is_not_told() -> None:
    inner = wire.entity("PER", "姜大", 2, parent="outer")
    outer = msgspec.structs.replace(NAME, id="outer", label="ORG", suggested_text="江桥")
    message = wire.final("u1", 1, TEXT, outer, inner)
    mended = mend(TEXT, [outer, inner])
    assert mended is not None
    assert [e.label for e in mended.entities] == ["ORG"]
    mask = NameMask(MaskRule(frozenset({"PER"})))
    assert mask.final(msgspec.structs.replace(message, mended=mended)).mended is UNSET


def test_a_session_that_goes_on_elsewhere_places_the_mended_text() -> None:
    continuity = Continuity()
    continuity.new_session(0, 0)
    continuity.new_session(16_000, 1_000)
    told = [m for m in continuity.received(answered()) if isinstance(m, UtteranceFinal)]
    (final,) = told
    assert final.mended is not UNSET
    assert final.mended.characters == final.characters
    assert final.mended.characters[0] == (6_000, 6_200)
    assert final.mended.entities[0].id == final.entities[0].id
    assert final.mended.entities[0].start_ms == final.entities[0].start_ms
