from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("torch")

from cnerta.models.runtime.bundle import load_bundle
from cnerta.models.runtime.calibration import Calibration, log_odds
from cnerta.models.runtime.inference import Model
from cnerta.train.commands.train import app
from cnerta.train.evaluation.calibration import (
    expected_calibration_error,
    fit_calibration,
    reliability,
)


def test_the_error_is_the_distance_of_confidence_and_accuracy() -> None:
    # Two bins: four at 0.85 of which two are right, one at 0.25 that is wrong.
    confidences, right = [0.85] * 4 + [0.25], [True, True, False, False, False]
    assert expected_calibration_error(confidences, right) == pytest.approx(
        (4 * 0.35 + 1 * 0.25) / 5
    )
    assert [(b.count, b.accuracy) for b in reliability(confidences, right)] == [(1, 0.0), (4, 0.5)]
    assert expected_calibration_error([], []) == 0.0
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0


def test_what_was_bent_is_straightened() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.02, 0.98, 20_000)
    right = (generator.random(20_000) < truth).tolist()
    # A model whose log-odds are one and a half times too large and half a unit too high.
    bent = [1 / (1 + np.exp(-(1.5 * log_odds(p) + 0.5))) for p in truth]
    fitted = fit_calibration(bent, right)
    assert fitted.scale == pytest.approx(1 / 1.5, abs=0.03)
    assert fitted.shift == pytest.approx(-0.5 / 1.5, abs=0.05)
    assert expected_calibration_error(bent, right) > 0.05
    assert expected_calibration_error([fitted(p) for p in bent], right) < 0.02


def test_a_calibration_keeps_the_order_and_the_range() -> None:
    calibration = Calibration(0.6, -0.3)
    values = [calibration(p) for p in (0.0, 1e-9, 0.2, 0.5, 0.9, 1.0)]
    assert values == sorted(values)
    assert all(0.0 < v < 1.0 for v in values)
    assert Calibration()(1.0) == 1.0


def test_few_entities_that_are_all_right_have_a_solution() -> None:
    fitted = fit_calibration([0.6, 0.7], [True, True])
    assert np.isfinite([fitted.scale, fitted.shift]).all()
    assert fitted(0.6) > 0.6


@given(
    st.lists(
        st.tuples(st.floats(0.0, 1.0), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_no_other_calibration_is_likelier(outcomes: list[tuple[float, bool]], times: int) -> None:
    confidences, right = map(list, zip(*(outcomes * times), strict=True))
    fitted = fit_calibration(confidences, right)
    odds = np.array([log_odds(c) for c in confidences])

    def cost(scale: float, shift: float) -> float:
        score = np.where(right, 1, -1) * (scale * odds + shift)
        pull = 5e-4 * ((scale - 1) ** 2 + shift**2)
        return float(np.logaddexp(0, -score).sum() + pull)

    best = cost(fitted.scale, fitted.shift)
    for scale, shift in ((1.0, 0.0), (0.5, 0.0), (1.0, -1.0), (2.0, 1.0)):
        assert best <= cost(scale, shift) + 1e-6
    for step in (-1e-2, 1e-2):
        assert best <= cost(fitted.scale + step, fitted.shift) + 1e-6
        assert best <= cost(fitted.scale, fitted.shift + step) + 1e-6


def test_a_model_that_is_sure_and_often_right_is_not_run_away_from() -> None:
    # Whole Newton steps end at a scale of millions here.
    generator = np.random.default_rng(0)
    sure = (1 - generator.exponential(1e-6, 300)).clip(0, 1).tolist()
    confidences = [*sure, 0.5, 0.4, 0.3]
    fitted = fit_calibration(confidences, [True] * 290 + [False] * 10 + [True, False, True])
    assert 0 < fitted.scale < 2
    assert abs(fitted.shift) < 5


def test_the_command_changes_confidences_and_nothing_else(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    texts = ["南京市长江大桥", "李明说很好", "北京大学的市长", "江大桥上看到了"]
    model = Model.load(tiny_bundle, device="cpu")
    none = np.zeros((0, model.bundle.geometry.width), np.float32)
    before = [model.tag([t], [none])[0].spans for t in texts]
    assert all(before), "the tiny model finds something in each"
    # The first entity of every sentence is right.
    rows = [
        {"text": t, "entities": [[s[0].start, s[0].end, t[s[0].start : s[0].end], s[0].label]]}
        for t, s in zip(texts, before, strict=True)
    ]
    data = tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    plot = tmp_path / "plot.png"
    command = ["calibrate", str(bundle), "--data", str(data), "--plot", str(plot)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "expected calibration error" in result.output
    assert plot.stat().st_size > 1000
    again = Model.load(bundle, device="cpu")
    fitted = load_bundle(bundle).calibration
    assert fitted != Calibration()
    for text, spans in zip(texts, before, strict=True):
        (tagged,) = again.tag([text], [none])
        assert [s.span for s in tagged.spans] == [s.span for s in spans]
        for own, plain in zip(tagged.spans, spans, strict=True):
            assert own.confidence == pytest.approx(fitted(plain.confidence))
    # Calibrating a second time starts from the CRF again.
    assert CliRunner().invoke(app, command[:-2]).exit_code == 0
    assert load_bundle(bundle).calibration == fitted


def test_data_without_annotation_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "dev.jsonl"
    data.write_text('{"text": "南京"}\n{"text": "北京"}\n')
    result = CliRunner().invoke(app, ["calibrate", str(tiny_bundle), "--data", str(data)])
    assert result.exit_code == 1
    assert "expected annotated sentences" in result.output
