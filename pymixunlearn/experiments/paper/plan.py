"""An experiment: from an exhibit to its cells, everything checked before one runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.forget_set import load_splits
from pymixunlearn.experiments.common.given import GivenData
from pymixunlearn.experiments.common.identity import identity_hash
from pymixunlearn.experiments.common.inputs import ModelRequest, TrainInputs
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.settings import TRAININGS, build_config, flat_settings, split_by_target
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.common.training_run import TrainingPlan
from pymixunlearn.experiments.compare.plan import flat_by_method, in_one_precision
from pymixunlearn.experiments.paper.exhibit import (
    PRETRAINED,
    TRAINING,
    Exhibit,
    ExhibitData,
    ExhibitRow,
    ExhibitTask,
    read_exhibit,
)
from pymixunlearn.experiments.paper.inputs import ExperimentInputs
from pymixunlearn.experiments.paper.served import Served, read_folders, serve
from pymixunlearn.experiments.train import resolve_training
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.experiments.unlearn.run import default_folder
from pymixunlearn.methods import RetrainConfig
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device

EXPERIMENT_FORMAT = "pymixunlearn-experiment/1"


@dataclass(frozen=True)
class ExhibitCell:
    """One row of an exhibit on one data set and task with one seed.

    Attributes:
        case: The key of the data set and task.
        row: The row.
        inputs: The run.
        plan: The run resolved, or None where it cannot start.
        reason: Why it cannot start.
        selected: Whether it was asked for.
        available: Whether its data are there.
    """

    case: str
    row: ExhibitRow
    inputs: UnlearnInputs | TrainInputs
    plan: Plan | TrainingPlan | None
    reason: str | None = None
    selected: bool = True
    available: bool = True

    @property
    def key(self) -> str:
        """The cell's name."""
        return f"{self.case}/{self.row.key}/seed{self.inputs.seed}"

    @property
    def name(self) -> str:
        """The row's name."""
        return self.row.key

    @property
    def method(self) -> str:
        """The method's name."""
        return self.row.method

    @property
    def label_aware(self) -> bool:
        """Whether the method sees labels."""
        if isinstance(self.plan, Plan):
            return self.plan.method.needs_labels
        if self.row.method == TRAINING or self.row.label_aware is not None:
            return self.row.label_aware is not False
        return methods.get(self.row.method)().needs_labels

    def identity_hash(self) -> str | None:
        """Return a short hash of everything that determines the cell's outcome, None where it cannot start."""
        return None if self.plan is None else identity_hash(self.plan.identity)

    def run_folder(self, threads: int) -> str | None:
        """Return the name of its run folder: the same for equal cells of all exhibits, None where it cannot start.

        Other threads round differently, so that a cell of other threads is another one.
        """
        if self.plan is None:
            return None
        if isinstance(self.plan, Plan):
            name = default_folder(self.plan).name
        else:
            name = f"train-{self.plan.dataset.name}-seed{self.inputs.seed}-{self.identity_hash()}"
        return f"{name}-{threads}thread{'' if threads == 1 else 's'}"


@dataclass(frozen=True)
class ExhibitCase:
    """One data set and task of an exhibit.

    Attributes:
        key: Its name.
        label: How tables call it.
        data: The data set.
        task: What is forgotten.
        cells: Row by row, seed by seed.
        reason: Why there are no data, or None.
    """

    key: str
    label: str
    data: ExhibitData
    task: ExhibitTask
    cells: tuple[ExhibitCell, ...]
    reason: str | None = None

    @property
    def example(self) -> Plan | TrainingPlan | None:
        """The plan of some cell that can start."""
        return next((cell.plan for cell in self.cells if cell.plan is not None), None)


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment that can start: its exhibit, its cases, and what its folder is for, JSON-able."""

    inputs: ExperimentInputs
    exhibit: Exhibit
    cases: tuple[ExhibitCase, ...]
    identity: dict[str, Any]

    @property
    def cells(self) -> list[ExhibitCell]:
        """All cells, in the order to run them."""
        return [cell for case in self.cases for cell in case.cells]


def resolve_experiment(inputs: ExperimentInputs, *, observer: Observer | None = None) -> ExperimentPlan:
    """Read the exhibit, load its data, and settle every cell's settings.

    Data that are not there make cells that are not run, with the reason; so do methods that cannot do a task.

    Raises:
        BadRequest: A name, a pattern or a setting is unknown, or a value does not fit.
        UserError: A file cannot be read, a class does not exist, or the device is not available.
    """
    load_plugins(inputs.plugin)
    exhibit = read_exhibit(inputs.exhibit, inputs.scale)
    if inputs.seeds:
        if len(set(inputs.seeds)) < len(inputs.seeds):
            raise BadRequest(f"seeds are {', '.join(map(str, inputs.seeds))}; expected each once")
        exhibit = replace(exhibit, seeds=inputs.seeds)
    device = resolve_device(inputs.device)
    inputs.placement.check(str(device))
    for row in exhibit.rows:
        check_name(f"method of row '{row.key}'", row.method, [TRAINING, *methods.available()])
    settings = {
        (data.key, row.key): _settings(exhibit, data, row, one_precision=device.type == "cuda")
        for data in exhibit.data
        for row in exhibit.rows
    }
    folders = read_folders(inputs.folders, [data.key for data in exhibit.data])

    cases: list[ExhibitCase] = []
    for data in exhibit.data:
        model = ModelRequest(model=data.model, model_config=_pretrained() if data.pretrained else None)
        served = serve(data, model, inputs, folders.get(data.key), observer)
        for task in exhibit.tasks:
            key = case_key(exhibit, data, task)
            cells = _cells(exhibit, key, served, task, model, str(device), inputs, settings, observer)
            cases.append(ExhibitCase(key, _case_label(exhibit, served.label, task), data, task, cells, served.reason))
    _check_patterns(inputs.only, [cell for case in cases for cell in case.cells])
    identity = {
        "format": EXPERIMENT_FORMAT,
        "command": "experiment",
        "exhibit": exhibit.name,
        "scale": exhibit.scale,
        "device": str(device),
    }
    return ExperimentPlan(inputs, exhibit, tuple(cases), identity)


def _cells(
    exhibit: Exhibit,
    case: str,
    served: Served,
    task: ExhibitTask,
    model: ModelRequest,
    device: str,
    inputs: ExperimentInputs,
    settings: Mapping[tuple[str, str], dict[str, Any]],
    observer: Observer | None,
) -> tuple[ExhibitCell, ...]:
    """Resolve every row and seed of a case."""
    forget = SplitRequest(task=task.task, classes=task.classes, fraction=task.fraction, labelled=task.labelled)
    trains_only = all(row.method == TRAINING for row in exhibit.rows)
    splits: dict[int, Split] = {}
    loaded = None if served.dataset is None else GivenData(dataset=served.dataset.name, loaded=served.dataset)
    if loaded is not None and not trains_only:
        splits = load_splits(loaded, forget, model.model, seeds=exhibit.seeds, observer=observer)

    def cell(row: ExhibitRow, seed: int) -> ExhibitCell:
        common: dict[str, Any] = {
            "data": served.request,
            "model": model,
            "device": device,
            "seed": seed,
            "plugin": inputs.plugin,
        }
        run: UnlearnInputs | TrainInputs
        own = settings[served.key, row.key]
        if row.method == TRAINING:
            run = TrainInputs(settings=own, curve=True, **common)
        else:
            run = UnlearnInputs(
                row.method, row.label_aware, split=forget, settings=own, retrain="two", **_protocol(exhibit), **common
            )
        selected = _selected(f"{case}/{row.key}/seed{seed}", inputs.only)
        if loaded is None:
            return ExhibitCell(case, row, run, None, served.reason, selected, available=False)
        try:
            if isinstance(run, TrainInputs):
                training = replace(resolve_training(replace(run, data=loaded)), inputs=run)
                return ExhibitCell(case, row, run, training, None, selected)
            return ExhibitCell(case, row, run, resolve_unlearning(run, split=splits[seed]), None, selected)
        except UserError as error:
            return ExhibitCell(case, row, run, None, str(error), selected)

    # One row on every seed first, so that processes at work together train different models; then seed by seed.
    first, *others = exhibit.rows
    ordered = [(first, seed) for seed in exhibit.seeds]
    ordered += [(row, seed) for seed in exhibit.seeds for row in others]
    return tuple(cell(row, seed) for row, seed in ordered)


def _settings(exhibit: Exhibit, data: ExhibitData, row: ExhibitRow, *, one_precision: bool) -> dict[str, Any]:
    """Return a row's settings on a data set: the scale's, the data's, and its own on top.

    With ``one_precision`` below them that of all methods, whose seconds are compared.

    Raises:
        BadRequest: A setting addresses no method and no row, is none of the method's, or its value does not fit.
    """
    known = dict.fromkeys((*(other.key for other in exhibit.rows), *methods.available(), *TRAININGS))
    found: dict[str, dict[str, Any]] = {name: {} for name in (*TRAININGS, row.method, row.key)}
    for name, value in (*flat_by_method(exhibit.settings), *flat_by_method(data.settings or {})):
        target, dot, field_name = name.partition(".")
        if not dot:
            raise BadRequest(f"setting '{name}' names no method; expected METHOD.{name}, initial.NAME or retrain.NAME")
        check_name("method or row", target, known)
        if target in found:
            found[target][field_name] = value
    if row.method == TRAINING:
        return {**found[TRAINING], **row.settings}
    trainings = {f"{target}.{name}": value for target in TRAININGS for name, value in found[target].items()}
    settings = {**trainings, **found[row.method], **found[row.key], **flat_settings(row.settings)}
    if one_precision:
        settings = in_one_precision(row.method, settings)
    config_class = methods.get(row.method).config_class
    targets = split_by_target(settings, config_class.kinds())
    build_config(config_class, targets["method"])
    for training in TRAININGS:
        build_config(RetrainConfig, targets[training])
    return settings


def case_key(exhibit: Exhibit, data: ExhibitData, task: ExhibitTask) -> str:
    """Return the name of a case: as much of data set, task and share as tells it from the others."""
    if len(exhibit.tasks) == 1:
        return data.key
    alike = [other for other in exhibit.tasks if other.task == task.task]
    share = f"-{task.fraction:g}" if len(alike) > 1 and task.fraction is not None else ""
    return f"{data.key}-{task.task}{share}"


def _case_label(exhibit: Exhibit, data: str, task: ExhibitTask) -> str:
    return data if len(exhibit.tasks) == 1 else f"{data}, {task.label or task.task}"


def _selected(key: str, patterns: tuple[str, ...]) -> bool:
    """Whether a cell was asked for: a pattern with a slash is of the whole name, another of any part of it."""
    return not patterns or any(
        fnmatchcase(key, pattern) if "/" in pattern else any(fnmatchcase(part, pattern) for part in key.split("/"))
        for pattern in patterns
    )


def _check_patterns(patterns: tuple[str, ...], cells: list[ExhibitCell]) -> None:
    for pattern in patterns:
        if not any(_selected(cell.key, (pattern,)) for cell in cells):
            parts = dict.fromkeys(part for cell in cells for part in cell.key.split("/"))
            check_name("pattern of cells", pattern, parts)


def _protocol(exhibit: Exhibit) -> dict[str, Any]:
    """Return how the rows of an exhibit start and are attacked, as fields of the inputs."""
    return {"preset": exhibit.preset, "asr": exhibit.asr}


def _pretrained() -> Path:
    """Return the model config of a network that starts from its library's weights."""
    return Path(str(files("pymixunlearn.experiments") / "paper" / f"{PRETRAINED}.yaml"))
