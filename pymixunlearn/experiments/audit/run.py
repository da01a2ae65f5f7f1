"""An audit: from inputs through shadow models to ``audit.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.cores import usable_cores
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import ATTACKS, ShadowMargins, ShadowPlan, measure, plan_shadows
from pymixunlearn.evaluation.audit.checks import finite
from pymixunlearn.evaluation.audit.limits import findings, limits
from pymixunlearn.evaluation.audit.rmia import REFERENCES
from pymixunlearn.experiments.audit.inputs import AuditInputs
from pymixunlearn.experiments.audit.origin import has_method, mismatch, origin_of_audit, read_object
from pymixunlearn.experiments.audit.shadows import Shadows, make_shadows, margins_of
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.identity import data_identity, history_identity, identity_hash
from pymixunlearn.experiments.common.in_memory import is_object
from pymixunlearn.experiments.common.initial_model import InitialModel
from pymixunlearn.experiments.common.plugins import is_built_in, load_plugins, plugin_code
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.ray_worker import Place
from pymixunlearn.experiments.common.run_folder import write_json
from pymixunlearn.experiments.unlearn.report import AUDIT, sign_again, write_report
from pymixunlearn.methods import Recipe
from pymixunlearn.reporting import RECORD
from pymixunlearn.training import resolve_device

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
        before: The model before unlearning, attacked likewise.
    """

    inputs: AuditInputs
    target: InitialModel
    attacks: tuple[str, ...]
    shadows: Shadows
    jobs: int
    mismatch: str | None
    before: InitialModel | None = None

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
            **({} if self.before is None else {"before_sha256": self.before.sha256}),
            "architecture": self.target.architecture,
            "method": None if method is None else method.name,
            "settings": None if method is None else method.config.to_dict(),
            **({} if method is None or is_built_in(type(method)) else {"code": plugin_code(type(method))}),
            "initial": self.shadows.initial.to_dict(),
            "retrain": None if retrain is None else retrain.to_dict(),
            **({} if recipe is None else {"recipe": [config.to_dict() for config in recipe]}),
            **history_identity(self.inputs.history),
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


def resolve_audit(inputs: AuditInputs, *, observer: Observer | None = None) -> AuditPlan:
    """Load data and model and settle every setting.

    Raises:
        BadRequest: A name is unknown, or choices contradict each other.
        UserError: The folder holds no run, files are missing or corrupt, or there is too little to compare.
    """
    load_plugins(inputs.plugin)
    device = resolve_device(inputs.device)
    inputs.placement.check(str(device))
    # All mistakes that need no data are found before data is read.
    attacks = _attacks(inputs, with_method=has_method(inputs))
    count = _shadow_models(inputs, attacks)
    able = tuple(name for name in attacks if count >= ATTACKS[name].min_shadows)
    if able != attacks and observer is not None:
        others = ", ".join(f"{name} ({ATTACKS[name].min_shadows})" for name in attacks if name not in able)
        observer.note(f"Left out, since they need more than {count} shadow models: {others}.")
    attacks = able
    origin = origin_of_audit(inputs, observer)
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
        recipe=None if origin.method is None or not origin.method.reads_recipe else Recipe(initial, retrain),
        with_initial=origin.before is not None,
    )
    jobs = inputs.jobs or _jobs(inputs, device, count)
    return AuditPlan(inputs, origin.target, attacks, shadows, min(jobs, count), mismatch(inputs, origin), origin.before)


def _jobs(inputs: AuditInputs, device: torch.device, count: int) -> int:
    """Return how many shadow models to make at a time, unless that is given."""
    if inputs.placement.is_ray:
        return count
    if inputs.method is not None:  # a function of the caller's need not be one that other processes can import
        return 1
    return 4 if device.type == "cuda" else usable_cores()


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
    known = read_object(file)
    # The same name says nothing of what a function does today.
    if known is not None and known.get("identity") == identity and plan.inputs.method is None:
        _renew_report(plan, folder, known)  # where an audit was killed before it did that
        return AuditOutcome(file, known, known=True)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output folder '{folder}' is a file; give the name of a folder")

    started = time.perf_counter()
    loaded, samples = plan.target.loaded, plan.samples
    assert loaded is not None  # an audit's target is a checkpoint
    target = margins_of(loaded, samples.audited(), samples.split.preprocess, plan.shadows.device)
    if not all(ATTACKS[name].needs_method for name in plan.attacks):
        finite("target", target)  # before any training: no attack could work on it
    places: set[Place] = set()
    where: dict[str, Any] = {"placement": plan.inputs.placement, "ran_on": places.add}
    margins = make_shadows(plan.shadows, jobs=plan.jobs, observer=watcher, **where)
    watcher.phase_started("attacks", None)
    result = measure(samples, target, margins, plan.attacks, seed=plan.inputs.seed)
    before = _attacked_before(plan, margins)
    watcher.phase_finished("attacks", ", ".join(ATTACKS[name].label for name in plan.attacks))
    count = len(samples.seen)
    record = {
        "format": AUDIT_FORMAT,
        **result,
        **({} if before is None else {"before": before["attacks"]}),
        "shadow_models": count,
        "findings": "\n".join(
            [*findings(result), *([] if before is None else findings(before, "Before unlearning, "))]
        ),
        "limits": "\n".join(limits(result, count, mismatch=plan.mismatch)),
        "identity": identity,
        "seconds": time.perf_counter() - started,
        "versions": versions(),
        **({"ran_on": [place._asdict() for place in sorted(places)]} if places else {}),
        "command_line": command_line,
    }
    write_json(file, record)
    _renew_report(plan, folder, record)
    return AuditOutcome(file, record, known=False)


def _attacked_before(plan: AuditPlan, margins: ShadowMargins) -> dict[str, Any] | None:
    """Run the attacks on single models on the one before unlearning: was there anything to be found?"""
    attacks = [name for name in plan.attacks if not ATTACKS[name].needs_method]
    if plan.before is None or not attacks:
        return None
    loaded, samples = plan.before.loaded, plan.samples
    assert loaded is not None and margins.initial is not None  # it is a checkpoint, and the shadow models are asked
    known = margins_of(loaded, samples.audited(), samples.split.preprocess, plan.shadows.device)
    return measure(samples, known, ShadowMargins(margins.initial), attacks, seed=plan.inputs.seed)


def _renew_report(plan: AuditPlan, folder: Path, record: Mapping[str, Any]) -> None:
    """Take an audit into the report of the run folder that it lies in, if it is not there yet."""
    if folder == plan.inputs.run and (folder / RECORD).is_file():
        report = read_object(folder / RECORD)
        if report is None or report.get("audit") != record:
            write_report(folder)
        sign_again(folder, plan.inputs.sign_key)


def _attacks(inputs: AuditInputs, *, with_method: bool) -> tuple[str, ...]:
    """Settle which attacks to run, in the order of ATTACKS."""
    applicable = [name for name, info in ATTACKS.items() if with_method or not info.needs_method]
    for name in inputs.attacks:
        check_name("attack", name, ATTACKS)
        if name not in applicable:
            raise BadRequest(
                f"attack '{name}' compares a method with retraining; it needs a run folder of 'unlearn', or in "
                "Python a function that unlearns (method=…)"
            )
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
