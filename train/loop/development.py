"""Development figures of a stage, each process scoring its share of the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import accelerate
import numpy as np
from accelerate.utils import gather_object

from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.labels import Span
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example
from cnerta.train.evaluation.metrics import score_entities
from cnerta.train.evaluation.predict import torch_predictions, unit_errors
from cnerta.train.recipe import Recipe, Stage

__all__ = ["Development"]


class Development:
    """Scores a model on a stage's development sources.

    Args:
        accelerator: Device and processes.
        recipe: Says which figure chooses the epoch.
        model: What is scored; on the accelerator's device.
        examples: Of each source, by name.
        cache: Of recordings.
    """

    def __init__(
        self,
        accelerator: accelerate.Accelerator,
        recipe: Recipe,
        model: SpeechTagger,
        examples: Mapping[str, Sequence[Example]],
        cache: AudioCache,
    ) -> None:
        self._accelerator = accelerator
        self._model = model
        self._examples = examples
        self._cache = cache
        kind = recipe.select_on
        self._kind = recipe.model.labels if kind == "auto" else kind

    def scores(self, stage: Stage) -> dict[str, float]:
        """The figures, ``score`` the one that chooses the epoch. Every process calls this."""
        if stage.task == "acoustic":
            return self._unit_scores(stage)
        figures: dict[str, float] = {}
        decisive = []
        for name in stage.dev:
            annotated = [e for e in self._examples[name] if e.spans is not None]
            spoken = [e for e in annotated if e.audio is not None]
            for mode, chosen in (("text", annotated), ("speech", spoken)):
                if chosen:
                    predicted = self._predictions(chosen, use_audio=mode == "speech")
                    scores = score_entities([e.spans or () for e in chosen], predicted)
                    figures[f"{name}.{mode}.flat.f1"] = scores.flat.f1
                    figures[f"{name}.{mode}.nested.f1"] = scores.nested.f1
            # A source with speech is judged with it.
            decisive.append(figures[f"{name}.{'speech' if spoken else 'text'}.{self._kind}.f1"])
        figures["score"] = float(np.mean(decisive))
        return figures

    def _unit_scores(self, stage: Stage) -> dict[str, float]:
        mine = [e for n in stage.dev for e in self._examples[n]][self._own_share()]
        device = self._accelerator.device
        counts = gather_object([unit_errors(self._model, mine, self._cache, device=device)])
        errors, total = (sum(c) for c in zip(*counts, strict=True))
        rate = 100.0 * errors / max(total, 1)
        return {"unit error rate": rate, "score": -rate}

    def _predictions(self, examples: Sequence[Example], *, use_audio: bool) -> list[list[Span]]:
        mine = list(enumerate(examples))[self._own_share()]
        found = torch_predictions(
            self._model,
            [e for _, e in mine],
            self._cache,
            use_audio=use_audio,
            device=self._accelerator.device,
        )
        numbered = zip((i for i, _ in mine), found, strict=True)
        return [spans for _, spans in sorted(gather_object(list(numbered)))]

    def _own_share(self) -> slice:
        return slice(self._accelerator.process_index, None, self._accelerator.num_processes)
