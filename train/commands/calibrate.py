"""`cnerta-train calibrate`: make a bundle's confidences mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from cnerta.models.errors import CnertaError, DataError
from cnerta.models.runtime.bundle import write_bundle
from cnerta.models.runtime.calibration import Calibration
from cnerta.models.runtime.inference import Model
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import Example, read_examples
from cnerta.train.evaluation.bundle_answers import bundle_answers
from cnerta.train.evaluation.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_calibration,
    reliability,
)

__all__ = ["calibrate"]


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle; its bundle.json changes.")],
    data: Annotated[
        Path, typer.Option(help="Annotated sentences that training did not see, JSON lines.")
    ],
    audio_root: Annotated[
        Path | None,
        typer.Option(help="Recordings of CNERTA's data: AISHELL-1's wav folder or a flat one."),
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Do not use audio.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw confidence against accuracy into this file.")
    ] = None,
) -> None:
    """Fit a bundle's confidences on every second sentence, and report the error on the others."""
    console = Console(stderr=True)
    try:
        examples = read_examples(data, audio_root=audio_root)
        if any(e.spans is None for e in examples) or len(examples) < 2:
            raise DataError(f"expected annotated sentences in {data}, at least two")
        model = Model.load(bundle, device="cpu")
        plain = model.calibrated(Calibration())
        fitted = fit_calibration(*_outcomes(plain, examples[::2], not text_only, console))
        confidences, right = _outcomes(plain, examples[1::2], not text_only, console)
        if not confidences:
            raise DataError(f"expected entities to be found in {data}, got none")
        write_bundle(replace(model.bundle, calibration=fitted))
    except (CnertaError, OSError) as error:
        fail(error)
    corrected = [fitted(c) for c in confidences]
    before, after = (expected_calibration_error(c, right) for c in (confidences, corrected))
    console.print(
        f"scale {fitted.scale:.3f}, shift {fitted.shift:.3f}; expected calibration error on the "
        f"other half, {len(confidences)} entities: {before:.3f} before, {after:.3f} after",
        markup=False,
        soft_wrap=True,
    )
    if plot is not None:
        _draw(plot, reliability(confidences, right), reliability(corrected, right))


def _outcomes(
    model: Model, examples: Sequence[Example], use_audio: bool, console: Console
) -> tuple[list[float], list[bool]]:
    """Confidence of every entity that is found, and whether it is right."""
    confidences: list[float] = []
    right: list[bool] = []
    answers = track(
        bundle_answers(model, examples, use_audio=use_audio),
        description="tagging",
        total=len(examples),
        console=console,
        transient=True,
    )
    for example, answer in zip(examples, answers, strict=True):
        gold = set(example.spans or ())
        confidences += [s.confidence for s in answer]
        right += [s.span in gold for s in answer]
    return confidences, right


def _draw(path: Path, before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for bins, label in ((before, "as the CRF has it"), (after, "calibrated")):
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", label=label)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)
