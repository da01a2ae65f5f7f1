from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, models
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    BadRequest,
    DataRequest,
    ModelRequest,
    Plan,
    SplitRequest,
    UnlearnInputs,
    resolve_unlearning,
)
from pymixunlearn.experiments.common.initial_model import choose_model
from pymixunlearn.experiments.common.presets import Preset
from pymixunlearn.training import save_model

Make = Callable[..., Plan]


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits")


def network(**changes: int) -> nn.Module:
    return models.build("cnn", **{"num_classes": 10, "in_channels": 1, "image_size": 8, **changes})


def test_defaults() -> None:
    plan = resolve_unlearning(UnlearnInputs(device="cpu"))
    assert plan.split.dataset.name == "digits"
    assert plan.split.forget_classes == (0,)
    assert plan.method.name == "mixunlearn" and not plan.method.needs_labels
    assert plan.initial.name == "cnn"
    assert plan.initial_config is not None and plan.initial_config.epochs == 10
    assert plan.retrain_config is not None and plan.retrain_config.epochs == 20


def test_a_setting_overrides_the_preset_which_overrides_the_default(
    monkeypatch: pytest.MonkeyPatch, small_plan: Make
) -> None:
    shipped = Preset("shipped", {"omega": 7.0, "tau_mix": 3.0, "initial.lr": 0.5})
    monkeypatch.setattr("pymixunlearn.experiments.unlearn.plan.choose_preset", lambda *_, **__: shipped)
    plan = small_plan({"tau_mix": "4", "retrain.lr": "1e-4"})
    config = plan.method.config.to_dict()
    assert (config["omega"], config["tau_mix"], config["tau_real"], config["epochs"]) == (7.0, 4.0, 5.0, 2)
    assert plan.initial_config is not None and plan.initial_config.lr == 0.5
    assert plan.retrain_config is not None and plan.retrain_config.lr == 1e-4


@pytest.mark.parametrize(
    ("split", "task"),
    [
        (SplitRequest(classes=("3", "8")), "class"),
        (SplitRequest(task="data"), "data"),
        (SplitRequest(task="data", classes=("1",), fraction=0.5), "data"),
    ],
)
def test_splits(small_plan: Make, split: SplitRequest, task: str) -> None:
    made = small_plan(split=split).split
    assert made.task == task
    labels = set(made.forget.targets.tolist())
    assert labels == {int(name) for name in split.classes} or (not split.classes and labels == {5, 6, 7, 8, 9})


def test_a_file_of_indices_implies_its_task(tmp_path: Path, small_plan: Make) -> None:
    (tmp_path / "ids.txt").write_text("3, 5\n7\n")
    made = small_plan(split=SplitRequest(indices=tmp_path / "ids.txt")).split
    assert made.task == "indices"
    assert made.forget_indices.tolist() == [3, 5, 7]


def test_a_saved_split_comes_back(tmp_path: Path, small_plan: Make) -> None:
    first = small_plan(split=SplitRequest(task="data"), seed=4)
    first.split.save(tmp_path / "split.json")
    second = small_plan(split=SplitRequest(manifest=tmp_path / "split.json"), seed=4)
    assert first.identity == second.identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "mixunlern"}, "unknown method 'mixunlern'.*Did you mean 'mixunlearn'"),
        ({"data": DataRequest("digit")}, "unknown dataset 'digit'.*Did you mean 'digits'"),
        ({"split": SplitRequest(task="clas")}, "unknown task 'clas'.*Did you mean 'class'"),
        ({"split": SplitRequest(classes=("nine",))}, "unknown class of 'digits' 'nine'"),
        ({"model": ModelRequest("resnet")}, "unknown model 'resnet'.*Did you mean 'resnet1[48]'"),
        ({"model": ModelRequest("cnn", architecture="cnn")}, "an architecture is for a checkpoint"),
        ({"model": ModelRequest("m.pt", architecture="cn")}, "unknown architecture 'cn'.*Did you mean 'cnn'"),
        ({"settings": {"epochs": 0}}, "epochs is 0; expected a value at least 1"),
        ({"settings": {"initial.epoch": 1}}, "unknown setting 'epoch'.*Did you mean 'epochs'"),
        ({"split": SplitRequest(fraction=0.3)}, "a fraction to forget belongs to tasks like 'data'"),
        ({"split": SplitRequest(task="indices")}, "task 'indices' needs a file"),
        ({"split": SplitRequest(task="data", indices=Path("ids.txt"))}, "leave out other tasks"),
        ({"split": SplitRequest(task="data", manifest=Path("split.json"))}, "leave out the task"),
        ({"method": "retrain", "label_aware": False}, "method 'retrain' needs labels"),
        ({"method": "scrub", "label_aware": False}, "method 'scrub' needs labels; it cannot run label-agnostic"),
        ({"method": "laf", "label_aware": True}, "method 'laf' uses no labels; it cannot run label-aware"),
        ({"method": "ts", "settings": {"teachers": "good"}}, "unknown teachers 'good'"),
        ({"label_aware": False, "settings": {"label_aware": "yes"}}, "label_aware=true contradicts"),
    ],
)
def test_contradictions_and_unknown_names_are_wrong_usage(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        resolve_unlearning(UnlearnInputs(**{"device": "cpu", **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": SplitRequest(classes=("11",))}, "class 11 does not exist"),
        ({"model": ModelRequest("missing.safetensors")}, "'missing.safetensors' does not exist"),
        ({"device": "cuda:99"}, "device is 'cuda:99', which is not available here"),
    ],
)
def test_what_does_not_exist_is_a_failed_run(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve_unlearning(UnlearnInputs(**{"device": "cpu", **fields}))  # type: ignore[arg-type]
    assert not isinstance(caught.value, BadRequest)


def test_a_checkpoint_is_taken_with_its_architecture(tmp_path: Path, digits: data.Dataset) -> None:
    save_model(tmp_path / "model.safetensors", network())
    from_file = choose_model(ModelRequest(str(tmp_path / "model.safetensors")), digits)
    from_folder = choose_model(ModelRequest(str(tmp_path)), digits)
    assert from_file.name == "cnn" and from_file.loaded is not None
    assert from_file.sha256 == from_folder.sha256


def test_a_plain_state_dict_needs_its_architecture(tmp_path: Path, digits: data.Dataset) -> None:
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    assert choose_model(ModelRequest(str(path), "cnn"), digits).loaded is not None
    with pytest.raises(UserError, match="does not say which network"):
        choose_model(ModelRequest(str(path)), digits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7}, "has 7 classes; expected 10"),
        ({"in_channels": 3}, "was made for 3 image channels"),
        ({"image_size": 28}, "was made for 28 pixels"),
    ],
)
def test_a_checkpoint_for_other_data_is_refused(
    tmp_path: Path, digits: data.Dataset, changes: dict[str, int], message: str
) -> None:
    save_model(tmp_path / "other.safetensors", network(**changes))
    with pytest.raises(UserError, match=message):
        choose_model(ModelRequest(str(tmp_path / "other.safetensors")), digits)


@pytest.mark.parametrize("name", methods.available())
def test_every_method_runs_without_a_word_about_labels(name: str) -> None:
    plan = resolve_unlearning(UnlearnInputs(method=name, device="cpu"))
    assert plan.method.name == name
    for label_aware in (True, False):
        if name != "mixunlearn" and label_aware is not plan.method.needs_labels:
            continue
        assert (
            resolve_unlearning(UnlearnInputs(method=name, device="cpu", label_aware=label_aware)).method.needs_labels
            is label_aware
        )


def test_settings_may_decide_about_labels() -> None:
    request = UnlearnInputs(method="ts", device="cpu", label_aware=False, settings={"teachers": "bad"})
    assert not resolve_unlearning(request).method.needs_labels


def test_a_run_that_finds_its_own_end_does_not_take_the_presets_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Preset("shipped", {"omega": 7.0, "epochs": 3})
    monkeypatch.setattr("pymixunlearn.experiments.unlearn.plan.choose_preset", lambda *_, **__: shipped)

    def resolved(stop: str | None, settings: dict[str, str]) -> tuple[object, ...]:
        config = resolve_unlearning(UnlearnInputs(device="cpu", stop=stop, settings=settings)).settings.to_dict()
        return config["omega"], config["stop"], config["epochs"]

    assert resolved(None, {}) == resolved("epochs", {}) == (7.0, "epochs", 3)
    assert resolved("auto", {}) == resolved(None, {"stop": "auto"}) == (7.0, "auto", 20)
    assert resolved("auto", {"epochs": "5"}) == (7.0, "auto", 5)


def test_stop_is_only_for_methods_that_can() -> None:
    with pytest.raises(BadRequest, match="method 'retrain' cannot end by stop=auto; leave stop at epochs"):
        resolve_unlearning(UnlearnInputs(method="retrain", stop="auto"))
    with pytest.raises(BadRequest, match="unknown stop 'never'; expected one of accepted, auto, epochs"):
        resolve_unlearning(UnlearnInputs(method="retrain", stop="never"))
    assert resolve_unlearning(UnlearnInputs(method="retrain", stop="epochs")).method.name == "retrain"
