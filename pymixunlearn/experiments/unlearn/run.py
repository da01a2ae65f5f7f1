"""A whole run: initial model, unlearning, Retrain, evaluation, and the run folder they leave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pymixunlearn.evaluation import Metrics, most_changed
from pymixunlearn.experiments.common.forget_chain import KEY_FILE
from pymixunlearn.experiments.common.forget_history import CHAIN, is_above, keep_key, next_chain
from pymixunlearn.experiments.common.history import merge_histories, to_csv
from pymixunlearn.experiments.common.identity import attack_form, identity_hash, rest_of
from pymixunlearn.experiments.common.initial_model import CHECKPOINT
from pymixunlearn.experiments.common.known_accuracy import known_accuracy
from pymixunlearn.experiments.common.model_config import MODEL_CONFIG, model_config_text
from pymixunlearn.experiments.common.phases import Phases
from pymixunlearn.experiments.common.plugins import is_built_in
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import utc_now, versions
from pymixunlearn.experiments.common.run_folder import Run, RunFolder
from pymixunlearn.experiments.common.signing import Signer
from pymixunlearn.experiments.common.stages import (
    evaluate_models,
    judge_forgetting,
    run_method,
    train_initial,
    train_retrain,
)
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.unlearn.figures import Figures
from pymixunlearn.experiments.unlearn.original_form import ORIGINAL_FORM, write_original_form
from pymixunlearn.experiments.unlearn.plan import Plan
from pymixunlearn.experiments.unlearn.release import release_check
from pymixunlearn.experiments.unlearn.report import FILES, sign_report, write_report
from pymixunlearn.files import file_sha256
from pymixunlearn.reporting import MODELS, SECOND, VERSION, measured, upgraded
from pymixunlearn.training import CachedModel, model_hash, save_model
from pymixunlearn.training.fresh import frozen_parameters

ORIGINAL = "original"
"""What a method trained on everything before it unlearned, in seconds and history."""
_SHARED = ("initial", "retrain", SECOND)
"""Models that runs of other methods measure too."""


def default_folder(plan: Plan) -> Path:
    """Return ``runs/NAME``, where the name says what the run is and ends in a hash of everything else."""
    identity = plan.identity
    name = f"{plan.split.dataset.name}-{plan.split.task}-{plan.method.name}-seed{plan.inputs.seed}"
    return Path("runs") / f"{name}-{identity_hash(identity)}"


def run_unlearning(
    plan: Plan,
    out: Path | None = None,
    *,
    observer: Observer | None = None,
    command_line: str = "",
    guard: bool = True,
) -> Run:
    """Carry out a plan and write its run folder, or go on where an interrupted run stopped.

    Nothing appears under a final name before everything is done. The same plan gives the same weights, to the
    last bit, on the same machine with the same number of threads, also when it was interrupted; hashes in the file's
    header are keyed, and keys differ.

    Args:
        plan: What to do, from :func:`pymixunlearn.experiments.unlearn.plan.resolve`.
        out: The run folder; :func:`default_folder` if None.
        observer: Receives the progress.
        command_line: The command that reproduces the run, for the report.
        guard: Go back to the state before where the model collapses. Where methods are compared, none is helped: there
            a loss that is not finite is an error, and what ends at chance is measured so.

    Raises:
        UserError: The folder holds another run or cannot be written, or a phase failed.
    """
    watcher = Observer() if observer is None else observer
    signer = None if plan.inputs.sign_key is None else Signer(plan.inputs.sign_key)
    folder = RunFolder(default_folder(plan) if out is None else out, plan.identity)
    if folder.finished:
        if signer is not None:
            sign_report(folder.path, signer)
        return Run(folder.path, upgraded(folder.read_json("metrics.json")), known=True)
    if folder.started:
        watcher.note(f"Resuming the interrupted run in {folder.path}.")
    with folder.writing(), suited_threads(plan.split.dataset, plan.device):
        record = _carry_out(plan, folder, watcher, command_line, guard=guard)
    if signer is not None:
        sign_report(folder.path, signer)
    return Run(folder.path, record, known=False)


def _carry_out(plan: Plan, folder: RunFolder, watcher: Observer, command_line: str, *, guard: bool) -> dict[str, Any]:
    """Do everything and publish the folder; returns the content of metrics.json."""
    split, device, seed = plan.split, plan.device, plan.inputs.seed
    earlier = plan.earlier
    key = keep_key(folder.partial, earlier, plan.inputs.history)
    training = plan.inputs.seed_of_training
    phases = Phases(device)
    with phases.measured("initial"):
        initial = initial_model(plan, watcher)
    if plan.initial.loaded is not None:
        phases.drop("initial")
    elif initial.hit:
        phases.taken_over("initial")
    known = None
    if plan.initial.trained_elsewhere or plan.inputs.expect_accuracy is not None:
        known = known_accuracy(
            initial.model, split.dataset, plan.inputs.expect_accuracy, device=device, observer=watcher
        )
    with phases.measured("unlearned"):
        unlearned = run_method(
            plan.method,
            initial.model,
            split,
            device=device,
            seed=seed,
            observer=watcher,
            snapshot=folder.partial / "unlearn.pt",
            recipe=plan.recipe,
            guard=guard,
        )
    networks = {"initial": initial.model, "unlearned": unlearned.model}
    retrains: dict[str, CachedModel] = {}
    for name in _retrains(plan):
        assert plan.retrain_config is not None
        with phases.measured(name):
            retrains[name] = train_retrain(
                initial.model,
                split,
                plan.retrain_config,
                device=device,
                seed=training,
                observer=watcher,
                second=name == SECOND,
            )
        if retrains[name].hit:
            phases.taken_over(name)
        networks[name] = retrains[name].model
    retrain, second = retrains.get("retrain"), retrains.get(SECOND)
    with phases.measured("evaluation"):
        metrics = evaluate_models(
            networks,
            split,
            device=device,
            seed=seed,
            observer=watcher,
            relearn=plan.inputs.relearn,
            asr=plan.inputs.asr,
            cached=_SHARED,
        )

    with phases.measured("acceptance"):
        acceptance = judge_forgetting(
            networks,
            split,
            lr=plan.recipe.initial.lr,
            device=device,
            seed=seed,
            observer=watcher,
            cached=_SHARED,
        )

    if acceptance is None:  # nothing was done
        phases.drop("acceptance")

    hashes = {name: model_hash(network) for name, network in networks.items()}
    chain = next_chain(
        earlier,
        key,
        split,
        command="unlearn",
        method=plan.method.name,
        initial_sha256=hashes["initial"],
        unlearned_sha256=hashes["unlearned"],
    )
    before, found = unlearned.preparation, measured(metrics)
    found["metrics"] = {**dict.fromkeys((*MODELS, SECOND)), **found["metrics"]}
    limit, unchanged = plan.inputs.max_drop, hashes["initial"] == hashes["unlearned"]
    record: dict[str, Any] = {
        "version": VERSION,
        "method": plan.method.name,
        "dataset": split.dataset.name,
        "task": split.task,
        "seed": seed,
        **attack_form(plan.inputs.asr),
        **found,
        "acceptance": None if acceptance is None else {name: test.to_dict() for name, test in acceptance.items()},
        **(
            {}
            if limit is None
            else {"release": release_check(metrics, acceptance, split, limit, unlearned.collapse, unchanged)}
        ),
        "initial_accuracy": known,
        "most_changed": _most_changed(metrics),
        "unchanged": unchanged,
        "rest": rest_of(split),
        "seconds": {
            "initial": initial.seconds if plan.initial.loaded is None else None,
            "unlearned": unlearned.seconds,
            "retrain": None if retrain is None else retrain.seconds,
            **({} if second is None else {SECOND: second.seconds}),
            **({} if before is None else {ORIGINAL: before.seconds}),
        },
        "phases": phases.to_dict(unlearned=unlearned.parts),
        "peak_memory": phases.memory,
        "stopping": None if unlearned.stopping is None else unlearned.stopping.to_dict(),
        **({} if unlearned.collapse is None else {"collapse": unlearned.collapse.to_dict()}),
        **({} if unlearned.rollback is None else {"rollback": unlearned.rollback.to_dict()}),
        **({} if unlearned.search is None else {"search": unlearned.search.to_dict()}),
        "hashes": hashes,
        "chain": chain.summary(),
        "times": {"started": folder.start_time, "finished": utc_now()},
        "versions": versions(),
    }
    history = merge_histories(
        {
            "initial": initial.history,
            ORIGINAL: before.history if before else [],
            "unlearned": unlearned.history,
            "stopping": unlearned.stopping.checks if unlearned.stopping else [],
            "rollback": unlearned.rollback.looks if unlearned.rollback else [],
            "retrain": retrain.history if retrain else [],
            SECOND: second.history if second else [],
        }
    )
    save_model(folder.partial / CHECKPOINT, unlearned.model, metadata={**_model_metadata(plan), CHAIN: chain.to_dict()})
    record["hashes"][CHECKPOINT] = file_sha256(folder.partial / CHECKPOINT)
    folder.write_json("config.json", _config(plan, unlearned.config.to_dict(), command_line))
    text = model_config_text(plan.initial.architecture, split.dataset.train.classes, split.preprocess)
    folder.write_text(MODEL_CONFIG, text)
    form = plan.initial.trained_elsewhere and write_original_form(
        folder.partial / ORIGINAL_FORM, unlearned.model, plan.initial.checkpoint
    )
    folder.write_json("split.json", split.manifest())
    folder.write_text("history.csv", to_csv(history))
    folder.write_json("metrics.json", record)
    figures = Figures(
        split=split,
        networks=networks,
        metrics=metrics,
        acceptance=acceptance or {},
        history=history,
        generator=unlearned.generator,
        feature_layer=unlearned.config.to_dict().get("feature_layer"),
        device=device,
        seed=seed,
    )
    inputs = plan.inputs
    figures.draw(folder.partial, watcher, tsne=inputs.tsne, thumbnails=plan.thumbnails, png=inputs.png)
    write_report(folder.partial)
    key_file = () if is_above(folder.path, key) else (KEY_FILE,)
    folder.publish((*FILES, *key_file, ORIGINAL_FORM) if form else (*FILES, *key_file))
    return record


def _retrains(plan: Plan) -> tuple[str, ...]:
    """Return the names of the Retrains of a run."""
    if plan.retrain_config is None:
        return ()
    return ("retrain", SECOND) if plan.inputs.retrain == "two" else ("retrain",)


def _most_changed(metrics: Mapping[str, Metrics]) -> dict[str, Any]:
    before, after = metrics["initial"].predictions, metrics["unlearned"].predictions
    assert before is not None and after is not None  # they were just measured, or read with their predictions
    return most_changed(before, after, metrics["retrain"].predictions if "retrain" in metrics else None)


def initial_model(plan: Plan, observer: Observer) -> CachedModel:
    """Return the initial model of a run: given, from the cache, or trained."""
    if plan.initial.loaded is not None:
        observer.phase_finished("initial", f"from {plan.initial.origin}")
        return CachedModel(plan.initial.loaded, 0.0, [], hit=True)
    assert plan.initial_config is not None  # a plan has either weights or a way to train them
    return train_initial(
        plan.initial.architecture,
        plan.split.training_set,
        plan.split.preprocess,
        plan.initial_config,
        device=plan.device,
        seed=plan.inputs.seed_of_training,
        observer=observer,
        of=plan.split,
    )


def _config(plan: Plan, settings: dict[str, Any], command_line: str) -> dict[str, Any]:
    """Return the content of config.json: what determines the run, and what is needed or good to know to repeat it."""
    split = plan.split
    return {
        **plan.identity,
        "resolved_settings": settings,
        "preset": None if plan.preset is None else plan.preset.name,
        "label_aware": plan.method.needs_labels,
        "resurfacing_lr": plan.recipe.initial.lr,
        "frozen_parameters": [] if plan.initial.loaded is None else frozen_parameters(plan.initial.loaded),
        **plan.origin,
        "left_out": list(split.dataset.notes),
        "class_names": list(split.dataset.train.classes),
        **({} if is_built_in(type(plan.method)) else {"method_summary": plan.method.summary}),
        "threads": torch.get_num_threads(),
        "command_line": command_line,
    }


def _model_metadata(plan: Plan) -> dict[str, Any]:
    """Return what the checkpoint says about itself; nothing that differs between two equal runs."""
    identity = plan.identity
    # Neither the request's parameters nor a hash of the indices: a few samples could be guessed from them.
    named = ("method", "dataset", "fingerprint", "preprocess", "task", "seed")
    return {"purpose": "unlearned", **{key: identity[key] for key in named}}
