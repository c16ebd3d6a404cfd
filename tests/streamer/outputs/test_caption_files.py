from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pysubs2
import pytest
import webvtt

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_files import CaptionFile, EventFile, open_caption_file
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.outputs.session_outputs import Outputs
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.codec import decode_server
from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

from .. import server_messages as wire

SENTENCE = "他在北京大学见到了江大桥"
ORG = wire.entity("ORG", "北京大学", 2)
PER = wire.entity("PER", "江大桥", 9)
FORMS = ["vtt", "metadata.vtt", "srt", "ttml", "rttm", "styled.vtt"]


def open_file(path: Path, highlighter: Highlighter | None = None) -> CaptionFile | EventFile:
    return open_caption_file(path, "talk", highlighter or Highlighter())


def answered(utterance: str = "u1", start_ms: int = 0) -> UtteranceFinal:
    times = [(start_ms + 200 * i, start_ms + 200 * i + 200) for i in range(len(SENTENCE))]
    message = wire.final(utterance, 1, SENTENCE, ORG, PER)
    return msgspec.structs.replace(message, characters=times)


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_ffmpeg_finds_every_cue(tmp_path: Path, form: str) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("needs FFmpeg")
    path = tmp_path / f"talk.{form}"
    with open_file(path) as file:
        file.on_message(wire.ready())
        for number in (1, 2):
            file.on_message(answered(f"u{number}", 5_000 * number))
    command = [ffmpeg, "-v", "error", "-i", str(path), "-f", "srt", "-"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert read.stdout.count(" --> ") == 2
    assert read.stdout.count("北京大学") == 2


def test_every_utterance_is_in_the_file_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"talk.{form}" for form in FORMS]
    files = [open_file(path) for path in paths]
    for file, path in zip(files, paths, strict=True):
        path.write_text("what was there before")
        with file:
            assert "before" not in path.read_text()
            file.on_message(wire.ready())
            for number in (1, 2):
                file.on_message(answered(f"u{number}", 5_000 * number))
                assert path.read_text(encoding="utf-8").count("北京大学") >= number
                assert "00:00:10" not in path.read_text() or number == 2
    assert len(webvtt.read(str(paths[0]))) == 2
    assert len(webvtt.read(str(paths[1]))) == 2
    assert [event.start for event in pysubs2.load(str(paths[2]))] == [5_000, 10_000]
    assert len(pysubs2.load(str(paths[3]))) == 2
    assert len(paths[4].read_text().splitlines()) == 1 + 4
    assert len(webvtt.read(str(paths[5]))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in paths)


def test_a_session_that_never_started_leaves_valid_files(tmp_path: Path) -> None:
    for form in FORMS:
        with open_file(tmp_path / f"talk.{form}"):
            pass
    assert len(webvtt.read(str(tmp_path / "talk.vtt"))) == 0
    ElementTree.parse(tmp_path / "talk.ttml")


def test_only_what_is_chosen_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "talk.VTT"
    with open_file(path, Highlighter(HighlightRule(first_only=True))) as file:
        for message in (wire.ready(), answered("u1"), answered("u2", 5_000)):
            file.on_message(message)
    written = path.read_text(encoding="utf-8")
    assert written.count("<c.PER>江大桥</c>") == 1
    assert written.count("江大桥") == 2


def test_without_times_captions_follow_the_clock_of_what_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    with open_file(path) as file:
        file.on_message(wire.ready())
        file.on_audio(b"", 2_000.0)
        file.on_revision(Revision("u1", 1, "好", False))
        file.on_audio(b"", 4_000.0)
        file.on_revision(Revision("u1", 2, "好的", True))
        file.on_message(wire.final("u1", 2, "好的"))
        file.on_audio(b"", 7_000.0)
        file.on_revision(Revision("u2", 1, "一行", True))
        file.on_message(wire.final("u2", 1, "一行"))
        file.on_revision(Revision("u3", 1, "有时间", True, 7_500, 9_000))
        file.on_message(wire.final("u3", 1, "有时间"))
        file.on_message(wire.final("u4", 1, "没见过"))
    times = [(event.start, event.end) for event in pysubs2.load(str(path))]
    assert times[:3] == [(2_000, 4_000), (4_000, 7_000), (7_500, 9_000)]
    assert times[3][0] == 9_000


def test_events_as_json_lines(tmp_path: Path) -> None:
    messages: list[ServerMessage] = [wire.ready(), answered(), wire.summary()]
    path = tmp_path / "talk.jsonl"
    with open_file(path) as file:
        for message in messages:
            file.on_audio(b"", 0.0)
            file.on_revision(Revision("u1", 1, "好", True))
            file.on_message(message)
        assert [decode_server(line) for line in path.read_bytes().splitlines()] == messages


def test_unknown_ending_is_named() -> None:
    with pytest.raises(OutputError, match=r"one of \.vtt, .*\.jsonl, got talk.doc"):
        open_file(Path("talk.doc"))


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for form in ("vtt", "ttml", "jsonl"):
        with (
            pytest.raises(OutputError, match=f"expected to write .*none/a.{form}, got: No such"),
            open_file(tmp_path / "none" / f"a.{form}"),
        ):
            pass


# --- several at once ------------------------------------------------------------------------------


class Recorder:
    """A presenter that remembers what it was told, and fails where it is to."""

    def __init__(self, fails_at: str = "") -> None:
        self.told: list[str] = []
        self.fails_at = fails_at

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails_at:
            raise OutputError(f"expected to write x, got: {what}")

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        self._tell("audio")

    def on_revision(self, revision: Revision) -> None:
        self._tell("revision")

    def on_message(self, message: ServerMessage) -> None:
        self._tell("message")

    def __enter__(self) -> Recorder:
        self._tell("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("exit")


async def test_an_output_that_fails_is_left_out_and_told_of_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    view, good, bad = Recorder(), Recorder(), Recorder("revision")
    outputs = Outputs(view, [bad, good])
    await outputs.__aenter__()
    outputs.on_audio(b"", 0.0)
    outputs.on_revision(Revision("u1", 1, "好", True))
    outputs.on_message(wire.summary())
    with pytest.raises(OutputError, match="got: revision"):
        await outputs.__aexit__(None, None, None)
    assert view.told == good.told == ["enter", "audio", "revision", "message", "exit"]
    assert bad.told == ["enter", "audio", "revision", "exit"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_an_output_that_cannot_start_ends_it_before_anything_is_shown() -> None:
    view, good, bad = Recorder(), Recorder(), Recorder("enter")
    with pytest.raises(OutputError, match="got: enter"):
        await Outputs(view, [good, bad]).__aenter__()
    assert good.told == ["enter", "exit"]
    assert view.told == []


async def test_what_ends_the_session_is_not_hidden_by_a_failed_output() -> None:
    outputs = Outputs(Recorder(), [Recorder("audio")])
    await outputs.__aenter__()
    outputs.on_audio(b"", 0.0)
    await outputs.__aexit__(KeyError, KeyError(), None)


# --- killed ---------------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from cnerta.streamer.outputs.caption_files import open_caption_file
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.wire.codec import decode_server

ready, final = sys.stdin.buffer.read().splitlines()
files = [open_caption_file(Path(name), "talk", Highlighter()) for name in sys.argv[1:]]
for file in files:
    file.__enter__()
    file.on_message(decode_server(ready))
print("go", flush=True)
for number in itertools.count(1):
    for file in files:
        file.on_message(decode_server(final.replace(b"u1", b"u%d" % number)))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("lifetime_s", [0.0, 0.05, 0.2])
async def test_killed_at_any_moment_the_files_are_whole(tmp_path: Path, lifetime_s: float) -> None:
    names = [str(tmp_path / f"talk.{form}") for form in ("vtt", "metadata.vtt", "srt", "ttml")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITE_FOR_EVER, *names,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    ready, final = (msgspec.json.encode(message) for message in (wire.ready(), answered()))
    process.stdin.write(ready + b"\n" + final + b"\n")
    process.stdin.close()
    await asyncio.wait_for(process.stdout.readline(), 20)
    await asyncio.sleep(lifetime_s)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    vtt, metadata, srt = (Path(name).read_text(encoding="utf-8") for name in names[:3])
    # What is after the last blank line is a cue that was cut off, if anything.
    whole = [text[: text.rindex("\n\n") + 2] for text in (vtt, metadata) if "\n\n" in text]
    for text in whole:
        for number, caption in enumerate(webvtt.from_string(text), 1):
            assert caption.identifier == str(number)
            assert SENTENCE in caption.text or "北京大学" in caption.text
    for event in pysubs2.SSAFile.from_string(srt[: srt.rfind("\n\n") + 2], format_="srt"):
        assert event.plaintext == SENTENCE
    paragraphs = list(ElementTree.parse(names[3]).getroot().iter("{http://www.w3.org/ns/ttml}p"))
    assert ["".join(p.itertext()) for p in paragraphs] == [SENTENCE] * len(paragraphs)
