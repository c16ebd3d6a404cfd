from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.corpus import MANIFEST, synthesise
from cnerta.train.synthesis.homographs import homograph_pairs
from cnerta.train.synthesis.tasks import Task, homograph_tasks

from .sine_voice import CAST, RATE, SineVoice, rows

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tasks() -> list[Task]:
    return list(homograph_tasks(homograph_pairs(6, split="dev"), CAST))


def test_manifest_says_what_the_recordings_hold(tmp_path: Path, tasks: list[Task]) -> None:
    written = list(synthesise(tasks, tmp_path, SineVoice))
    assert [w.key for w in written] == [t.key for t in tasks]
    for row, task, outcome in zip(rows(tmp_path), tasks, written, strict=True):
        samples, rate = soundfile.read(tmp_path / row["audio"], dtype="float32")
        assert rate == RATE
        assert row["seconds"] == pytest.approx(len(samples) / RATE, abs=1e-3)
        assert outcome.seconds == pytest.approx(row["seconds"], abs=1e-3)
        assert row["text"] == task.script.text
        assert row["readings"] == [s.reading for s in task.script.syllables]
        assert (row["voice"], row["speed"]) == (task.script.voice, task.script.speed)
        assert task.pair is not None
        assert (row["pair"], row["family"]) == (task.pair.identifier, task.pair.family)
        assert (row["reading"], row["split"]) == (task.reading, "dev")
        for start, end, surface, label in row["entities"]:
            assert row["text"][start:end] == surface
            assert Span(start, end, label) in task.entities
        flat = [time for times in row["characters"] for time in times]
        assert len(row["characters"]) == len(row["text"])
        assert flat == sorted(flat)
        assert flat[0] >= 0
        assert flat[-1] <= len(samples) / 16 + 1
        # Sound where characters are said, silence in the gaps between them.
        for index, (start, end) in enumerate(row["characters"]):
            assert np.abs(samples[start * 16 + 32 : end * 16 - 32]).max() > 0.4
            if index + 1 < len(row["characters"]):
                gap = samples[end * 16 + 32 : row["characters"][index + 1][0] * 16 - 32]
                assert not np.abs(gap).any()


def test_an_interrupted_run_goes_on(tmp_path: Path, tasks: list[Task]) -> None:
    said = tmp_path / "said.txt"
    build = functools.partial(SineVoice, said)
    folder = tmp_path / "out"
    stopped = synthesise(tasks, folder, build)
    for _ in range(4):
        next(stopped)
    stopped.close()
    before = {path.name: path.read_bytes() for path in folder.glob("*.flac")}
    rest = list(synthesise(tasks, folder, build))
    assert [w.key for w in rest] == [t.key for t in tasks[4:]]
    assert len(said.read_text().splitlines()) == len(tasks), "nothing was said twice"
    assert len(rows(folder)) == len(tasks)
    assert all((folder / name).read_bytes() == content for name, content in before.items())

    straight = tmp_path / "straight"
    list(synthesise(tasks, straight, SineVoice))
    assert rows(straight) == rows(folder)
    assert not list(synthesise(tasks, folder, build))


@pytest.mark.parametrize("cut", [1, 30])
def test_a_manifest_cut_short_is_repaired(tmp_path: Path, tasks: list[Task], cut: int) -> None:
    list(synthesise(tasks[:3], tmp_path, SineVoice))
    path = tmp_path / MANIFEST
    whole = path.read_text()
    path.write_text(whole[:-cut])
    again = list(synthesise(tasks[:3], tmp_path, SineVoice))
    assert len(again) == (1 if cut > 1 else 0)
    assert path.read_text() == whole


def test_processes_make_the_same(
    tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # workers import this module for its voice
    list(synthesise(tasks, tmp_path / "one", SineVoice))
    list(synthesise(tasks, tmp_path / "two", SineVoice, jobs=2))
    by_audio = functools.partial(sorted, key=lambda row: row["audio"])
    assert by_audio(rows(tmp_path / "two")) == by_audio(rows(tmp_path / "one"))


def test_what_the_voice_refuses_is_left_out_and_said(
    tmp_path: Path, tasks: list[Task], caplog: pytest.LogCaptureFixture
) -> None:
    refused = tasks[2].script.text
    build = functools.partial(SineVoice, None, refused)
    outcomes = list(synthesise(tasks, tmp_path, build))
    left = [w for w in outcomes if w.problem]
    assert [w.key for w in left] == [t.key for t in tasks if t.script.text == refused]
    assert f"left out {tasks[2].key}: cannot say" in caplog.text
    assert len(rows(tmp_path)) == len(tasks) - len(left)
    assert len(list(tmp_path.glob("*.flac"))) == len(tasks) - len(left)
