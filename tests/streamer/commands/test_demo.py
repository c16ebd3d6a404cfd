from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner

from cnerta.models.errors import DataError
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.commands import demo as run_demo
from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

from .. import server_messages as wire

SENTENCE = "南京市长江大桥"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Two noises of 0.7 s, described as the demo's recordings are."""
    noise = np.random.default_rng(0).normal(0.0, 0.05, 11_200)
    described: list[dict[str, Any]] = []
    for name, reading, place in (
        ("bridge", "南京市 · 长江大桥", "南京市"),
        ("mayor", "南京 · 市长 · 江大桥", "南京"),
    ):
        soundfile.write(tmp_path / f"{name}.flac", noise, 16_000)
        characters = [[50 + 90 * index, 140 + 90 * index] for index in range(len(SENTENCE))]
        described.append(
            {
                "audio": f"{name}.flac",
                "text": SENTENCE,
                "reading": reading,
                "characters": characters,
                "entities": [[0, len(place), place, "LOC"]],
            }
        )
    (tmp_path / "demo.json").write_text(json.dumps({"recordings": described}))
    return tmp_path


@pytest.fixture
def short_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_demo, "GAP_MS", 600)


async def test_both_readings_go_through_a_real_server(
    recordings: Path, short_gap: None, tiny_bundle: Path, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO(), width=120)
    picture = tmp_path / "view.svg"
    complete = await run_demo.run_demo(tiny_bundle, recordings, console, picture)
    assert complete
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    texts = re.findall(r"^(\d+):([\d.]+)  (?:final )?text +(.*)$", printed, re.MULTILINE)
    plain = [re.sub(r"\[[A-Z]+ |\]", "", text) for _, _, text in texts]
    assert plain[-1] == SENTENCE
    assert plain.count(SENTENCE) >= 2
    assert len(plain) >= 4, "the transcript grew"
    finals = re.findall(r"^0:([\d.]+)  final  .*ms after the final text$", printed, re.MULTILINE)
    assert len(finals) == 2
    # 680 ms to the end of the last character and 300 ms of patience; the second 1.3 s later.
    assert [float(seconds) for seconds in finals] == pytest.approx([1.0, 2.3], abs=0.25)
    for part in (
        "bridge.flac",
        "mayor.flac",
        "南京市 · 长江大桥",
        "南京 · 市长 · 江大桥",
        "Same text, ",
    ):
        assert part in printed
    assert "市" in picture.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("entities", "verdict"),
    [
        (
            (("LOC", "南京市", 0), ("LOC", "南京", 0)),
            "different entities, as they were read: only the voice tells them apart",
        ),
        (
            (("LOC", "南京", 0), ("LOC", "南京市", 0)),
            "different entities, but not all as they were read",
        ),
        (
            (("LOC", "南京市", 0), ("LOC", "南京市", 0)),
            "this model did not tell the readings apart",
        ),
    ],
)
async def test_comparison_says_what_the_events_say(
    recordings: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    entities: tuple[tuple[str, str, int], ...],
    verdict: str,
) -> None:
    finals = [
        wire.final(f"u{number}", 1, SENTENCE, wire.entity(*found))
        for number, found in enumerate(entities, 1)
    ]
    printed, complete = await with_answers(finals, recordings, tiny_bundle, monkeypatch)
    assert complete
    assert verdict in printed
    assert f"  南京 · 市长 · 江大桥  [LOC {entities[1][1]}]" in printed


async def test_missing_final_is_no_success(
    recordings: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finals = [wire.final("u1", 1, SENTENCE)]
    printed, complete = await with_answers(finals, recordings, tiny_bundle, monkeypatch)
    assert not complete
    assert "no utterance.final" in printed
    assert "Same text" not in printed


async def with_answers(
    finals: list[UtteranceFinal],
    recordings: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, bool]:
    """Run the demo with these answers in place of the server's."""

    async def answered(*arguments: object, **options: object) -> AsyncIterator[ServerMessage]:
        yield wire.ready()
        for final in finals:
            yield final
        yield wire.summary()

    monkeypatch.setattr(run_demo, "stream", answered)
    console = Console(file=io.StringIO(), width=120)
    complete = await run_demo.run_demo(bundle, recordings, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), complete


def test_command_fails_with_a_message(tmp_path: Path, tiny_bundle: Path) -> None:
    arguments = ["--recordings", str(tmp_path), "--bundle", str(tiny_bundle)]
    refused = CliRunner().invoke(run_demo.app, arguments)
    assert refused.exit_code == 1
    assert "expected the demo's description in" in refused.stderr.replace("\n", " ")


def test_command_fails_when_a_final_is_missing(
    recordings: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*arguments: object, **options: object) -> AsyncIterator[ServerMessage]:
        yield wire.ready()
        yield wire.summary()

    monkeypatch.setattr(run_demo, "stream", silent)
    arguments = ["--recordings", str(recordings), "--bundle", str(tiny_bundle)]
    failed = CliRunner().invoke(run_demo.app, arguments)
    assert failed.exit_code == 1
    assert "expected an utterance.final for every recording" in failed.stderr


def test_server_that_does_not_start_is_named(recordings: Path, tmp_path: Path) -> None:
    arguments = ["--recordings", str(recordings), "--bundle", str(tmp_path / "none")]
    failed = CliRunner().invoke(run_demo.app, arguments)
    assert failed.exit_code == 1
    assert "demo: expected a bundle" in failed.stderr


def test_description_with_the_wrong_number_of_characters(recordings: Path) -> None:
    path = recordings / "demo.json"
    described = json.loads(path.read_text())
    described["recordings"][1]["characters"].pop()
    path.write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"times of 7 characters of mayor\.flac, got 6"):
        run_demo.load_recordings(recordings)


def test_the_recordings_that_come_along_are_as_described() -> None:
    recordings = run_demo.load_recordings(run_demo.DEMO_FOLDER)
    assert len({recording.text for recording in recordings}) == 1, "one sentence"
    assert len({recording.reading for recording in recordings}) == 2, "in two readings"
    total_ms = 0.0
    for recording in recordings:
        assert re.sub(r"[· ]", "", recording.reading) in recording.text
        file = AudioFile(run_demo.DEMO_FOLDER / recording.audio, paced=False)
        starts = [start for start, _ in recording.characters]
        ends = [end for _, end in recording.characters]
        assert starts == sorted(starts)
        assert all(start < end for start, end in recording.characters)
        assert ends[-1] <= file.duration_ms
        total_ms += file.duration_ms + run_demo.GAP_MS
    assert total_ms < 30_000
