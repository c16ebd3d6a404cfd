from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import accelerate
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.train.batches.batch import BatchBuilder, Clip, plan_epoch  # noqa: E402
from cnerta.train.batches.encoding import encode_batch  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example, read_source  # noqa: E402
from cnerta.train.loop import development  # noqa: E402
from cnerta.train.loop import trainer as loop  # noqa: E402
from cnerta.train.loop.objective import LOSSES, Objective  # noqa: E402
from cnerta.train.loop.optimisation import (  # noqa: E402
    NotFiniteError,
    Optimisation,
    OutOfMemoryError,
    learning_rate,
)
from cnerta.train.loop.schedule import Part  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Recipe, Source, Stage, load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


def recipe(data: Path, *overrides: str) -> Recipe:
    short = ("stages.0.epochs=1", "stages.1.epochs=1")
    return load_recipe(str(data / "recipe.toml"), [*short, *overrides])


class OneStep:
    """A fresh model and an optimiser for one of its stages."""

    def __init__(self, data: Path, out: Path, stage: int, *overrides: str) -> None:
        still = ("model.text.dropout=0.0", "augmentation.time_masks=0", "model.fusion.dropout=0.0")
        chosen = recipe(data, *still, "augmentation.frequency_masks=0", *overrides)
        trainer = Trainer(chosen, data, out, cpu=True)
        self.model = trainer.model
        self.optimisation = Optimisation(
            trainer.accelerator, self.model, chosen.stages[stage], chosen.augmentation
        )
        self.builder = BatchBuilder(self.model.vocabulary, self.model.scheme, AudioCache(), None)

    def part(self, clips: Sequence[Clip]) -> Part:
        return Part(tuple(clips), self.builder.build(clips, np.random.default_rng(0)), 8, 0)

    def gradients(
        self, monkeypatch: pytest.MonkeyPatch, *batches: Sequence[Clip]
    ) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss of a step with these batches, and what the optimiser gets to see."""
        found: dict[str, torch.Tensor] = {}

        def look(*_: object, **__: object) -> None:
            trained = self.optimisation.trained.items()
            found.update({n: p.grad.clone() for n, p in trained if p.grad is not None})

        with monkeypatch.context() as patch:
            patch.setattr(self.optimisation._optimizer, "step", look)
            self.optimisation.train()
            loss = self.optimisation.step([self.part(b) for b in batches], 0.1)
        return loss, found


@pytest.mark.parametrize("stage", [0, 1])
def test_the_gradient_of_several_batches_is_that_of_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    # Of different size, one without audio, one without times: each loss has its own denominator.
    clips: list[Clip] = [(e,) for e in examples[:6]]
    clips[4] = (Example("南市", (Span(0, 1, "LOC"),), examples[4].audio),)
    if stage == 1:
        clips += [(Example("南长市南", (Span(1, 2, "LOC"),)),), (Example("长", ()),)]
    one = OneStep(data, tmp_path / "run", stage, "stages.1.acoustic_weight=0.5")
    loss, whole = one.gradients(monkeypatch, clips)
    for divided in ([clips[:1], clips[1:5], clips[5:]], [clips[::2], clips[1::2]]):
        other_loss, summed = one.gradients(monkeypatch, *divided)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert summed.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=1e-5)
    assert max(float(g.abs().max()) for g in whole.values()) > 0.01


def always(value: float) -> Callable[..., torch.Tensor]:
    def forward(self: Objective, *_: object) -> torch.Tensor:
        return value * next(p for p in self.model.parameters() if p.requires_grad).sum()

    return forward


def test_a_loss_that_is_not_finite_names_the_examples(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "forward", always(math.nan))
    with pytest.raises(NotFiniteError) as caught:
        Trainer(recipe(data), data, tmp_path / "run", cpu=True).run()
    message = str(caught.value)
    assert "step 0 of epoch 0 of stage 'acoustic': expected a finite loss, got nan" in message
    assert message.count("'南市长' (") == 4
    assert ".wav" in message


def test_a_gradient_that_is_not_finite_does_not_reach_the_model(data: Path, tmp_path: Path) -> None:
    one = OneStep(data, tmp_path / "run", 1)
    before = {n: v.clone() for n, v in one.model.state_dict().items()}
    one.model.emissions.weight.register_hook(lambda g: g * math.inf)
    part = one.part(
        [(e,) for e in read_source(Source(format="manifest", path="tones.jsonl"), data)]
    )
    with pytest.raises(
        NotFiniteError, match=r"expected a finite gradient, got a norm of (nan|inf)"
    ):
        one.optimisation.step([part], 0.1)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("allowed", "bad", "ends"), [(2, 2, True), (2, 3, False)])
def test_steps_are_left_out_as_often_as_allowed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int, bad: int, ends: bool
) -> None:
    forward, calls = Objective.forward, 0

    def now_and_then(self: Objective, *arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = forward(self, *arguments)  # type: ignore[arg-type]
        return loss * math.inf if calls <= bad else loss

    monkeypatch.setattr(Objective, "forward", now_and_then)
    trainer = Trainer(
        recipe(data, f"stages.0.skip_nonfinite={allowed}"), data, tmp_path / "run", cpu=True
    )
    if not ends:
        with pytest.raises(NotFiniteError, match=r"leave out more than 2 such steps"):
            trainer.run()
        return
    weights = load_checkpoint(trainer.run()).model.state_dict()
    assert all(bool(v.isfinite().all()) for v in weights.values())
    assert math.isfinite(load_checkpoint(tmp_path / "run" / "best-0-acoustic").scores["train.loss"])


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_batch_too_large_for_memory_says_what_to_lower(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def forward(*_: object) -> torch.Tensor:
        if kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.empty(1 << 60)  # the allocator's own error

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(OutOfMemoryError) as caught:
        Trainer(recipe(data), data, tmp_path / "run", cpu=True).run()
    message = str(caught.value)
    assert "4 utterances of up to 0." in message
    assert "stage 'acoustic' lower batch_seconds (now 120) or batch_size (now 4)" in message


def test_other_errors_of_torch_are_not_taken_for_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "forward", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        Trainer(recipe(data), data, tmp_path / "run", cpu=True).run()


def test_half_precision_on_a_cpu_says_what_works(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a GPU for --precision fp16.*bf16"):
        Trainer(recipe(data), data, tmp_path / "run", cpu=True, mixed_precision="fp16")


class HalfPrecision(accelerate.Accelerator):
    """What accelerate sets up for fp16, on a CPU, where torch can do it but accelerate will not."""

    def __init__(self, **_: object) -> None:
        super().__init__(cpu=True)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=4)

    def autocast(self) -> torch.autocast:  # type: ignore[override]
        return torch.autocast("cpu", torch.float16)


def test_half_precision_scales_gradients_and_goes_on_with_the_scale(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.accelerate, "Accelerator", HalfPrecision)
    settings = ["stages.0.epochs=2", "stages.1.epochs=2", "model.fusion.guided=false"]
    trainer = Trainer(recipe(data, *settings), data, tmp_path / "run", cpu=True)
    before = trainer.model.emissions.weight.clone()
    with torch.backends.mkldnn.flags(enabled=False):  # has no LSTM in half precision
        weights = load_checkpoint(trainer.run()).model.state_dict()
    assert all(bool(v.isfinite().all()) for v in weights.values())
    assert not torch.equal(weights["emissions.weight"], before)
    scaler = trainer.accelerator.scaler
    assert scaler.get_scale() < 2.0**24, "a scale as high as that overflows"
    state = json.loads((tmp_path / "run" / "last" / "state.json").read_bytes())
    assert state["scaler"]["scale"] == scaler.get_scale()
    again = Trainer(recipe(data, *settings), data, tmp_path / "run", cpu=True)
    again.run()
    assert again.accelerator.scaler.get_scale() == scaler.get_scale()


def test_the_best_model_is_chosen_by_the_figure_that_is_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = tmp_path / "nested.jsonl"
    entities = [[0, 3, "南市长", "ORG"], [0, 1, "南", "LOC"]]
    nested.write_text(json.dumps({"text": "南市长", "entities": entities}) + "\n")
    monkeypatch.setattr(development, "torch_predictions", lambda *_, **__: [[Span(0, 3, "ORG")]])
    scores = {}
    for select_on, labels in [
        ("nested", "flat"), ("flat", "nested"), ("auto", "flat"), ("auto", "nested"),
    ]:  # fmt: skip
        chosen = recipe(
            data, f'data.tones.path="{nested}"', "stages.0.task=entities", "seed=1",
            f"select_on={select_on}", f"model.labels={labels}", 'model.ctc.units="characters"',
        )  # fmt: skip
        out = tmp_path / f"{select_on}-{labels}"
        best = Trainer(chosen, data, out, cpu=True).run()
        scores[select_on, labels] = load_checkpoint(best).scores["score"]
    assert scores["flat", "nested"] == scores["auto", "flat"] == 100.0
    assert scores["nested", "flat"] == scores["auto", "nested"] == pytest.approx(200 / 3)


def test_the_learning_rate_warms_up_and_decays() -> None:
    stage = Stage(
        name="s", task="entities", train=[], dev=[], epochs=1, learning_rate=1.0, warmup_steps=4,
        decay=0.1, warmup_share=0.3,
    )  # fmt: skip
    rates = [learning_rate(stage, s, 14) for s in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(1 - 0.9 / 2)
    assert rates[13] == pytest.approx(0.1 + 0.09)
    assert rates[14:] == [0.1] * 6, "more steps than were counted on"
    short = [learning_rate(stage, s, 10) for s in range(4)]
    assert short == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0]), "no more than a share of them"
    by_epoch = msgspec.structs.replace(stage, schedule="epochs", epoch_decay=0.01, warmup_steps=0)
    rates = [
        learning_rate(by_epoch, s, 14, epoch) for s, epoch in ((0, 0), (6, 0), (7, 1), (13, 2))
    ]
    assert rates == pytest.approx([1.0, 1.0, 0.99, 0.99**2])


def test_adamw_has_the_groups_of_the_release(data: Path, tmp_path: Path) -> None:
    one = OneStep(
        data, tmp_path / "run", 1, "stages.1.optimizer=adamw", "stages.1.weight_decay=0.5",
        "stages.1.learning_rate=0.001", "stages.1.crf_learning_rate=0.1",
    )  # fmt: skip
    optimizer = one.optimisation._optimizer.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    names = {p: n for n, p in one.model.named_parameters()}
    decays = {names[p]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays.keys() == one.optimisation.trained.keys()
    assert {n for n, decay in decays.items() if not decay} == {
        n for n, p in one.model.named_parameters() if p.dim() == 1
    }
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    before = {n: p.detach().clone() for n, p in one.model.named_parameters()}
    one.optimisation.step([one.part([(e,) for e in examples[:6]])], 0.001)
    after = {n: p.detach() for n, p in one.model.named_parameters()}
    moved = {n: float((p - before[n]).abs().max()) for n, p in after.items()}
    assert moved["crf.start_transitions"] == pytest.approx(0.1, rel=0.2)
    assert moved["emissions.bias"] == pytest.approx(0.001, rel=0.2)


@pytest.mark.parametrize("weight", [0.0, 0.05, 1.0])
def test_equation_3(data: Path, tmp_path: Path, weight: float) -> None:
    one = OneStep(data, tmp_path / "run", 1, f"model.ctc.weight={weight}")
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    part = one.part([(e,) for e in examples[:6]])
    one.optimisation.objective.eval()
    loss = float(one.optimisation.objective(part.batch, 8).detach())
    frames, counts = encode_batch(one.model, part.batch, 8)
    batch = part.batch
    with torch.no_grad():
        output = one.model(batch.characters, batch.counts, frames, counts, batch.matches)
        crf = float(one.model.entity_loss(output, batch.tags, batch.counts))
        ctc = float(one.model.masked_ctc_loss(output, batch.characters, batch.counts, counts))
    assert loss == pytest.approx(crf + weight * ctc, rel=1e-5)
    parts = dict(zip(LOSSES, one.optimisation.objective.parts, strict=True))
    assert parts["entities"] == pytest.approx(crf, rel=1e-5)
    assert parts["masked ctc"] == pytest.approx(ctc if weight else 0.0, rel=1e-5)


def test_batches_of_16_are_not_cut_by_seconds(data: Path) -> None:
    source = Source(format="manifest", path="tones.jsonl")
    examples = read_source(source, data)
    stage = Stage(name="s", task="entities", train=[], dev=[], epochs=1, batch_seconds=1.0)

    def sizes(chosen: Stage) -> list[int]:
        plan = plan_epoch([(source, examples)], chosen, AudioCache(), np.random.default_rng(0))
        return [len(b) for b in plan]

    assert max(sizes(stage)) < 16
    whole = msgspec.structs.replace(stage, batch_seconds=0)
    assert sizes(whole) == [16]
    few = msgspec.structs.replace(whole, batch_size=4)
    seconds = [
        [
            {round(AudioCache().seconds(c[0].audio), 2) for c in batch if c[0].audio}
            for batch in plan_epoch([(source, examples)], s, AudioCache(), np.random.default_rng(1))
        ]
        for s in (few, msgspec.structs.replace(few, by_length=False))
    ]
    spreads = [sum(max(s) - min(s) for s in batches) for batches in seconds]
    assert spreads[0] < spreads[1], "drawn at random, lengths are mixed"


def test_a_run_records_what_it_was_made_with(data: Path, tmp_path: Path) -> None:
    chosen = recipe(data, "seed=7", "stages.1.accumulate=2")
    best = Trainer(chosen, data, tmp_path / "run", cpu=True).run()
    (start,) = json.loads((best / "environment.json").read_bytes())
    assert start["seed"] == 7
    assert start["torch"] == torch.__version__
    assert start["devices"] == ["cpu"]
    assert start["packages"]["accelerate"] == accelerate.__version__
    assert len(start["data"]["tones"]) == 64
    assert load_recipe(str(best / "recipe.toml")) == chosen


def test_a_run_that_goes_on_with_other_data_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_tones(tmp_path)
    Trainer(recipe(data), data, tmp_path / "run", cpu=True).run()
    Trainer(recipe(data), data, tmp_path / "run", cpu=True)
    assert "data has changed" not in caplog.text
    rows = (data / "tones.jsonl").read_text().splitlines(keepends=True)
    (data / "tones.jsonl").write_text("".join(rows[1:]))
    Trainer(recipe(data), data, tmp_path / "run", cpu=True)
    assert "data has changed since the run was started last: tones" in caplog.text


def test_encoders_have_rates_of_their_own(data: Path, tmp_path: Path) -> None:
    rates = {"learning_rate": 1e-3, "text_learning_rate": 1e-5, "acoustic_learning_rate": 1e-4}
    overrides = [f"stages.1.{name}={rate}" for name, rate in rates.items()]
    one = OneStep(data, tmp_path / "run", 1, *overrides)
    before = {n: p.detach().clone() for n, p in one.model.named_parameters()}
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    one.optimisation.train()
    one.optimisation.step([one.part([(e,) for e in examples[:6]])], rates["learning_rate"])
    moved: dict[str, float] = {}
    for name, parameter in one.model.named_parameters():
        part = name.split(".")[0]
        by = float((parameter.detach() - before[name]).abs().max())
        moved[part] = max(moved.get(part, 0.0), by)
    # Adam's first step is the rate itself.
    assert moved["text"] == pytest.approx(1e-5, rel=0.1)
    assert moved["acoustic"] == pytest.approx(1e-4, rel=0.1)
    assert moved["emissions"] == pytest.approx(1e-3, rel=0.1)
