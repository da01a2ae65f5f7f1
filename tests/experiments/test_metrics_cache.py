"""Cached metrics and decisions: made once, the same as made again, never of another model or other samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pymixunlearn import data, evaluation, models, tasks
from pymixunlearn.data import Dataset
from pymixunlearn.evaluation import Acceptance, Metrics
from pymixunlearn.evaluation.plugged import forget_metric
from pymixunlearn.evaluation.predictions import Predictions
from pymixunlearn.experiments import Observer, Plan, run_unlearning
from pymixunlearn.experiments.common import stages
from pymixunlearn.experiments.common.stages import evaluate_models, judge_forgetting
from pymixunlearn.tasks import Split

CPU = torch.device("cpu")
Make = Callable[..., Plan]


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[nn.Module]]:
    """Empties the cache, and lists the models that a function of the stages is called with."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))

    def watch(name: str) -> list[nn.Module]:
        seen: list[nn.Module] = []
        whole = getattr(stages, name)

        def call(model: nn.Module, *arguments: Any, **keywords: Any) -> Any:
            seen.append(model)
            return whole(model, *arguments, **keywords)

        monkeypatch.setattr(stages, name, call)
        return seen

    return watch


@pytest.fixture
def measurements(counted: Callable[[str], list[nn.Module]]) -> list[nn.Module]:
    """The models that are measured, with an empty cache."""
    return counted("evaluate")


@pytest.fixture
def flipped() -> Dataset:
    """Half of the digits, with a training augmentation, so that there are predictions of augmented images too."""
    digits = data.load("digits@700")
    preprocess = data.Preprocess(flip=True)
    return data.Dataset("flipped", digits.train, digits.test, preprocess)


def networks() -> dict[str, nn.Module]:
    names = ("initial", "unlearned", "retrain")
    return {
        name: models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed)
        for seed, name in enumerate(names)
    }


def evaluated(split: Split, *, cached: tuple[str, ...] = ("initial", "retrain"), seed: int = 0) -> dict[str, Metrics]:
    return evaluate_models(networks(), split, device=CPU, seed=seed, observer=Observer(), cached=cached)


def test_cached_metrics_are_those_that_were_measured(measurements: list[nn.Module], flipped: Dataset) -> None:
    split = tasks.data_split(flipped)
    first = evaluated(split)
    assert len(measurements) == 3
    again = evaluated(split)
    assert len(measurements) == 4  # the unlearned model, whose metrics nobody else will want
    for name, metrics in first.items():
        assert again[name] == metrics and again[name].details == metrics.details
        assert again[name].gap == metrics.gap
        for part in ("train", "test", "augmented"):
            assert torch.equal(getattr(again[name].predictions, part), getattr(metrics.predictions, part))


@pytest.mark.parametrize("other", ["seed", "split", "labels", "model"])
def test_what_differs_is_measured_again(
    measurements: list[nn.Module], flipped: Dataset, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = tasks.data_split(flipped)
    evaluated(split)
    if other == "seed":
        evaluated(split, seed=1)
    elif other == "split":
        evaluated(tasks.data_split(flipped, seed=1))
    elif other == "labels":
        train = flipped.train.with_targets(flipped.train.targets.roll(1))
        evaluated(tasks.index_split(data.Dataset("flipped", train, flipped.test, flipped.preprocess), [1, 2]))
    else:
        changed = networks()
        with torch.no_grad():
            next(iter(changed["retrain"].parameters())).flatten()[0] += 1
        # Retrain's metrics are its own, and the initial model's are compared with them.
        evaluate_models(changed, split, device=CPU, seed=0, observer=Observer(), cached=("initial", "retrain"))
    assert len(measurements) == 6


@pytest.mark.parametrize("damage", ["cut short", "one bit of the predictions", "one bit of the numbers"])
def test_a_damaged_file_is_measured_again(
    measurements: list[nn.Module], flipped: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    split = tasks.data_split(flipped)
    first = evaluated(split)
    for path in (tmp_path / "cache" / "metrics").glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        place = content.index(b"test_r") + 10 if damage == "one bit of the numbers" else len(content) - 9
        content[place] ^= 1
        path.write_bytes(content[:-9] if damage == "cut short" else content)
    assert evaluated(split) == first and len(measurements) == 6
    assert "cannot be read" in caplog.text
    evaluated(split)
    assert len(measurements) == 7


def test_runs_that_share_models_share_their_metrics(
    measurements: list[nn.Module], small_plan: Make, tmp_path: Path
) -> None:
    first = run_unlearning(small_plan(method="fine-tune"), tmp_path / "a").record
    other = run_unlearning(small_plan(method="gradient-ascent"), tmp_path / "b").record
    assert len(measurements) == 4
    for model in ("initial", "retrain"):
        assert other["metrics"][model] == first["metrics"][model]
        assert other["intervals"][model] == first["intervals"][model]
    assert other["details"]["retrain"] == first["details"]["retrain"]


@pytest.fixture
def tests(counted: Callable[[str], list[nn.Module]]) -> list[nn.Module]:
    """The models that the acceptance test is made for, with an empty cache."""
    return counted("acceptance")


def judged(split: Split, *, cached: tuple[str, ...], lr: float = 1e-3, seed: int = 0) -> dict[str, Acceptance]:
    found = judge_forgetting(networks(), split, lr=lr, device=CPU, seed=seed, observer=Observer(), cached=cached)
    assert found is not None
    return found


def test_cached_decisions_are_those_that_were_made(tests: list[nn.Module]) -> None:
    split = tasks.class_split(data.load("digits@1000"), [0])
    alone = judged(split, cached=())
    first = judged(split, cached=("initial", "retrain"))
    assert len(tests) == 6
    again = judged(split, cached=("initial", "retrain"))
    assert len(tests) == 7  # the unlearned model
    for name, test in alone.items():
        assert first[name] == again[name] == test and test.ks is not None and test.probe_interval is not None
        for found in (first[name], again[name]):
            assert found.margins is not None and test.margins is not None
            for ours, theirs in zip(found.margins, test.margins, strict=True):
                assert np.array_equal(ours.forget, theirs.forget) and np.array_equal(ours.unseen, theirs.unseen)


@pytest.mark.parametrize("other", [{"lr": 1e-2}, {"seed": 1}])
def test_what_another_test_said_is_not_taken(tests: list[nn.Module], other: dict[str, Any]) -> None:
    split = tasks.class_split(data.load("digits@1000"), [0])
    judged(split, cached=("initial", "unlearned", "retrain"))
    judged(split, cached=("initial", "unlearned", "retrain"), **other)
    assert len(tests) == 6
    judged(tasks.class_split(data.load("digits@1000"), [1]), cached=("initial", "unlearned", "retrain"))
    assert len(tests) == 9


def test_with_too_few_samples_nothing_is_kept_that_is_not_there(tests: list[nn.Module]) -> None:
    split = tasks.index_split(data.load("digits@1000"), [1, 2, 3])
    first = judged(split, cached=("initial", "retrain"))
    assert judged(split, cached=("initial", "retrain")) == first
    assert first["retrain"].ks is None and first["retrain"].margins is None and len(tests) == 4


def test_networks_with_the_same_weights_have_metrics_of_their_own(
    measurements: list[nn.Module], flipped: Dataset
) -> None:
    split = tasks.data_split(flipped)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10), last) for last in (nn.Identity(), nn.Softsign())]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in (*networks, *networks):
        evaluate_models({"model": network}, split, device=CPU, seed=0, observer=Observer(), cached=("model",))
    assert measurements == networks


def test_another_version_of_a_plug_ins_metric_is_measured_again(
    measurements: list[nn.Module], flipped: Dataset
) -> None:
    def measured(least: float) -> float | None:
        @evaluation.metric("sure", summary="share of D_f whose largest probability is above a bound")
        def sure(predictions: Predictions) -> float:
            return float((predictions.forget_probabilities.amax(dim=1) > least).double().mean())

        return evaluated(tasks.data_split(flipped), cached=("retrain",))["retrain"]["sure"]

    try:
        assert (measured(0.0), measured(0.0), measured(1.0)) == (1.0, 1.0, 0.0)
    finally:
        forget_metric("sure")
    assert len(measurements) == 3 * 3 - 1
