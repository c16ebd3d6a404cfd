"""``cnerta-train table``: train recipes with several seeds, score them, report like Table 3."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console

from cnerta.models.command_line import log_to_console
from cnerta.models.errors import CnertaError, ConfigError
from cnerta.train.commands.failure import fail
from cnerta.train.evaluation.differences import differences_document, find_differences
from cnerta.train.recipe import load_recipe
from cnerta.train.table.cost import cost_table, row_costs
from cnerta.train.table.grid import Grid
from cnerta.train.table.latex import latex_table
from cnerta.train.table.paper import PAPER_ROWS, PAPER_TEST, merge_flat, plan_paper_runs
from cnerta.train.table.plots import draw_sections
from cnerta.train.table.results import Section, build_sections
from cnerta.train.table.runs import (
    Mode,
    Run,
    evaluation_sources,
    find_runs,
    load_predictions,
    plan_external,
    plan_runs,
)
from cnerta.train.table.table import csv_table, markdown_table

__all__ = ["table"]

logger = logging.getLogger(__name__)


def table(
    out: Annotated[Path, typer.Option(help="Folder of the grid; goes on with what is there.")],
    recipes: Annotated[
        str,
        typer.Option(
            help="Rows of the table, by comma: recipes of the package or TOML files. With "
            "--report-only they choose among what is there."
        ),
    ] = "",
    seeds: Annotated[str, typer.Option(help="By comma.")] = "0",
    data_root: Annotated[
        Path, typer.Option(help="Folder that the recipes' data paths are relative to.")
    ] = Path(),
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="What to score on: a source of the recipes, or JSON lines below the data root. "
            "Repeatable. \\[default: the development sources of the recipes' last stages]",
        ),
    ] = None,
    audio_root: Annotated[
        str, typer.Option(help="Recordings of what --evaluate NAME=PATH names.")
    ] = "",
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ROW=]BASELINE",
            help="Row that Δ is against, for one row or all. Repeatable. \\[default: the text-only "
            "row of the same text encoder]",
        ),
    ] = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIBRARY:MODEL",
            help="Another library's pipeline as a row, flat only: spacy:zh_core_web_trf, "
            "stanza:zh. It must be installed. Repeatable.",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of every recipe. Repeatable."
        ),
    ] = None,
    init: Annotated[str, typer.Option(help="Start every run from this checkpoint.")] = "",
    acoustic_from: Annotated[
        str,
        typer.Option(
            help="Start every run that uses audio from this checkpoint's acoustic encoder and CTC."
        ),
    ] = "",
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use an accelerator.")] = False,
    precision: Annotated[
        Literal["no", "fp16", "bf16"], typer.Option(help="Of the forward pass.")
    ] = "no",
    threads: Annotated[int, typer.Option(help="CPU threads of a run; 0 for all cores.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Threads of a run that build batches.")] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time; small models share a GPU well.")
    ] = 1,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="The paper's Table 3: its neural rows (or those of --recipes), each trained on "
            "flat and on nested labels, scored on test.json; CNERTA and AISHELL-1 are below "
            "--data-root as published.",
        ),
    ] = False,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            help="Train every row until its development score has not risen for so many epochs. "
            "\\[default: as each recipe says]",
        ),
    ] = 0,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing: report what is there.")
    ] = False,
    measured: Annotated[
        Path | None,
        typer.Option(
            help="Train nothing: say how long the grid will take, from what the same rows took in "
            "this folder, where they were trained for an epoch or a few."
        ),
    ] = None,
    price: Annotated[
        float, typer.Option(min=0, help="Of an hour on that machine, for --measured.")
    ] = 0.0,
) -> None:
    """Run a grid, recipes x seeds, and write table.md, .csv and .tex and a plot for each source.

    What is finished is not run again, what was cut off goes on, what fails is said and does not
    stop the others.
    """
    console = Console(stderr=True)
    log_to_console(logging.INFO, console=console, others=logging.WARNING, show_time=True)
    try:
        names = [r.strip() for r in recipes.split(",") if r.strip()]
        if report_only:
            runs = _there(out, names)
            named = [e.partition("=")[0] for e in evaluate or ()]
            sources = named or _scored_sources(runs)
        else:
            changes = list(assignments or ())
            if paper:
                names = names or list(PAPER_ROWS)
                evaluate, audio_root = evaluate or [PAPER_TEST[0]], audio_root or PAPER_TEST[1]
            if patience:
                changes.append(f"stages.{_last_stage(names, changes)}.patience={patience}")
            plan = plan_paper_runs if paper else plan_runs
            runs = plan(names, _numbers(seeds), out, changes)
            if measured is not None:
                typer.echo(cost_table(row_costs(runs, find_runs(measured)), price))
                return
            chosen = evaluation_sources(evaluate or (), [r.record.recipe for r in runs], audio_root)
            arguments = ["--precision", precision, "--threads", str(threads)]
            arguments += ["--workers", str(workers), *(["--cpu"] if cpu else [])]
            starts = (init, acoustic_from)
            runs = [*plan_external(external or (), out), *runs]
            grid = Grid(arguments, starts, chosen, data_root, cpu=cpu, jobs=jobs)
            # A process manager's request to end ends the trainings too.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            runs = grid.run(runs)
            sources = list(chosen)
        sections = build_sections(runs, sources, baseline or ())
        links = _write_differences(out, runs, sections)
        sections = [merge_flat(section) for section in sections]
        report = markdown_table(sections, draw_sections(out, sections), links)
        report = f"{report}\n{_training_rule(runs)}\n"
        (out / "table.md").write_text(report, encoding="utf-8")
        (out / "table.csv").write_text(csv_table(sections), encoding="utf-8")
        (out / "table.tex").write_text(latex_table(sections), encoding="utf-8")
    except (CnertaError, OSError) as error:
        fail(error)
    typer.echo(report)
    if any(run.record.status == "failed" or run.record.message for run in runs):
        raise typer.Exit(1)


def _last_stage(names: Sequence[str], changes: Sequence[str]) -> int:
    """Number of the last stage of all recipes.

    Raises:
        ConfigError: They do not have as many.
    """
    numbers = {len(load_recipe(n, changes).stages) - 1 for n in names}
    if len(numbers) != 1:
        raise ConfigError(
            f"expected recipes of as many stages each with --patience, got {len(numbers)} numbers"
        )
    return numbers.pop()


def _training_rule(runs: Sequence[Run]) -> str:
    """How long rows were trained, so that a reader sees whether all had the same chance.

    It also names the runs that the bound on epochs ended before the rule did.
    """
    rules: dict[str, list[str]] = {}
    for run in runs:
        if run.record.recipe.stages:
            stage = run.record.recipe.stages[-1]
            rule = f"at most {stage.epochs} epochs"
            if stage.patience and stage.dev:
                rule += f", until the development score has not risen for {stage.patience}"
            elif not stage.dev:
                rule += ", the last of which counts"
            else:
                rule += ", the best of which counts"
            rules.setdefault(rule, []).append(run.name)
    said = [f"{', '.join(dict.fromkeys(names))}: {rule}." for rule, names in rules.items()]
    early = [f"{r.name} seed {r.seed}" for r in runs if r.record.ended_early]
    if early:
        said.append(
            f"Ended by the bound on epochs while they might still rise: {', '.join(early)}."
        )
    return "Trained: " + " ".join(said) if said else ""


def _write_differences(
    out: Path, runs: Sequence[Run], sections: Sequence[Section]
) -> dict[str, dict[str, str]]:
    """Write where each row differs from its baseline, and from itself without its audio.

    Only the second tells what speech has mended: the baseline is another model. Both are of the
    first seed that both sides have.

    Returns:
        Name of each file, by the section's title and what is compared.
    """
    by_place = {(run.name, run.seed): run for run in runs}
    folder = out / "differences"
    links: dict[str, dict[str, str]] = {}

    def write(section: Section, seed: int, sides: _Sides, file: str, what: str = "") -> None:
        ours, theirs = (
            load_predictions(by_place[name, seed], section.source, mode)
            for name, mode in (sides.ours, sides.theirs)
        )
        if ours is None or theirs is None:
            return
        folder.mkdir(exist_ok=True)
        document = differences_document(find_differences(ours, theirs), *sides.names, what=what)
        (folder / file).write_text(document, encoding="utf-8")
        said = " against ".join(sides.names)
        links.setdefault(section.title, {})[said] = f"differences/{file}"

    for section in sections:
        seeds = {row.name: row.seeds for row in section.rows}
        for row in section.rows:
            ours = (row.name, section.mode)
            start = f"{section.source}-{section.mode}-{row.name}"
            for seed in [s for s in row.seeds if s in seeds.get(row.baseline, ())][:1]:
                sides = _Sides((row.name, row.baseline), ours, (row.baseline, section.mode))
                write(section, seed, sides, f"{start}.md")
            if section.mode == "speech" and row.model is not None and row.model.uses_audio:
                for seed in row.seeds[:1]:
                    names = (row.name, f"{row.name} without audio")
                    sides = _Sides(names, ours, (row.name, "text"))
                    write(section, seed, sides, f"{start}-audio.md", what="Speech")
    return links


class _Sides(NamedTuple):
    """Two things that are compared: what they are called, and row and mode of each."""

    names: tuple[str, str]
    ours: tuple[str, Mode]
    theirs: tuple[str, Mode]


def _numbers(text: str) -> list[int]:
    try:
        return [int(n) for n in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"expected whole numbers by comma, got {text!r}") from error


def _there(out: Path, names: Sequence[str]) -> list[Run]:
    """The runs of a folder; of the given recipes, in their order, where some are given."""
    runs = find_runs(out)
    wanted = [Path(n).stem if n.endswith(".toml") else n for n in names]
    for name in wanted:
        if all(r.name != name for r in runs):
            raise ConfigError(f"expected runs of {name} below {out}, got none")
    if not wanted:
        return runs
    chosen = [r for r in runs if r.name in wanted]
    return sorted(chosen, key=lambda r: wanted.index(r.name))


def _scored_sources(runs: Sequence[Run]) -> list[str]:
    found = {f.name.split(".")[0] for r in runs for f in r.folder.glob("predictions/*.*.jsonl")}
    return sorted(found)
