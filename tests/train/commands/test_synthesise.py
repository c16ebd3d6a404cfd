from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cnerta.train.commands import synthesise as synthesise_cli

from ..synthesis.sine_voice import SineVoice, rows


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(synthesise_cli, "_builder", lambda *_, **_options: SineVoice)
    app = typer.Typer()
    app.command()(synthesise_cli.synthesise)
    return app


def test_command_resumes(tmp_path: Path, command: typer.Typer) -> None:
    arguments = ["--homographs", "3", "--split", "dev", "--out", str(tmp_path)]
    first = CliRunner().invoke(command, [*arguments, "--limit", "4"])
    assert first.exit_code == 0, first.output
    assert len(rows(tmp_path)) == 4
    second = CliRunner().invoke(command, arguments)
    assert second.exit_code == 0, second.output
    assert "2 recordings" in second.output
    assert "4 were there already" in " ".join(second.output.split())
    assert [r["reading"] for r in rows(tmp_path)] == [0, 1] * 3
    assert {r["split"] for r in rows(tmp_path)} == {"dev"}


def test_command_reads_marked_lines_with_one_speaker(tmp_path: Path, command: typer.Typer) -> None:
    marked = tmp_path / "marked.txt"
    marked.write_text("bridge\t南京市|180长江(chang2 jiang1) 大桥\n")
    out = tmp_path / "out"
    arguments = ["--marked", str(marked), "--speaker", "high", "--speed", "0.9", "0.9"]
    done = CliRunner().invoke(command, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    (row,) = rows(out)
    assert (row["audio"], row["voice"], row["speed"]) == ("bridge.flac", "high", 0.9)
    assert row["characters"][3][0] - row["characters"][2][1] == pytest.approx(180, abs=1)


def test_command_errors_are_sentences(tmp_path: Path, command: typer.Typer) -> None:
    nothing = CliRunner().invoke(command, ["--out", str(tmp_path)])
    assert nothing.exit_code == 1
    assert "expected something to read" in nothing.output
    missing = CliRunner().invoke(command, ["--out", str(tmp_path), "--text", "/no/such/file"])
    assert missing.exit_code == 1
    assert "cannot read sentences" in missing.output
    assert "Traceback" not in missing.output


def test_command_needs_the_model_for_kokoro(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(synthesise_cli.synthesise)
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--homographs", "1"])
    assert done.exit_code == 1
    assert "--model and --voices-dir" in done.output
