from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from cnerta.models.config import AcousticConfig, ModelConfig, TextConfig  # noqa: E402
from cnerta.models.errors import CheckpointError  # noqa: E402
from cnerta.models.networks import checkpoint  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.labels import LabelScheme  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.loop import run_folder  # noqa: E402
from cnerta.train.loop.run_folder import Progress, RunFolder, SavedRun  # noqa: E402

CONFIG = ModelConfig(
    acoustic=AcousticConfig(width=8, heads=2, layers=1, feed_forward=8, conv_channels=2),
    text=TextConfig(embedding=4, hidden=4),
)


def state(number: int) -> tuple[Progress, Checkpoint, dict[str, torch.Tensor]]:
    """A run after so many steps; all three parts tell the number."""
    model = SpeechTagger(CONFIG, Vocabulary.build("ab"), LabelScheme.flat(["LOC"]))
    with torch.no_grad():
        model.emissions.bias.fill_(float(number))
    progress = Progress("digest", steps=number)
    return progress, Checkpoint("m", model, {}, {}), {"p/step": torch.tensor(float(number))}


def number_of(saved: SavedRun | None) -> int:
    assert saved is not None
    numbers = {
        saved.progress.steps,
        int(saved.optimizer["p/step"]),
        int(saved.model.emissions.bias[0]),
    }
    (number,) = numbers
    return number


class KilledError(Exception):
    pass


def die_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Make the so-manieth change on disk the one that does not come about any more."""
    done = 0

    def after(change):  # type: ignore[no-untyped-def]
        def changed(*arguments, **options):  # type: ignore[no-untyped-def]
            nonlocal done
            done += 1
            if done >= moment:
                raise KilledError
            return change(*arguments, **options)

        return changed

    monkeypatch.setattr(Path, "replace", after(Path.replace))
    monkeypatch.setattr(Path, "write_bytes", after(Path.write_bytes))
    monkeypatch.setattr(shutil, "rmtree", after(shutil.rmtree))
    for module in (checkpoint, run_folder):
        monkeypatch.setattr(module, "save_file", after(save_file))


@pytest.mark.parametrize("moment", range(1, 15))
def test_a_run_killed_while_saving_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.save(*state(1))
    killed = False
    with monkeypatch.context() as patch:
        die_at(patch, moment)
        try:
            folder.save(*state(2))
        except KilledError:
            killed = True
    assert killed == (moment <= 12), "each change on disk is a moment of its own"
    found = number_of(RunFolder(tmp_path / "run").load())
    assert found == (1 if moment < 11 else 2)
    folder.save(*state(3))
    assert number_of(folder.load()) == 3
    assert [p.name for p in folder.path.iterdir()] == ["last"]


@pytest.mark.parametrize("moment", range(1, 11))
def test_a_run_killed_while_saving_first_starts_anew_or_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        die_at(patch, moment)
        with pytest.raises(KilledError):
            folder.save(*state(1))
    found = RunFolder(tmp_path / "run").load()
    assert found is None or number_of(found) == 1
    folder.save(*state(2))
    assert number_of(folder.load()) == 2


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load() is None
    folder.save(*state(1))
    (folder.last / "optimizer.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="expected a run to go on with"):
        folder.load()
