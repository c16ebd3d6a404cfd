"""Data, recipes, the training loop, metrics and reports.

Train a recipe and score what came of it::

    from cnerta import models, train

    best = train.Trainer(train.load_recipe("bilstm-m3t"), data_root, out).run()
    examples = train.read_examples(data_root / "valid.json")
    model = models.load_checkpoint(best).model
    found = train.torch_predictions(model, examples, train.AudioCache())
    print(train.score_entities([e.spans or () for e in examples], found).nested.f1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnerta.models.lazy import lazy_names

if TYPE_CHECKING:
    from cnerta.train.data.audio import AudioCache
    from cnerta.train.data.examples import Example, read_examples
    from cnerta.train.evaluation.bundle_answers import bundle_predictions
    from cnerta.train.evaluation.metrics import EntityScores, Scores, score_entities
    from cnerta.train.evaluation.predict import torch_predictions
    from cnerta.train.evaluation.predictions import (
        Prediction,
        pair_predictions,
        read_predictions,
        write_predictions,
    )
    from cnerta.train.evaluation.report import Report, make_report, write_report
    from cnerta.train.loop.trainer import Trainer
    from cnerta.train.recipe import Recipe, load_recipe, recipe_names

__all__ = [
    "AudioCache",
    "EntityScores",
    "Example",
    "Prediction",
    "Recipe",
    "Report",
    "Scores",
    "Trainer",
    "bundle_predictions",
    "load_recipe",
    "make_report",
    "pair_predictions",
    "read_examples",
    "read_predictions",
    "recipe_names",
    "score_entities",
    "torch_predictions",
    "write_predictions",
    "write_report",
]

_MODULES = {
    "AudioCache": "data.audio",
    "EntityScores": "evaluation.metrics",
    "Example": "data.examples",
    "Prediction": "evaluation.predictions",
    "Recipe": "recipe",
    "Report": "evaluation.report",
    "Scores": "evaluation.metrics",
    "Trainer": "loop.trainer",
    "bundle_predictions": "evaluation.bundle_answers",
    "load_recipe": "recipe",
    "make_report": "evaluation.report",
    "pair_predictions": "evaluation.predictions",
    "read_examples": "data.examples",
    "read_predictions": "evaluation.predictions",
    "recipe_names": "recipe",
    "score_entities": "evaluation.metrics",
    "torch_predictions": "evaluation.predict",
    "write_predictions": "evaluation.predictions",
    "write_report": "evaluation.report",
}

# Type checkers see the imports above, and that any other name is wrong.
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
