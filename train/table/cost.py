"""What a grid will take, from what its rows took for a few epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnerta.train.table.runs import Run

__all__ = ["RowCost", "cost_table", "row_costs"]


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row of a grid takes.

    Attributes:
        name: Of the row.
        epoch_minutes: Of one epoch of its last stage, start and evaluation in it; None where it was
            not measured.
        epochs: At most.
        seeds: Runs.
    """

    name: str
    epoch_minutes: float | None
    epochs: int
    seeds: int

    @property
    def hours(self) -> float:
        """Of all its runs, one after another; 0 where it was not measured."""
        return (self.epoch_minutes or 0.0) * self.epochs * self.seeds / 60


def row_costs(planned: Sequence[Run], measured: Sequence[Run]) -> list[RowCost]:
    """What each row of a grid takes.

    Args:
        planned: The runs of the grid.
        measured: Finished runs of the same rows, of however many epochs.
    """
    spent: dict[str, list[float]] = {}
    for run in measured:
        if run.record.status == "finished" and run.record.epochs:
            spent.setdefault(run.name, []).append(run.record.minutes / run.record.epochs)
    costs = []
    for name in dict.fromkeys(run.name for run in planned):
        own = [run for run in planned if run.name == name]
        minutes = spent.get(name)
        mean = sum(minutes) / len(minutes) if minutes else None
        epochs = own[0].record.recipe.stages[-1].epochs
        costs.append(RowCost(name, mean, epochs, len(own)))
    return costs


def cost_table(costs: Sequence[RowCost], price: float = 0.0) -> str:
    """The rows and their sum as a Markdown table.

    Args:
        costs: Of the rows.
        price: Of an hour on the machine that was measured; 0: not known.
    """
    heads = ["row", "minutes an epoch", "epochs", "runs", "hours", *(["price"] if price else [])]
    lines = [heads, ["---"] * len(heads)]
    for cost in costs:
        known = cost.epoch_minutes is not None
        row = [cost.name, f"{cost.epoch_minutes:.2f}" if known else "not measured"]
        row += [str(cost.epochs), str(cost.seeds), f"{cost.hours:.1f}" if known else "–"]
        lines.append([*row, *([f"{cost.hours * price:.2f}" if known else "–"] if price else [])])
    hours = sum(cost.hours for cost in costs)
    runs = sum(cost.seeds for cost in costs)
    total = ["all that was measured", "", "", str(runs), f"{hours:.1f}"]
    lines.append([*total, *([f"{hours * price:.2f}"] if price else [])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
