"""Every method computes in bfloat16 where it is told to, by the same means, and as before where it is not."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import MethodOutput
from pymixunlearn.methods.choosing import Chooser
from pymixunlearn.models.autocast import AutocastHook, compute_in
from pymixunlearn.training import TrainConfig, model_hash, train

CPU = torch.device("cpu")
FEW = 64
CASES: dict[str, dict[str, Any]] = {
    "boundary-expand": {"epochs": 1, "lr": 0.01},
    "boundary-shrink": {"epochs": 1, "lr": 0.01},
    "dsmixup": {"shards": 2, "slices": 1, "epochs": 1},
    "eu-k": {"epochs": 1, "frozen": 0.6},
    "fine-tune": {"epochs": 1},
    "gli": {"epochs": 1, "batch_size": 32},
    "gradient-ascent": {"epochs": 1, "lr": 1e-3},
    "l-mix": {"epochs": 1, "vae_epochs": 1},
    "laf": {"epochs": 1, "vae_epochs": 1},
    "laf+r": {"epochs": 1, "vae_epochs": 1, "repair_epochs": 1},
    "mixunlearn": {"epochs": 1},
    "mixunlearn, plain": {"epochs": 1, "fast": False},
    "mixunlearn-reset": {"epochs": 1},
    "neggrad": {"epochs": 1},
    "prune-reset": {"epochs": 1},
    "randlabel": {"epochs": 1},
    "retrain": {"epochs": 1},
    "salun": {"epochs": 1},
    "scrub": {"epochs": 1, "max_epochs": 1},
    "sisa": {"shards": 2, "slices": 1, "epochs": 1},
    "ssd": {"alpha": 1.5},
    "ssd, by sample": {"alpha": 1.5, "importance": "sample"},
    "ts": {"epochs": 1, "teacher_epochs": 1},
    "unroll": {"train_epochs": 10},
    "unroll, from the start": {"point": "start", "train_epochs": 10, "power_iterations": 2},
    "unroll, regularised": {"std_weight": 0.1},
}
EVERY = pytest.mark.parametrize("case", CASES)
LOSS = 0.02
"""By how much of itself a loss of an epoch may differ: bfloat16 has 8 bits, one part in 256 each time it rounds."""
MEASURES = ("mask", "mask_error", "mask_within", "mask_between", "accuracy", "verification_error")
"""What an epoch measures beside losses."""


@pytest.fixture(scope="module")
def few(digits_model: nn.Module, digits: data.Dataset) -> tasks.Split:
    some = torch.arange(FEW)
    part = replace(digits, train=digits.train.subset(some), test=digits.test.subset(some))
    return tasks.index_split(part, range(FEW // 4))


def run(case: str, model: nn.Module, split: tasks.Split, precision: str, **more: Any) -> methods.UnlearnResult:
    method = methods.get(case.partition(",")[0])(precision=precision, **{"batch_size": 16, **CASES[case]})
    return method.unlearn(model, split, device="cpu", seed=3, **more)


def test_no_method_is_left_out() -> None:
    assert {case.partition(",")[0] for case in CASES} == set(methods.available())


@EVERY
def test_it_changes_what_is_computed_and_hardly_the_loss(case: str, digits_model: nn.Module, few: tasks.Split) -> None:
    usual, half = (run(case, digits_model, few, precision) for precision in ("float32", "bfloat16"))
    assert model_hash(half.model) != model_hash(usual.model)
    assert (half.config.precision, usual.config.precision) == ("bfloat16", "float32")
    assert all(tensor.dtype == torch.float32 for tensor in half.model.parameters())
    for one, other in zip(usual.history, half.history, strict=True):
        for name in set(one) - {"epoch", "seconds", *MEASURES}:
            assert other[name] == pytest.approx(one[name], rel=LOSS, abs=LOSS), name
    # Nothing of it stays on the networks.
    hooks = [hook for part in half.model.modules() for hook in part._forward_pre_hooks.values()]
    assert not any(isinstance(getattr(hook, "__self__", None), AutocastHook) for hook in hooks)
    with torch.no_grad():
        images = few.preprocess.evaluation(few.test.images)
        assert torch.equal(half.model(images), copy.deepcopy(half.model)(images))


@EVERY
def test_float32_is_what_it_was_without_the_setting(case: str, few: tasks.Split) -> None:
    config = methods.get(case.partition(",")[0]).config_class
    plain, chosen = config.from_mapping(CASES[case]), config.from_mapping({**CASES[case], "precision": "bfloat16"})
    if plain.precision is not None:  # None: it was recorded always
        assert "precision" not in plain.to_dict()
        assert config.from_mapping({**plain.to_dict(), "precision": "float32"}).to_dict() == plain.to_dict()
    assert chosen.to_dict()["precision"] == "bfloat16"


def test_what_is_left_to_the_device_is_settled_in_the_record(digits_model: nn.Module, few: tasks.Split) -> None:
    method = methods.MixUnlearn(epochs=1)
    assert method.config.precision is None
    found = method.unlearn(digits_model, few, device="cpu")
    assert found.config.precision == "float32" and method.config.precision is None


def test_a_model_in_float64_is_refused(digits_model: nn.Module, few: tasks.Split) -> None:
    with pytest.raises(UserError, match="precision is bfloat16, and the model has weights in float64"):
        run("fine-tune", copy.deepcopy(digits_model).double(), few, "bfloat16")


@dataclass(frozen=True)
class OwnConfig(methods.MethodConfig):
    """Settings of a user's method: none of its own."""


class Own(methods.Method):
    """A user's method, which knows nothing of precision."""

    name, summary, config_class = "own", "looks at the types of its logits", OwnConfig
    seen: list[torch.dtype]

    def _run(self, job: Any) -> Any:
        seen: list[torch.dtype] = []
        for layer in job.model.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
        logits = job.model(job.split.preprocess.evaluation(job.split.retain.gather(torch.arange(2))))
        assert logits.dtype == torch.float32
        self.seen = seen
        return MethodOutput(job.model, [{"epoch": 1, "seconds": 0.0}], self.config)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_users_method_computes_in_it_too(precision: str, digits_model: nn.Module, few: tasks.Split) -> None:
    method = Own(precision=precision)
    method.unlearn(digits_model, few, device="cpu")
    assert set(method.seen) == {getattr(torch, precision)}


def test_a_setting_is_chosen_by_what_float32_says(
    digits_model: nn.Module, few: tasks.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = few.preprocess.evaluation(few.test.images)
    usual = digits_model(images)

    def looked_at(model: nn.Module, *args: Any, **kwargs: Any) -> str:
        assert all(torch.equal(each(images), usual) for each in (model, copy.deepcopy(model)))
        return "looked at"

    monkeypatch.setattr("pymixunlearn.methods.choosing.acceptance", looked_at)
    network = copy.deepcopy(digits_model)
    compute_in(network, "bfloat16")
    chooser = Chooser(digits_model, few, few.test, lr=1e-3, device=CPU, seed=0)
    assert chooser._test(network) == "looked at"
    assert not torch.equal(network(images), usual)


def test_trainings_compute_in_it(digits: data.Dataset) -> None:
    def trained(**settings: Any) -> tuple[str, float]:
        config = TrainConfig(epochs=1, **settings)
        network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        found = train(network, digits.train.subset(torch.arange(256)), digits.preprocess, config, device=CPU)
        return model_hash(found.model), found.history[0]["loss"]

    usual, half = trained(), trained(precision="bfloat16")
    assert trained(precision="float32") == usual
    assert half[0] != usual[0] and half[1] == pytest.approx(usual[1], rel=LOSS)
