"""Markdown tables over the exhibits that were run: what was accepted, and how near to Retrain.

    python -m benchmarks.paper_tables benchmarks/results/paper

reads the ``table.csv`` of each of Tables 1 to 6 that is there, as ``mixunlearn-cli experiment run`` wrote them. A cell
is a data set, a row and a seed. What was accepted is counted over Tables 1 and 2, which have all methods. "Told" cells
are those in which the acceptance test refuses the initial model; elsewhere it cannot tell whether anything was
forgotten. Seconds are in the exhibits' own tables: cells of one exhibit may have been run beside different other work.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple

import click

EXHIBITS = {
    "table1": "class 0 forgotten",
    "table2": "samples forgotten",
    "table3": "parts of the method, class 0 forgotten",
    "table4": "parts of the method, samples forgotten",
    "table5": "wrong labels forgotten",
    "table6": "few labels",
}
JUDGED = ("table1", "table2")
"""Those whose decisions are counted together."""
PLANNED = (*EXHIBITS, "figure5", "figure6", "figure9")
"""Exhibits with cells of their own; those of the other figures are cells of Tables 1 and 3."""
REFERENCES = {"retrain": "Retrain", "second_retrain": "second Retrain", "initial": "initial"}


class Cell(NamedTuple):
    """A method's line of ``table.csv``, and the lines of the models beside it."""

    exhibit: str
    own: Mapping[str, str]
    beside: Mapping[str, Mapping[str, str]]

    @property
    def told(self) -> bool:
        """Whether the acceptance test refuses the initial model."""
        return self.beside["initial"]["acceptance"] == "refused"

    @property
    def gap(self) -> float:
        """The mean gap to Retrain."""
        return float(self.own["mean_gap"])


def read_cells(folder: Path) -> list[Cell]:
    """Return the finished cells of all exhibits that are there."""
    found = []
    for name in (name for name in EXHIBITS if (folder / name).is_dir()):
        with (folder / name / "table.csv").open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line["status"] == "finished"]
        groups: dict[tuple[str, str, str], dict[str, dict[str, str]]] = {}
        for line in lines:
            groups.setdefault((line["case"], line["row"], line["seed"]), {})[line["model"]] = line
        found += [Cell(name, models["unlearned"], models) for models in groups.values()]
    return found


def count_finished(folder: Path) -> int:
    """Return how many cells of the plan have a result."""
    found = set()
    for name in (name for name in PLANNED if (folder / name).is_dir()):
        with (folder / name / "table.csv").open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line["status"] == "finished"]
        found |= {(name, line["case"], line["row"], line["seed"]) for line in lines}
    return len(found)


def summary(cells: list[Cell]) -> str:
    """Return a line for each row of Tables 1 and 2, over all data sets, tasks and seeds."""
    cells = [cell for cell in cells if cell.exhibit in JUDGED]
    heading = (
        "row",
        "labels",
        "accepted",
        "refused",
        "cannot tell",
        "of cells",
        "mean gap, median",
    )
    lines = []
    first = {(cell.exhibit, cell.own["case"], cell.own["seed"]): cell for cell in reversed(cells)}.values()
    for model, name in REFERENCES.items():
        answers = [cell.beside[model]["acceptance"] for cell in first if cell.told]
        gaps = [float(cell.beside[model]["mean_gap"]) for cell in first if model != "retrain"]
        lines.append((name, "", *_counts(answers), f"{median(gaps):.1f}" if gaps else ""))
    for (row, labels), own in _grouped(cells):
        answers = [cell.own["acceptance"] for cell in own if cell.told]
        lines.append((row, labels, *_counts(answers), f"{median(cell.gap for cell in own):.1f}"))
    return markdown(heading, lines)


def gaps(cells: list[Cell], exhibit: str) -> str:
    """Return the mean gaps of an exhibit: a line for each row, a column for each data set, over seeds."""
    own = [cell for cell in cells if cell.exhibit == exhibit]
    cases = list(dict.fromkeys(cell.own["case"] for cell in own))
    lines = []
    for model in ("second_retrain", "initial"):
        values = [
            _mean(
                {
                    cell.own["seed"]: float(cell.beside[model]["mean_gap"]) for cell in own if cell.own["case"] == case
                }.values()
            )
            for case in cases
        ]
        lines.append((REFERENCES[model], "", *values))
    for (row, labels), same in _grouped(own):
        values = [_mean(cell.gap for cell in same if cell.own["case"] == case) for case in cases]
        lines.append((row, labels, *values))
    return markdown(("row", "labels", *cases), lines)


def markdown(heading: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heading)
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _grouped(cells: list[Cell]) -> list[tuple[tuple[str, str], list[Cell]]]:
    keys = dict.fromkeys((cell.own["row"], cell.own["labels"]) for cell in cells)
    return [(key, [cell for cell in cells if (cell.own["row"], cell.own["labels"]) == key]) for key in keys]


def _counts(answers: list[str]) -> tuple[str, ...]:
    return *(str(answers.count(answer)) for answer in ("accepted", "refused", "cannot tell")), str(len(answers))


def _mean(values: Iterable[float]) -> str:
    known = list(values)
    if not known:
        return "not run"
    return f"{mean(known):.1f}" + (f" ± {stdev(known):.1f} ({len(known)})" if len(known) > 1 else "")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(folder: Path) -> None:
    """Print the tables of the exhibits in FOLDER."""
    cells = read_cells(folder)
    click.echo(f"{count_finished(folder)} cells have a result.\n\n{summary(cells)}\n")
    for name in dict.fromkeys(cell.exhibit for cell in cells):
        click.echo(
            f"{name}, {EXHIBITS[name]}: mean gap to Retrain (± deviation, number of seeds where there are several)\n"
        )
        click.echo(f"{gaps(cells, name)}\n")


if __name__ == "__main__":
    main()
