from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import CheckpointError, ConfigError, DataError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.train.batches.batch import UNKNOWN_FRAME, BatchBuilder  # noqa: E402
from cnerta.train.batches.encoding import encode_batch  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example, read_examples  # noqa: E402
from cnerta.train.loop.optimisation import NotFiniteError, Optimisation  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Recipe, load_recipe  # noqa: E402

from ...models.networks import acoustic_checkpoint  # noqa: E402
from ..tones import write_tones  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


def recipe(data: Path, *overrides: str) -> Recipe:
    return load_recipe(str(data / "recipe.toml"), overrides)


def test_frame_targets_follow_the_character_times(data: Path) -> None:
    examples = read_examples(data / "tones.jsonl")
    trainer_vocabulary = _vocabulary()
    builder = BatchBuilder(trainer_vocabulary, _scheme(), AudioCache(), None)
    batch = builder.build([(examples[0],)], np.random.default_rng(0))
    columns = batch.units[0].tolist()
    assert [trainer_vocabulary.units[c - 1] for c in columns] == ["nan2", "shi4", "zhang3"]
    targets = batch.frame_units[0].tolist()
    assert UNKNOWN_FRAME not in targets
    changes = [t for i, t in enumerate(targets) if i == 0 or t != targets[i - 1]]
    assert [c for c in changes if c] == columns
    assert examples[0].times_ms is not None
    second_start = examples[0].times_ms[1][0]
    # A frame begins half way between the centres of its window and the one before.
    assert abs(40 * targets.index(columns[1]) - 22.5 - second_start) <= 20


def _vocabulary():  # type: ignore[no-untyped-def]
    from cnerta.models.runtime.vocabulary import Vocabulary

    return Vocabulary.build("南市长", {"南": ["nan2"], "市": ["shi4"], "长": ["chang2", "zhang3"]})


def _scheme():  # type: ignore[no-untyped-def]
    from cnerta.models.runtime.labels import LabelScheme

    return LabelScheme.flat(["LOC"])


def test_the_model_learns_what_only_the_audio_tells(data: Path, tmp_path: Path) -> None:
    # The text is the same every time; a model that did not use audio would score 50.
    best = Trainer(recipe(data), data, tmp_path / "run", cpu=True).run()
    scores = load_checkpoint(best).scores
    assert scores["tones.speech.nested.f1"] == 100.0
    assert scores["tones.text.nested.f1"] < 70.0
    heard = load_checkpoint(tmp_path / "run" / "best-0-acoustic").scores
    assert heard["unit error rate"] < 10.0


class KilledError(Exception):
    pass


@pytest.mark.parametrize("kill_at", [2, 5])
def test_a_killed_run_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    short = recipe(data, "stages.0.epochs=2", "stages.1.epochs=2")
    whole = load_checkpoint(Trainer(short, data, tmp_path / "whole", cpu=True).run())

    trainer = Trainer(short, data, tmp_path / "cut", cpu=True, save_minutes=0)
    save, steps = trainer._save_last, 0

    def kill(optimisation: Optimisation) -> None:
        nonlocal steps
        save(optimisation)
        steps += 1
        if steps == kill_at:
            raise KilledError

    monkeypatch.setattr(trainer, "_save_last", kill)
    with pytest.raises(KilledError):
        trainer.run()
    resumed = Trainer(short, data, tmp_path / "cut", cpu=True)
    assert 0 < resumed.progress.steps < 8
    cut = load_checkpoint(resumed.run())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, cut.model.state_dict()[name]), name


def test_another_recipe_does_not_go_on_here(data: Path, tmp_path: Path) -> None:
    short = ["stages.0.epochs=1", "stages.1.epochs=1"]
    Trainer(recipe(data, *short), data, tmp_path / "run", cpu=True).run()
    other = recipe(data, *short, "stages.1.learning_rate=0.5")
    with pytest.raises(CheckpointError, match="choose another --out"):
        Trainer(other, data, tmp_path / "run", cpu=True)


def test_without_development_data_the_last_epoch_is_kept(data: Path, tmp_path: Path) -> None:
    blind = recipe(data, "stages.0.epochs=1", "stages.1.epochs=3", "stages.1.dev=[]")
    kept = load_checkpoint(Trainer(blind, data, tmp_path / "blind", cpu=True).run())
    assert list(kept.scores) == ["train.loss"], "nothing was measured"
    last = load_checkpoint(tmp_path / "blind" / "last").model.state_dict()
    for name, value in kept.model.state_dict().items():
        assert torch.equal(value, last[name]), name


def test_the_start_counts_as_epoch_0(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tagged = Trainer(recipe(data), data, tmp_path / "a", cpu=True).run()
    start = load_checkpoint(tagged)
    caplog.clear()
    caplog.set_level("INFO")
    # Of one stage, at a rate that only spoils what is there.
    rows = recipe(data, "stages.1.learning_rate=1.0", "stages.1.warmup_steps=0")
    ruin = msgspec.structs.replace(rows, stages=[msgspec.structs.replace(rows.stages[1], epochs=2)])
    best = Trainer(ruin, data, tmp_path / "b", cpu=True, init=tagged).run()
    assert "tag epoch 0: " in caplog.text
    assert "tag epoch 2: " in caplog.text
    assert "no epoch was better than the model that it started from" in caplog.text
    kept = load_checkpoint(best)
    assert kept.scores["score"] == start.scores["score"]
    assert "train.loss" not in kept.scores
    for name, value in start.model.state_dict().items():
        assert torch.equal(value, kept.model.state_dict()[name]), name


def test_every_loss_is_on_the_board(data: Path, tmp_path: Path) -> None:
    short = ["stages.0.epochs=1", "stages.1.epochs=1", "stages.1.acoustic_weight=0.5"]
    Trainer(recipe(data, *short), data, tmp_path / "run", cpu=True).run()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    tags = set(events.Reload().Tags()["scalars"])
    assert {"acoustic/loss of units", "acoustic/loss of frames"} <= tags
    parts = ("entities", "masked ctc", "units", "frames")
    assert {f"tag/loss of {n}" for n in parts} <= tags
    whole, *values = ([e.value for e in events.Scalars(f"tag/{n}")]
                      for n in ("loss", *(f"loss of {n}" for n in parts)))  # fmt: skip
    for total, entities, ctc, units, frames in zip(whole, *values, strict=True):
        assert total == pytest.approx(entities + 0.1 * ctc + 0.5 * (units + frames), rel=1e-4)


def test_training_starts_from_other_checkpoints(data: Path, tmp_path: Path) -> None:
    first = recipe(data, "stages.0.epochs=1", "stages.1.epochs=1")
    tagged = Trainer(first, data, tmp_path / "a", cpu=True).run()
    heard = tmp_path / "a" / "best-0-acoustic"
    trainer = Trainer(
        recipe(data, "seed=5"), data, tmp_path / "b", cpu=True, init=tagged, acoustic_from=heard
    )
    ours = trainer.model.state_dict()
    for name, value in load_checkpoint(tagged).model.state_dict().items():
        if not name.startswith(("acoustic.", "ctc.")):
            assert torch.equal(ours[name], value), name
    for name, value in load_checkpoint(heard).model.state_dict().items():
        if name.startswith(("acoustic.", "ctc.")):
            assert torch.equal(ours[name], value), name
    without_ctc = recipe(data, "model.ctc.weight=0.0")
    Trainer(without_ctc, data, tmp_path / "d", cpu=True, acoustic_from=heard)
    # The weights of a streaming encoder are those of one with full context too.
    whole = recipe(data, "model.acoustic.streaming=false")
    trainer = Trainer(whole, data, tmp_path / "e", cpu=True, acoustic_from=heard)
    assert trainer.model.acoustic.config.usual_chunk is None
    other = recipe(data, "model.text.hidden=8")
    with pytest.raises(CheckpointError, match="as the recipe describes it"):
        Trainer(other, data, tmp_path / "c", cpu=True, init=tagged)


def test_an_acoustic_encoder_from_a_checkpoint_needs_no_pretrained_one(
    data: Path, tmp_path: Path
) -> None:
    folder = data / "whisper-small"
    acoustic_checkpoint.write(folder, "whisper")
    ears = [
        "stages.0.epochs=1", "stages.1.epochs=1", "model.acoustic.encoder=pretrained",
        "model.acoustic.checkpoint=whisper-small", "model.acoustic.layers=2",
        "model.acoustic.heads=2",
    ]  # fmt: skip
    Trainer(recipe(data, *ears), data, tmp_path / "a", cpu=True).run()
    heard = tmp_path / "a" / "best-0-acoustic"
    shutil.rmtree(folder)
    ours = Trainer(
        recipe(data, *ears), data, tmp_path / "b", cpu=True, acoustic_from=heard
    ).model.state_dict()
    for name, value in load_checkpoint(heard).model.state_dict().items():
        if name.startswith(("acoustic.", "ctc.")):
            assert torch.equal(ours[name], value), name


def test_what_text_taught_is_kept_with_another_acoustic_encoder(data: Path, tmp_path: Path) -> None:
    tagged = Trainer(
        recipe(data, "stages.0.epochs=1", "stages.1.epochs=1"), data, tmp_path / "a", cpu=True
    ).run()
    wider = ["model.acoustic.width=16", "stages.0.epochs=1", "stages.1.epochs=1"]
    Trainer(recipe(data, *wider), data, tmp_path / "b", cpu=True).run()
    heard = tmp_path / "b" / "best-0-acoustic"
    with pytest.raises(CheckpointError, match="as the recipe describes it"):
        Trainer(recipe(data, *wider), data, tmp_path / "c", cpu=True, init=tagged)
    model = Trainer(
        recipe(data, *wider), data, tmp_path / "d", cpu=True, init=tagged, acoustic_from=heard
    ).model
    expected = load_checkpoint(heard).model.acoustic.state_dict()
    for name, value in model.acoustic.state_dict().items():
        assert torch.equal(expected[name], value), name
    # Without audio it answers as the model whose text encoder it has.
    examples = read_examples(data / "tones.jsonl")[:2]
    one, two = (
        score_batch(m, BatchBuilder(m.vocabulary, m.scheme, AudioCache(), None), examples)
        for m in (load_checkpoint(tagged).model, model.eval())
    )
    assert torch.allclose(one, two, atol=1e-6)


def score_batch(
    model: SpeechTagger, builder: BatchBuilder, examples: list[Example]
) -> torch.Tensor:
    """Emissions from text alone."""
    clips = [(replace(e, audio=None),) for e in examples]
    batch = builder.build(clips, np.random.default_rng(0))
    frames, counts = encode_batch(model, batch, None)
    with torch.no_grad():
        output = model(batch.characters, batch.counts, frames, counts, batch.matches)
    return output.emissions


def test_types_that_the_model_does_not_have_are_refused(data: Path, tmp_path: Path) -> None:
    first = recipe(data, "stages.0.epochs=1", "stages.1.epochs=1")
    tagged = Trainer(first, data, tmp_path / "a", cpu=True).run()
    types = ", ".join(load_checkpoint(tagged).model.scheme.types)
    rows = [json.loads(line) for line in (data / "tones.jsonl").read_text().splitlines()]
    for row in rows:
        row["entities"] = [[*entity[:3], "DISH"] for entity in row["entities"]]
    foreign = data / "dishes.jsonl"
    foreign.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = recipe(data, "stages.0.epochs=1", "data.tones.path=dishes.jsonl")
    trainer = Trainer(other, data, tmp_path / "b", cpu=True, init=tagged)
    with pytest.raises(DataError, match=rf"the model's types {types}, got DISH \([0-9]+\)"):
        trainer.run()


def test_more_workers_build_the_same_batches(data: Path, tmp_path: Path) -> None:
    short = recipe(data, "stages.0.epochs=1", "stages.1.epochs=2")
    one = Trainer(short, data, tmp_path / "one", cpu=True).run()
    many = Trainer(short, data, tmp_path / "many", cpu=True, workers=3).run()
    ours = load_checkpoint(many).model.state_dict()
    for name, value in load_checkpoint(one).model.state_dict().items():
        assert torch.equal(ours[name], value), name


def test_a_pretrained_text_encoder_learns_at_its_own_rate(data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = data / "bert"
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "南", "市", "长", "京"]
    (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=16,
        )
    ).save_pretrained(folder)  # fmt: skip
    chosen = (
        "model.text.encoder=pretrained", "model.text.checkpoint=bert",
        "stages.0.epochs=1", "stages.1.epochs=1", "stages.1.text_learning_rate=1e-9",
    )  # fmt: skip
    trainer = Trainer(recipe(data, *chosen), data, tmp_path / "run", cpu=True)
    assert "京" in trainer.model.vocabulary.characters, "the checkpoint knows it"
    before = {n: v.clone() for n, v in trainer.model.state_dict().items()}
    after = load_checkpoint(trainer.run()).model.state_dict()
    moved = {
        n: (after[n] - v).abs().max().item() for n, v in before.items() if v.is_floating_point()
    }
    assert all(m < 1e-6 for n, m in moved.items() if n.startswith("text."))
    assert moved["emissions.weight"] > 1e-3
    (data / "long.jsonl").write_text(json.dumps({"text": "南" * 15, "entities": []}))
    long = ("data.tones.path=long.jsonl", "model.ctc.units=characters", "stages.0.task=entities")
    with pytest.raises(DataError, match="at most 14 characters"):
        Trainer(recipe(data, *chosen, *long), data, tmp_path / "long", cpu=True).run()
    with pytest.raises(ConfigError, match=r"expected model\.text\.checkpoint"):
        Trainer(recipe(data, chosen[0]), data, tmp_path / "none", cpu=True)


def test_a_loss_that_is_not_finite_is_said(data: Path, tmp_path: Path) -> None:
    broken = recipe(data, "stages.0.learning_rate=1e30", "stages.0.warmup_steps=0")
    with pytest.raises(NotFiniteError, match="expected a finite loss"):
        Trainer(broken, data, tmp_path / "run", cpu=True).run()


def test_an_acoustic_stage_needs_recordings(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected recordings"):
        Trainer(recipe(data, "data.tones.speech=false"), data, tmp_path / "run", cpu=True).run()


@pytest.mark.parametrize(
    "settings",
    [
        ("model.acoustic.encoder=pretrained", "model.acoustic.streaming=false"),
        ("model.acoustic.checkpoint=somewhere",),
    ],
)
def test_a_pretrained_acoustic_encoder_and_its_checkpoint_go_together(
    settings: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"expected model\.acoustic\.checkpoint to be"):
        Trainer(recipe(data, *settings), data, tmp_path, cpu=True)
