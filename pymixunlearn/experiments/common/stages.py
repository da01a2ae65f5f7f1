"""The parts of a run that take time: training the initial model, unlearning, retraining, evaluating."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.data import Dataset, ImageSet, Preprocess, TrainingSet, cache_dir
from pymixunlearn.display import counted
from pymixunlearn.evaluation import (
    ATTACKERS,
    DRAWS,
    Acceptance,
    Metrics,
    Resurfacing,
    acceptance,
    evaluate,
    forget_accuracy,
    predict,
)
from pymixunlearn.experiments.common.cache_exchange import ExchangedCache
from pymixunlearn.experiments.common.identity import attack_form, origin_of
from pymixunlearn.experiments.common.in_memory import untrained
from pymixunlearn.experiments.common.learning_curve import TestAccuracy
from pymixunlearn.experiments.common.metrics_cache import cached_acceptance, cached_metrics
from pymixunlearn.experiments.common.plugins import is_built_in, plugin_code
from pymixunlearn.experiments.common.progress import MethodCallback, Observer, PhaseCallback
from pymixunlearn.methods import Method, Recipe, Retrain, RetrainConfig, UnlearnResult
from pymixunlearn.models.copying import private_copy
from pymixunlearn.models.normalisation import hold_norms
from pymixunlearn.reporting import SECOND
from pymixunlearn.seeding import derive_seed
from pymixunlearn.tasks import Split
from pymixunlearn.training import (
    CachedModel,
    Callback,
    ModelCache,
    StateDict,
    TrainConfig,
    TrainResult,
    fit,
    fresh_weights,
    training_key,
)
from pymixunlearn.training.snapshots import SnapshotFile


def model_cache(origin: Mapping[str, Any] | None = None) -> ModelCache:
    """Return the user's cache of trained models; ``origin`` says of which data those are that are added."""
    return ExchangedCache(cache_dir() / "models", origin=origin)


def train_initial(
    architecture: Mapping[str, Any],
    images: TrainingSet,
    preprocess: Preprocess,
    config: TrainConfig,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    of: Dataset | Split | None = None,
    network: nn.Module | None = None,
    test: ImageSet | None = None,
) -> CachedModel:
    """Train a network on ``images``, or take it from the cache.

    ``of`` are the data that they are a part of; ``network`` is one like it, needed for an architecture that
    ``models.build`` does not know. With ``test`` images the history holds the accuracy on them after every epoch.
    """
    stream = derive_seed(seed, "initial")
    model, key = _initial_key(architecture, images, preprocess, config, device=device, stream=stream, network=network)
    if test is not None:  # the same weights, with another history
        key.update(curve=test.fingerprint())

    def build(*, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        if test is not None:
            measure = TestAccuracy(copy.deepcopy(model), test, preprocess, device)
            # First: snapshots and progress are to have what it adds.
            callbacks = [measure, *callbacks]
        return fit(
            # A copy: a training that rejects its snapshot starts once more from these weights.
            copy.deepcopy(model),
            images,
            preprocess,
            config,
            device=device,
            seed=stream,
            callbacks=[*callbacks, PhaseCallback(observer, "initial")],
            resume=resume,
            name="initial",
        )

    origin = None if of is None else origin_of(of, f"initial {architecture['name']}")
    return _cached("initial", key, build, observer, origin, like=model)


def train_retrain(
    initial: nn.Module,
    split: Split,
    config: TrainConfig,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    second: bool = False,
) -> CachedModel:
    """Train the network of ``initial`` from scratch on D_r, or take it from the cache.

    ``second`` draws other weights and another order: how far that is from the first is the noise floor of any gap.
    """
    method, name = Retrain(RetrainConfig.of(config)), "retrain"
    if second:
        name, seed = SECOND, derive_seed(seed, SECOND)
    key = _retrain_key(initial, split, config, device=device, seed=seed)
    return _cached_result(name, key, method, initial, split, device=device, seed=seed, observer=observer)


def cached_models(
    architecture: Mapping[str, Any],
    split: Split,
    initial: TrainConfig | None,
    retrain: TrainConfig | None,
    *,
    device: torch.device,
    seed: int,
    network: nn.Module | None = None,
    second: bool = False,
) -> dict[str, nn.Module]:
    """Return the models "initial" and "retrain" of a run, as far as its trainings are in the cache; nothing is trained.

    Args:
        architecture: The arguments of ``models.build``.
        split: The run's.
        initial: How the initial model was trained; None where it was not.
        retrain: How Retrain was trained; None where it was not.
        device: Of the run.
        seed: Of the run.
        network: A network of the architecture, where ``models.build`` does not know it.
        second: Whether the run has a second Retrain, "second_retrain".
    """
    keys = {}
    if initial is not None:
        stream = derive_seed(seed, "initial")
        _, keys["initial"] = _initial_key(
            architecture,
            split.training_set,
            split.preprocess,
            initial,
            device=device,
            stream=stream,
            network=network,
        )
    if retrain is not None:
        like = untrained(architecture, network, 0)
        seeds = {"retrain": seed, **({SECOND: derive_seed(seed, SECOND)} if second else {})}
        for name, stream in seeds.items():
            keys[name] = _retrain_key(like, split, retrain, device=device, seed=stream)
    found = {name: model_cache().get(key, into=_to_fill(network)) for name, key in keys.items()}
    return {name: cached.model for name, cached in found.items() if cached is not None}


def _initial_key(
    architecture: Mapping[str, Any],
    images: TrainingSet,
    preprocess: Preprocess,
    config: TrainConfig,
    *,
    device: torch.device,
    stream: int,
    network: nn.Module | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the untrained network and what determines its training."""
    model = untrained(architecture, network, stream)
    return model, training_key(model, images, preprocess, config, device=device, seed=stream)


def _retrain_key(
    initial: nn.Module, split: Split, config: TrainConfig, *, device: torch.device, seed: int
) -> dict[str, Any]:
    stream = derive_seed(seed, Retrain.name)
    private = private_copy(initial)
    hold_norms(private)  # as a method does: frozen layers are part of what it starts from
    fresh = fresh_weights(private, stream, keep_frozen=True)
    return training_key(fresh, split.retained_training_set, split.preprocess, config, device=device, seed=stream)


def unlearn_cached(
    method: Method,
    initial: nn.Module,
    split: Split,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    recipe: Recipe | None = None,
) -> CachedModel:
    """Unlearn, or take the unlearned model from the cache; ``recipe`` as of :meth:`Method.unlearn`."""
    key = training_key(initial, split.retain, split.preprocess, method.config, device=device, seed=seed)
    key.update(method=method.name, forget=split.forget.fingerprint(), forget_classes=list(split.forget_classes))
    if not is_built_in(type(method)):
        key.update(code=plugin_code(type(method)))
    if method.reads_validation and split.validation_halves is not None:
        key.update(choosing=split.validation_halves.choosing.fingerprint())
    if method.reads_recipe and recipe is not None:
        key.update(recipe=[config.to_dict() for config in recipe])
    return _cached_result(
        "unlearn", key, method, initial, split, device=device, seed=seed, observer=observer, recipe=recipe
    )


def _cached_result(
    phase: str,
    key: Mapping[str, Any],
    method: Method,
    initial: nn.Module,
    split: Split,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    recipe: Recipe | None = None,
) -> CachedModel:
    """Run a method as the phase ``phase``, or take what it gave from the cache."""

    def build(*, callbacks: Sequence[Callback], resume: StateDict | None) -> TrainResult:
        watched = [*callbacks, PhaseCallback(observer, phase)]
        result = method.unlearn(
            initial, split, device=device, seed=seed, callbacks=watched, resume=resume, recipe=recipe
        )
        return TrainResult(result.model, result.seconds, result.history)

    origin = origin_of(split, phase if phase == method.name else f"{phase} {method.name}", forgotten=phase == "retrain")
    return _cached(phase, key, build, observer, origin, like=initial)


def run_method(
    method: Method,
    initial: nn.Module,
    split: Split,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    snapshot: Path,
    recipe: Recipe,
    guard: bool,
) -> UnlearnResult:
    """Unlearn, saving the last complete epoch in the file ``snapshot`` and going on from it if it is there.

    With ``guard`` the state before comes back where the model collapses.
    """
    file = SnapshotFile(snapshot, "unlearning")

    def attempt(resume: StateDict | None) -> UnlearnResult:
        callbacks = [MethodCallback(observer, "unlearn", method.name), file]
        return method.unlearn(
            initial,
            split,
            device=device,
            seed=seed,
            callbacks=callbacks,
            resume=resume,
            store=model_cache(origin_of(split, f"part of {method.name}")),
            recipe=recipe,
            guard=guard,
        )

    result = file.run(attempt, observer.note)
    parts = (result.collapse, result.rollback, result.stopping, result.search)
    said = (None if part is None else part.sentence() for part in parts)
    ending = "".join(f", {sentence}" for sentence in said if sentence is not None)
    observer.phase_finished("unlearn", f"{method.name}, {result.seconds:.1f} s{ending}")
    return result


def evaluate_models(
    networks: Mapping[str, nn.Module],
    split: Split,
    *,
    device: torch.device,
    seed: int,
    observer: Observer,
    attacker: str = ATTACKERS[0],
    draws: int = DRAWS,
    asr: str = "default",
    reference: str = "retrain",
    relearn: bool = False,
    cached: Collection[str] = (),
) -> dict[str, Metrics]:
    """Measure every model on the same samples.

    Args:
        networks: The models by name.
        split: What was forgotten and what remains.
        device: Where to compute.
        seed: Fixes augmentation and attacks.
        observer: Receives the progress.
        attacker: The classifier that attacks for ``asr``.
        draws: How many attacks ``asr`` is the mean of.
        asr: The attack's form.
        reference: The name of the model that the others are compared with; it is measured first, if it is there.
        relearn: Measure the relearn time too, back to the accuracy that the model "initial" has on D_f.
        cached: The models whose metrics are cached for further runs, and taken from an earlier one.

    Returns:
        The metrics in the order of ``networks``.
    """
    observer.phase_started("evaluation", len(networks))
    measured: dict[str, Metrics] = {}
    known_before = None
    if relearn:
        initial = predict(networks["initial"].to(device), split, device=device)
        known_before = forget_accuracy(initial)
    for done, name in enumerate(sorted(networks, key=lambda name: name != reference)):
        observer.phase_advanced("evaluation", done, name)
        measure = partial(
            evaluate,
            networks[name],
            split,
            reference=measured.get(reference),
            device=device,
            seed=seed,
            attacker=attacker,
            draws=draws,
            asr=asr,
            relearn_to=known_before,
        )
        if name not in cached:
            measured[name] = measure()
            continue
        networks[name].to(device)  # as evaluate() leaves it
        beside = networks.get(reference) if name != reference else None
        settings = {"seed": seed, "attacker": attacker, "draws": draws, "relearn_to": known_before, **attack_form(asr)}
        measured[name] = cached_metrics(
            networks[name], split, beside, measured.get(reference), device, settings, measure
        )
    observer.phase_finished("evaluation", f"{len(networks)} models" if len(networks) > 1 else "1 model")
    return {name: measured[name] for name in networks}


def judge_forgetting(
    networks: Mapping[str, nn.Module],
    split: Split,
    *,
    lr: float,
    device: torch.device,
    seed: int,
    observer: Observer,
    cached: Collection[str] = (),
) -> dict[str, Acceptance] | None:
    """Make the acceptance test for every model where the data have a validation set; otherwise return None.

    Args:
        networks: The models by name; "initial", if it is there, is the one before unlearning.
        split: What was forgotten and what remains.
        lr: Learning rate of the models' own training.
        device: Where to compute.
        seed: Fixes which samples are looked at.
        observer: Receives the progress.
        cached: The models whose results are cached for further runs, and taken from an earlier one.
    """
    if split.dataset.validation is None:
        observer.note(
            "Forgetting was not tested: the data have no validation set, images that no model saw (where the initial "
            "model is trained here, --validation 0.1 takes some out of the training images)."
        )
        return None
    observer.phase_started("acceptance", None)
    initial, stream = networks.get("initial"), derive_seed(seed, "acceptance")
    tested: dict[str, Acceptance] = {}
    for name in sorted(networks, key=lambda name: name != "initial"):
        test = partial(
            acceptance,
            networks[name],
            split,
            initial=initial if name == "initial" else tested.get("initial"),
            device=device,
            seed=stream,
            resurfacing=Resurfacing(lr=lr),
        )
        settings = {"seed": stream, "lr": lr}
        tested[name] = (
            cached_acceptance(networks[name], split, initial, device, settings, test) if name in cached else test()
        )
    found = {name: tested[name] for name in networks}
    judged = next(name for name in ("unlearned", "model") if name in found)
    observer.phase_finished("acceptance", found[judged].decision)
    return found


def _to_fill(network: nn.Module | None) -> nn.Module | None:
    """Return a module to load weights into, where they do not say themselves which network they are of."""
    return None if network is None or models.architecture_of(network) is not None else copy.deepcopy(network)


def _cached(
    phase: str,
    key: Mapping[str, Any],
    build: Callable[..., TrainResult],
    observer: Observer,
    origin: Mapping[str, Any] | None,
    *,
    like: nn.Module,
) -> CachedModel:
    model = model_cache(origin).get_or_train(key, build, into=_to_fill(like))
    epochs = counted(len(model.history), "epoch")
    where = f"from the cache ({epochs}, trained in {model.seconds:.1f} s)"
    observer.phase_finished(phase, where if model.hit else f"{epochs}, {model.seconds:.1f} s")
    return model
