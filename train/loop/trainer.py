"""The training loop: stages and epochs, the best model of each, exact resume.

Everything random in a step follows from (seed, stage, epoch, batch), not from what came before. So
a run that is cut off and resumed takes the same steps as one that is not: on a CPU, bit for bit.
And so do several processes: each knows the whole plan and computes its part (see
:mod:`cnerta.train.loop.schedule`); the first one alone reads and writes checkpoints.
"""

from __future__ import annotations

import functools
import logging
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import accelerate
import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from cnerta.models.errors import CheckpointError, ConfigError, DataError
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnerta.models.networks.pretrained_text import PretrainedEncoder
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.networks.zen import ZenEncoder
from cnerta.train.batches.batch import BatchBuilder, plan_epoch
from cnerta.train.batches.mentions import Mentions
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example
from cnerta.train.data.sources import read_sources, read_streams
from cnerta.train.data.streams import memory_pieces, pieces_digest, representative
from cnerta.train.environment import ENVIRONMENT, RECIPE, describe_start, record_start
from cnerta.train.loop.continued_model import continued_model, take_text
from cnerta.train.loop.development import Development
from cnerta.train.loop.digests import examples_digest, recipe_digest
from cnerta.train.loop.new_model import STATISTICS_CLIPS, new_model, take_acoustic
from cnerta.train.loop.optimisation import NotFiniteError, Optimisation, learning_rate
from cnerta.train.loop.run_folder import Progress, RunFolder, SavedRun
from cnerta.train.loop.run_log import RunLog, check_trackers
from cnerta.train.loop.schedule import BatchSchedule
from cnerta.train.loop.stream_schedule import StreamSchedule, about_steps, check_lanes
from cnerta.train.loop.streamed_stage import streamed_stage
from cnerta.train.recipe import Recipe, Stage

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
        text_from: Checkpoint whose text encoder and kinds of words to start from, beside ``init``.
        workers: Threads that build batches.
        cache: Folder for decoded recordings; None: they are kept in memory.
        trackers: That accelerate knows and that are told of the run too, such as ``wandb``.

    Raises:
        ConfigError: The device cannot compute in the precision, or a tracker cannot be had.
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
        text_from: Path | None = None,
        workers: int = 1,
        cache: Path | None = None,
        trackers: Sequence[str] = (),
    ) -> None:
        check_trackers(trackers)
        if mixed_precision == "fp16" and (cpu or not torch.accelerator.is_available()):
            raise ConfigError(
                "expected a GPU for --precision fp16, got a CPU: take bf16, which a CPU has too, "
                "or no"
            )
        self.recipe = recipe
        self.data_root = data_root
        self.workers = workers
        self.folder = RunFolder(out)
        self._continues = init is not None
        self.save_seconds = 60 * save_minutes
        self.accelerator = accelerate.Accelerator(
            cpu=cpu,
            mixed_precision=mixed_precision,
            log_with=list(trackers) or None,
            project_dir=str(out),
        )
        self.cache = AudioCache(cache)
        names = {n for s in recipe.stages for n in (*s.train, *s.dev)}
        streamed = sorted(n for n in names if recipe.data[n].stream)
        for stage in recipe.stages:
            if measured := sorted(set(stage.dev) & set(streamed)):
                raise ConfigError(
                    f"stage {stage.name!r}: expected development sources that are not streamed, "
                    f"got {', '.join(measured)}"
                )
        held = sorted(names - set(streamed))
        self.examples = read_sources(recipe.data, held, data_root, cache=cache)
        self.streams = read_streams(recipe.data, streamed, data_root, cache=cache)
        for name, pieces in self.streams.items():
            logger.info("%s: a stream of %d pieces", name, len(pieces))
        for name, examples in self.examples.items():
            spoken = sum(e.audio is not None for e in examples)
            logger.info("%s: %d examples, %d with audio", name, len(examples), spoken)
            self.cache.expect(e.audio for e in examples if e.audio is not None)
        everything = [e for examples in self.examples.values() for e in examples]
        is_silent = not streamed and all(e.audio is None for e in everything)
        if recipe.model.uses_audio and is_silent:
            logger.warning(
                "no source has recordings, so a model that uses audio is taught by text alone: "
                "audio_root says where those of a source are"
            )
        self._log_cache()
        digests = {n: examples_digest(es) for n, es in self.examples.items()}
        digests |= {n: pieces_digest(pieces) for n, pieces in self.streams.items()}
        self._agree(digests)
        # The first process reads or makes the model, and the others have theirs from it.
        saved = self._from_first(self.folder.load)
        if saved is not None:
            digest = recipe_digest(recipe, saved.progress.stage)
            if saved.progress.recipe_sha256 != digest:
                raise CheckpointError(
                    f"expected a run of this recipe in {out}, got one whose model, data or stages "
                    "up to the running one differ: choose another --out"
                )
        self._saved: SavedRun | None = saved
        self.progress = saved.progress if saved else Progress(recipe_digest(recipe, 0))
        self.model = (
            saved.model
            if saved
            else self._from_first(lambda: self._starting_model(init, acoustic_from, text_from))
        )
        self.model.to(self.accelerator.device)
        self.development = Development(
            self.accelerator, recipe, self.model, self.examples, self.cache
        )
        self.log: RunLog | None = None
        if self.accelerator.is_main_process:
            start = describe_start(recipe, self.accelerator, digests, resumed=saved is not None)
            record_start(out, recipe, start)
            self.log = RunLog(out, self.accelerator, recipe)

    def run(self) -> Path:
        """Train all stages that are left.

        Returns:
            Folder of the best model of the last stage.

        Raises:
            NotFiniteError: The loss is not finite, more often than the stage allows.
            OutOfMemoryError: A batch does not fit in memory.
        """
        first = self.progress.stage
        for index in range(first, len(self.recipe.stages)):
            if index > first:
                self.progress.begin(index, recipe_digest(self.recipe, index))
            self._run_stage(self.recipe.stages[index])
            # The next stage starts from the best model of this one.
            state = self._from_first(functools.partial(_weights, self._best(index)))
            self.model.load_state_dict(state)
        self._log_cache()
        if self.log is not None:
            self.log.close()
        return self._best(len(self.recipe.stages) - 1)

    def _log_cache(self) -> None:
        if self.cache.store is not None:
            count, size = self.cache.store.size()
            folder = self.cache.store.folder
            logger.info("cache %s: %d recordings, %.1f MB", folder, count, size / 1e6)

    def _best(self, stage: int) -> Path:
        return self.folder.best(stage, self.recipe.stages[stage].name)

    def _training_examples(self) -> list[Example]:
        """All that is trained on; of streams what stands for all."""
        names = sorted({n for s in self.recipe.stages for n in s.train})
        found = [e for n in names for e in self.examples.get(n, ())]
        pieces = [p for n in names for p in self.streams.get(n, ())]
        if pieces:
            logger.info("characters and tags of %d pieces are looked for", len(pieces))
            found += representative(pieces, self.recipe.min_tag_count, STATISTICS_CLIPS)
        return found

    def _from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all of them."""
        made = [make() if self.accelerator.is_main_process else None]
        (shared,) = broadcast_object_list(made)
        return shared  # type: ignore[no-any-return]

    def _agree(self, value: object) -> None:
        """Raise where processes have different data: they would wait for each other for ever."""
        if len({repr(v) for v in gather_object([value])}) > 1:
            raise DataError("expected the same data on every machine, got files that differ")

    def _starting_model(
        self, init: Path | None, acoustic_from: Path | None, text_from: Path | None
    ) -> SpeechTagger:
        torch.manual_seed(self.recipe.seed)
        acoustic = load_checkpoint(acoustic_from).model if acoustic_from else None
        if init:
            model = continued_model(self.recipe, self.data_root, init, acoustic)
        else:
            training = self._training_examples()
            model = new_model(self.recipe, self.data_root, training, self.cache, acoustic)
        if model.config != self.recipe.model:
            raise CheckpointError(f"expected a model as the recipe describes it in {init}")
        if init and acoustic is not None:
            take_acoustic(model, acoustic)
        if text_from:
            if not init:
                raise ConfigError("expected a checkpoint to start from (init) with text_from")
            take_text(model, load_checkpoint(text_from).model)
        return model

    def _run_stage(self, stage: Stage) -> None:
        progress = self.progress
        schedule_of = self._schedules(stage)
        optimisation = Optimisation(self.accelerator, self.model, stage, self.recipe.augmentation)
        if self._saved is not None:
            optimisation.load(self._saved.optimizer, progress.scaler)
            self._saved = None
        steps = len(schedule_of(0))
        logger.info("stage %s: about %d steps", stage.name, stage.epochs * steps)
        if stage.dev and progress.best_score is None and self._is_trained_before(stage):
            self._finish_epoch(stage, None)
        while progress.epoch < stage.epochs:
            if stage.patience and progress.since_best >= stage.patience:
                logger.info("no better score in %d epochs: stage ends", stage.patience)
                break
            schedule = schedule_of(progress.epoch)
            self._run_epoch(stage, schedule, optimisation, stage.epochs * steps)
            loss = progress.loss_sum / max(1, progress.step)
            progress.epoch += 1
            progress.step, progress.loss_sum = 0, 0.0
            self._finish_epoch(stage, loss)
            self._save_last(optimisation)
        if stage.dev and progress.best_epoch == 0:
            logger.warning(
                "stage %s: no epoch was better than the model that it started from, which is kept",
                stage.name,
            )

    def _schedules(self, stage: Stage) -> Callable[[int], BatchSchedule | StreamSchedule]:
        """Gives the steps of each epoch of a stage, whose number it is given."""
        self._check_stage(stage)
        if any(n in self.streams for n in stage.train):
            return self._stream_schedules(stage)
        sources = [(self.recipe.data[n], self.examples[n]) for n in stage.train]
        if stage.task == "entities":
            sources = [(s, [e for e in es if e.spans is not None]) for s, es in sources]
            self._check_annotation(stage, [e for _, es in sources for e in es])
        elif any(e.audio is None for _, es in sources for e in es):
            raise ConfigError(f"stage {stage.name!r}: expected recordings in every source")
        mentions: Mentions | None = None
        if stage.exchange_names:
            mentions = Mentions(e for _, examples in sources for e in examples)

        @functools.lru_cache(maxsize=1)
        def schedule(epoch: int) -> BatchSchedule:
            plan = plan_epoch(sources, stage, self.cache, self._generator(epoch), mentions)
            return BatchSchedule(
                plan,
                stage,
                self._builder(),
                (self.recipe.seed, self.progress.stage, epoch),
                self._chunks(),
                process=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
                workers=self.workers,
            )

        return schedule

    def _stream_schedules(self, stage: Stage) -> Callable[[int], StreamSchedule]:
        check_lanes(stage, self.accelerator.num_processes)
        pieces = []
        for name in stage.train:
            held = memory_pieces(name, self.examples.get(name, ()))
            pieces += self.streams.get(name) or held * self.recipe.data[name].repeat
        seed = (self.recipe.seed, self.progress.stage)
        check = functools.partial(self._check_annotation, stage)
        streams = streamed_stage(stage, pieces, check, self.cache, seed)

        def schedule(epoch: int) -> StreamSchedule:
            return StreamSchedule(
                functools.partial(streams.batches, epoch),
                stage,
                self._builder(),
                (*seed, epoch),
                self._chunks(),
                about=about_steps(stage, streams.size),
                is_anywhere=self._is_anywhere,
                process=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
                workers=self.workers,
            )

        return schedule

    def _is_anywhere(self, here: bool) -> bool:
        """Whether something is true in any process."""
        if self.accelerator.num_processes == 1:
            return here
        flag = torch.tensor([float(here)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _check_stage(self, stage: Stage) -> None:
        if stage.task == "entities" and stage.other_audio and not stage.freeze_acoustic:
            raise ConfigError(
                f"stage {stage.name!r}: expected freeze_acoustic with other_audio, got false: "
                "the encoder would learn to hear what nobody says"
            )
        if self.recipe.model.audio_use == "none" and (
            stage.task == "acoustic" or stage.acoustic_weight
        ):
            raise ConfigError(
                f"stage {stage.name!r}: expected a model that uses audio for the acoustic task, "
                "got one of text alone (model.fusion.kind is none, model.ctc.weight 0)"
            )

    def _check_annotation(self, stage: Stage, examples: Sequence[Example]) -> None:
        self._check_lengths(stage, examples)
        self._check_types(stage, examples)
        self._check_corpora(stage, examples)

    def _check_lengths(self, stage: Stage, examples: Sequence[Example]) -> None:
        text = self.model.text
        longest = max((len(e.corpus + e.text) for e in examples), default=0)
        if isinstance(text, PretrainedEncoder | ZenEncoder) and longest > text.max_characters:
            raise DataError(
                f"stage {stage.name!r}: expected sentences of at most {text.max_characters} "
                f"characters, as the pretrained encoder can read, got one of {longest}"
            )

    def _check_types(self, stage: Stage, examples: Sequence[Example]) -> None:
        """A model trained further has the types it had: others would be trained as no entities."""
        types = self.model.scheme.types
        found = Counter(s.label for e in examples for s in e.spans or ())
        unknown = [f"{label} ({found[label]})" for label in sorted(found) if label not in types]
        if unknown:
            raise DataError(
                f"stage {stage.name!r}: expected entities of the model's types "
                f"{', '.join(types)}, got {', '.join(unknown)}"
            )

    def _check_corpora(self, stage: Stage, examples: Sequence[Example]) -> None:
        """A mark that the model has no character for would be the same unknown one for all."""
        unknown = {e.corpus for e in examples} - {"", *self.model.vocabulary.characters}
        if unknown:
            raise DataError(
                f"stage {stage.name!r}: expected corpora to be marked by characters of the model, "
                f"got {', '.join(sorted(unknown))}"
            )

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, self.progress.stage, epoch, 0])

    def _builder(self) -> BatchBuilder:
        return BatchBuilder(
            self.model.vocabulary,
            self.model.scheme,
            self.cache,
            self.recipe.augmentation,
            self.model.lexicon,
        )

    def _chunks(self) -> tuple[int, int] | None:
        acoustic = self.recipe.model.acoustic
        return (acoustic.min_chunk, acoustic.max_chunk) if acoustic.streaming else None

    def _run_epoch(
        self,
        stage: Stage,
        schedule: BatchSchedule | StreamSchedule,
        optimisation: Optimisation,
        total_steps: int,
    ) -> None:
        """One epoch from ``progress.step`` on."""
        progress = self.progress
        optimisation.train()
        saved = time.monotonic()
        bar = tqdm(
            schedule.steps(progress.step),
            desc=f"{stage.name} {progress.epoch + 1}/{stage.epochs}",
            initial=progress.step,
            total=len(schedule),
            mininterval=5.0,
            disable=not self.accelerator.is_local_main_process,
        )
        for parts in bar:
            began = time.monotonic()
            rate = learning_rate(stage, progress.steps, total_steps, progress.epoch)
            try:
                loss = optimisation.step(parts, rate)
            except NotFiniteError as error:
                self._skip(stage, error)
                loss = progress.loss_sum / max(1, progress.step)
            progress.step += 1
            progress.steps += 1
            progress.loss_sum += loss
            progress.seconds += time.monotonic() - began
            if self.log is not None:
                parts_of_loss = {f"loss of {n}": v for n, v in optimisation.parts.items()}
                values = {"loss": loss, **parts_of_loss, "learning rate": rate}
                self.log.add(stage.name, values, progress.steps)
            bar.set_postfix(loss=f"{progress.loss_sum / progress.step:.3f}", refresh=False)
            if time.monotonic() - saved > self.save_seconds:
                self._save_last(optimisation)
                saved = time.monotonic()

    def _skip(self, stage: Stage, error: NotFiniteError) -> None:
        """Leave a step out, or give up."""
        progress = self.progress
        where = f"step {progress.step} of epoch {progress.epoch} of stage {stage.name!r}"
        if progress.skipped >= stage.skip_nonfinite:
            raise NotFiniteError(
                f"{where}: {error}: lower the learning rate, look for damaged recordings among "
                f"them, or leave out more than {stage.skip_nonfinite} such steps (skip_nonfinite)"
            ) from error
        progress.skipped += 1
        logger.warning("%s left out: %s", where, error)

    def _is_trained_before(self, stage: Stage) -> bool:
        """Whether a stage that is at its start has a model that has learned its task already."""
        progress = self.progress
        earlier = self.recipe.stages[: progress.stage]
        is_start = progress.epoch == 0 and progress.step == 0
        return is_start and (self._continues or any(s.task == stage.task for s in earlier))

    def _finish_epoch(self, stage: Stage, loss: float | None) -> None:
        """Evaluate, log, and keep the model if it is the best of its stage.

        Args:
            stage: The stage.
            loss: Mean of the epoch; None before the first, which counts as epoch 0.
        """
        progress = self.progress
        scores = self.development.scores(stage) if stage.dev else {}
        if loss is not None:
            scores["train.loss"] = loss
        logger.info(
            "%s epoch %d: %s",
            stage.name,
            progress.epoch,
            ", ".join(f"{k} {v:.2f}" for k, v in scores.items()),
        )
        if self.log is not None:
            self.log.add(stage.name, scores, progress.epoch)
            self.log.flush()
        # Without development data the last epoch is kept.
        score = scores.get("score")
        if score is None or progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.since_best = score, 0
            progress.best_scores, progress.best_epoch = scores, progress.epoch
            self._save_best(scores)
        elif progress.epoch > 1:
            # The first epoch may lose to the start without using up patience.
            progress.since_best += 1

    def _checkpoint(self, scores: dict[str, float]) -> Checkpoint:
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
        return Checkpoint(self.recipe.name, self.model, provenance, scores)

    def _save_best(self, scores: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        best = self._best(self.progress.stage)
        save_checkpoint(best, self._checkpoint(scores))
        for name in (ENVIRONMENT, RECIPE):
            shutil.copyfile(self.folder.path / name, best / name)

    def _save_last(self, optimisation: Optimisation) -> None:
        """Write all that resuming needs."""
        if self.accelerator.is_main_process:
            self.progress.scaler = optimisation.scaler_state()
            checkpoint = self._checkpoint(self.progress.best_scores)
            self.folder.save(self.progress, checkpoint, optimisation.state())


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint).model.state_dict()
