"""Figure of an exhibit, drawn of its finished cells, and the numbers in it as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn

from pymixunlearn.evaluation import predict
from pymixunlearn.evaluation.distances import forget_and_unseen_densities
from pymixunlearn.evaluation.representations import representations
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.stages import train_retrain
from pymixunlearn.experiments.paper.exhibit import Form
from pymixunlearn.experiments.paper.plan import ExhibitCase, ExperimentPlan
from pymixunlearn.experiments.paper.results import finished
from pymixunlearn.experiments.unlearn.figures import PICTURES, tsne_samples
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.experiments.unlearn.run import initial_model
from pymixunlearn.reporting import row_name
from pymixunlearn.reporting.comparison import AGNOSTIC, AWARE
from pymixunlearn.reporting.pictures import (
    Duration,
    Picture,
    Point,
    draw_densities,
    draw_durations,
    draw_learning_curves,
    draw_representations_of,
    draw_shares,
    draw_sweeps,
)
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import load_model

FIGURE = "figure"
_SWEPT = "test_r"
"""The metric of Figure 6."""
_SHARED = ("train_f", "test")
"""The metrics of Figure 9."""


@dataclass(frozen=True)
class Drawn:
    """A figure: pictures, copies of pictures that runs drew (SVG documents by name), and its numbers."""

    pictures: Sequence[Picture] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    csv: str | None = None


def draw_figure(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    """Draw the figure of an exhibit; nothing for a table, or where no cell has a result.

    Args:
        plan: The experiment.
        record: The content of its ``experiment.json``.
        folder: Where that is.
        watcher: Receives the progress of models that have to be trained again, since the cache lacks them.
    """
    draw = _DRAW.get(plan.exhibit.form)
    if draw is None or not any(finished(case, record) for case in plan.cases):
        return Drawn()
    watcher.phase_started(FIGURE, None)
    drawn = draw(plan, record, folder, watcher)
    watcher.phase_finished(FIGURE, plan.exhibit.form)
    return drawn


def _curves(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    curves: dict[str, dict[str, list[Point]]] = {}
    rows = []
    for case in plan.cases:
        histories = [_history(folder / cell["folder"]) for cell in finished(case, record)]
        for key, column in (("train", "accuracy"), ("test", "test")):
            by_epoch: dict[float, list[float]] = {}
            for history in histories:
                for line in history:
                    by_epoch.setdefault(float(line["epoch"]), []).append(float(line[column]))
            if by_epoch:
                points = [_point(epoch, values) for epoch, values in by_epoch.items()]
                curves.setdefault(case.label, {})[key] = points
                rows += [(case.key, key, *point) for point in points]
    return Drawn([draw_learning_curves(curves)], csv=_csv(("case", "images", "epoch", "accuracy", "std"), rows))


def _sweep(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    pictures: list[Picture] = []
    lines: list[tuple[Any, ...]] = []
    for case in plan.cases:
        sweeps: dict[str, list[Point]] = {}
        for row in plan.exhibit.rows:
            values = _metric(finished(case, record, row.key), "unlearned", _SWEPT)
            if values:
                ((setting, at),) = row.settings.items()
                sweeps.setdefault(setting, []).append(_point(float(at), values))
                lines.append((case.key, setting, *sweeps[setting][-1]))
        if not sweeps:
            continue
        every = finished(case, record)
        retrain, initial = (_mean(_metric(every, model, _SWEPT)) for model in ("retrain", "initial"))
        lines += [(case.key, model, "", value, "") for model, value in (("retrain", retrain), ("initial", initial))]
        pictures.append(_named(draw_sweeps(sweeps, _SWEPT, retrain, initial=initial), case, plan))
    return Drawn(pictures, csv=_csv(("case", "setting", "value", _SWEPT, "std"), lines))


def _shares(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    data: dict[str, dict[str, dict[str, list[Point]]]] = {}
    lines = []
    for case in plan.cases:
        share = 100 * (case.task.fraction or 0)
        for metric in _SHARED:
            for row in plan.exhibit.rows:
                gaps = [
                    abs(cell["metrics"]["unlearned"][metric] - cell["metrics"]["retrain"][metric])
                    for cell in finished(case, record, row.key)
                ]
                if gaps:
                    point = _point(share, gaps)
                    label = case.label.partition(",")[0]
                    data.setdefault(label, {}).setdefault(metric, {}).setdefault(row.label, []).append(point)
                    lines.append((case.key, metric, row.key, *point))
    return Drawn([draw_shares(data)] if data else [], csv=_csv(("case", "metric", "row", "share", "gap", "std"), lines))


def _times(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    durations: dict[str, list[Duration]] = {}
    for case in plan.cases:
        every = finished(case, record)
        found = []
        for row in plan.exhibit.rows:
            cells = finished(case, record, row.key)
            if cells:
                labels = AWARE if cells[0]["label_aware"] else AGNOSTIC
                found.append(Duration(row.label, labels, fmean(cell["seconds"]["unlearned"] for cell in cells)))
        if every:
            # Retrain of a seed is trained once: every cell of the seed has the same seconds.
            by_seed = {cell["seed"]: cell["seconds"]["retrain"] for cell in every}
            durations[case.label] = [*found, Duration("Retrain", "", fmean(by_seed.values()))]
    lines = [(name, *duration) for name, methods in durations.items() for duration in methods]
    return Drawn([draw_durations(durations)], csv=_csv(("case", "method", "labels", "seconds"), lines))


def _densities(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    pictures, lines = [], []
    for case in plan.cases:
        found = _models(case, record, folder, watcher)
        if found is None:
            continue
        example, networks = found
        densities = {}
        for name, network in networks.items():
            predictions = predict(
                network.to(example.device), example.split, device=example.device, seed=example.inputs.seed
            )
            densities[name] = forget_and_unseen_densities(predictions, seed=example.inputs.seed)
            for grid, forgotten, unseen in zip(*(densities[name] or ((), (), ())), strict=True):
                lines.append((case.key, name, float(grid), float(forgotten), float(unseen)))
        pictures.append(_named(draw_densities(densities), case, plan))
    return Drawn(pictures, csv=_csv(("case", "model", "cross_entropy", "forgotten", "unseen"), lines))


def _representations(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    pictures = []
    for case in plan.cases:
        found = _models(case, record, folder, watcher)
        if found is None:
            continue
        example, networks = found
        images, forgotten = tsne_samples(example.split, example.inputs.seed)
        seen = {
            name: representations(network.to(example.device), images, example.split.preprocess, device=example.device)
            for name, network in networks.items()
        }
        names, seed = example.split.train.classes, derive_seed(example.inputs.seed, "tsne")
        drawn = draw_representations_of(seen, images.targets.cpu(), forgotten, names, seed=seed)
        pictures.append(_named(drawn, case, plan))
    return Drawn(pictures)


def _mixes(plan: ExperimentPlan, record: Mapping[str, Any], folder: Path, watcher: Observer) -> Drawn:
    copies = {}
    for case in plan.cases:
        for cell in finished(case, record):
            drawn = folder / cell["folder"] / PICTURES / "mixes.svg"
            if drawn.is_file():  # plain mixup has no masks to be shown
                copies[f"{FIGURE}-{cell['case']}-{cell['name']}-seed{cell['seed']}"] = drawn.read_text("utf-8")
    return Drawn(copies=copies)


_DRAW: dict[Form, Callable[[ExperimentPlan, Mapping[str, Any], Path, Observer], Drawn]] = {
    "curves": _curves,
    "densities": _densities,
    "mixes": _mixes,
    "ratio": _shares,
    "representations": _representations,
    "sweep": _sweep,
    "times": _times,
}


def _models(
    case: ExhibitCase, record: Mapping[str, Any], folder: Path, watcher: Observer
) -> tuple[Plan, dict[str, nn.Module]] | None:
    """Return the models of a case's first seed that all rows have: Retrain, the initial one, and every row's."""
    rows = {cell.row.key: cell.row for cell in case.cells}
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for cell in finished(case, record):
        by_seed.setdefault(cell["seed"], {})[cell["name"]] = cell
    seed = next((seed for seed, cells in by_seed.items() if len(cells) == len(rows)), None)
    if seed is None:
        return None
    plans = [cell.plan for cell in case.cells if cell.inputs.seed == seed and isinstance(cell.plan, Plan)]
    example = plans[0]
    assert example.retrain_config is not None  # every cell of an experiment has one
    initial = initial_model(example, watcher).model
    retrain = train_retrain(
        initial, example.split, example.retrain_config, device=example.device, seed=seed, observer=watcher
    ).model
    networks = {row_name("retrain"): retrain, row_name("initial"): initial}
    for key, row in rows.items():
        networks[row.label] = load_model(folder / by_seed[seed][key]["folder"] / CHECKPOINT)
    return example, networks


def _named(picture: Picture, case: ExhibitCase, plan: ExperimentPlan) -> Picture:
    """Return a picture under the name of the figure, with its case where the exhibit has several."""
    several = len(plan.cases) > 1
    caption = f"{case.label}: {picture.caption}" if several else picture.caption
    return replace(picture, name=f"{FIGURE}-{case.key}" if several else FIGURE, caption=caption)


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _metric(cells: Iterable[Mapping[str, Any]], model: str, metric: str) -> list[float]:
    values = ((cell["metrics"].get(model) or {}).get(metric) for cell in cells)
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _point(at: float, values: Sequence[float]) -> Point:
    return Point(at, fmean(values), stdev(values) if len(values) > 1 else None)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
