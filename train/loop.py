"""The training loop: stages, checkpoints, exact resume, early stopping.

Everything random in a step follows from (seed, stage, epoch, step), not from what came before. So a
run that is cut off and resumed takes the same steps as one that is not: on a CPU, bit for bit.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import accelerate
import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cnerta.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnerta.models.errors import CheckpointError, ConfigError, DataError
from cnerta.models.pretrained import (
    PretrainedEncoder,
)
from cnerta.models.tagger import SpeechTagger
from cnerta.train.audio import AudioCache
from cnerta.train.batch import Batch, BatchBuilder, Clip, plan_epoch
from cnerta.train.building import new_model, take_acoustic
from cnerta.train.data import Example, read_source
from cnerta.train.evaluation import torch_predictions, unit_error_rate
from cnerta.train.metrics import score_entities
from cnerta.train.objective import Objective
from cnerta.train.recipe import Recipe, Stage

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

_LAST = "last"
_BEST = "best"
_STATE = "state.json"
_OPTIMIZER = "optimizer.safetensors"
_STATISTICS_CLIPS = 400
_TEXT = "text."


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a run stands.

    Attributes:
        recipe_sha256: Of the recipe as far as it has been followed: later stages may still be
            changed, what was done may not.
        stage: Index of the running stage.
        epoch: Epochs of it that are done.
        step: Steps of the running epoch that are done.
        steps: Optimiser steps of the stage.
        best_score: Best development score of the stage so far.
        since_best: Epochs since.
        best_scores: Figures of the best model.
        seconds: Time spent in training.
    """

    recipe_sha256: str
    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    best_score: float | None = None
    since_best: int = 0
    best_scores: dict[str, float] = {}
    seconds: float = 0.0


class Trainer:
    """Runs a recipe.

    Args:
        recipe: What to train.
        data_root: Folder that the recipe's paths are relative to.
        out: Folder for checkpoints and logs. Resumes what is there.
        cpu: Do not use an accelerator.
        mixed_precision: ``no``, ``fp16`` or ``bf16``.
        save_minutes: Time between checkpoints inside an epoch.
        init: Checkpoint to start from in place of random weights; brings its own vocabulary and
            labels.
        acoustic_from: Checkpoint whose acoustic encoder and CTC head to start from.
        workers: Threads that build batches.

    Raises:
        DataError: The data is not what the recipe says.
        CheckpointError: ``out`` holds a run of another recipe.
    """

    def __init__(
        self,
        recipe: Recipe,
        data_root: Path,
        out: Path,
        *,
        cpu: bool = False,
        mixed_precision: str = "no",
        save_minutes: float = 5.0,
        init: Path | None = None,
        acoustic_from: Path | None = None,
        workers: int = 1,
    ) -> None:
        self.recipe = recipe
        self.data_root = data_root
        self.workers = workers
        self.out = out
        self.save_seconds = 60 * save_minutes
        self.accelerator = accelerate.Accelerator(cpu=cpu, mixed_precision=mixed_precision)
        self.cache = AudioCache()
        names = {n for s in recipe.stages for n in (*s.train, *s.dev)}
        self.examples = {n: read_source(recipe.data[n], data_root) for n in sorted(names)}
        for name, examples in self.examples.items():
            spoken = sum(e.audio is not None for e in examples)
            logger.info("%s: %d examples, %d with audio", name, len(examples), spoken)
        self.progress = Progress(_digest(recipe, 0))
        last = out / _LAST
        self.resumed = (last / _STATE).is_file()
        if self.resumed:
            self.progress = msgspec.json.decode((last / _STATE).read_bytes(), type=Progress)
            digest = _digest(recipe, self.progress.stage)
            if self.progress.recipe_sha256 != digest:
                raise CheckpointError(
                    f"expected a run of this recipe in {out}, got one whose model, data or stages "
                    "up to the running one differ: choose another --out"
                )
            self.model = load_checkpoint(last).model
        else:
            torch.manual_seed(recipe.seed)
            self.model = load_checkpoint(init).model if init else self._new_model()
            if self.model.config != recipe.model:
                raise CheckpointError(f"expected a model as the recipe describes it in {init}")
            if acoustic_from:
                take_acoustic(self.model, load_checkpoint(acoustic_from).model)
        self.model.to(self.accelerator.device)
        out.mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(str(out / "tensorboard"))

    def run(self) -> Path:
        """Train all stages that are left.

        Returns:
            Folder of the best model of the last stage.
        """
        first = self.progress.stage
        for index in range(first, len(self.recipe.stages)):
            if index > first or not self.resumed:
                self.progress.stage = index
                self.progress.recipe_sha256 = _digest(self.recipe, index)
                self.progress.epoch = self.progress.step = self.progress.steps = 0
                self.progress.best_score, self.progress.since_best = None, 0
                self.progress.best_scores = {}
            self._run_stage(self.recipe.stages[index])
            # The next stage starts from the best model of this one.
            self.model.load_state_dict(load_checkpoint(self._best(index)).model.state_dict())
        self.writer.close()
        return self._best(len(self.recipe.stages) - 1)

    def _best(self, stage: int) -> Path:
        return self.out / f"{_BEST}-{stage}-{self.recipe.stages[stage].name}"

    def _examples(self, names: Sequence[str]) -> list[Example]:
        return [e for n in names for e in self.examples[n]]

    def _new_model(self) -> SpeechTagger:
        training = self._examples(sorted({n for s in self.recipe.stages for n in s.train}))
        return new_model(self.recipe, self.data_root, training, self.cache)

    def _run_stage(self, stage: Stage) -> None:
        progress = self.progress
        sources = [(self.recipe.data[n], self.examples[n]) for n in stage.train]
        if stage.task == "entities":
            sources = [(s, [e for e in es if e.spans is not None]) for s, es in sources]
            self._check_lengths(stage, [e for _, es in sources for e in es])
        if stage.task == "acoustic" and any(e.audio is None for _, es in sources for e in es):
            raise ConfigError(f"stage {stage.name!r}: expected recordings in every source")
        objective = Objective(self.model, stage, self.recipe.augmentation)
        frozen = stage.task == "entities" and stage.freeze_acoustic
        for part in (self.model.acoustic, self.model.ctc):
            part.requires_grad_(not frozen)
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(_parameter_groups(stage, trained), betas=(0.9, 0.98))
        objective, optimizer = self.accelerator.prepare(objective, optimizer)
        if self.resumed and (self.out / _LAST / _OPTIMIZER).is_file() and progress.steps:
            _load_optimizer(self.out / _LAST / _OPTIMIZER, optimizer, trained)
        self.resumed = False
        builder = BatchBuilder(
            self.model.vocabulary,
            self.model.scheme,
            self.cache,
            self.recipe.augmentation,
            self.model.lexicon,
        )
        first_plan = plan_epoch(sources, stage, self.cache, self._generator(0))
        total_steps = stage.epochs * len(first_plan)
        logger.info("stage %s: about %d steps", stage.name, total_steps)
        while progress.epoch < stage.epochs:
            plan = plan_epoch(sources, stage, self.cache, self._generator(progress.epoch))
            loss = self._run_epoch(stage, plan, builder, objective, optimizer, trained, total_steps)
            progress.epoch += 1
            progress.step = 0
            self._finish_epoch(stage, loss)
            self._save_last(optimizer, trained)
            if stage.patience and progress.since_best >= stage.patience:
                logger.info("no better score in %d epochs: stage ends", stage.patience)
                break

    def _check_lengths(self, stage: Stage, examples: Sequence[Example]) -> None:
        text = self.model.text
        longest = max((len(e.text) for e in examples), default=0)
        if isinstance(text, PretrainedEncoder) and longest > text.max_characters:
            raise DataError(
                f"stage {stage.name!r}: expected sentences of at most {text.max_characters} "
                f"characters, as the pretrained encoder can read, got one of {longest}"
            )

    def _run_epoch(
        self,
        stage: Stage,
        plan: Sequence[Sequence[Clip]],
        builder: BatchBuilder,
        objective: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        trained: dict[str, torch.nn.Parameter],
        total_steps: int,
    ) -> float:
        """One epoch from ``progress.step`` on. Returns the mean loss."""
        progress = self.progress
        objective.train()
        losses = []
        saved = time.monotonic()
        bar = tqdm(
            self._batches(stage, plan, builder, progress.step),
            desc=f"{stage.name} {progress.epoch + 1}/{stage.epochs}",
            initial=progress.step,
            total=len(plan),
            mininterval=5.0,
            disable=not self.accelerator.is_local_main_process,
        )
        for batch in bar:
            began = time.monotonic()
            torch.manual_seed(self._step_seed(progress.step))
            rate = _learning_rate(stage, progress.steps, total_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            a = self.recipe.model.acoustic
            chunk = int(torch.randint(a.min_chunk, a.max_chunk + 1, ()).item())
            loss = objective(batch.to(self.accelerator.device), chunk)
            if not torch.isfinite(loss).item():
                raise DataError(
                    f"expected a finite loss, got {loss.item()} at step {progress.step} of epoch "
                    f"{progress.epoch}: lower the learning rate, or look for damaged recordings"
                )
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(trained.values(), stage.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.model.crf.constrain()
            losses.append(loss.item())
            progress.step += 1
            progress.steps += 1
            progress.seconds += time.monotonic() - began
            self.writer.add_scalar(f"{stage.name}/loss", losses[-1], progress.steps)
            self.writer.add_scalar(f"{stage.name}/learning rate", rate, progress.steps)
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
            if time.monotonic() - saved > self.save_seconds:
                self._save_last(optimizer, trained)
                saved = time.monotonic()
        return float(np.mean(losses)) if losses else float("nan")

    def _generator(self, epoch: int, step: int = -1) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, self.progress.stage, epoch, step + 1])

    def _step_seed(self, step: int) -> int:
        return int(self._generator(self.progress.epoch, step).integers(2**62))

    def _batches(
        self, stage: Stage, plan: Sequence[Sequence[Clip]], builder: BatchBuilder, first: int
    ) -> Iterator[Batch]:
        """Build the batches from ``first`` on, some ahead, in threads of their own."""
        epoch = self.progress.epoch

        def build(step: int) -> Batch:
            return builder.build(
                plan[step],
                self._generator(epoch, step),
                drop_audio=stage.drop_audio,
                drop_characters=stage.drop_characters,
            )

        with ThreadPoolExecutor(self.workers) as workers:
            steps = iter(range(first, len(plan)))
            ahead = deque(workers.submit(build, s) for s in islice(steps, 2 * self.workers))
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(workers.submit(build, s) for s in islice(steps, 1))
                yield batch

    def _finish_epoch(self, stage: Stage, loss: float) -> None:
        """Evaluate, log, and keep the model if it is the best of its stage."""
        progress = self.progress
        scores = self._evaluate(stage)
        scores["train.loss"] = loss
        score = scores["score"]
        logger.info(
            "%s epoch %d: %s",
            stage.name,
            progress.epoch,
            ", ".join(f"{k} {v:.2f}" for k, v in scores.items()),
        )
        for name, value in scores.items():
            self.writer.add_scalar(f"{stage.name}/{name}", value, progress.epoch)
        self.writer.flush()
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.since_best = score, 0
            progress.best_scores = scores
            self._save_model(self._best(progress.stage), scores)
        else:
            progress.since_best += 1

    def _evaluate(self, stage: Stage) -> dict[str, float]:
        """Development scores; ``score`` is the one that chooses the epoch."""
        if not stage.dev:
            return {"score": float(self.progress.epoch)}
        device = self.accelerator.device
        if stage.task == "acoustic":
            examples = self._examples(stage.dev)
            rate = unit_error_rate(self.model, examples, self.cache, device=device)
            return {"unit error rate": rate, "score": -rate}
        figures: dict[str, float] = {}
        decisive = []
        for name in stage.dev:
            annotated = [e for e in self.examples[name] if e.spans is not None]
            spoken = [e for e in annotated if e.audio is not None]
            for mode, chosen in (("text", annotated), ("speech", spoken)):
                if chosen:
                    predicted = torch_predictions(
                        self.model, chosen, self.cache, use_audio=mode == "speech", device=device
                    )
                    scores = score_entities([e.spans or () for e in chosen], predicted)
                    figures[f"{name}.{mode}.flat.f1"] = scores.flat.f1
                    figures[f"{name}.{mode}.nested.f1"] = scores.nested.f1
            # A source with speech is judged with it.
            decisive.append(figures[f"{name}.{'speech' if spoken else 'text'}.nested.f1"])
        figures["score"] = float(np.mean(decisive))
        return figures

    def _save_model(self, path: Path, scores: dict[str, float]) -> None:
        provenance = {
            "recipe": self.recipe.name,
            "recipe_sha256": self.progress.recipe_sha256,
            "seed": str(self.recipe.seed),
            "stage": self.recipe.stages[self.progress.stage].name,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "device": str(self.accelerator.device),
            "training_minutes": f"{self.progress.seconds / 60:.0f}",
        }
        if self.accelerator.is_main_process:
            checkpoint = Checkpoint(self.recipe.name, self.model, provenance, scores)
            save_checkpoint(path, checkpoint)

    def _save_last(
        self, optimizer: torch.optim.Optimizer, trained: dict[str, torch.nn.Parameter]
    ) -> None:
        """Write all that resuming needs; the state file last, so that it never lies."""
        if not self.accelerator.is_main_process:
            return
        folder = self.out / _LAST
        self._save_model(folder, self.progress.best_scores)
        partial = folder / (_OPTIMIZER + ".partial")
        save_file(_optimizer_tensors(optimizer, trained), partial)
        partial.replace(folder / _OPTIMIZER)
        partial = folder / (_STATE + ".partial")
        partial.write_bytes(msgspec.json.encode(self.progress))
        partial.replace(folder / _STATE)


def _parameter_groups(stage: Stage, trained: dict[str, torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters with their share of the stage's learning rate."""
    share = stage.text_learning_rate / stage.learning_rate if stage.text_learning_rate else 1.0
    groups = []
    for is_text in (False, True):
        members = [p for n, p in trained.items() if n.startswith(_TEXT) == is_text]
        if members:
            groups.append({"params": members, "share": share if is_text else 1.0})
    return groups


def _digest(recipe: Recipe, stage: int) -> str:
    """Hash of all in a recipe that decides a run up to and including a stage."""
    stages = recipe.stages[: stage + 1]
    used = {n for s in stages for n in (*s.train, *s.dev)}
    data = {n: source for n, source in sorted(recipe.data.items()) if n in used}
    followed = msgspec.structs.replace(recipe, stages=stages, data=data)
    return hashlib.sha256(msgspec.json.encode(followed)).hexdigest()


def _learning_rate(stage: Stage, step: int, total: int) -> float:
    """Linear warm-up, then linear decay to ``stage.decay`` of the peak."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(1, total - stage.warmup_steps)
    return stage.learning_rate * max(stage.decay, 1 - (1 - stage.decay) * done)


def _optimizer_tensors(
    optimizer: torch.optim.Optimizer, trained: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in trained.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()
    return tensors


def _load_optimizer(
    path: Path, optimizer: torch.optim.Optimizer, trained: dict[str, torch.nn.Parameter]
) -> None:
    for full_name, value in load_file(path).items():
        name, _, key = full_name.rpartition("/")
        parameter = trained[name]
        value = value if key == "step" else value.to(parameter.device)
        optimizer.state[parameter][key] = value
