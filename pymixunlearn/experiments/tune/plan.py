"""Tuning: the settings of a method whose results come closest to Retrain's, judged on a part of the training data.

A share of every class is taken out of the training set and stands in for the test set; the initial model, Retrain and
the method see the rest only. The test set plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pymixunlearn import methods
from pymixunlearn.data import Dataset
from pymixunlearn.data.dataset import hold_out
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.forget_set import load_splits
from pymixunlearn.experiments.common.given import GivenModel
from pymixunlearn.experiments.common.identity import identity_hash
from pymixunlearn.experiments.common.initial_model import model_path
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.presets import find_preset
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.settings import split_by_target
from pymixunlearn.experiments.tune.grids import Grid, make_grid, size
from pymixunlearn.experiments.tune.inputs import TuneInputs
from pymixunlearn.experiments.tune.search import SAMPLERS, require_optuna
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.experiments.unlearn.plan import Plan, resolve_unlearning
from pymixunlearn.tasks import Split
from pymixunlearn.training import resolve_device

TUNE_FORMAT = "pymixunlearn-tune/1"
_TUNING = "-validation"
_PER_SEED = ("seed", "forget_sha256", "labels_sha256", "unlabelled_sha256", "settings", "relearn")


@dataclass(frozen=True)
class TuningPlan:
    """A search that can start.

    Attributes:
        inputs: What was requested.
        grid: What is searched.
        trials: How many combinations to try; never more than there are.
        splits: For every seed, the split of the data without the validation part, which is its test set.
        example: The first combination's run, resolved.
        identity: What determines the outcome of every combination, JSON-able.
    """

    inputs: TuneInputs
    grid: Grid
    trials: int
    splits: Mapping[int, Split]
    example: Plan
    identity: dict[str, Any]

    @property
    def dataset(self) -> str:
        """The data set's own name."""
        return self.example.split.dataset.name.removesuffix(_TUNING)

    @property
    def task(self) -> str:
        """The split's task."""
        return self.example.split.task

    def unlearn_inputs(self, settings: Mapping[str, Any], seed: int) -> UnlearnInputs:
        """Return the run of one combination with one seed."""
        return _unlearn_inputs(self.inputs, settings, seed)


def resolve_tuning(inputs: TuneInputs, *, observer: Observer | None = None) -> TuningPlan:
    """Load the data, take the validation part out, and settle the grid.

    Raises:
        BadRequest: A name, a setting or a grid is unknown or does not fit, or choices contradict each other.
        UserError: Optuna is not installed, files are missing or corrupt, or the device is not available.
    """
    load_plugins(inputs.plugin)
    check_name("method", inputs.method, [name for name in methods.available() if name != "retrain"])
    check_name("sampler", inputs.sampler, SAMPLERS)
    if not inputs.seeds or len(set(inputs.seeds)) < len(inputs.seeds):
        raise BadRequest(f"seeds are {', '.join(map(str, inputs.seeds)) or 'none'}; expected each once, at least one")
    if inputs.trials is not None and inputs.trials < 1:
        raise BadRequest(f"trials is {inputs.trials}; expected at least 1")
    if not 0 < inputs.validation < 1:
        raise BadRequest(f"validation is {inputs.validation}; expected a share above 0 and below 1")
    if inputs.split.indices is not None or inputs.split.manifest is not None:
        raise BadRequest("tuning makes a split of a part of the data; leave out lists of samples and saved splits")
    if isinstance(inputs.model, GivenModel):
        raise BadRequest("tuning trains a network anew; expected its name or specification, not a model in memory")
    if inputs.model.weights is not None or model_path(inputs.model) is not None:
        raise BadRequest(
            "tuning trains its own models, since one that is trained has seen the validation part already; expected a "
            "network's name or specification without weights"
        )
    own = split_by_target(inputs.settings, methods.get(inputs.method).config_class.kinds())["method"]
    grid = make_grid(inputs.method, inputs.grid, own)
    everything = size(grid)
    trials = inputs.trials or (everything if inputs.sampler == "grid" else 20)
    inputs.placement.check(str(resolve_device(inputs.device)))
    require_optuna()

    splits = load_splits(
        fed(inputs.data, inputs.model),
        inputs.split,
        seeds=inputs.seeds,
        observer=observer,
        prepare=lambda dataset: validation_dataset(dataset, inputs.validation),
    )
    first = {name: values[0] for name, values in grid.items()}
    example = resolve_unlearning(_unlearn_inputs(inputs, first, inputs.seeds[0]), split=splits[inputs.seeds[0]])
    common = {name: value for name, value in example.identity.items() if name not in _PER_SEED}
    fixed = {name: value for name, value in example.method.config.to_dict().items() if name not in grid}
    identity = {
        **common,
        "format": TUNE_FORMAT,
        "command": "tune",
        "validation": inputs.validation,
        "seeds": list(inputs.seeds),
        "grid": {name: list(values) for name, values in grid.items()},
        "settings": fixed,
    }
    return TuningPlan(inputs, grid, min(trials, everything), splits, example, identity)


def validation_dataset(dataset: Dataset, fraction: float) -> Dataset:
    """Return ``dataset`` with ``fraction`` of every class of its training set in place of its test set.

    Its name says so: neither a run nor a preset can take it for the data set itself.
    """
    train, validation = hold_out(dataset.train, fraction=fraction, purpose="tuning")
    return replace(dataset, name=f"{dataset.name}{_TUNING}", train=train, test=validation, source=dataset.place)


def default_tuning_folder(plan: TuningPlan) -> Path:
    """Return ``runs/NAME``, where the name says what is tuned and ends in a hash of everything else."""
    digest = identity_hash(plan.identity)
    return Path("runs") / f"tune-{plan.inputs.method}-{plan.dataset}-{plan.task}-{digest}"


def settings_yaml(plan: TuningPlan, settings: Mapping[str, Any], comment: Sequence[str]) -> str:
    """Return a file for ``unlearn --config`` (or a preset) that gives exactly the run that was tuned.

    It holds what was searched, what differs from the method's defaults, and what a preset that ships for the case would
    otherwise set.
    """
    inputs = plan.inputs
    config = plan.example.method.config
    config_class = type(config)
    defaults, chosen = config_class(), config.replace(**settings)
    resolved = {name: getattr(chosen, name) for name in config_class.kinds()}
    label_aware = bool(resolved.get("label_aware"))
    preset = find_preset(inputs.method, plan.dataset, plan.task, label_aware=label_aware)
    shipped = split_by_target(preset.settings if preset else {}, config_class.kinds())["method"]
    kept = {
        name: value
        for name, value in resolved.items()
        if name != "label_aware" and (name in plan.grid or name in shipped or value != getattr(defaults, name))
    }
    return "".join(f"# {line}\n" for line in comment) + yaml.safe_dump(kept, sort_keys=False)


def _unlearn_inputs(inputs: TuneInputs, settings: Mapping[str, Any], seed: int) -> UnlearnInputs:
    return UnlearnInputs(
        inputs.method,
        inputs.label_aware,
        data=inputs.data,
        split=inputs.split,
        model=inputs.model,
        device=inputs.device,
        seed=seed,
        plugin=inputs.plugin,
        settings={**inputs.settings, **settings},
        expect_accuracy=inputs.expect_accuracy,
    )
