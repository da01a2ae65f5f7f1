"""An audit: from inputs through shadow models to ``audit.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pymixunlearn import methods
from pymixunlearn.cores import usable_cores
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import ATTACKS, ShadowPlan, check_auditable, measure, plan_shadows
from pymixunlearn.evaluation.audit.limits import findings, limits
from pymixunlearn.evaluation.audit.rmia import REFERENCES
from pymixunlearn.experiments.audit.inputs import AuditInputs
from pymixunlearn.experiments.audit.shadows import Shadows, make_shadows, margins_of
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.data_origin import data_of_run, runs_code, specified
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.given import GivenData, GivenModel
from pymixunlearn.experiments.common.identity import FORMAT, data_identity, identity_hash
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.initial_model import (
    CHECKPOINT,
    InitialModel,
    choose_model,
    filled_object,
    load_checkpoint,
    model_path,
)
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.plugins import load_plugins
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.run_folder import write_json
from pymixunlearn.experiments.common.settings import build_training, read_training
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.unlearn.report import AUDIT, write_report
from pymixunlearn.methods import Method, Recipe
from pymixunlearn.models.specification import parse_specification
from pymixunlearn.reporting import RECORD
from pymixunlearn.tasks import Split
from pymixunlearn.training import CodeNotAllowed, TrainConfig, resolve_device

AUDIT_FORMAT = "pymixunlearn-audit/1"
SHADOW_MODELS = 16


@dataclass(frozen=True)
class AuditPlan:
    """An audit that can start.

    Attributes:
        inputs: What was requested.
        target: The model under audit.
        attacks: The attacks to run.
        shadows: The shadow models to make.
        jobs: How many at a time.
        mismatch: In what the shadow models are known to differ from the model under audit.
    """

    inputs: AuditInputs
    target: InitialModel
    attacks: tuple[str, ...]
    shadows: Shadows
    jobs: int
    mismatch: str | None

    @property
    def samples(self) -> ShadowPlan:
        """The samples, and which of them each shadow model sees."""
        return self.shadows.plan

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result, JSON-able."""
        method, retrain, recipe = self.shadows.method, self.shadows.retrain, self.shadows.recipe
        return {
            **data_identity(self.samples.split),
            "model_sha256": self.target.sha256,
            "architecture": self.target.architecture,
            "method": None if method is None else method.name,
            "settings": None if method is None else method.config.to_dict(),
            "initial": self.shadows.initial.to_dict(),
            "retrain": None if retrain is None else retrain.to_dict(),
            **({} if recipe is None else {"recipe": [config.to_dict() for config in recipe]}),
            "attacks": list(self.attacks),
            "shadow_models": len(self.samples.seen),
            "seed": self.inputs.seed,
            "device": str(self.shadows.device),
        }


@dataclass(frozen=True)
class AuditOutcome:
    """A finished audit: its file, the file's content, and whether it had been there before."""

    file: Path
    record: dict[str, Any]
    known: bool


@dataclass(frozen=True)
class _Origin:
    """Model under audit, and how models like it are made."""

    split: Split
    target: InitialModel
    method: Method | None
    initial: TrainConfig
    retrain: TrainConfig
    trained_elsewhere: bool


def resolve_audit(inputs: AuditInputs, *, observer: Observer | None = None) -> AuditPlan:
    """Load data and model and settle every setting.

    Raises:
        BadRequest: A name is unknown, or choices contradict each other.
        UserError: The folder holds no run, files are missing or corrupt, or there is too little to compare.
    """
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    # All mistakes that need no data are found before data is read.
    attacks = _attacks(inputs)
    count = _shadow_models(inputs, attacks)
    able = tuple(name for name in attacks if count >= ATTACKS[name].min_shadows)
    if able != attacks and observer is not None:
        others = ", ".join(f"{name} ({ATTACKS[name].min_shadows})" for name in attacks if name not in able)
        observer.note(f"Left out, since they need more than {count} shadow models: {others}.")
    attacks = able
    origin = _of_run(inputs, observer) if inputs.run is not None else _of_model(inputs, observer)
    initial, retrain = origin.initial, origin.retrain
    if inputs.epochs is not None:
        initial, retrain = replace(initial, epochs=inputs.epochs), replace(retrain, epochs=inputs.epochs)
    both_kinds = any(ATTACKS[name].needs_method for name in attacks)
    shadows = Shadows(
        plan_shadows(origin.split, count, seed=inputs.seed),
        origin.target.architecture,
        initial,
        origin.method,
        retrain if both_kinds else None,
        device,
        inputs.seed,
        network=origin.target.loaded if is_object(origin.target.architecture) else None,
        recipe=None if origin.method is None or not origin.method.chooses else Recipe(initial, retrain),
    )
    jobs = inputs.jobs or (4 if device.type == "cuda" else usable_cores())
    return AuditPlan(inputs, origin.target, attacks, shadows, min(jobs, count), _mismatch(inputs, origin))


def run_audit(
    plan: AuditPlan, out: Path | None = None, *, observer: Observer | None = None, command_line: str = ""
) -> AuditOutcome:
    """Make the shadow models, run the attacks and write ``audit.json``, or return it if it is there already.

    The report of a run folder that it goes into is renewed.

    Shadow models go to the cache of trained models: an interrupted audit goes on where it was, and one with more
    of them, or of another method on the same split, trains only what is new.

    Args:
        plan: What to do.
        out: The folder for ``audit.json``; by default the run folder, or ``runs/audit-…`` for a model without one.
        observer: Receives the progress.
        command_line: The command that repeats the audit, for the record.

    Raises:
        UserError: The file cannot be written, or a training failed.
    """
    watcher = Observer() if observer is None else observer
    identity: dict[str, Any] = json.loads(json.dumps(plan.identity))
    folder = out or plan.inputs.run or Path("runs") / f"audit-{plan.target.short_name}-{identity_hash(identity)}"
    file = folder / AUDIT
    known = _read(file)
    if known is not None and known.get("identity") == identity:
        _renew_report(plan, folder, known)  # where an audit was killed before it did that
        return AuditOutcome(file, known, known=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output folder '{folder}' is a file; give the name of a folder")

    started = time.perf_counter()
    margins = make_shadows(plan.shadows, jobs=plan.jobs, observer=watcher)
    loaded, samples = plan.target.loaded, plan.samples
    assert loaded is not None  # an audit's target is a checkpoint
    target = margins_of(loaded, samples.audited(), samples.split.preprocess, plan.shadows.device)
    watcher.phase_started("attacks", None)
    result = measure(samples, target, margins, plan.attacks, seed=plan.inputs.seed)
    watcher.phase_finished("attacks", ", ".join(ATTACKS[name].label for name in plan.attacks))
    count = len(samples.seen)
    record = {
        "format": AUDIT_FORMAT,
        **result,
        "shadow_models": count,
        "findings": "\n".join(findings(result)),
        "limits": "\n".join(limits(result, count, mismatch=plan.mismatch)),
        "identity": identity,
        "seconds": time.perf_counter() - started,
        "versions": versions(),
        "command_line": command_line,
    }
    write_json(file, record)
    _renew_report(plan, folder, record)
    return AuditOutcome(file, record, known=False)


def _renew_report(plan: AuditPlan, folder: Path, record: Mapping[str, Any]) -> None:
    """Take an audit into the report of the run folder that it lies in, if it is not there yet."""
    if folder == plan.inputs.run and (folder / RECORD).is_file():
        report = _read(folder / RECORD)
        if report is None or report.get("audit") != record:
            write_report(folder)


def _of_run(inputs: AuditInputs, observer: Observer | None) -> _Origin:
    """Read what is audited from a run folder."""
    run = inputs.run
    assert run is not None
    network = inputs.model.network if isinstance(inputs.model, GivenModel) else None
    choices = ModelRequest() if network is not None else replace(inputs.model, allow_code=False)
    if inputs.split != SplitRequest() or choices != ModelRequest() or inputs.settings:
        raise BadRequest("a run already says what was forgotten, from which model and how; leave these choices out")
    config = _read(run / "config.json")
    if config is None or config.get("format") != FORMAT or config.get("command") != "unlearn":
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
    split = Split.load(run / "split.json", data.load(observer))
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
    method = methods.get(config["method"])
    recipe = dict(zip(("initial", "retrain"), config.get("recipe") or (None, None), strict=True))
    trainings = {
        purpose: read_training(saved) if (saved := config[purpose] or recipe[purpose]) else target.defaults(purpose)
        for purpose in ("initial", "retrain")
    }
    return _Origin(
        split,
        target,
        method(method.config_class.from_mapping(config["settings"])),
        trainings["initial"],
        trainings["retrain"],
        trained_elsewhere=config["initial"] is None,
    )


def _of_model(inputs: AuditInputs, observer: Observer | None) -> _Origin:
    """Take a model that never unlearned."""
    build_training(TrainConfig(), inputs.settings)
    given = inputs.model.model
    if given is None and inputs.model.model_config is None and not isinstance(inputs.model, GivenModel):
        raise BadRequest("an audit needs a run folder of 'unlearn', or a trained model by --model")
    split = load_split(fed(inputs.data, inputs.model), inputs.split, given, seed=inputs.seed, observer=observer)
    target = choose_model(inputs.model, split.dataset)
    if target.loaded is None:
        raise BadRequest(f"'{given}' is a network without weights; an audit needs a trained model's file or run folder")
    path = model_path(inputs.model)
    config = {} if path is None else _read(path / "config.json") or {}
    known = config.get("command") in ("train", "retrain")
    if known and config.get("task") == "semi":
        raise UserError(f"'{given}' was trained with few labels; an audit trains its shadow models with all of them")
    defaults = read_training(config["settings"]) if known else target.defaults("initial")
    return _Origin(
        split,
        target,
        None,
        build_training(defaults, inputs.settings),
        target.defaults("retrain"),
        trained_elsewhere=not known and not inputs.settings,
    )


def _attacks(inputs: AuditInputs) -> tuple[str, ...]:
    """Settle which attacks to run, in the order of ATTACKS."""
    applicable = [name for name, info in ATTACKS.items() if inputs.run is not None or not info.needs_method]
    for name in inputs.attacks:
        check_name("attack", name, ATTACKS)
        if name not in applicable:
            raise BadRequest(f"attack '{name}' compares a method with retraining; it needs a run folder of 'unlearn'")
    return tuple(name for name in applicable if not inputs.attacks or name in inputs.attacks)


def _shadow_models(inputs: AuditInputs, attacks: tuple[str, ...]) -> int:
    """Settle how many shadow models to make."""
    count = inputs.shadow_models
    if count is None:
        return 2 * REFERENCES if attacks == ("rmia",) else SHADOW_MODELS
    if count % 2:
        raise BadRequest(
            f"shadow models come in pairs that see complementary halves; expected an even number, got {count}"
        )
    for name in inputs.attacks or attacks[:1]:
        if count < ATTACKS[name].min_shadows:
            raise BadRequest(
                f"attack '{name}' needs at least {ATTACKS[name].min_shadows} shadow models, got {count}; "
                "ask for more, or for other attacks"
            )
    return count


def _mismatch(inputs: AuditInputs, origin: _Origin) -> str | None:
    """Say in what the shadow models are not like the model under audit, as far as is known."""
    if inputs.epochs is not None and inputs.epochs != origin.initial.epochs:
        return (
            f"The shadow models were trained for {inputs.epochs} epochs, not {origin.initial.epochs}: they stand for "
            "the audited model the less, and the attacks are the weaker."
        )
    if origin.trained_elsewhere:
        return (
            "How the initial model was trained is not recorded, so the shadow models took the defaults of its network: "
            "the less they are like it, the weaker the attacks."
        )
    return None


def _read(file: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, or None where there is none that can be read."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
