"""The rows and figures of a grid's report, from what its runs found: pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cnerta.models.config import LEXICON_ENCODERS, ModelConfig
from cnerta.models.errors import ConfigError, DataError
from cnerta.train.evaluation.metrics import Scores, score_entities, sentence_counts
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.significance import Difference, paired_bootstrap
from cnerta.train.table.runs import Mode, Run, RunRecord, load_predictions

__all__ = [
    "KINDS",
    "Cost",
    "Estimate",
    "Figures",
    "Kind",
    "Row",
    "Section",
    "build_sections",
    "choose_baselines",
]

Kind = Literal["flat", "nested"]
KINDS: tuple[Kind, ...] = ("flat", "nested")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        mean: Its mean.
        deviation: Its sample standard deviation; None of one seed.
    """

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread}"


@dataclass(frozen=True, slots=True)
class Figures:
    """Flat or nested figures of a row, in percent.

    Attributes:
        precision: Share of what was found that is right.
        recall: Share of what there is that was found.
        f1: Their harmonic mean.
        delta: F1 above that of the row's baseline; None where there is none.
        audio_delta: F1 above that of the same models without their audio, seed by seed: what speech
            is worth. None of a row without audio, and where nothing has speech.
        errors: Boundary errors, type errors, spurious and missed entities, as
            :mod:`cnerta.train.evaluation.metrics` tells them apart; mean over seeds.
    """

    precision: Estimate
    recall: Estimate
    f1: Estimate
    delta: Difference | None
    audio_delta: Difference | None
    errors: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a row took, mean over its scored seeds.

    Attributes:
        parameters: Of the model; 0 where they were not counted.
        minutes: Wall-clock time of training.
        epochs: Of its last stage; 0 where that is not known.
        best_epoch: The one whose model is kept.
    """

    parameters: int = 0
    minutes: float = 0.0
    epochs: float = 0.0
    best_epoch: float = 0.0

    @classmethod
    def of(cls, records: Sequence[RunRecord]) -> Cost:
        """That of a row's scored runs; those of other libraries have none."""
        own = [r for r in records if not r.external]
        if not own:
            return cls()
        minutes, epochs, best = np.mean(
            [(r.minutes, r.epochs, r.best_epoch) for r in own], axis=0
        ).tolist()
        return cls(own[0].parameters, minutes, epochs, best)


@dataclass(frozen=True, slots=True)
class Row:
    """One recipe on one source.

    Attributes:
        name: Of the recipe.
        model: What it trains; None for another library's pipeline.
        seeds: Those that are scored.
        unscored: Seeds that are not, and why: ``failed: …``, ``not finished``, ``not scored…``.
        baseline: Row that Δ is against; empty for none.
        flat: None if no run is scored.
        nested: None if no run is scored or the model's labels are flat.
        cost: What it took.
    """

    name: str
    model: ModelConfig | None
    seeds: tuple[int, ...]
    unscored: tuple[tuple[int, str], ...]
    baseline: str
    flat: Figures | None
    nested: Figures | None
    cost: Cost = Cost()

    @property
    def resources(self) -> str:
        """What it uses, in the paper's words."""
        parts = ["Text"]
        if self.model is not None:
            listed = self.model.text.encoder in LEXICON_ENCODERS or self.model.gazetteer.lists
            parts += ["Lexicon"] if listed else []
            parts += ["Speech"] if self.model.uses_audio else []
        return "+".join(parts)

    @property
    def figures(self) -> dict[Kind, Figures | None]:
        """Both."""
        return {"flat": self.flat, "nested": self.nested}


@dataclass(frozen=True, slots=True)
class Section:
    """One source, with speech or from text alone.

    Attributes:
        source: Its name.
        mode: ``speech``: recordings are used where there are some.
        sentences: How many.
        spoken: How many of them have a recording.
        rows: In the order of the recipes.
    """

    source: str
    mode: Mode
    sentences: int
    spoken: int
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """What it is, in words."""
        how = "with speech" if self.mode == "speech" else "text only"
        return f"{self.source}, {how}"


def choose_baselines(
    models: Mapping[str, ModelConfig | None], chosen: Iterable[str]
) -> dict[str, str]:
    """The row that each row is compared with.

    By itself that is the text-only row of the same text encoder and labels: of several the one
    with the same settings of the encoder throughout, then the first.

    Args:
        models: Of the rows, by name, in order; None for another library's.
        chosen: ``BASELINE`` for all rows or ``ROW=BASELINE`` for one; the later counts.

    Raises:
        ConfigError: There is no such row.
    """
    found: dict[str, str] = {}
    ours = {name: model for name, model in models.items() if model is not None}
    for name, model in ours.items():
        alike = [
            n
            for n, m in ours.items()
            if not m.uses_audio
            and (m.text.encoder, m.text.checkpoint, m.labels)
            == (model.text.encoder, model.text.checkpoint, model.labels)
        ]
        if model.uses_audio and alike:
            found[name] = max(alike, key=lambda n: ours[n].text == model.text)
    for choice in chosen:
        row, separator, baseline = choice.rpartition("=")
        for name in (row, baseline) if separator else (baseline,):
            if name not in models:
                raise ConfigError(f"expected a row of {list(models)}, got {name!r}")
        for name in [row] if separator else models:
            found[name] = baseline
    return {name: baseline for name, baseline in found.items() if name != baseline}


def build_sections(
    runs: Sequence[Run], sources: Sequence[str], baselines: Iterable[str] = ()
) -> list[Section]:
    """Score the runs that have predictions.

    Args:
        runs: Runs, those of a recipe after one another.
        sources: Names of the evaluation sources.
        baselines: See :func:`choose_baselines`.

    Raises:
        ConfigError: See :func:`choose_baselines`.
        DataError: Predictions cannot be read, or are not of the same sentences.
    """
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    models = {
        name: None if own[0].record.external else own[0].record.recipe.model
        for name, own in by_name.items()
    }
    against = choose_baselines(models, baselines)
    sections = []
    for source in sources:
        for mode in get_args(Mode):
            found = {(r.name, r.seed): load_predictions(r, source, mode) for r in runs}
            there = [p for p in found.values() if p is not None]
            spoken = sum(p.audio is not None for p in there[0]) if there else 0
            if mode == "speech" and not spoken:
                continue
            _check_same(source, there)
            scored = {name: _Scored.of(own, found) for name, own in by_name.items()}
            silent = {}
            if mode == "speech":
                listening = [n for n, m in models.items() if m is not None and m.uses_audio]
                alone = {
                    (r.name, r.seed): load_predictions(r, source, "text")
                    for name in listening
                    for r in by_name[name]
                }
                _check_same(source, [*there[:1], *(p for p in alone.values() if p is not None)])
                silent = {name: _Scored.of(by_name[name], alone) for name in listening}
            sections.append(
                Section(
                    source=source,
                    mode=mode,
                    sentences=len(there[0]) if there else 0,
                    spoken=spoken,
                    rows=tuple(
                        _row(name, models[name], scored, against.get(name, ""), silent.get(name))
                        for name in by_name
                    ),
                )
            )
    return sections


@dataclass(frozen=True, slots=True)
class _Scored:
    """The runs of a row.

    Attributes:
        seeds: See :class:`Row`.
        unscored: See :class:`Row`.
        counts: Of each sentence, by kind. shape: (seeds, sentences, 3)
        errors: See :class:`Figures`; by kind.
        cost: See :class:`Row`.
    """

    seeds: tuple[int, ...]
    unscored: tuple[tuple[int, str], ...]
    counts: dict[Kind, npt.NDArray[np.int64]]
    errors: dict[Kind, tuple[float, float, float, float]]
    cost: Cost

    def above(self, other: _Scored, kind: Kind) -> Difference | None:
        """F1 above the other's, over the seeds that both have; None where they have none."""
        both = [seed for seed in self.seeds if seed in other.seeds]
        if not both:
            return None
        ours, theirs = (
            s.counts[kind][[s.seeds.index(seed) for seed in both]] for s in (self, other)
        )
        return paired_bootstrap(ours, theirs)

    @classmethod
    def of(
        cls, runs: Sequence[Run], found: Mapping[tuple[str, int], list[Prediction] | None]
    ) -> _Scored:
        """Count what the runs of a row found."""
        there: list[tuple[int, list[Prediction]]] = []
        missing, records = [], []
        for run in runs:
            own = found[run.name, run.seed]
            if own is None or run.record.status != "finished":
                missing.append((run.seed, _reason(run)))
            else:
                there.append((run.seed, own))
                records.append(run.record)
        counts, errors = {}, {}
        for kind in KINDS if there else ():
            sides = [([p.gold or () for p in own], [p.found for p in own]) for _, own in there]
            flat = kind == "flat"
            counts[kind] = np.stack([sentence_counts(g, p, flat=flat) for g, p in sides])
            scores = [getattr(score_entities(g, p), kind) for g, p in sides]
            errors[kind] = _mean_errors(scores)
        seeds = tuple(seed for seed, _ in there)
        return cls(seeds, tuple(missing), counts, errors, Cost.of(records))


def _mean_errors(scores: Sequence[Scores]) -> tuple[float, float, float, float]:
    counts = [(s.boundary_errors, s.type_errors, s.spurious, s.missed) for s in scores]
    boundary, types, spurious, missed = np.mean(counts, axis=0).tolist()
    return boundary, types, spurious, missed


def _reason(run: Run) -> str:
    if run.record.status == "finished":
        return run.record.message or "not scored"
    if run.record.status == "failed":
        return f"failed: {run.record.message}"
    return "not finished"


def _check_same(source: str, predictions: Sequence[list[Prediction]]) -> None:
    for own in predictions[1:]:
        if [(p.text, p.gold) for p in own] != [(p.text, p.gold) for p in predictions[0]]:
            raise DataError(
                f"expected the same sentences of {source} in all runs, got different ones: run "
                "the grid again, without --report-only"
            )


def _row(
    name: str,
    model: ModelConfig | None,
    scored: Mapping[str, _Scored],
    baseline: str,
    silent: _Scored | None,
) -> Row:
    own = scored[name]
    base = scored.get(baseline)
    figures: dict[Kind, Figures | None] = {"flat": None, "nested": None}
    for kind in KINDS:
        if own.seeds and (kind == "flat" or (model and model.labels == "nested")):
            theirs = base.counts.get(kind) if base else None
            heard = own.above(silent, kind) if silent else None
            figures[kind] = _figures(own.counts[kind], theirs, heard, own.errors[kind])
    shown = baseline if base and base.seeds else ""
    return Row(
        name, model, own.seeds, own.unscored, shown, figures["flat"], figures["nested"], own.cost
    )


def _figures(
    ours: npt.NDArray[np.int64],
    theirs: npt.NDArray[np.int64] | None,
    audio_delta: Difference | None,
    errors: tuple[float, float, float, float],
) -> Figures:
    # shape of each: (seeds,)
    correct, predicted, gold = ours.sum(axis=1).T
    return Figures(
        precision=_estimate(100 * correct / np.maximum(predicted, 1)),
        recall=_estimate(100 * correct / np.maximum(gold, 1)),
        f1=_estimate(200 * correct / np.maximum(predicted + gold, 1)),
        delta=None if theirs is None else paired_bootstrap(ours, theirs),
        audio_delta=audio_delta,
        errors=errors,
    )


def _estimate(values: npt.NDArray[np.float64]) -> Estimate:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), deviation)
