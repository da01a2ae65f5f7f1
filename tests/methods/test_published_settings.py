"""Settings and modes of the paper and of the authors' code that a network or a task decides."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pymixunlearn import data, methods, models
from pymixunlearn.methods.gli import Best
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import TrainConfig, train
from pymixunlearn.training.fresh import fresh_weights
from tests.methods.conftest import CPU


@pytest.mark.parametrize("name", ["mixunlearn", "randlabel"])
@pytest.mark.parametrize(
    ("network", "epochs", "lr"), [("cnn", 20, 5e-5), ("resnet18", 40, 1e-5), ("resnet14", 20, 5e-5), (None, 20, 5e-5)]
)
def test_learning_rate_and_epochs_are_the_networks(
    name: str, network: str | None, epochs: int, lr: float, tiny: Any
) -> None:
    model = tiny.model()
    if network is not None:
        model = models.build(network, num_classes=4, in_channels=2, image_size=8)
    for chosen in ({}, {"fast": False}) if name == "mixunlearn" else ({},):
        run = methods.get(name)(**chosen).begin(tiny.job(model=copy.deepcopy(model)))
        assert run.config.epochs == epochs and run.config.lr == lr
        assert [group["lr"] for group in run.optimizer.param_groups] == [lr]
        assert sum(stage.epochs for stage in run.stages()) == epochs
    run = methods.get(name)(epochs=3, lr=0.5).begin(tiny.job(model=copy.deepcopy(model)))
    assert (run.config.epochs, run.config.lr) == (3, 0.5)


@pytest.mark.parametrize("name", ["laf", "laf+r", "l-mix"])
def test_laf_never_leaves_evaluation_mode(name: str, tiny: Any) -> None:
    model = tiny.model(dropout=0.9)
    run = methods.get(name)(epochs=1, vae_epochs=1, batch_size=4).begin(tiny.job(model=model))
    modes = []
    run.model.head.register_forward_hook(lambda *_: modes.append(any(part.training for part in run.model.modules())))
    before = copy.deepcopy(run.model)
    run.run()
    run.closing.close()
    assert modes and not any(modes)
    norm, old = run.model.body.norm, before.body.norm
    assert torch.equal(norm.running_mean, old.running_mean) and torch.equal(norm.running_var, old.running_var)
    assert not torch.equal(norm.weight, old.weight)  # its parameters are unlearned like all others


def test_scrubs_variants_differ_in_the_batch_of_the_forget_set(tiny: Any) -> None:
    small, notebook = (
        methods.Scrub(variant=variant).begin(tiny.job(tiny.split(forget=100))) for variant in ("small", "notebook")
    )
    assert [len(batch.images) for batch in small.forget_batches(0)] == [32, 32, 32, 4]
    assert [len(batch.images) for batch in notebook.forget_batches(0)] == [64, 36]
    assert notebook.config == small.config.replace(variant="notebook", batch_size=64)
    given = methods.Scrub(variant="notebook", batch_size=8).begin(tiny.job())
    assert given.config.batch_size == 8


def test_salun_may_end_every_epoch_with_the_retain_set(tiny: Any) -> None:
    run = methods.SalUn(order="forget-first", epochs=1, batch_size=4).begin(tiny.job())
    masks, seen = {name: torch.ones_like(weight) for name, weight in run.weights.items()}, []
    run.masks = lambda: masks
    labels = run.draw_labels(run.generator("labels", 1))
    step = run.step
    run.step = lambda batch, drawn, given: seen.append((batch, drawn)) or step(batch, drawn, given)
    stage = run.stages()[-1]
    assert len(list(stage.run(1))) == stage.steps == 3 + 4
    assert all(torch.equal(drawn, labels) for _, drawn in seen)
    order = torch.cat([batch.indices for batch, _ in seen])
    assert order[:10].sort().values.tolist() == list(range(10))  # D_f's samples come first in the whole set
    assert order[10:].sort().values.tolist() == list(range(10, 24))
    targets = torch.cat([run.retain_set.targets[batch.indices - 10] for batch, _ in seen[3:]])
    assert torch.equal(torch.cat([batch.targets for batch, _ in seen[3:]]), targets)


def test_gli_may_stop_as_released(tiny: Any) -> None:
    run = methods.Gli(stop_by="score", patience=1, batch_size=4, validation=0.3, lr=0.1).begin(tiny.job())
    scores, states = iter([0.4, 0.6, 0.5, 0.9]), []

    def score() -> float:
        run.model.eval()
        states.append(copy.deepcopy(run.model.state_dict()))
        return next(scores)

    run.score = score
    assert len(list(run.epoch(0))) == 2 == run.steps(run.retain_set)
    assert len(list(run.epoch(1))) == 1  # its first step is no better
    assert not list(run.epoch(2))
    kept = run.unlearned().state_dict()
    assert all(torch.equal(kept[name], value) for name, value in states[1].items())
    assert any(not torch.equal(value, states[-1][name]) for name, value in kept.items())


def test_glis_score_falls_with_what_the_attack_can_tell(tiny: Any) -> None:
    run = methods.Gli(stop_by="score", batch_size=4, validation=0.3).begin(tiny.job(tiny.split(forget=40, retain=80)))
    targets = run.held_out.targets

    class Answers(torch.nn.Module):
        """Knows the labels of the held-out samples; of D_f's as surely, or not at all."""

        alike = True

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            held_out = len(images) == len(targets)
            labels = targets if held_out else run.forget_set.targets
            sure = 5.0 if held_out or self.alike else -5.0
            return torch.nn.functional.one_hot(labels, 4) * sure

    run.model = Answers()
    assert len(run.held_out) != 40
    alike = run.score()
    run.model.alike = False
    assert alike == pytest.approx(1.0, abs=0.15) and run.score() == pytest.approx(0.5)


def test_best_keeps_the_first_of_equals(tiny: Any) -> None:
    model = tiny.model()
    best = Best(model)
    for score, bias in ((0.1, 1.0), (0.3, 2.0), (0.3, 3.0), (0.2, 4.0)):
        torch.nn.init.constant_(model.head.bias, bias)
        best.note(model, score)
    assert int(best["age"]) == 2
    best.restore(model)
    assert (model.head.bias == 2).all()


def test_unroll_may_have_a_network_of_its_own_that_is_trained_for_it(tiny: Any, same_weights: Any) -> None:
    split, model = tiny.split(), tiny.model()
    recipe = methods.Recipe(TrainConfig(epochs=2, lr=0.01, batch_size=4), TrainConfig())
    method = methods.Unroll(std_weight=0.5, batch_size=4)
    done = method.unlearn(model, split, device="cpu", seed=3, recipe=recipe)

    own = fresh_weights(copy.deepcopy(model), derive_seed(3, "initial"), keep_frozen=True)
    config = TrainConfig(epochs=2, lr=0.01, batch_size=4, std_weight=0.5)
    train(own, _everything(split), split.preprocess, config, device=CPU, seed=derive_seed(3, "unroll"))
    other = methods.Unroll(batch_size=4).unlearn(own, split, device="cpu", seed=3, recipe=recipe)
    assert same_weights(done.model, other.model)
    assert (done.config.lr, done.config.train_epochs) == (0.01, 2)
    assert done.preparation is not None and len(done.preparation.history) == 2 and len(done.history) == 1
    assert done.preparation.seconds == pytest.approx(sum(epoch["seconds"] for epoch in done.preparation.history))


def _everything(split: Any) -> data.ImageSet:
    return data.ImageSet(
        torch.cat([split.forget.images, split.retain.images]),
        torch.cat([split.forget.targets, split.retain.targets]),
        split.forget.classes,
    )
