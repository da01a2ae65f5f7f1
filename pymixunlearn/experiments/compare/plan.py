"""A comparison of methods: from inputs to its cells, one per method and seed, everything checked before one runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.forget_set import load_splits
from pymixunlearn.experiments.common.identity import identity_hash
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.known_accuracy import known_accuracy
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.presets import at_paper_size
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.settings import TRAININGS, build_config, split_by_target
from pymixunlearn.experiments.compare.inputs import CompareInputs
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.methods import RetrainConfig
from pymixunlearn.reporting import SECOND
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device

COMPARE_FORMAT = "pymixunlearn-compare/1"
ALL = "all"
RETRAIN = "retrain"
"""No method to compare: it is what the others are compared with, and has a row anyway."""
_COMMON = (
    "dataset",
    "fingerprint",
    "preprocess",
    "task",
    "params",
    "architecture",
    "checkpoint_sha256",
    "initial",
    "retrain",
    SECOND,
    "asr",
    "forget_history",
    "device",
)


@dataclass(frozen=True)
class Cell:
    """One method with one seed.

    Attributes:
        name: The row's name: the method's, with "-aware" or "-agnostic" where it can run either way.
        inputs: The run.
        plan: The run resolved, or None where it cannot start.
        reason: Why it cannot start.
    """

    name: str
    inputs: UnlearnInputs
    plan: Plan | None
    reason: str | None = None

    @property
    def key(self) -> str:
        """The name of the cell's run folder."""
        return f"{self.name}-seed{self.inputs.seed}"

    @property
    def method(self) -> str:
        """The method's name."""
        return self.inputs.method

    @property
    def label_aware(self) -> bool:
        """Whether the method sees labels."""
        if self.plan is not None:
            return self.plan.method.needs_labels
        if self.inputs.label_aware is not None:
            return self.inputs.label_aware
        return methods.get(self.inputs.method)().needs_labels

    def identity_hash(self) -> str | None:
        """Return a short hash of everything that determines the cell's outcome, None where it cannot start."""
        return None if self.plan is None else identity_hash(self.plan.identity)


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison that can start: its cells in the order to run them, and what they have in common, JSON-able."""

    inputs: CompareInputs
    cells: tuple[Cell, ...]
    identity: dict[str, Any]


def row_names() -> dict[str, tuple[str, bool | None]]:
    """Return every row that a comparison can have: its name to the method, and whether that may use labels.

    A method that can do either has two rows; None leaves it to the method.
    """
    rows: dict[str, tuple[str, bool | None]] = {}
    for name in methods.available():
        if name == RETRAIN:
            continue
        if "label_aware" in methods.get(name).config_class.kinds():
            rows |= {f"{name}-aware": (name, True), f"{name}-agnostic": (name, False)}
        else:
            rows[name] = (name, None)
    return rows


def resolve_comparison(inputs: CompareInputs, *, observer: Observer | None = None) -> ComparisonPlan:
    """Load the data once, make the split of every seed, and settle every cell's settings.

    "all" are the methods that can do the task. A cell whose method was named and refuses it stays in the plan, with the
    reason.

    Raises:
        BadRequest: A name or a setting is unknown, a value does not fit, or choices contradict each other.
        UserError: Files are missing or corrupt, a class does not exist, the device is not available.
    """
    load_plugins(inputs.plugin)
    if inputs.preset == "paper":
        inputs = replace(inputs, data=at_paper_size(inputs.data))
    named = _chosen(inputs.methods)
    if not inputs.seeds or len(set(inputs.seeds)) < len(inputs.seeds):
        raise BadRequest(f"seeds are {', '.join(map(str, inputs.seeds)) or 'none'}; expected each once, at least one")
    device = resolve_device(inputs.device)
    inputs.placement.check(str(device))
    settings = _by_row(inputs.settings, list(named))
    if device.type == "cuda":
        settings = {name: in_one_precision(row_names()[name][0], own) for name, own in settings.items()}

    dividing = {seed: seed if inputs.split_seed is None else inputs.split_seed for seed in inputs.seeds}
    divided = load_splits(
        fed(inputs.data, inputs.model),
        inputs.split,
        inputs.model.model,
        inputs.model.weights,
        seeds=list(dict.fromkeys(dividing.values())),
        history=inputs.history,
        observer=observer,
    )
    splits = {seed: divided[other] for seed, other in dividing.items()}
    rows = [name for name, by_name in named.items() if by_name or _can_do(name, splits[inputs.seeds[0]])]
    if len(rows) < len(named) and observer is not None:
        observer.note(
            f"Left out, since they cannot do the task: {', '.join(name for name in named if name not in rows)}."
        )
    dataset = splits[inputs.seeds[0]].dataset
    initial = choose_model(inputs.model, dataset)  # a model that is not there would fail every cell
    if initial.loaded is not None and (inputs.expect_accuracy is not None or initial.trained_elsewhere):
        watcher = Observer() if observer is None else observer
        known_accuracy(initial.loaded, dataset, inputs.expect_accuracy, device=device, observer=watcher)
    known = row_names()

    def cell(name: str, seed: int) -> Cell:
        method, label_aware = known[name]
        run = UnlearnInputs(
            method,
            label_aware,
            data=inputs.data,
            split=inputs.split,
            model=inputs.model,
            history=inputs.history,
            device=str(device),
            seed=seed,
            split_seed=inputs.split_seed,
            training_seed=inputs.training_seed,
            plugin=inputs.plugin,
            settings=settings[name],
            retrain=inputs.retrain,
            asr=inputs.asr,
            preset=inputs.preset,
            # Of a network that is trained first, it is known in its cells alone.
            expect_accuracy=inputs.expect_accuracy if initial.loaded is None else None,
        )
        try:
            return Cell(name, run, resolve_unlearning(run, split=splits[seed]))
        except UserError as error:
            return Cell(name, run, None, str(error))

    cells = tuple(cell(name, seed) for name, seed in _in_order(rows, inputs.seeds))
    able = next((cell.plan for cell in cells if cell.plan is not None), None)
    if able is None:
        raise UserError(f"none of the methods can run: {cells[0].reason}")
    identity = able.identity
    common = {
        "format": COMPARE_FORMAT,
        "command": "compare",
        **{name: identity[name] for name in _COMMON if name in identity},
        **({} if inputs.preset == "tuned" else {"preset": inputs.preset}),
        **inputs.own_seeds,
    }
    return ComparisonPlan(inputs, cells, common)


def default_comparison_folder(plan: ComparisonPlan) -> Path:
    """Return ``runs/NAME``; another data set, split, model or setting gives another name, other methods do not."""
    settings = {name: str(value) for name, value in flat_by_method(plan.inputs.settings)}
    digest = identity_hash({**plan.identity, "asked": settings})
    return Path("runs") / f"compare-{plan.identity['dataset']}-{plan.identity['task']}-{digest}"


def _can_do(name: str, split: Split) -> bool:
    """Whether the method of a row takes the task of ``split``."""
    method, label_aware = row_names()[name]
    choice = {} if label_aware is None else {"label_aware": label_aware}
    method_class = methods.get(method)
    try:
        method_class(method_class.config_class.from_mapping(choice)).check_split(split)
    except UserError:
        return False
    return True


def _chosen(names: Sequence[str]) -> dict[str, bool]:
    """Return the requested rows in their order, and whether each was requested by its name rather than by "all"."""
    known = row_names()
    if not names:
        raise BadRequest(f"no method to compare; expected '{ALL}' or some of {', '.join(known)}")
    chosen: dict[str, bool] = {}
    for name in names:
        if name == RETRAIN:
            raise BadRequest("retrain is what the methods are compared with and has a row anyway; leave it out")
        both = [row for row, (method, _) in known.items() if name in (method, ALL)]
        if not both:
            check_name("method", name, (*known, *methods.available(), ALL))
        for row in both or [name]:
            chosen[row] = chosen.get(row, False) or name != ALL
    return chosen


def _in_order(rows: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Begin with one method on every seed, so that processes at work together train different models; then by seed."""
    yield from ((rows[0], seed) for seed in seeds)
    yield from ((name, seed) for seed in seeds for name in rows[1:])


def flat_by_method(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted name; mappings under a method, a row or a training are flattened."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", content) for inner, content in value.items())
        else:
            yield name, value


def in_one_precision(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's settings with float32 where the method chooses by the device: seconds are compared."""
    choice = {"precision": "float32"} if methods.get(method).config_class().precision is None else {}
    return {**choice, **settings}


def _by_row(settings: Mapping[str, Any], rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings of every row, those of the trainings included, which all rows share.

    Raises:
        BadRequest: A setting addresses no method, is none of the method's, or its value does not fit.
    """
    known = row_names()
    addressed: dict[str, dict[str, Any]] = {}
    for name, value in flat_by_method(settings):
        target, dot, field_name = name.partition(".")
        if not dot:
            raise BadRequest(f"setting '{name}' names no method; expected METHOD.{name}, initial.NAME or retrain.NAME")
        check_name("method", target, dict.fromkeys((*known, *(method for method, _ in known.values()), *TRAININGS)))
        if field_name == "label_aware":
            raise BadRequest(f"'{name}' cannot be set; '{target}' is compared with and without labels")
        addressed.setdefault(target, {})[field_name] = value
    trainings = {f"{target}.{name}": value for target in TRAININGS for name, value in addressed.get(target, {}).items()}
    found = {}
    for row in rows:
        method, _ = known[row]
        config_class = methods.get(method).config_class
        # A row's own settings are nearer than those of both rows of its method.
        own = {**addressed.get(method, {}), **addressed.get(row, {})}
        targets = split_by_target({**own, **trainings}, config_class.kinds())
        build_config(config_class, targets["method"])
        for training in TRAININGS:
            build_config(RetrainConfig, targets[training])
        found[row] = {**own, **trainings}
    return found
