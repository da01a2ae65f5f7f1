"""Cached metrics: measured once, the same as measured again, and never of another model or other samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, models, tasks
from pymixunlearn.data import Dataset
from pymixunlearn.evaluation import Metrics
from pymixunlearn.experiments import Observer, Plan, run_unlearning
from pymixunlearn.experiments.common import stages
from pymixunlearn.experiments.common.stages import evaluate_models
from pymixunlearn.tasks import Split

CPU = torch.device("cpu")
Make = Callable[..., Plan]


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that are measured, with an empty cache."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    measured: list[nn.Module] = []
    whole = stages.evaluate

    def counted(model: nn.Module, *arguments: Any, **keywords: Any) -> Metrics:
        measured.append(model)
        return whole(model, *arguments, **keywords)

    monkeypatch.setattr(stages, "evaluate", counted)
    return measured


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
