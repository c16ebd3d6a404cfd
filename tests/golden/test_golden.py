"""What both bundles answered when it was last meant to change, and must still answer.

``python -m pytest tests/golden --rewrite-golden`` writes the files anew; do that only where another
answer is wanted (new weights, say), and read the difference.

Products of 8-bit weights are computed in two ways (tests/processor.py). So confidences differ by
up to 0.05, and a doubtful entity is there or not. Each kind of processor has its own files.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from cnerta.models.runtime.inference import Model

from .. import processor
from . import sessions

# Processors of one kind still differ in the order in which they add.
SAME_PROCESSOR, OTHER_PROCESSOR = 1e-6, 5e-3


@functools.cache
def loaded(bundle: str) -> Model:
    return sessions.load(bundle)


def kept_file(name: str) -> Path:
    """Where the answers of this kind of processor are kept."""
    kind = "vnni" if processor.adds_exactly() else "plain"
    return sessions.FOLDER / kind / f"{name.replace(' ', '-')}.json"


def same(kept: Any, now: Any, tolerance: float, where: str = "answer") -> None:
    """Numbers with a fraction may differ by so much, everything else must be equal."""
    if isinstance(kept, float) and isinstance(now, int | float):
        assert now == pytest.approx(kept, abs=tolerance), where
    elif isinstance(kept, list) and isinstance(now, list):
        assert len(kept) == len(now), where
        for i, (a, b) in enumerate(zip(kept, now, strict=True)):
            same(a, b, tolerance, f"{where}[{i}]")
    elif isinstance(kept, dict) and isinstance(now, dict):
        assert list(kept) == list(now), where
        for key in kept:
            same(kept[key], now[key], tolerance, f"{where}.{key}")
    else:
        assert kept == now, where


def compare(file: Path, now: Any, *, rewrite: bool) -> None:
    if rewrite:
        kept = {"processor": processor.described(), "answers": now}
        lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in now)
        head = json.dumps({"processor": kept["processor"]})[1:-1]
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'{{{head}, "answers": [\n{lines}\n]}}\n', encoding="utf-8")
    if not file.exists():
        pytest.skip(f"no {file.name} was kept on a processor of the kind {file.parent.name!r}")
    kept = json.loads(file.read_text(encoding="utf-8"))
    is_same = kept["processor"] == processor.described()
    same(kept["answers"], now, SAME_PROCESSOR if is_same else OTHER_PROCESSOR)


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--rewrite-golden"))


@pytest.mark.parametrize("bundle", sessions.BUNDLES)
def test_the_model_answers_as_it_did(bundle: str, *, rewrite: bool) -> None:
    file = kept_file(f"{bundle}-answers")
    compare(file, list(sessions.answers(loaded(bundle))), rewrite=rewrite)


@pytest.mark.parametrize("name", sessions.SESSIONS)
@pytest.mark.parametrize("bundle", sessions.BUNDLES)
def test_a_session_says_what_it_said(bundle: str, name: str, *, rewrite: bool) -> None:
    events = [json.loads(e) for e in sessions.session_events(loaded(bundle), name)]
    finals = [e for e in events if e["type"] == "utterance.final"]
    assert finals, "a session that settles nothing shows nothing"
    assert len({e["utterance"] for e in finals}) == len(finals), "one final each"
    file = kept_file(f"{bundle}-{name}")
    compare(file, events, rewrite=rewrite)
