"""HLS subtitles, read back by a player's library: m3u8 for the playlist, webvtt-py for segments."""

from __future__ import annotations

from pathlib import Path

import m3u8
import pytest
import webvtt

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.hls import HlsCaptions, HlsOptions
from cnerta.streamer.sources import Revision

from .. import server_messages as wire

PER = wire.entity("PER", "江大桥", 2)


def segments(folder: Path) -> list[tuple[float, list[tuple[str, str, str]]]]:
    """Duration and cues (start, end, text) of each."""
    playlist = m3u8.load(str(folder / "captions.m3u8"))
    return [
        (
            segment.duration,
            [
                (cue.start, cue.end, cue.raw_text)
                for cue in webvtt.read(str(folder / segment.uri)).captions
            ],
        )
        for segment in playlist.segments
    ]


class Session:
    """Talks to an output as a session does."""

    def __init__(self, output: HlsCaptions) -> None:
        self.output = output
        output.__enter__()
        output.on_message(wire.ready())

    def audio(self, *at_s: float) -> None:
        for moment in at_s:
            self.output.on_audio(b"", 1_000 * moment)

    def interim(self, utterance: str, start_s: float) -> None:
        self.output.on_revision(
            Revision(utterance, 1, "市长", False, start_ms=round(1_000 * start_s))
        )

    def final(self, utterance: str, start_s: float, end_s: float) -> None:
        text = "市长江大桥"
        start_ms, end_ms = round(1_000 * start_s), round(1_000 * end_s)
        self.output.on_revision(
            Revision(utterance, 2, text, True, start_ms=start_ms, end_ms=end_ms)
        )
        self.output.on_message(wire.final(utterance, 2, text, PER))

    def end(self) -> None:
        self.output.on_message(wire.summary())
        self.output.__exit__(None, None, None)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(HlsCaptions(tmp_path / "hls", Highlighter()))


def test_a_whole_session(session: Session, tmp_path: Path) -> None:
    folder = tmp_path / "hls"
    session.audio(1.0)
    session.interim("u1", 1.0)
    session.audio(4.0)
    session.final("u1", 1.0, 4.0)
    session.interim("u2", 5.0)
    session.audio(8.0)
    session.final("u2", 5.0, 8.0)
    session.audio(9.0)
    assert not segments(folder), "nothing is due"
    session.audio(10.0)
    assert [duration for duration, _ in segments(folder)] == [6.0]
    playlist = m3u8.load(str(folder / "captions.m3u8"))
    assert (playlist.playlist_type, playlist.is_endlist) == ("event", False)
    assert playlist.target_duration == 6
    session.audio(14.5)
    session.end()

    first = ("00:00:01.000", "00:00:04.000", "市长<c.PER>江大桥</c>")
    second = ("00:00:05.000", "00:00:08.000", "市长<c.PER>江大桥</c>")
    # A cue that is shown during two segments is in both.
    assert segments(folder) == [(6.0, [first, second]), (6.0, [second]), (2.5, [])]
    assert m3u8.load(str(folder / "captions.m3u8")).is_endlist
    lines = (folder / "captions-00001.vtt").read_text("utf-8").splitlines()
    assert lines[:3] == ["WEBVTT", "X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0", ""]


def test_a_segment_waits_for_what_is_still_spoken_in_it(session: Session, tmp_path: Path) -> None:
    session.audio(5.0)
    session.interim("u1", 5.0)
    session.audio(16.0)
    assert not segments(tmp_path / "hls")
    session.final("u1", 5.0, 11.0)
    assert [len(cues) for _, cues in segments(tmp_path / "hls")] == [1, 1]


def test_a_segment_does_not_wait_for_ever(session: Session, tmp_path: Path) -> None:
    session.audio(5.0)
    session.interim("u1", 5.0)
    session.audio(25.9)
    assert not segments(tmp_path / "hls")
    session.audio(26.0)
    assert segments(tmp_path / "hls") == [(6.0, [])]
    session.final("u1", 5.0, 26.0)
    # What comes too late for a segment is shown from the next one on.
    assert segments(tmp_path / "hls")[1][1][0][0] == "00:00:06.000"


def test_what_was_named_never_changes(session: Session, tmp_path: Path) -> None:
    folder = tmp_path / "hls"
    seen: dict[str, bytes] = {}
    lines: list[str] = []
    for second in range(60):
        session.audio(float(second))
        if second % 7 == 3:
            session.interim(f"u{second}", second - 2.0)
        if second % 7 == 6:
            session.final(f"u{second - 3}", second - 5.0, float(second))
        playlist = (folder / "captions.m3u8").read_text("utf-8").splitlines()
        assert playlist[: len(lines)] == lines, "players read only what is new"
        lines = playlist
        for path in folder.glob("*.vtt"):
            assert seen.setdefault(path.name, path.read_bytes()) == path.read_bytes()
    session.end()
    shown = [cue for _, cues in segments(folder) for cue in cues]
    assert len(set(shown)) == 8


def test_answers_may_lag_behind_audio_that_is_not_paced(tmp_path: Path) -> None:
    options = HlsOptions(is_paced=False, mpeg_time=900_000)
    session = Session(HlsCaptions(tmp_path, Highlighter(), options))
    session.audio(60.0)
    assert not segments(tmp_path)
    session.final("u1", 1.0, 4.0)
    session.end()
    found = segments(tmp_path)
    assert len(found) == 10
    assert found[0][1][0][:2] == ("00:00:01.000", "00:00:04.000")
    assert "MPEGTS:900000" in (tmp_path / "captions-00000.vtt").read_text("utf-8")


def test_what_an_earlier_session_left_is_replaced(tmp_path: Path) -> None:
    for name in ("captions-00007.vtt", "captions.m3u8", "mine.vtt"):
        (tmp_path / name).write_text("old")
    Session(HlsCaptions(tmp_path, Highlighter())).end()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.m3u8", "mine.vtt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="expected a folder for captions"):
        HlsCaptions(tmp_path / "file" / "hls", Highlighter()).__enter__()
    output = HlsCaptions(tmp_path / "hls", Highlighter())
    session = Session(output)
    (tmp_path / "hls" / "captions.m3u8").unlink()
    (tmp_path / "hls").rmdir()
    with pytest.raises(OutputError, match="expected to write"):
        session.audio(20.0)
    output.__exit__(None, None, None)
