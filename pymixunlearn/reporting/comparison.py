"""The table of a comparison: a row per method, means over seeds, gaps to Retrain, and which row is closest to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any, TypeAlias

from pymixunlearn.evaluation import metric_keys
from pymixunlearn.evaluation.catalogue import plugged_keys
from pymixunlearn.reporting.metrics_record import PAPER_ATTACK, SECOND, row_name
from pymixunlearn.reporting.noise_floor import Floor, floor_over_seeds

REFERENCE, AWARE, AGNOSTIC = "", "aware", "agnostic"
GAP, SECONDS, MEMORY, PEAK = "mean", "seconds", "added_megabytes", "peak_megabytes"
MEGABYTE = 2**20
DECISIONS = ("accepted", "refused", "cannot tell")
DIFFER = "seeds differ"
"""Stands for the answer of the acceptance test where seeds have different ones."""
DECIMALS = 2
"""Digits behind the point of percentages."""
_OURS = "mixunlearn"
_AMONG_AWARE = ("boundary-expand",)
"""Methods that read no label and are ranked among those that do: the paper counts Boundary Unlearning so, and among
methods without labels it would take a place that its authors do not claim."""

Cell: TypeAlias = Mapping[str, Any]
"""What ``compare.json`` says about one cell."""
Numbers: TypeAlias = Mapping[str, "tuple[float, float | None]"]
"""Metric to mean and standard deviation."""


@dataclass(frozen=True)
class Statistic:
    """A mean over seeds, and the sample standard deviation where there are two or more."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        """Summarise one value per seed."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the table.

    Attributes:
        name: The method, "initial" or "Retrain".
        group: Which methods it is ranked among: :data:`AWARE`, :data:`AGNOSTIC`, or :data:`REFERENCE` for none.
        cells: Metric, :data:`GAP`, :data:`SECONDS`, :data:`MEMORY` and :data:`PEAK` to their statistics; what is not
            known is absent.
        finished: How many seeds have a result.
        asked: Of how many.
        closest: The metrics in which no other row of its group is closer to Retrain.
        published: Metric to the paper's numbers.
        gaps: Mean gap by seed.
        decisions: How many seeds the acceptance test answers so, by answer; empty where it was not made.
        within_floor: Whether its mean gap is no larger than the second Retrain's may be; such a row is not ranked.
        lacking: What stands where a value is missing: "failed" or "not run" in rows without any result, otherwise "-".
    """

    name: str
    group: str
    cells: Mapping[str, Statistic]
    finished: int
    asked: int
    closest: frozenset[str] = frozenset()
    published: Mapping[str, Statistic] = field(default_factory=dict)
    gaps: Mapping[int, float] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)
    within_floor: bool = False
    lacking: str = "-"

    @property
    def answer(self) -> str:
        """What the acceptance test says in all seeds, :data:`DIFFER`, or "" where it was not made."""
        answers = [answer for answer in DECISIONS if self.decisions.get(answer)]
        return "" if not answers else answers[0] if len(answers) == 1 else DIFFER

    @property
    def accepted(self) -> str:
        """What the acceptance test says, in a word or as shares of the seeds: "refused", "2 of 3 accepted"."""
        total = sum(self.decisions.values())
        if not total:
            return "-"
        answer, count = max(self.decisions.items(), key=lambda item: item[1])
        if count == total:
            return answer
        return ", ".join(f"{number} of {total} {name}" for name, number in self.decisions.items())


@dataclass(frozen=True)
class ComparisonTable:
    """Rows, top to bottom, and what has to be said with them.

    Attributes:
        title: What was forgotten of which data.
        metrics: The task's metrics, in the paper's order.
        rows: Retrain and the initial model, then the label-aware methods, then the label-agnostic ones.
        notes: Cells without a result, and why.
        published: Where the paper's numbers stand, or None where there are none.
        command_line: What made it.
        floor: The mean gap of the second Retrain with its interval; None without one.
        about_memory: What the column of memory says, which terminals do not show.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]
    published: str | None
    command_line: str
    floor: Floor | None = None
    about_memory: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """Whether the acceptance test was made for some row."""
        return any(row.decisions for row in self.rows)

    @property
    def costs(self) -> tuple[str, ...]:
        """The columns that say what a row takes: memory only where some run has measured it."""
        return (SECONDS, MEMORY) if any(MEMORY in row.cells for row in self.rows) else (SECONDS,)


def comparison_table(
    record: Mapping[str, Any],
    published: Mapping[str, Numbers] | None = None,
    source: str | None = None,
    order: Sequence[str] = (),
) -> ComparisonTable:
    """Summarise the content of a ``compare.json``.

    The gap of a row is the mean over seeds of every run's mean gap: ``|metric - Retrain's|``, averaged over the paper's
    metrics. Closest in a metric is the row whose mean is nearest to the mean of Retrain, as printed, so that two rows
    which look alike are both closest; rows that lack a seed do not compete. With a second Retrain only the gap is
    ranked, and only where no row is within its interval and the closest beats the next by more than that is wide.

    Args:
        record: The content of a ``compare.json``.
        published: The paper's numbers for this case, row to metric to mean and standard deviation.
        source: Where those stand.
        order: Names of rows in the order in which they stand in their group; () takes that of the paper's tables, the
            others after them and MixUnlearn last.
    """
    cells = list(record["cells"].values())
    plugged = {key for cell in cells for key in plugged_keys((cell.get("metrics") or {}).get("unlearned") or ())}
    metrics = (*metric_keys(record["task"]), *sorted(plugged))
    paper = _published(published or {})

    references = _references(cells, metrics)
    floor = _floor(cells)
    places = {name: place for place, name in enumerate(order or paper)}
    rows = list(references)
    for group in (AWARE, AGNOSTIC):
        names = {cell["name"]: cell["method"] for cell in cells if group_of(cell) == group}
        ranked = sorted(
            names, key=lambda name: (not order and names[name] == _OURS, places.get(name, len(places)), name)
        )
        own = [_row(name, group, [cell for cell in cells if cell["name"] == name], metrics) for name in ranked]
        rows += _with_closest(own, references[0], metrics) if floor is None else _against_floor(own, floor)
    return ComparisonTable(
        title=_title(record),
        metrics=metrics,
        rows=tuple(replace(row, published=paper.get(row.name.lower(), {})) for row in rows),
        notes=(*_notes(cells), *([PAPER_ATTACK] if record.get("asr") == "paper" else [])),
        about_memory=(*_memory_notes(cells),),
        published=source if paper else None,
        command_line=record["command_line"],
        floor=floor,
    )


def group_of(cell: Cell) -> str:
    """Return the group that a cell's row is ranked in."""
    return AWARE if cell["label_aware"] or cell["method"] in _AMONG_AWARE else AGNOSTIC


def _references(cells: Sequence[Cell], metrics: Sequence[str]) -> list[ComparisonRow]:
    """Retrain and the initial model, which all cells of a seed have measured alike: the first one's word is taken."""
    by_seed = {cell["seed"]: cell for cell in reversed(cells) if cell["status"] == "finished"}
    asked = len({cell["seed"] for cell in cells})
    done = list(by_seed.values())
    rows = []
    for model in ("retrain", SECOND, "initial"):
        if model != SECOND or any(cell["metrics"].get(SECOND) for cell in done):
            rows.append(_model_row(row_name(model), REFERENCE, done, model, metrics, asked))
    return rows


def _floor(cells: Sequence[Cell]) -> Floor | None:
    by_seed = {cell["seed"]: cell for cell in reversed(cells) if cell["status"] == "finished"}
    return floor_over_seeds([by_seed[seed] for seed in sorted(by_seed)])


def _model_row(
    name: str, group: str, done: Sequence[Cell], model: str, metrics: Sequence[str], asked: int
) -> ComparisonRow:
    having = [cell for cell in done if cell["metrics"].get(model) is not None]
    gaps = {cell["seed"]: (cell["gap"] or {}).get(model, {}).get(GAP) for cell in having}
    answers = [(cell.get("acceptance") or {}).get(model, {}).get("decision") for cell in having]
    return ComparisonRow(
        name,
        group,
        _model_statistics(having, model, metrics),
        len(having),
        asked,
        gaps={seed: gap for seed, gap in gaps.items() if gap is not None},
        decisions={answer: answers.count(answer) for answer in DECISIONS if answer in answers},
    )


def _row(name: str, group: str, cells: Sequence[Cell], metrics: Sequence[str]) -> ComparisonRow:
    done = [cell for cell in cells if cell["status"] == "finished"]
    row = _model_row(name, group, done, "unlearned", metrics, len(cells))
    return row if done else replace(row, lacking=max(cells, key=lambda cell: cell["status"] == "failed")["status"])


def _model_statistics(done: Sequence[Cell], model: str, metrics: Sequence[str]) -> dict[str, Statistic]:
    values = {metric: [cell["metrics"][model].get(metric) for cell in done] for metric in metrics}
    values[GAP] = [cell["gap"][model][GAP] for cell in done if model in cell["gap"]]
    values[SECONDS] = [cell["seconds"].get(model) for cell in done]
    values |= {key: [megabytes(cell, model, key) for cell in done] for key in (MEMORY, PEAK)}
    return _statistics(values)


def megabytes(cell: Cell, model: str, key: str = MEMORY) -> float | None:
    """Return the peak of memory while a cell's model was made, in units of 2^20 bytes; None where it is not known.

    :data:`PEAK` is all of it, :data:`MEMORY` what was not there before: other cells of the process may have been.
    """
    found = (cell.get("phases") or {}).get(model) or {}
    if found.get("peak_bytes") is None:
        return None
    return float(found["peak_bytes"] - (found["start_bytes"] if key == MEMORY else 0)) / MEGABYTE


def _statistics(values: Mapping[str, Sequence[float | None]]) -> dict[str, Statistic]:
    """Summarise what is known of every quantity."""
    known = {key: [value for value in column if value is not None] for key, column in values.items()}
    return {key: Statistic.of(column) for key, column in known.items() if column}


def _with_closest(rows: Sequence[ComparisonRow], retrain: ComparisonRow, metrics: Sequence[str]) -> list[ComparisonRow]:
    """Mark in every row of a group where it is closest to Retrain."""
    closest: dict[str, set[str]] = {row.name: set() for row in rows}
    for key in (*metrics, GAP):
        target = retrain.cells[key].mean if key in retrain.cells else 0.0
        distances = {
            row.name: round(abs(row.cells[key].mean - target), DECIMALS)
            for row in rows
            if key in row.cells and row.finished == retrain.finished
        }
        for name, distance in distances.items():
            if distance == min(distances.values()):
                closest[name].add(key)
    return [replace(row, closest=frozenset(closest[row.name])) for row in rows]


def _against_floor(rows: Sequence[ComparisonRow], floor: Floor) -> list[ComparisonRow]:
    """Mark the rows within the floor, and the closest one where none is and it leads by more than the floor's width."""
    marked = [replace(row, within_floor=GAP in row.cells and floor.holds(row.cells[GAP].mean)) for row in rows]
    ranked = sorted((row for row in marked if GAP in row.cells), key=lambda row: row.cells[GAP].mean)
    if len(ranked) < 2 or any(row.within_floor for row in ranked) or ranked[0].finished < ranked[0].asked:
        return marked
    if ranked[1].cells[GAP].mean - ranked[0].cells[GAP].mean <= floor.high - floor.low:
        return marked
    return [replace(row, closest=frozenset({GAP})) if row.name == ranked[0].name else row for row in marked]


def _published(rows: Mapping[str, Numbers]) -> dict[str, dict[str, Statistic]]:
    """Return the paper's numbers with the gap that they amount to where all are known; the paper prints none."""
    found: dict[str, dict[str, Statistic]] = {}
    retrain = rows.get("retrain", {})
    for name, numbers in rows.items():
        found[name] = {metric: Statistic(mean, std) for metric, (mean, std) in numbers.items()}
        if name != "retrain" and set(numbers) == set(retrain) and "asr" in numbers:
            found[name][GAP] = Statistic(fmean(abs(numbers[key][0] - retrain[key][0]) for key in retrain))
    return found


def _memory_notes(cells: Sequence[Cell]) -> list[str]:
    """Say what the memory of the rows is that of."""
    kinds = sorted({cell["peak_memory"] for cell in cells if cell.get("phases") and cell.get("peak_memory")})
    said = "at its peak while the model was made, beyond what was there before, in units of 2^20 bytes"
    return [f"Memory MB: {' or '.join(kinds)}, {said}"] if kinds else []


def _title(record: Mapping[str, Any]) -> str:
    """Say in one line what was forgotten, of which data, by which network."""
    params, task = record["params"], record["task"]
    labels = ", ".join(map(str, params.get("classes", [])))
    plural = "es" if "," in labels else ""
    forgotten = "listed samples"
    if task == "class":
        forgotten = f"class{plural} {labels}"
    elif labels:
        share = f"{100 * params['fraction']:g} % of " if "fraction" in params else "samples of "
        forgotten = f"{share}class{plural} {labels}"
    return f"{record['dataset']}, task {task}, {forgotten} forgotten, {record['architecture']['name']}"


def _notes(cells: Sequence[Cell]) -> Iterator[str]:
    """Say why cells have no result, seeds of one reason together, and warn of results that cannot be compared."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["status"] != "finished":
            reasons.setdefault((cell["name"], cell["status"], cell["reason"]), []).append(str(cell["seed"]))
    for (name, status, reason), seeds in reasons.items():
        yield f"{name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}, {status}: {reason}"
    models: dict[int, set[str]] = {}
    for cell in cells:
        if cell["status"] == "finished":
            models.setdefault(cell["seed"], set()).add(cell["hashes"]["retrain"])
    for seed, hashes in models.items():
        if len(hashes) > 1:
            yield (
                f"seed {seed}: its cells were compared with {len(hashes)} different Retrain models (another machine or "
                "another PyTorch in between); the Retrain row shows the first"
            )
