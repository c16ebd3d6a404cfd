"""A model repository from a bundle, as a person asks for it.

What Triton makes of it is tested in tests/streamer/serving/triton, where its schema can be had.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import typer
from typer.testing import CliRunner

from cnerta.export.cli import export
from cnerta.export.triton_repository import write_model_repository
from cnerta.models.errors import BundleError, ConfigError
from cnerta.models.runtime.bundle import TAGGER_FILE, find_bundle

BUNDLE = find_bundle(None)


def run(*arguments: str | Path) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.output


def test_a_bundle_becomes_a_repository(tmp_path: Path) -> None:
    out = tmp_path / "new" / "repository"
    status, said = run("fast", "--triton", out, "--triton-streams", "77")
    assert status == 0
    assert "model cnerta-fast-acoustic in" in said
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    names = ("cnerta-fast-acoustic", "cnerta-fast-tagger")
    assert files == {f"{n}/{f}" for n in names for f in ("config.pbtxt", "1/model.onnx")}
    config = (out / names[0] / "config.pbtxt").read_text()
    assert "max_candidate_sequences: 77" in config
    graph = onnx.load(out / names[0] / "1" / "model.onnx").graph
    assert [i.name for i in graph.input] == ["first_frame", "cache", "samples", "carry"]
    tagger = (out / names[1] / "1" / "model.onnx").read_bytes()
    assert tagger == (BUNDLE / TAGGER_FILE).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fast"], "expected a checkpoint, or --triton"),
        (["fast", "out", "--triton", "repository"], "expected a checkpoint, or --triton"),
        (["none"], "expected the folder of the bundle as a second argument"),
        (["fast", "--push", "hf:a/b"], "expected --hub DIR with --push"),
        (["fast", "--hub", "folder", "--private"], "expected --push hf:OWNER/NAME with --private"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], said: str) -> None:
    status, output = run(*arguments)
    assert status == 2
    assert said in " ".join(output.replace("│", " ").split())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a folder to write in"):
        write_model_repository(BUNDLE, tmp_path / "file")


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(BUNDLE, tmp_path / "copy")
    with (copy / TAGGER_FILE).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"expected tagger\.onnx with sha256"):
        write_model_repository(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
