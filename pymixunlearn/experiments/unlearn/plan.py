"""Plan of a run from its inputs: everything resolved, checked and loaded, nothing computed yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch

from pymixunlearn import methods
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.forget_history import History, read_history
from pymixunlearn.experiments.common.forget_set import load_split
from pymixunlearn.experiments.common.identity import FORMAT, attack_form, data_identity, history_identity
from pymixunlearn.experiments.common.initial_model import InitialModel, choose_model
from pymixunlearn.experiments.common.model_inputs import fed
from pymixunlearn.experiments.common.origin import run_origin
from pymixunlearn.experiments.common.plugins import load_plugins, method_code, plugin_hashes
from pymixunlearn.experiments.common.presets import Preset, at_paper_size, choose_preset
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.settings import TRAININGS, build_config, build_training, split_by_target
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.methods import Method, MethodConfig, Recipe, RetrainConfig
from pymixunlearn.methods.by_network import NetworkConfig
from pymixunlearn.methods.stopping import StoppingConfig
from pymixunlearn.reporting import SECOND
from pymixunlearn.tasks import Split
from pymixunlearn.training import TrainConfig, resolve_device


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        inputs: What was requested.
        split: The data and what to forget.
        method: The method with its final settings.
        initial: The initial model, to be trained or loaded.
        initial_config: How to train it; None for a checkpoint.
        retrain_config: How to train Retrain; None for a run without.
        recipe: How the initial model is or would be trained, and Retrain.
        device: Where to compute.
        preset: The shipped settings that apply, if any.
    """

    inputs: UnlearnInputs
    split: Split
    method: Method
    initial: InitialModel
    initial_config: TrainConfig | None
    retrain_config: TrainConfig | None
    recipe: Recipe
    device: torch.device
    preset: Preset | None

    @property
    def thumbnails(self) -> bool:
        """Whether images of the data may be in the report: unless requested, not those of single people."""
        requested = self.inputs.thumbnails
        return self.split.task == "class" if requested is None else requested

    @property
    def settings(self) -> MethodConfig:
        """The method's settings with those of the network filled in."""
        config = self.method.config
        return config.for_network(self.initial.name) if isinstance(config, NetworkConfig) else config

    @property
    def _states_recipe(self) -> bool:
        """Whether the result depends on the trainings beyond those that are done here."""
        method = self.method
        return method.reads_validation or (method.reads_recipe and self.initial_config is None)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the outcome, JSON-able: two runs with equal identities are one run."""
        return {
            "format": FORMAT,
            "command": "unlearn",
            "method": self.method.name,
            "settings": self.method.config.to_dict(),
            **data_identity(self.split),
            "architecture": self.initial.architecture,
            "checkpoint_sha256": self.initial.sha256,
            "initial": None if self.initial_config is None else self.initial_config.to_dict(),
            "retrain": None if self.retrain_config is None else self.retrain_config.to_dict(),
            **({"recipe": [config.to_dict() for config in self.recipe]} if self._states_recipe else {}),
            **({SECOND: True} if self.inputs.retrain == "two" else {}),
            **attack_form(self.inputs.asr),
            "relearn": self.inputs.relearn,
            "tsne": self.inputs.tsne,
            "thumbnails": self.thumbnails,
            **({"png": True} if self.inputs.png else {}),
            **({} if self.inputs.max_drop is None else {"max_drop": self.inputs.max_drop}),
            **history_identity(self.inputs.history),
            **({"plugins": plugin_hashes(self.inputs.plugin)} if self.inputs.plugin else {}),
            **method_code(type(self.method)),
            "seed": self.inputs.seed,
            **({} if self.inputs.training_seed is None else {"training_seed": self.inputs.training_seed}),
            "device": str(self.device),
        }

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Where data, model and plug-ins are, JSON-able, so that config.json can repeat the run; paths are absolute."""
        inputs = self.inputs
        return {
            **run_origin(inputs.model, self.initial, inputs.data, inputs.split),
            **({"plugin": list(map(os.path.abspath, inputs.plugin))} if inputs.plugin else {}),
        }

    @cached_property
    def earlier(self) -> History:
        """What the initial model has forgotten before."""
        return read_history((self.inputs.model.model, self.inputs.model.weights), self.inputs.history)


def resolve_unlearning(inputs: UnlearnInputs, *, observer: Observer | None = None, split: Split | None = None) -> Plan:
    """Load the data and settle every setting: defaults, then preset, then those of the inputs.

    Args:
        inputs: What was requested.
        observer: Receives the progress of decoding images.
        split: What those of the inputs data and split make, if that is at hand already.

    Raises:
        BadRequest: A name or a setting is unknown, a value does not fit, or choices contradict each other.
        UserError: Files are missing or corrupt, a class or a sample does not exist, the device is not available, or the
            method cannot do the task.
    """
    load_plugins(inputs.plugin)
    if inputs.preset == "paper":
        inputs = replace(inputs, data=at_paper_size(inputs.data))
    check_name("method", inputs.method, methods.available())
    method_class = methods.get(inputs.method)
    # All mistakes that need no data are found before data is read, let alone downloaded.
    device = resolve_device(inputs.device)
    requested = split_by_target(inputs.settings, method_class.config_class.kinds())
    label_aware = _label_aware(inputs, method_class.config_class, requested["method"])
    if inputs.stop is not None:
        requested["method"].update(_stop(inputs.method, inputs.stop, method_class.config_class))
    build_config(method_class.config_class, requested["method"])
    for training in TRAININGS:
        build_config(RetrainConfig, requested[training])

    if split is None:
        split = load_split(
            fed(inputs.data, inputs.model),
            inputs.split,
            inputs.model.model,
            inputs.model.weights,
            seed=inputs.seed_of_split,
            history=inputs.history,
            observer=observer,
        )
    initial = choose_model(inputs.model, split.dataset)
    preset = choose_preset(
        inputs.preset,
        inputs.method,
        split.dataset.name,
        split.task,
        label_aware=bool(label_aware),
        network=initial.name,
    )
    shipped = split_by_target(preset.settings if preset else {}, method_class.config_class.kinds())
    targets: dict[str, dict[str, Any]] = {name: {**shipped[name], **requested[name]} for name in requested}
    if "label_aware" in method_class.config_class.kinds():
        targets["method"]["label_aware"] = label_aware
    if targets["method"].get("stop") in ("auto", "accepted") and "epochs" not in requested["method"]:
        # A preset's epochs were chosen by the results: a run that is to find its end itself gets the method's budget.
        targets["method"].pop("epochs", None)
    method = method_class(build_config(method_class.config_class, targets["method"]))
    if inputs.label_aware is False and method.needs_labels:
        raise BadRequest(f"method '{inputs.method}' needs labels; it cannot run label-agnostic")
    if inputs.label_aware is True and not method.needs_labels:
        raise BadRequest(f"method '{inputs.method}' uses no labels; it cannot run label-aware")

    method.check_split(split)

    if observer is not None:
        for note in initial.notes:
            observer.note(note)
    semi_supervised = split.unlabelled_indices is not None

    def training_config(purpose: Literal["initial", "retrain"]) -> TrainConfig:
        return build_training(initial.defaults(purpose, semi_supervised=semi_supervised), targets[purpose])

    recipe = Recipe(training_config("initial"), training_config("retrain"))
    return Plan(
        inputs,
        split,
        method,
        initial,
        recipe.initial if initial.loaded is None else None,
        recipe.retrain if inputs.retrain != "none" else None,
        recipe,
        device,
        preset,
    )


def _label_aware(inputs: UnlearnInputs, config_class: type[MethodConfig], settings: Mapping[str, Any]) -> bool | None:
    """Settle whether labels are used: the option, the setting or its default; None where there is no choice."""
    if "label_aware" not in config_class.kinds():
        return inputs.label_aware
    setting = None
    if "label_aware" in settings:
        setting = bool(build_config(config_class, {"label_aware": settings["label_aware"]}).to_dict()["label_aware"])
    if None not in (inputs.label_aware, setting) and inputs.label_aware is not setting:
        raise BadRequest(f"the setting label_aware={str(setting).lower()} contradicts the choice of labels")
    if setting is None:
        setting = bool(config_class().to_dict()["label_aware"])
    return setting if inputs.label_aware is None else inputs.label_aware


def _stop(method: str, stop: str, config_class: type[MethodConfig]) -> dict[str, str]:
    """Return the setting for ``stop``; a method that has none ends after its epochs anyway."""
    check_name("stop", stop, get_args(StoppingConfig.kinds()["stop"]))
    kinds = config_class.kinds()
    if stop not in (get_args(kinds["stop"]) if "stop" in kinds else ("epochs",)):
        raise BadRequest(f"method '{method}' cannot end by stop={stop}; leave stop at epochs")
    return {"stop": stop} if "stop" in kinds else {}
