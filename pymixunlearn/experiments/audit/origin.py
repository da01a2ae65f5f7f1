"""What an audit is of: a run of ``unlearn``, a model that another tool unlearned, or one that never unlearned."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import check_auditable
from pymixunlearn.experiments.audit.inputs import AuditInputs
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.data_origin import data_of_run, runs_code, specified
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.forget_set import load_split, saved_split
from pymixunlearn.experiments.common.given import GivenData, GivenModel
from pymixunlearn.experiments.common.identity import FORMAT
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.initial_model import (
    CHECKPOINT,
    InitialModel,
    choose_model,
    filled_object,
    load_beside,
    load_checkpoint,
    model_path,
)
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.settings import build_training, read_training
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.methods import Method
from pymixunlearn.methods.function import FunctionMethod
from pymixunlearn.models.specification import parse_specification
from pymixunlearn.tasks import Split
from pymixunlearn.training import CodeNotAllowed, TrainConfig


@dataclass(frozen=True)
class Origin:
    """Model under audit, and how models like it are made.

    Attributes:
        split: What was forgotten.
        target: The model under audit.
        method: How it unlearned; None where it did not, or that is not known.
        initial: How the models that unlearn are trained.
        retrain: How Retrain is trained.
        trained_elsewhere: Whether how it was trained is not recorded.
        unlearned_elsewhere: Whether another tool unlearned it.
        before: The model before unlearning, if it is given.
    """

    split: Split
    target: InitialModel
    method: Method | None
    initial: TrainConfig
    retrain: TrainConfig
    trained_elsewhere: bool
    unlearned_elsewhere: bool = False
    before: InitialModel | None = None


def origin_of_audit(inputs: AuditInputs, observer: Observer | None) -> Origin:
    """Load what is audited.

    Raises:
        BadRequest: Choices contradict each other.
        UserError: The folder holds no run, or files are missing or corrupt.
    """
    if inputs.method is not None:
        FunctionMethod(inputs.method)  # found to be none before any work
    origin = _of_run(inputs, observer) if inputs.run is not None else _of_model(inputs, observer)
    if inputs.before is None:
        return origin
    return replace(origin, before=load_beside(inputs.before, inputs.model, origin.target, origin.split.dataset))


def has_method(inputs: AuditInputs) -> bool:
    """Tell whether it is known how the audited model unlearned, so that the method can be audited too."""
    if inputs.method is not None or inputs.run is None:
        return inputs.method is not None
    config = read_object(inputs.run / "config.json")
    return config is None or config.get("command") != "evaluate"  # what it is otherwise is told later


def _of_run(inputs: AuditInputs, observer: Observer | None) -> Origin:
    """Read what is audited from a run folder."""
    run = inputs.run
    assert run is not None
    network = inputs.model.network if isinstance(inputs.model, GivenModel) else None
    choices = ModelRequest() if network is not None else replace(inputs.model, allow_code=False)
    foreign = read_object(run / "config.json") or {}
    elsewhere = foreign.get("command") == "evaluate"
    if inputs.split != SplitRequest() or choices != ModelRequest() or (inputs.settings and not elsewhere):
        raise BadRequest("a run already says what was forgotten, from which model and how; leave these choices out")
    if inputs.method is not None and not elsewhere:
        raise BadRequest(f"'{run}' already says how its model unlearned; leave method out")
    config = read_object(run / "config.json")
    if config is None or config.get("format") != FORMAT or config.get("command") not in ("unlearn", "evaluate"):
        raise UserError(f"'{run}' holds no finished run of 'unlearn'; expected its folder, or a model by --model")
    given = inputs.data
    data: DataRequest = given
    if not isinstance(given, GivenData):
        if runs_code(config) and not inputs.model.allow_code:
            raise UserError(
                f"'{run}' has data that '{specified(config)}' makes, and code that a record names is not run "
                "unasked; expected --allow-code (allow_code=True) once you have read it"
            )
        data = data_of_run(config, data_dir=given.data_dir, download=given.download, stream=given.stream)
    split = saved_split(run, data.load(observer), inputs.history, observer)
    check_auditable(split)  # before its trainings are looked at: they may be of a kind that no audit repeats
    if is_object(config["architecture"]):
        target = filled_object(run / CHECKPOINT, network, config["architecture"])
    else:
        name = config["architecture_name"]
        if name is not None and parse_specification(name).runs_code and not inputs.model.allow_code:
            raise CodeNotAllowed(
                f"'{run}' has a model that '{name}' makes, and code that a record names is not run unasked; expected "
                "--allow-code (allow_code=True) once you have read it"
            )
        asked = replace(inputs.model, architecture=name)
        target = load_checkpoint(run, asked, split.dataset)
    if elsewhere:
        return Origin(
            split,
            target,
            None if inputs.method is None else FunctionMethod(inputs.method),
            build_training(target.defaults("initial"), inputs.settings),
            target.defaults("retrain"),
            trained_elsewhere=not inputs.settings,
            unlearned_elsewhere=True,
        )
    method = methods.get(config["method"])
    recipe = dict(zip(("initial", "retrain"), config.get("recipe") or (None, None), strict=True))
    trainings = {
        purpose: read_training(saved) if (saved := config[purpose] or recipe[purpose]) else target.defaults(purpose)
        for purpose in ("initial", "retrain")
    }
    return Origin(
        split,
        target,
        method(method.config_class.from_mapping(config["settings"])),
        trainings["initial"],
        trainings["retrain"],
        trained_elsewhere=config["initial"] is None,
    )


def _of_model(inputs: AuditInputs, observer: Observer | None) -> Origin:
    """Take a model that never unlearned, or that another tool unlearned."""
    build_training(TrainConfig(), inputs.settings)
    given = inputs.model.model
    if given is None and inputs.model.model_config is None and not isinstance(inputs.model, GivenModel):
        raise BadRequest("an audit needs a run folder of 'unlearn', or a trained model by --model")
    split = load_split(
        fed(inputs.data, inputs.model),
        inputs.split,
        given,
        inputs.model.weights,
        seed=inputs.seed,
        history=inputs.history,
        observer=observer,
    )
    target = choose_model(inputs.model, split.dataset)
    if target.loaded is None:
        raise BadRequest(f"'{given}' is a network without weights; an audit needs a trained model's file or run folder")
    path = model_path(inputs.model)
    config = {} if path is None else read_object(path / "config.json") or {}
    known = config.get("command") in ("train", "retrain")
    if known and config.get("task") == "semi":
        raise UserError(f"'{given}' was trained with few labels; an audit trains its shadow models with all of them")
    defaults = read_training(config["settings"]) if known else target.defaults("initial")
    return Origin(
        split,
        target,
        None if inputs.method is None else FunctionMethod(inputs.method),
        build_training(defaults, inputs.settings),
        target.defaults("retrain"),
        trained_elsewhere=not known and not inputs.settings,
        unlearned_elsewhere=inputs.before is not None or inputs.method is not None,
    )


def mismatch(inputs: AuditInputs, origin: Origin) -> str | None:
    """Say in what the shadow models are not like the model under audit, as far as is known."""
    sentences = []
    if inputs.epochs is not None and inputs.epochs != origin.initial.epochs:
        sentences.append(
            f"The shadow models were trained for {inputs.epochs} epochs, not {origin.initial.epochs}: they stand for "
            "the audited model the less, and the attacks are the weaker."
        )
    elif origin.trained_elsewhere:
        sentences.append(
            "How the initial model was trained is not recorded, so the shadow models took the defaults of its network: "
            "the less they are like it, the weaker the attacks."
        )
    if origin.unlearned_elsewhere and origin.method is None:
        sentences.append(
            "Another tool unlearned the model, and the shadow models did not unlearn: they stand for the audited one "
            "the less, and the attacks are the weaker. In Python a function that unlearns (method=…) makes shadow "
            "models that do."
        )
    return " ".join(sentences) or None


def read_object(file: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, or None where there is none that can be read."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
