from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from accelerate import tracking  # noqa: E402
from accelerate.utils import LoggerType  # noqa: E402

from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.train.loop.run_log import check_trackers  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402


class Noting(tracking.GeneralTracker):  # type: ignore[misc]
    """A tracker as users register their own with accelerate."""

    name = "noting"
    requires_logging_directory = False
    noted: list[dict[str, Any]]
    settings: dict[str, Any]
    ended: bool

    def __init__(self, run_name: str, **_: object) -> None:
        super().__init__()
        assert run_name == "cnerta"
        Noting.noted, Noting.settings, Noting.ended = [], {}, False

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        Noting.settings.update(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: object) -> None:
        assert step is None
        Noting.noted.append(values)

    def finish(self) -> None:
        Noting.ended = True


def test_a_tracker_is_told_of_settings_losses_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "noting", Noting)
    data = write_tones(tmp_path)
    recipe = load_recipe(
        str(data / "recipe.toml"), ["stages.0.epochs=1", "stages.1.epochs=1", "seed=3"]
    )
    Trainer(recipe, data, tmp_path / "run", cpu=True, trackers=["noting"]).run()
    assert Noting.settings["seed"] == 3
    assert Noting.settings["stages.1.task"] == "entities"
    names = {name for values in Noting.noted for name in values}
    assert {"acoustic/loss of units", "acoustic/loss of frames", "tag/loss of entities"} <= names
    assert {"acoustic/unit error rate", "tag/tones.speech.nested.f1", "tag/learning rate"} <= names
    steps = [v["tag/step"] for v in Noting.noted if "tag/loss" in v]
    assert steps == [1, 2, 3, 4]
    assert Noting.ended
    assert list((tmp_path / "run" / "tensorboard").iterdir()), "TensorBoard's files are there too"


def test_trackers_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a tracker of aim, .*, got 'wandbb'"):
        check_trackers(["wandbb"])
    available = {str(t) for t in tracking.get_available_trackers()}
    for kind in {str(t) for t in LoggerType} - available - {"all"}:
        with pytest.raises(ConfigError, match=f"expected the package of the tracker '{kind}'"):
            check_trackers([kind])
