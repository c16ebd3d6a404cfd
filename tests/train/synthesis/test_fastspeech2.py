"""The FastSpeech 2 voice, with stand-ins for its models: as many frames a symbol as asked for."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest
import typer
from typer.testing import CliRunner

from cnerta.train.commands import synthesise as synthesise_cli
from cnerta.train.synthesis.fastspeech2 import FastSpeech2Voice
from cnerta.train.synthesis.voices import ProsodicWord, Script, Syllable, VoiceError, loudness

SYMBOLS = ["sil", "#0", "#1", "#3", "eos", "n", "j", "sh", "zh", "an2", "ing1", "iii4", "ang3"]
PINYIN = {"nan": ["n", "an"], "jing": ["j", "ing"], "shi": ["sh", "iii"], "zhang": ["zh", "ang"]}
LEVELS = ["0" if symbol in ("sil", "#3", "eos") else "0.5" for symbol in SYMBOLS]
FRAMES = 8  # of 12.5 ms: 100 ms a symbol
SHARE = 0.85  # of a mark's time belongs to the syllable before

# Loud but for silence and breaks. The shapes of the inputs are the converter's: all 1.
MODEL = f"""
<ir_version: 9, opset_import: ["" : 18]>
model (int32[1, 1] input_ids, int32[1] speaker_ids, float[1] speed_ratios, float[1] f0_ratios,
       float[1] energy_ratios)
    => (float[1, 1, 80] before, float[1, 1, 80] after, int32[1, 1] durations)
<float[{len(SYMBOLS)}] table = {{{", ".join(LEVELS)}}}>
{{
    usual = Constant <value_floats = [{FRAMES}.0]> ()
    scaled = Mul (usual, speed_ratios)
    rounded = Round (scaled)
    frames = Cast <to = 7> (rounded)
    each = Cast <to = 6> (rounded)
    shape = Shape (input_ids)
    durations = Expand (each, shape)
    levels = Gather (table, input_ids)
    last = Constant <value_ints = [-1]> ()
    column = Unsqueeze (levels, last)
    grid_shape = Concat <axis = 0> (shape, frames)
    grid = Expand (column, grid_shape)
    flat_shape = Constant <value_ints = [1, -1, 1]> ()
    flat = Reshape (grid, flat_shape)
    bands = Constant <value_ints = [1, 1, 80]> ()
    before = Expand (flat, bands)
    after = Identity (before)
}}
"""
VOCODER = """
<ir_version: 9, opset_import: ["" : 18]>
vocoder (float[1, 1, 80] mels) => (float[1, 1, 1] audio)
{
    last = Constant <value_ints = [2]> ()
    level = ReduceMean (mels, last)
    hop = Constant <value_ints = [1, 1, 300]> ()
    samples = Expand (level, hop)
    flat = Constant <value_ints = [1, -1, 1]> ()
    audio = Reshape (samples, flat)
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("voice")
    onnx.save(onnx.parser.parse_model(MODEL), path / "fastspeech2_quan.onnx")
    onnx.save(onnx.parser.parse_model(VOCODER), path / "mb_melgan.onnx")
    symbols = {"symbol_to_id": {s: i for i, s in enumerate(SYMBOLS)}, "pinyin_dict": PINYIN}
    (path / "baker_mapper.json").write_text(json.dumps(symbols | {"processor_name": "Baker"}))
    return path


def mayor(voice: str = "plain", speed: float = 1.0, pause_ms: float = 0.0) -> Script:
    words = (
        ProsodicWord((Syllable("南", "nan2"), Syllable("京", "jing1")), pause_ms),
        ProsodicWord((Syllable("市", "shi4"), Syllable("长", "zhang3"))),
    )
    return Script(words, voice, speed, lead_ms=0.0, tail_ms=0.0)


def test_characters_are_where_the_durations_say(folder: Path) -> None:
    speech = FastSpeech2Voice(folder).speak(mayor())
    assert speech.spoken == ("nan2", "jing1", "shi4", "zhang3")
    assert speech.times is not None
    # Two sounds a syllable, a mark between two: three symbols of 100 ms, two after the last mark.
    boundaries = [200 + 100 * SHARE + 300 * i for i in range(3)]
    assert [end for _, end in speech.times[:3]] == pytest.approx(boundaries, abs=10)
    assert [start for start, _ in speech.times[1:]] == pytest.approx(boundaries, abs=10)
    assert speech.seconds == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize("pause_ms", [40.0, 250.0])
def test_breaks_become_pauses_of_the_length_asked_for(folder: Path, pause_ms: float) -> None:
    speech = FastSpeech2Voice(folder).speak(mayor(pause_ms=pause_ms))
    assert speech.times is not None
    end, start = speech.times[1][1], speech.times[2][0]
    assert start - end == pytest.approx(pause_ms, abs=1)
    levels = loudness(speech.samples)
    assert levels[int((end + 10) / 5) : int((start - 10) / 5)].max() < -35
    assert levels[int((end - 30) / 5)] > -10
    assert levels[int((start + 30) / 5)] > -10


@pytest.mark.parametrize(("voice", "speed"), [("plain", 2.0), ("flat-deep", 1.0), ("lively", 0.5)])
def test_speed_is_the_script_s_whatever_the_speaker(folder: Path, voice: str, speed: float) -> None:
    reader = FastSpeech2Voice(folder)
    usual, other = (reader.speak(s).seconds for s in (mayor(), mayor(voice, speed)))
    # Whole frames: of 8 x 0.8 the model makes 6.
    assert other == pytest.approx(usual / speed, rel=0.07)
    assert voice in reader.speakers


def test_what_it_cannot_say_is_named(folder: Path) -> None:
    reader = FastSpeech2Voice(folder)
    with pytest.raises(VoiceError, match=r"expected one of flat, plain, .*got 'nobody'"):
        reader.speak(mayor("nobody"))
    script = Script((ProsodicWord((Syllable("好", "hao3"),)),), "plain")
    with pytest.raises(VoiceError, match=r"expected pinyin .*got 'hao3'"):
        reader.speak(script)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("baker_mapper.json", None, "expected baker_mapper.json in"),
        ("baker_mapper.json", b"{}", "expected the symbols in baker_mapper.json"),
        ("mb_melgan.onnx", None, "expected mb_melgan.onnx in"),
        ("mb_melgan.onnx", b"not a model", "is not an ONNX model"),
        ("fastspeech2_quan.onnx", VOCODER, r"expected inputs \['input_ids', 'speed_ratios'\]"),
    ],
)
def test_missing_and_foreign_files_are_named(
    folder: Path, tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        onnx.save(onnx.parser.parse_model(content), tmp_path / name)
    with pytest.raises(VoiceError, match=message):
        FastSpeech2Voice(tmp_path)


def test_the_command_reads_with_it(folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(synthesise_cli.synthesise)
    marked = tmp_path / "marked.txt"
    marked.write_text("mayor\t南京|150市长(shi4 zhang3)\n")
    arguments = ["--voice", "fastspeech2", "--out", str(tmp_path), "--marked", str(marked)]
    done = CliRunner().invoke(app, [*arguments, "--model", str(folder)])
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert row["characters"][2][0] - row["characters"][1][1] == pytest.approx(150, abs=1)
    without = CliRunner().invoke(app, arguments)
    assert without.exit_code == 1
    assert "needs --model" in without.output
    lent = CliRunner().invoke(app, [*arguments, "--model", str(folder), "--lend-timbre"])
    assert lent.exit_code == 1
    assert "got fastspeech2" in lent.output
