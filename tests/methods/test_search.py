"""The search of a setting by the acceptance test: order, end, cost, and that it resumes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.data import Preprocess
from pymixunlearn.evaluation import Acceptance
from pymixunlearn.methods.base import MethodOutput, UnlearnJob
from pymixunlearn.methods.choosing import Chooser
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training import Callback, StateDict, TrainConfig, train
from pymixunlearn.training.fresh import fresh_weights

Same = Callable[[nn.Module, nn.Module], bool]
METHOD = methods.PruneReset(epochs=2, batch_size=4)


class Decisions:
    """A chooser with its mind made up, which keeps what it was shown."""

    def __init__(self, *decisions: str) -> None:
        self.left, self.seen = list(decisions), []

    def tells(self) -> bool:
        return self.left != ["cannot tell"]

    def __call__(self, model: nn.Module) -> Acceptance:
        self.seen.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return Acceptance(self.left.pop(0), "because", ks=0.1, ks_resurfaced=0.2, bound=0.15)  # type: ignore[arg-type]


def run(job: UnlearnJob, *decisions: str, **changes: Any) -> tuple[MethodOutput, Decisions]:
    chooser = Decisions(*decisions)
    return METHOD._run(replace(job, chooser=chooser, **changes)), chooser


def test_the_first_share_that_is_not_refused_is_kept(tiny: Any) -> None:
    done, chooser = run(tiny.job(), "refused", "accepted")
    search = done.search
    assert search is not None and (search.kept, search.tested) == ("share 0.98", True)
    assert search.sentence() == ("share 0.95 refused, share 0.98 accepted on the choosing half of the validation set")
    assert [attempt["decision"] for attempt in search.attempts] == ["refused", "accepted"]
    assert len(done.history) == 4
    cost = sum(attempt["seconds"] for attempt in search.attempts)
    assert cost == pytest.approx(sum(record["seconds"] for record in done.history))
    assert all(attempt["test_seconds"] <= attempt["seconds"] for attempt in search.attempts)
    kept = done.model.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in chooser.seen[1].items())


def test_every_attempt_starts_from_the_initial_weights(tiny: Any) -> None:
    initial, zeros = tiny.model().state_dict(), []
    loop = METHOD.begin(replace(tiny.job(), chooser=Decisions("refused", "refused", "refused")))
    for number in range(3):
        with torch.no_grad():
            loop.model.head.weight.add_(1.0)
        loop.start(number)
        for name, weight in loop.model.state_dict().items():
            changed = weight != initial[name]
            assert (weight[changed] == 0).all(), name
        zeros.append(sum(int((weight == 0).sum()) for weight in loop.weights.values()))
    count = sum(weight.numel() for weight in loop.weights.values())
    assert zeros == [round(share * count) for share in (0.95, 0.98, 0.99)]


def test_a_search_that_is_refused_ends_with_retrain(tiny: Any) -> None:
    recipe = methods.Recipe(TrainConfig(epochs=2), TrainConfig(epochs=3, lr=0.01))
    done, chooser = run(tiny.job(), "refused", "refused", "refused", given_recipe=recipe)
    assert done.search is not None and (done.search.kept, done.search.tested) == ("Retrain", False)
    assert done.search.sentence() == "share 0.95 refused, share 0.98 refused, share 0.99 refused, so Retrain"
    assert [attempt["epochs"] for attempt in done.search.attempts] == [2, 2, 2, 3]
    assert len(done.history) == 9 and not chooser.left

    # Its training knows nothing of the initial model: another one with other weights ends in the same place.
    other, _ = run(tiny.job(model=tiny.model(7)), "refused", "refused", "refused", given_recipe=recipe)
    mine, theirs = done.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_last_attempt_trains_as_the_recipe_says(tiny: Any) -> None:
    recipe = methods.Recipe(TrainConfig(), TrainConfig(epochs=2, lr=0.01, batch_size=7, std_weight=0.5))
    loop = METHOD.begin(replace(tiny.job(), chooser=Decisions("refused"), given_recipe=recipe))
    stage = loop.stages()[-1]
    assert (stage.epochs, stage.steps) == (2, 2)  # 14 images
    first = sum(attempt.epochs for attempt in loop.attempts[:-1])
    batch = next(iter(loop.batches(loop.retain_set, "retain", first, batch_size=7)))
    loop.start(len(loop.attempts) - 1)
    with torch.no_grad():
        logits = copy.deepcopy(loop.model)(batch.images)
    expected = F.cross_entropy(logits, batch.targets) + 0.5 * logits.std(1, correction=0).mean()
    measured = list(stage.run(first))
    assert len(measured) == 2 and measured[0]["retain"] == expected

    # Other weights than those that Retrain, which the result is compared with, starts from.
    loop.start(len(loop.attempts) - 1)
    reference = fresh_weights(tiny.model(), derive_seed(0, "retrain"), keep_frozen=True)
    assert not torch.equal(loop.model.head.weight, reference.head.weight)


def test_without_labels_the_last_attempt_is_not_called_retrain(tiny: Any) -> None:
    """Its targets are the outputs of a model that saw D_f."""
    recipe = methods.Recipe(TrainConfig(epochs=1), TrainConfig(epochs=1))
    job = replace(tiny.job(labels=False), chooser=Decisions("refused", "refused", "refused"), given_recipe=recipe)
    done = methods.PruneReset(epochs=1, batch_size=4, label_aware=False)._run(job)
    assert done.search is not None and done.search.kept == "fresh weights on the initial model's outputs"


def test_where_the_test_cannot_tell_the_documented_share_is_taken(tiny: Any) -> None:
    done, chooser = run(tiny.job(), "cannot tell")
    assert done.search is not None and not done.search.tested and len(done.history) == 2 and not chooser.seen
    assert done.search.sentence() == "share 0.98, untested: the acceptance test cannot tell here"


def test_a_given_share_is_not_searched(tiny: Any) -> None:
    done = methods.PruneReset(epochs=2, batch_size=4, share=0.9)._run(replace(tiny.job(), chooser=Decisions()))
    assert done.search is not None and done.search.sentence() == "share 0.9, untested: it was given"
    assert len(done.history) == 2


class StopAfter(Callback):
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


@pytest.mark.parametrize("epoch", [0, 1, 2, 5, 6, 7])
@pytest.mark.parametrize("select", ["magnitude", "fisher"])
def test_a_search_resumes_bit_for_bit(epoch: int, select: Any, tiny: Any, same_weights: Same) -> None:
    """Within an attempt, between two, and in the Retrain that it ends with."""
    method, decisions = methods.PruneReset(epochs=2, batch_size=4, select=select), ("refused", "refused", "refused")
    recipe = methods.Recipe(TrainConfig(epochs=2), TrainConfig(epochs=2, lr=0.01))

    def job(left: int, **changes: Any) -> UnlearnJob:
        model = tiny.model(dropout=0.5)
        return replace(tiny.job(model=model), chooser=Decisions(*decisions[:left]), given_recipe=recipe, **changes)

    whole = method._run(job(3))
    stop = StopAfter(epoch)
    with pytest.raises(KeyboardInterrupt):
        method._run(job(3, callbacks=[stop]))
    saved = stop.read()
    resumed = method._run(job(3 - len(saved["stop"]["tests"]), resume=saved))
    assert same_weights(whole.model, resumed.model)
    assert whole.search is not None and resumed.search is not None
    settings = [(attempt["setting"], attempt["decision"]) for attempt in whole.search.attempts]
    assert [(attempt["setting"], attempt["decision"]) for attempt in resumed.search.attempts] == settings


def test_a_finished_search_is_not_run_again(tiny: Any) -> None:
    stop = StopAfter(1)
    with pytest.raises(KeyboardInterrupt):
        METHOD._run(replace(tiny.job(), chooser=Decisions("accepted"), callbacks=[stop]))
    resumed = METHOD._run(replace(tiny.job(), chooser=Decisions(), resume=stop.read()))
    assert len(resumed.history) == 2 and resumed.search is not None and resumed.search.tested


def test_soft_targets_are_the_initial_models_without_the_forgotten_classes(tiny: Any) -> None:
    split = tasks.class_split(tiny.split().dataset, [2])
    for preprocess in (Preprocess(), Preprocess(flip=True)):
        job = tiny.job(split, labels=False)
        job = replace(job, split=replace(job.split, preprocess=preprocess))
        loop = methods.PruneReset(label_aware=False, batch_size=5).begin(job)
        loop.start(0)
        initial = tiny.model().eval()
        for batch in loop.retain_batches(0):
            with torch.no_grad():
                raw = initial(batch.images).softmax(1)
            raw[:, 2] = 0
            torch.testing.assert_close(loop.targets(batch), raw / raw.sum(1, keepdim=True))
            loss = -(loop.targets(batch) * F.log_softmax(loop.model(batch.images), 1)).sum(1).mean()
            torch.testing.assert_close(loop.loss(batch), loss)


@pytest.fixture(scope="module")
def blobs() -> tuple[tasks.Split, nn.Module]:
    """Noise whose labels only memory can tell, with unseen images of the same kind, and a network that knows D_f."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (900, 1, 8, 8), generator=stream, dtype=torch.uint8)
    targets = torch.randint(2, (900,), generator=stream)
    dataset = data.from_tensors(images[:300], targets[:300], images[300:320], targets[300:320], classes=("a", "b"))
    dataset = replace(dataset, validation=data.ImageSet(images[320:], targets[320:], ("a", "b")))
    split = tasks.index_split(dataset, list(range(150)))
    model = models.build("cnn", num_classes=2, in_channels=1, image_size=8)
    config = TrainConfig(epochs=40, weight_decay=0.0)
    return split, train(model, split.train, split.preprocess, config, device=torch.device("cpu")).model


def test_the_chooser_refuses_what_remembers_and_accepts_what_never_knew(blobs: tuple[tasks.Split, nn.Module]) -> None:
    split, initial = blobs
    assert split.validation_halves is not None
    choosing = split.validation_halves.choosing
    chooser = Chooser(initial, split, choosing, lr=1e-3, device=torch.device("cpu"), seed=0)
    assert chooser(initial).decision == "refused"
    fresh = models.build("cnn", num_classes=2, in_channels=1, image_size=8, seed=5)
    accepted = chooser(fresh)
    assert accepted.decision == "accepted" and accepted.unseen_samples <= len(choosing)
    ignorant = Chooser(fresh, split, choosing, lr=1e-3, device=torch.device("cpu"), seed=0)
    assert not ignorant.tells() and ignorant(fresh).decision == "cannot tell"


def test_a_method_gets_the_choosing_half(blobs: tuple[tasks.Split, nn.Module]) -> None:
    split, initial = blobs
    result = methods.PruneReset(epochs=1, schedule="quick").unlearn(initial, split, device="cpu")
    assert result.search is not None and result.search.tested
    (*refused, kept) = result.search.attempts
    assert kept["decision"] == "accepted" and kept["ks"] <= kept["bound"]
    assert all(attempt["decision"] == "refused" for attempt in refused)
