"""`make model`: what it would run, in which order, and what it says of data that is not there."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ORIGINALS = (
    "e5small-zh/config.json",
    "text/cnerta_train80.json",
    "text/cnerta_dev20.json",
    "text/aishell_ner_clean.jsonl",
    "words_cmn/18k-abr/hsk/cmn-word.mp3",
    "aishell_sample/manifest.jsonl",
    "aishell_more/manifest.jsonl",
    "magichub/manifest.jsonl",
    "lexicon/THUOCL_diming.txt",
    "lexicon/THUOCL_lishimingren.txt",
    "kokoro/kokoro.onnx",
    "kokoro/voices/zf_voice.bin",
    "fastspeech2/baker_mapper.json",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ORIGINALS:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "data"


def planned(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    venv = data.parent / "venv"
    venv.mkdir(exist_ok=True)
    later = time.time() + 60  # newer than pyproject.toml, so that nothing is installed
    for stamp in (".ready", ".ready-voices"):
        (venv / stamp).touch()
        os.utime(venv / stamp, (later, later))
    runs = data.parent / "runs"
    variables = [f"dev_venv={venv}", f"DATA={data}", f"RUNS={runs}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *options, "model", *variables],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_step_comes_after_what_it_learns_from(data: Path) -> None:
    plan = planned(data, "-n")
    assert plan.returncode == 0, plan.stderr
    steps = [
        "synthesise",
        "cnerta-train teacher",
        "text/pseudo_labelled.jsonl",
        "--text {data}/text/pseudo_labelled_named.jsonl",
        "cnerta-train fast ",
        "cnerta-train accurate",
        "--predictions {data}/text/pseudo_labelled_again.jsonl",
        "cnerta-train fast-again",
        "cnerta-export",
        "cnerta-train calibrate",
    ]
    places = [plan.stdout.index(step.format(data=data)) for step in steps]
    assert places == sorted(places)
    assert plan.stdout.count("cnerta-export") == 2
    accurate = [
        "cnerta-train accurate ",
        "cnerta-train acoustic-whisper",
        "--predictions {data}/aishell_more/pseudo_labelled_again.jsonl",
        "cnerta-train accurate-gated",
        "bundles/accurate ",
    ]
    places = [plan.stdout.index(step.format(data=data)) for step in accurate]
    assert places == sorted(places)
    assert plan.stdout.index("cnerta-train align") < plan.stdout.index(
        "cnerta-train acoustic-whisper"
    )


def test_what_is_done_is_not_done_again(data: Path) -> None:
    done = data.parent / "runs" / "cnerta-teacher" / "best-1-gold" / ".done"
    done.parent.mkdir(parents=True)
    done.touch()
    plan = planned(data, "-n")
    assert "cnerta-train teacher" not in plan.stdout
    assert "--predictions" in plan.stdout


def test_missing_data_is_named(data: Path) -> None:
    (data / "text" / "cnerta_train80.json").unlink()
    outcome = planned(data)
    assert outcome.returncode != 0
    assert f"expected {data}/text/cnerta_train80.json" in outcome.stderr
