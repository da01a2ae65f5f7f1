"""MixUnlearn as a whole: it forgets, it repeats and resumes bit for bit, it sees labels only when asked to."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods import MixUnlearn
from pymixunlearn.methods.mixunlearn.step import mask_statistics
from pymixunlearn.training import Callback, StateDict

Same = Callable[[nn.Module, nn.Module], bool]
GENERATOR = "generator generator_vanilla mask mask_error mask_within mask_between"
"""What history says of a generator and its masks."""


def _accuracy(model: nn.Module, images: data.ImageSet, preprocess: data.Preprocess, chosen: Tensor) -> float:
    subset = images.subset(chosen.nonzero().squeeze(1))
    with torch.no_grad():
        hits = model(preprocess.evaluation(subset.images)).argmax(1) == subset.targets
    return 100 * hits.double().mean().item()


@pytest.mark.parametrize("label_aware", [False, True])
def test_forgets_a_class_of_digits_and_keeps_the_rest(
    label_aware: bool, digits_model: nn.Module, digits_class: tasks.Split
) -> None:
    before = copy.deepcopy(digits_model)
    result = MixUnlearn(label_aware=label_aware, epochs=25, lr=2e-4, omega=30, tau_real=2).unlearn(
        digits_model, digits_class, device="cpu"
    )
    test, preprocess = digits_class.test, digits_class.preprocess
    forgotten = test.targets == 0
    assert _accuracy(before, test, preprocess, forgotten) > 90
    assert _accuracy(result.model, test, preprocess, forgotten) <= 5
    initial = _accuracy(before, test, preprocess, ~forgotten)
    assert _accuracy(result.model, test, preprocess, ~forgotten) >= initial - 3
    assert not result.model.training
    assert len(result.history) == 25 and result.seconds >= sum(record["seconds"] for record in result.history)
    assert result.history[-1]["real"] < result.history[0]["real"]


def test_the_given_model_is_left_as_it_is(tiny: Any, same_weights: Same) -> None:
    model = tiny.model().train()
    before = copy.deepcopy(model)
    result = MixUnlearn(epochs=1, batch_size=4).unlearn(model, tiny.split(), device="cpu")
    assert same_weights(model, before) and model.training
    assert not same_weights(result.model, before)
    assert all(not module._forward_hooks for module in model.modules())


def test_one_seed_fixes_every_bit(tiny: Any, same_weights: Same) -> None:
    def run(seed: int) -> nn.Module:
        torch.rand(3)  # whatever else used the global generator
        method = MixUnlearn(epochs=2, batch_size=4)
        return method.unlearn(tiny.model(dropout=0.5), tiny.split(), device="cpu", seed=seed).model

    state = torch.get_rng_state()
    first = run(0)
    assert same_weights(first, run(0))
    assert not same_weights(first, run(1))
    torch.set_rng_state(state)


class _StopAfter(Callback):
    """Keeps the snapshot of an epoch as a file would, and interrupts there."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.file = epoch, io.BytesIO()

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        if epoch == self.epoch:
            torch.save(state(), self.file)
            raise KeyboardInterrupt

    def read(self) -> StateDict:
        self.file.seek(0)
        loaded: StateDict = torch.load(self.file, weights_only=True)
        return loaded


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"adversary": "ema"},
        {"generator": "mixblock-lam", "generator_warmup": 1},
        {"generator": "mixblock-lam", "generator_warmup": 3},
        {"generator": "vanilla"},
        {"use_mix_loss": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_an_interrupted_run_resumes_bit_for_bit(
    device: str, fields: dict[str, Any], tiny: Any, same_weights: Same
) -> None:
    method = MixUnlearn(epochs=4, batch_size=4, generator_interval=2, **fields)
    model, split = tiny.model(dropout=0.5), tiny.split()
    whole = method.unlearn(model, split, device=device, seed=3)
    stop = _StopAfter(1)
    with pytest.raises(KeyboardInterrupt):
        method.unlearn(model, split, device=device, seed=3, callbacks=[stop])
    resumed = method.unlearn(model, split, device=device, seed=3, resume=stop.read())
    assert same_weights(whole.model, resumed.model)

    def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{name: value for name, value in record.items() if name != "seconds"} for record in history]

    assert without_time(whole.history) == without_time(resumed.history)


def test_a_snapshot_of_other_settings_is_refused(tiny: Any) -> None:
    stop = _StopAfter(0)
    with pytest.raises(KeyboardInterrupt):
        MixUnlearn(epochs=2, batch_size=4).unlearn(tiny.model(), tiny.split(), device="cpu", callbacks=[stop])
    with pytest.raises(UserError, match="resume holds generator_optimizer, mixblock.*expected model, optimizer"):
        MixUnlearn(epochs=2, batch_size=4, generator="vanilla").unlearn(
            tiny.model(), tiny.split(), device="cpu", resume=stop.read()
        )


def _relabelled(split: tasks.Split) -> tasks.Split:
    train = split.train
    other = data.from_tensors(
        train.images, (train.targets + 1) % 4, split.test.images, split.test.targets, classes=tuple("abcd")
    )
    return tasks.index_split(other, split.forget_indices)


def test_only_the_label_aware_variant_sees_labels(tiny: Any, same_weights: Same) -> None:
    split = tiny.split()
    for label_aware in (False, True):
        method = MixUnlearn(epochs=1, batch_size=4, label_aware=label_aware)
        true, wrong = (
            method.unlearn(tiny.model(), labels, device="cpu").model for labels in (split, _relabelled(split))
        )
        assert same_weights(true, wrong) is not label_aware


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({}, f"mix real total {GENERATOR}"),
        ({"pairing": "grid"}, f"mix real total {GENERATOR}"),
        ({"pairing": "grid", "generator": "mixblock-lam"}, f"mix real total {GENERATOR}"),
        ({"generator": "vanilla"}, "mix real total mask"),
        ({"generator": "vanilla", "pairing": "grid", "label_aware": True}, "mix real total mask"),
        ({"use_mix_loss": False}, "real total"),
        ({"use_mix_loss": False, "label_aware": True}, "real total"),
        ({"use_real_loss": False}, f"mix total {GENERATOR}"),
        ({"sharpen": False, "reduction": "mean"}, f"mix real total {GENERATOR}"),
    ],
    ids=str,
)
def test_history_holds_what_was_trained(fields: dict[str, Any], keys: str, tiny: Any) -> None:
    result = MixUnlearn(epochs=2, batch_size=4, **fields).unlearn(tiny.model(), tiny.split(), device="cpu")
    assert [set(record) for record in result.history] == [{*keys.split(), "epoch", "seconds"}] * 2
    record = result.history[0]
    mix, real = record.get("mix", 0.0), record.get("real", 0.0)
    assert record["total"] == pytest.approx(mix + 10 * real, rel=1e-5)
    assert 0 < record.get("mask", 0.5) < 1


def test_masks_held_to_the_ratio_are_told_from_free_ones(tiny: Any) -> None:
    """The paper's masks start from one half for every ratio; held ones have the ratio as their mean."""
    free, held = (
        MixUnlearn(epochs=2, batch_size=4, generator=form, generator_lr=1e-2)
        .unlearn(tiny.model(), tiny.split(), device="cpu")
        .history[-1]
        for form in ("mixblock", "mixblock-lam")
    )
    assert free["mask_error"] > 0.05 and abs(free["mask"] - 0.5) < 0.05
    assert held["mask_error"] < 1e-4 and held["mask_within"] > free["mask_within"]


def test_the_statistics_of_masks() -> None:
    masks = torch.tensor([[[0.1, 0.3]], [[0.5, 0.9]]], dtype=torch.float64)
    found = mask_statistics(torch.logit(masks), torch.tensor(0.4, dtype=torch.float64))
    expected = {"mask": 0.45, "mask_error": 0.25, "mask_within": 0.15, "mask_between": 0.25}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_a_warm_start_trains_the_generator_alone(tiny: Any, same_weights: Same) -> None:
    model, stop = tiny.model(), _StopAfter(1)
    method = MixUnlearn(epochs=1, batch_size=4, generator_warmup=2)
    with pytest.raises(KeyboardInterrupt):
        method.unlearn(model, tiny.split(), device="cpu", callbacks=[stop])
    saved = stop.read()
    warmed = tiny.model()
    warmed.load_state_dict(saved["state"]["model"])
    assert same_weights(warmed, model)
    assert [set(record) for record in saved["history"]] == [{"epoch", "seconds", "generator", "generator_vanilla"}] * 2
    begun = method.begin(tiny.job())
    assert not torch.equal(saved["state"]["mixblock"]["weight"], begun.mixblock.weight)


@pytest.mark.parametrize(("forget", "retain"), [(10, 14), (13, 5), (1, 9), (9, 1)])
def test_an_epoch_is_the_shorter_set(forget: int, retain: int, tiny: Any) -> None:
    steps: list[int] = []

    class Count(Callback):
        def on_step_end(self, step: int) -> None:
            steps.append(step)

    MixUnlearn(epochs=2, batch_size=4).unlearn(
        tiny.model(), tiny.split(forget, retain), device="cpu", callbacks=[Count()]
    )
    assert steps == list(range(1, 2 * -(-min(forget, retain) // 4) + 1))


def test_frozen_layers_stay_frozen(tiny: Any) -> None:
    model = tiny.model()
    model.head.weight.requires_grad_(False)
    result = MixUnlearn(epochs=1, batch_size=4).unlearn(model, tiny.split(), device="cpu")
    assert torch.equal(result.model.head.weight, model.head.weight)
    assert not torch.equal(result.model.head.bias, model.head.bias)
    with pytest.raises(UserError, match="no trainable parameters"):
        MixUnlearn(epochs=1).unlearn(model.requires_grad_(False), tiny.split(), device="cpu")


def test_a_feature_layer_can_be_named(tiny: Any, same_weights: Same) -> None:
    def run(layer: str | None) -> nn.Module:
        method = MixUnlearn(epochs=1, batch_size=4, feature_layer=layer)
        return method.unlearn(tiny.model(), tiny.split(), device="cpu").model

    assert same_weights(run(None), run("body.pool"))
    assert not same_weights(run(None), run("body.conv"))
    with pytest.raises(UserError, match="body.pol"):
        run("body.pol")


def test_a_model_of_other_classes_is_refused(tiny: Any) -> None:
    model = tiny.model()
    model.head = nn.Linear(96, 7)
    with pytest.raises(UserError, match=r"\[1, 7\]; expected logits \[1, 4\]"):
        MixUnlearn(epochs=1).unlearn(model, tiny.split(), device="cpu")


def test_divergence_is_said_in_one_sentence(tiny: Any) -> None:
    with pytest.raises(UserError, match="unlearning diverged.*expected a smaller lr"):
        MixUnlearn(epochs=3, batch_size=4, lr=1e38).unlearn(tiny.model(), tiny.split(), device="cpu")
