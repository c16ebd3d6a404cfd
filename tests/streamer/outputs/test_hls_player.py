"""HLS subtitles in a real player: hls.js in Chromium plays them beside a video.

Skipped without Chromium, PyAV or hls.js (`npm ci` in tests/streamer/outputs/player fetches it).
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.hls import HlsCaptions, HlsOptions
from cnerta.streamer.sources import Revision

from ...http_server import HttpServer
from .. import server_messages as wire

av = pytest.importorskip("av")

PLAYER = Path(__file__).parent / "player"
HLS_JS = PLAYER / "node_modules" / "hls.js" / "dist" / "hls.min.js"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MPEG_TIME_OF_FFMPEG = 126_000
SECONDS = 14
MAIN_PLAYLIST = """\
#EXTM3U
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="captions",NAME="中文",LANGUAGE="zh",\
AUTOSELECT=YES,DEFAULT=YES,URI="captions/captions.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=100000,CODECS="avc1.42c00a",SUBTITLES="captions"
video.m3u8
"""
VIDEO_PLAYLIST = f"""\
#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:{SECONDS}
#EXT-X-PLAYLIST-TYPE:VOD
#EXTINF:{SECONDS:.3f},
video.ts
#EXT-X-ENDLIST
"""


def write_video(path: Path) -> None:
    """A grey picture, whose time stamps begin where those of FFmpeg's command do."""
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream("libx264", rate=5, options={"profile": "baseline", "g": "5"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        grey = np.full((64, 64, 3), 128, np.uint8)
        for number in range(5 * SECONDS):
            picture = av.VideoFrame.from_ndarray(grey, format="rgb24")
            picture.time_base = Fraction(1, 90_000)
            picture.pts = MPEG_TIME_OF_FFMPEG + 18_000 * number
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    with av.open(str(path)) as written:
        first = next(written.demux(video=0))
        assert first.pts * first.time_base == Fraction(MPEG_TIME_OF_FFMPEG, 90_000)


def write_captions(folder: Path) -> None:
    captions = HlsCaptions(folder, Highlighter(), HlsOptions(mpeg_time=MPEG_TIME_OF_FFMPEG))
    text = "市长江大桥"
    with captions:
        captions.on_message(wire.ready())
        for number, (start_ms, end_ms) in enumerate([(1_000, 3_000), (5_000, 7_500)], 1):
            captions.on_audio(b"", float(end_ms))
            captions.on_revision(
                Revision(f"u{number}", 1, text, True, start_ms=start_ms, end_ms=end_ms)
            )
            captions.on_message(wire.final(f"u{number}", 1, text, wire.entity("PER", "江大桥", 2)))
        captions.on_audio(b"", 1_000.0 * SECONDS)
        captions.on_message(wire.summary())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Address of a page that plays the video, and what the page posts."""
    posted: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    shutil.copy(PLAYER / "index.html", tmp_path)
    shutil.copy(HLS_JS, tmp_path / "hls.js")
    (tmp_path / "main.m3u8").write_text(MAIN_PLAYLIST, encoding="utf-8")
    (tmp_path / "video.m3u8").write_text(VIDEO_PLAYLIST, encoding="utf-8")
    write_video(tmp_path / "video.ts")
    write_captions(tmp_path / "captions")
    with closing(HttpServer(partial(Handler, directory=str(tmp_path)))) as server:
        yield f"{server.url}/", posted


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not HLS_JS.exists(), reason="npm ci in tests/streamer/outputs/player")
def test_hls_js_shows_each_caption_at_its_time(
    site: tuple[str, queue.Queue[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    address, posted = site
    assert CHROMIUM is not None
    browser = subprocess.Popen(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio",
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={tmp_path_factory.mktemp('profile')}", f"{address}?cues=2",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        told = posted.get(timeout=90)
    finally:
        browser.terminate()
        browser.wait(20)
    assert "error" not in told
    # The video's first picture is the player's zero: there the audio began, too.
    assert [(round(start, 1), round(end, 1), text) for start, end, text in told["cues"]] == [
        (1.0, 3.0, "市长江大桥"),
        (5.0, 7.5, "市长江大桥"),
    ]
    assert told["language"] == "zh"
