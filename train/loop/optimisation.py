"""One optimiser step from several batches in several processes, and its errors.

The gradient of a step is that of the mean loss over all its utterances, wherever they were
computed: each batch's means are weighted by its share of the step
(:class:`cnerta.train.loop.objective.LossWeights`), and the processes add up. So accumulating, and
more processes, change nothing but the order of floating-point sums. Gradients are added up here and
not by DistributedDataParallel: which parameters a batch uses depends on whether it has audio, and a
process may have no part of a step at all.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import accelerate
import torch
from accelerate.utils import gather_object
from torch import Tensor

from cnerta.models.errors import CnertaError, ConfigError
from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.models.networks.checkpoint import parameter_name
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.batches.batch import Clip
from cnerta.train.loop.objective import LOSSES, LossCounts, Objective
from cnerta.train.loop.schedule import Part
from cnerta.train.recipe import Augmentation, Stage

__all__ = ["NotFiniteError", "Optimisation", "OutOfMemoryError", "learning_rate"]

logger = logging.getLogger(__name__)

_TEXT = "text."
_ACOUSTIC = "acoustic."
_CRF = "crf."
# What brings a pretrained acoustic encoder to our width.
_ABOVE = ("acoustic.projection.", "acoustic.norm.")
_NAMED = 5
# Below this the scaler has nothing left to lower: the gradients themselves are not finite.
_LEAST_SCALE = 1.0


class NotFiniteError(CnertaError):
    """A loss or its gradient is infinite or not a number; the message names the examples."""


class OutOfMemoryError(CnertaError):
    """A batch does not fit in memory; the message says what to lower."""


class Optimisation:
    """The optimiser of a stage.

    Attributes:
        parts: What the last step's loss was made of, by the names of
            :data:`cnerta.train.loop.objective.LOSSES`; the same in all processes.

    Args:
        accelerator: Device, precision and processes.
        model: What is trained; on the accelerator's device.
        stage: The stage.
        augmentation: Of training audio.
    """

    def __init__(
        self,
        accelerator: accelerate.Accelerator,
        model: SpeechTagger,
        stage: Stage,
        augmentation: Augmentation,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.stage = stage
        self.objective = Objective(model, stage, augmentation)
        frozen = stage.task == "entities" and stage.freeze_acoustic
        if model.audio_head is not None:
            model.requires_grad_(True)  # an earlier stage may have trained only that
        for module in (model.acoustic, model.ctc):
            module.requires_grad_(not frozen)
        is_pretrained = not isinstance(model.acoustic, AcousticEncoder)
        if is_pretrained and stage.freeze_pretrained:
            for name, parameter in model.named_parameters():
                if name.startswith(_ACOUSTIC) and not name.startswith(_ABOVE):
                    parameter.requires_grad_(False)
        if stage.only_audio_head:
            if model.audio_head is None:
                raise ConfigError(
                    f"stage {stage.name!r}: expected model.fusion.gated with only_audio_head, got "
                    "a model with one head"
                )
            model.requires_grad_(False)
            model.audio_head.requires_grad_(True)
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        groups = _parameter_groups(stage, self.trained, _ABOVE if is_pretrained else ())
        # What was prepared for an earlier stage would be unscaled a second time.
        accelerator.free_memory()
        self._optimizer = accelerator.prepare(_optimizer(stage, groups))
        self.parts: dict[str, float] = {}

    def train(self) -> None:
        """Turn dropout on, but in what is not trained while the rest only listens."""
        self.objective.train()
        if self.stage.only_audio_head:
            self.model.eval()
            assert self.model.audio_head is not None, "checked at the start"
            self.model.audio_head.train()

    def step(self, parts: Sequence[Part], rate: float) -> float:
        """Take a step. Every process calls this, also with no parts.

        Args:
            parts: This process's batches.
            rate: Learning rate.

        Returns:
            Mean loss over the step's utterances, the same in all processes.

        Raises:
            NotFiniteError: The loss or the gradient is not finite, in some process: all raise, and
                the model is as it was.
            OutOfMemoryError: A batch does not fit in memory.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        counts = [LossCounts.of(p.batch) for p in parts]
        total = self._total(counts)
        loss, bad = 0.0, []
        made_of = torch.zeros(len(LOSSES))
        for part, own in zip(parts, counts, strict=True):
            value = self._backward(part, own, total)
            loss += value
            made_of += torch.tensor(self.objective.parts)
            if not math.isfinite(value):
                bad.append(part)
        loss = self._add_up(loss)
        if self.accelerator.num_processes > 1:
            made_of = self.accelerator.reduce(made_of.to(self.accelerator.device), "sum")
        self.parts = {n: v for n, v in zip(LOSSES, made_of.tolist(), strict=True) if v}
        if not math.isfinite(loss):
            raise self._not_finite(f"loss, got {loss}", bad)
        norm = self.accelerator.clip_grad_norm_(self.trained.values(), self.stage.clip_norm)
        scaler = self.accelerator.scaler
        hopeless = scaler is None or scaler.get_scale() <= _LEAST_SCALE
        if hopeless and not math.isfinite(norm.item()):
            if scaler is not None:
                scaler.update()
            raise self._not_finite(f"gradient, got a norm of {norm.item()}", parts)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.model.crf.constrain()
        return loss

    def _backward(self, part: Part, own: LossCounts, total: LossCounts) -> float:
        """Add a batch's gradient; nothing of it where the loss is not finite."""
        torch.manual_seed(part.seed)
        try:
            with self.accelerator.autocast():
                loss: Tensor = self.objective(
                    part.batch.to(self.accelerator.device), part.chunk, own.weights(total)
                )
            value = loss.item()
            if math.isfinite(value):
                self.accelerator.backward(loss)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise OutOfMemoryError(self._what_to_lower(part)) from error
        return value

    def _total(self, counts: Sequence[LossCounts]) -> LossCounts:
        """Counts of the step in all processes."""
        kinds = len(dataclasses.fields(LossCounts))
        rows = torch.tensor([c.values() for c in counts], dtype=torch.float64)
        mine = rows.reshape(-1, kinds).sum(0)  # also of no rows
        # Whole and half numbers: exact in single precision, which is all that some devices have.
        mine = mine.float().to(self.accelerator.device)
        return LossCounts(*self.accelerator.reduce(mine, "sum").tolist())

    def _add_up(self, loss: float) -> float:
        """Add up gradients and loss over the processes; returns the loss."""
        if self.accelerator.num_processes == 1:
            return loss
        device = self.accelerator.device
        gradients = [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in self.trained.values()
        ]
        # A parameter that no process has used has no gradient: the optimiser then leaves it alone,
        # which is not the same as a gradient of zero.
        used = torch.tensor([float(p.grad is not None) for p in self.trained.values()])
        flat = torch.cat([*gradients, used.to(device), torch.tensor([loss], device=device)])
        flat = self.accelerator.reduce(flat, "sum")
        sizes = [p.numel() for p in self.trained.values()]
        *summed, used, total = flat.split([*sizes, len(sizes), 1])
        anywhere = used.tolist()
        for parameter, gradient, count in zip(self.trained.values(), summed, anywhere, strict=True):
            parameter.grad = gradient.view_as(parameter) if count else None
        return float(total.item())

    def _not_finite(self, what: str, bad: Sequence[Part]) -> NotFiniteError:
        """Drop the step's gradients, and name what was in it."""
        self._optimizer.zero_grad(set_to_none=True)
        clips: list[str] = gather_object([_name(c) for p in bad for c in p.clips])
        more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
        return NotFiniteError(f"expected a finite {what}, with {', '.join(clips[:_NAMED])}{more}")

    def _what_to_lower(self, part: Part) -> str:
        batch, stage = part.batch, self.stage
        seconds = batch.samples.shape[1] / SAMPLE_RATE if bool(batch.sample_counts.any()) else 0.0
        return (
            f"expected a batch to fit in memory, got none left with {len(part.clips)} utterances "
            f"of up to {seconds:.1f} s and {batch.characters.shape[1]} characters on "
            f"{self.accelerator.device}: in stage {stage.name!r} lower batch_seconds (now "
            f"{stage.batch_seconds:g}) or batch_size (now {stage.batch_size}) and raise accumulate "
            f"(now {stage.accumulate}) by as much, which makes the same steps; or take "
            "--precision bf16"
        )

    def state(self) -> dict[str, Tensor]:
        """State of the optimiser, by ``parameter/key``, on the CPU."""
        tensors = {}
        for name, parameter in self.trained.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()
        return tensors

    def scaler_state(self) -> dict[str, float]:
        """State of the gradient scaler; empty where the precision needs none."""
        scaler = self.accelerator.scaler
        return {k: float(v) for k, v in scaler.state_dict().items()} if scaler else {}

    def load(self, state: Mapping[str, Tensor], scaler_state: Mapping[str, float]) -> None:
        """Go on with what :meth:`state` and :meth:`scaler_state` gave."""
        if self.accelerator.scaler is not None and scaler_state:
            self.accelerator.scaler.load_state_dict(dict(scaler_state))
        for full_name, value in state.items():
            name, _, key = full_name.rpartition("/")
            parameter = self.trained[parameter_name(name, self.model.config.fusion.kind)]
            placed = value if key == "step" else value.to(parameter.device)
            self._optimizer.state[parameter][key] = placed


def learning_rate(stage: Stage, step: int, total: int, epoch: int = 0) -> float:
    """Linear warm-up, then what ``stage.schedule`` says.

    Args:
        stage: The stage.
        step: Steps taken.
        total: Steps it will take in all.
        epoch: Epochs that are done.
    """
    warmup = min(stage.warmup_steps, int(stage.warmup_share * total))
    if step < warmup:
        return stage.learning_rate * (step + 1) / warmup
    if stage.schedule == "epochs":
        return float(stage.learning_rate * (1 - stage.epoch_decay) ** epoch)
    done = (step - warmup) / max(1, total - warmup)
    return stage.learning_rate * max(stage.decay, 1 - (1 - stage.decay) * done)


def _optimizer(stage: Stage, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, betas=(0.9, 0.98))
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=stage.weight_decay)


def _parameter_groups(
    stage: Stage, trained: Mapping[str, torch.nn.Parameter], new: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Parameters with their share of the stage's learning rate.

    Args:
        stage: The stage.
        trained: Parameters by name.
        new: Prefixes of names in the acoustic encoder that are not pretrained.
    """
    rates = {
        _TEXT: stage.text_learning_rate,
        _ACOUSTIC: stage.acoustic_learning_rate,
        _CRF: stage.crf_learning_rate,
        "": 0.0,
    }
    members: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trained.items():
        prefix = "" if name.startswith(new) else next(p for p in rates if name.startswith(p))
        # Biases and what normalises are vectors, and never decay.
        still = bool(stage.weight_decay) and parameter.dim() == 1
        members.setdefault((prefix, still), []).append(parameter)
    order = list(rates)
    return [
        {
            "params": members[prefix, still],
            "share": rates[prefix] / stage.learning_rate if rates[prefix] else 1.0,
            **({"weight_decay": 0.0} if still else {}),
        }
        for prefix, still in sorted(members, key=lambda m: (order.index(m[0]), m[1]))
    ]


def _name(clip: Clip) -> str:
    """An utterance for an error message."""
    audio = " + ".join(str(e.audio) for e in clip if e.audio is not None)
    return f"{''.join(e.text for e in clip)!r} ({audio or 'text only'})"


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU torch has no error of its own for it.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "DefaultCPUAllocator" in str(error) and "memory" in str(error)
    )
