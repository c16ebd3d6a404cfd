from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.errors import ConfigError, DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.batches.flat_start import isolated_times, loud_extent
from cnerta.train.data.audio import AudioCache, change_speed, read_audio
from cnerta.train.data.examples import read_examples, read_source
from cnerta.train.data.recordings import find_recordings
from cnerta.train.recipe import Source, load_recipe, recipe_names


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def write_tone(path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate)
    return path


CNERTA = {
    "sentence": "他在北京大学",
    "audio": "BAC009S0002W0122",
    "entity": [[2, 6, "北京大学", "ORG"], [2, 4, "北京", "LOC"]],
    "speaker_info": "F",
}


@pytest.mark.parametrize("folder", ["", "wav/train/S0002"])
def test_cnerta_rows_find_their_recordings_in_both_layouts(tmp_path: Path, folder: str) -> None:
    data = write_rows(tmp_path / "train.json", CNERTA)
    recording = write_tone(tmp_path / "root" / folder / "BAC009S0002W0122.wav")
    (example,) = read_examples(data, audio_root=tmp_path / "root")
    assert example.text == "他在北京大学"
    assert example.spans == (Span(2, 4, "LOC"), Span(2, 6, "ORG"))
    assert example.audio == recording
    (silent,) = read_examples(data)
    assert silent.audio is None


def test_manifest_rows_carry_times_and_readings(tmp_path: Path) -> None:
    write_tone(tmp_path / "clips" / "a.wav")
    row = {
        "audio": "clips/a.wav",
        "text": "北京",
        "entities": [[0, 2, "北京", "LOC"]],
        "characters": [[0, 200], [200, 400]],
        "readings": ["bei3", "jing1"],
        "split": "dev",
    }
    data = write_rows(tmp_path / "manifest.jsonl", row)
    (example,) = read_examples(data)
    assert example.times_ms == ((0.0, 200.0), (200.0, 400.0))
    assert example.readings == ("bei3", "jing1")
    source = Source(format="manifest", path="manifest.jsonl", where={"split": ["train"]})
    with pytest.raises(DataError, match="at least one example"):
        read_source(source, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entity": [[2, 9, "北京大学", "ORG"]]}, "inside 0..6"),
        ({"entity": [[2, 4, "南京", "LOC"]]}, "expected '北京' at 2..4, got '南京'"),
        ({"entity": [[2, 4]]}, "line 1"),
        ({"sentence": ""}, "expected a text"),
        ({"audio": "BAC009S0002W9999"}, "expected a recording"),
    ],
)
def test_rows_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    data = write_rows(tmp_path / "train.json", CNERTA | change)
    write_tone(tmp_path / "root" / "BAC009S0002W0122.wav")
    with pytest.raises(DataError, match=message):
        read_examples(data, audio_root=tmp_path / "root")


def test_broken_json_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"sentence": \n')
    with pytest.raises(DataError, match="line 1: expected a JSON object"):
        read_examples(tmp_path / "broken.json")
    with pytest.raises(DataError, match="not a file"):
        read_examples(tmp_path / "nowhere.json")
    row = {"audio": "a.wav", "text": "北京", "entities": []}
    with pytest.raises(
        DataError, match=r"a recording of each of 1 rows .* got none of 1: a\.wav \(line 1\)"
    ):
        read_examples(write_rows(tmp_path / "m.jsonl", row))


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    write_tone(tmp_path / "x" / "a.wav")
    write_tone(tmp_path / "y" / "a.flac")
    with pytest.raises(DataError, match="expected one recording of a"):
        find_recordings(tmp_path)


def test_training_sees_what_serving_will_see(tmp_path: Path) -> None:
    row = {
        "audio": "a.wav",
        "text": "ＶＩＰ，北京。",
        "entities": [[0, 3, "ＶＩＰ", "ORG"], [3, 4, "，", "PER"], [4, 6, "北京", "LOC"]],
        "characters": [[i, i + 1] for i in range(7)],
        "readings": list("vip,bj."),
    }
    write_tone(tmp_path / "a.wav")
    write_rows(tmp_path / "m.jsonl", row)
    (example,) = read_source(Source(format="manifest", path="m.jsonl"), tmp_path)
    assert example.text == "vip北京"
    assert example.spans == (Span(0, 3, "ORG"), Span(3, 5, "LOC"))
    assert example.times_ms == ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6))
    assert example.readings == ("v", "i", "p", "b", "j")


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (16_000, 1)])
def test_audio_of_any_rate_becomes_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    samples = read_audio(write_tone(tmp_path / "a.wav", 0.5, rate, channels))
    assert samples.shape == (8_000,)
    spectrum = np.abs(np.fft.rfft(samples[1000:7000] * np.hanning(6000)))
    assert np.argmax(spectrum) * 16_000 / 6000 == pytest.approx(440, abs=3)


def test_what_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(DataError, match="expected a recording"):
        read_audio(tmp_path / "a.wav")


def test_speed_changes_duration(tmp_path: Path) -> None:
    samples = read_audio(write_tone(tmp_path / "a.wav", 1.0))
    assert len(change_speed(samples, 1.1)) == pytest.approx(16_000 / 1.1, abs=2)


def test_flat_start_finds_the_loud_part() -> None:
    samples = np.zeros(16_000, np.float32)
    samples[4_000:12_000] = 0.2 * np.sin(np.arange(8_000) / 5)
    assert loud_extent(samples) == (250.0, 750.0)
    times = isolated_times(samples, 2)
    assert times == ((250.0, 440.0), (560.0, 750.0))
    assert isolated_times(samples, 3) is None


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_with_the_package_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.stages
    assert recipe.source


def test_overrides_reach_into_tables_and_lists() -> None:
    recipe = load_recipe(
        "bilstm-m3t",
        ["seed=7", "stages.0.epochs=3", "model.ctc.weight=0.0", "data.train.path=other.json"],
    )
    assert recipe.seed == 7
    assert recipe.stages[0].epochs == 3
    assert recipe.model.ctc.weight == 0.0
    assert recipe.data["train"].path == "other.json"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "unknown field `sed`"),
        ("stages.5.epochs=1", "expected an index below 1"),
        ("stages.0.epochs=many", "Expected `int`"),
        ("seed", "expected key=value"),
        ('stages.0.train=["nothing"]', "expected a source of"),
        ("seed.deeper=1", "expected a table or list"),
    ],
)
def test_impossible_overrides_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("bilstm-m3t", [override])


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(ConfigError, match="bilstm-m3t"):
        load_recipe("no-such-recipe")


def test_a_duration_does_not_depend_on_what_was_decoded(tmp_path: Path) -> None:
    # An odd length at another rate: decoded to 16 kHz it is rounded.
    path = write_tone(tmp_path / "a.wav", 0.12345, rate=44_100)
    cold, warm = AudioCache(), AudioCache()
    samples = warm(path)
    assert cold.seconds(path) == warm.seconds(path)
    assert cold.seconds(path) == pytest.approx(len(samples) / 16_000, abs=1e-3)
    assert cold.seconds(path) != len(samples) / 16_000, "else this test could not fail"
