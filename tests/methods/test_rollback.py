"""Rollback: which images are held out, when it goes back, and that a resumed run does the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import data, methods, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.methods.rollback import FEWEST, Rollback, choose_held_out, memorised
from pymixunlearn.methods.stopping import check_step
from pymixunlearn.methods.view import SplitView
from tests.methods.interrupting import Interrupt, without_time

Same = Callable[[nn.Module, nn.Module], bool]
CPU = torch.device("cpu")


class Scripted(nn.Module):
    """Right about the first images, as many as its weight says."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Parameter(torch.tensor(0.0))

    def forward(self, images: Tensor) -> Tensor:
        number, label = images[:, 0, 0, 0], images[:, 0, 0, 1]
        wrong = (number >= self.right).float()
        return torch.stack([1 - (label + wrong) % 2, (label + wrong) % 2], dim=1)


class Plain(data.Preprocess):
    """Network inputs as the numbers that are stored."""

    def evaluation(self, images: Tensor) -> Tensor:
        return images.float()


def numbered(count: int) -> SplitView:
    """Images that hold their number and their label."""
    images = torch.zeros(count + 1, 1, 2, 2)
    images[:, 0, 0, 0] = torch.arange(-1, count)
    targets = torch.arange(count + 1) % 2
    images[:, 0, 0, 1] = targets
    dataset = data.from_tensors(images, targets, images[:2], targets[:2], classes=("a", "b"))
    view = SplitView.of(tasks.index_split(dataset, [0]), labels=True)
    return replace(view, preprocess=Plain(2))


def watch(right: list[int], count: int = 200, margin: float = 2.0, last_stage: int = 0) -> Rollback:
    """Return the rule after looks at which the model was right about so many images, the first at the start."""
    view, model = numbered(count), Scripted()

    def become(hits: int) -> None:
        model.right.data.fill_(float(hits))

    become(right[0])
    rule = Rollback(model, view, torch.arange(count), margin, device=CPU)
    rule.last_stage = last_stage
    rule.begin([1000], None)
    if last_stage:
        assert not rule.after_step(last_stage)
    for index, hits in enumerate(right[1:]):
        become(hits)
        if rule.after_step(last_stage + check_step(index)):
            break
    return rule


def test_two_looks_running_beyond_the_margin_bring_the_last_good_state_back() -> None:
    rule = watch([200, 199, 197, 170, 150])
    result = rule.result()
    assert (result.rolled_back, result.good_step, result.step) == (True, check_step(1), check_step(3))
    assert rule._model.right.item() == 197  # type: ignore[operator]
    assert result.sentence() == (
        f"went back from step {check_step(3)} to step {check_step(1)}: 200 held-out images had lost 25.0 points "
        f"(at least {result.looks[-1]['fall_bound']:.1f}, 2.0 allowed)"
    )
    assert result.to_dict()["looks"] == 4


@pytest.mark.parametrize(
    "right",
    [
        [200, 196, 195, 194, 195],  # 3 points, and the bound below 2
        [200, 150, 199, 150, 199],  # never twice running
        [100, 120, 150, 190, 200],
    ],
)
def test_it_does_not_go_back_otherwise(right: list[int]) -> None:
    result = watch(right).result()
    assert not result.rolled_back and result.good_step == result.step and result.sentence() is None


def test_a_fall_counts_from_the_best_look() -> None:
    assert watch([100, 180, 150, 150]).result().rolled_back
    assert not watch([150, 180, 179, 178]).result().rolled_back


def test_a_wider_margin_allows_more() -> None:
    assert watch([200, 180, 180], margin=5.0).result().rolled_back
    assert not watch([200, 180, 180], margin=9.0).result().rolled_back


def test_what_an_earlier_stage_lost_is_not_counted() -> None:
    assert not watch([100, 100, 100], last_stage=70).result().rolled_back
    found = watch([100, 50, 50], last_stage=70).result()
    assert (found.rolled_back, found.good_step) == (True, 70)


# What is held out


def labelled_split(counts: list[int]) -> data.Dataset:
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.zeros(len(targets), 1, 2, 2)
    images[:, 0, 0, 1] = targets
    classes = tuple("abcdef"[: len(counts)])
    return data.from_tensors(images, targets, images[:: counts[0]], targets[:: counts[0]], classes=classes)


class Reader(nn.Module):
    """Reads the label off the image."""

    def forward(self, images: Tensor) -> Tensor:
        labels = images[:, 0, 0, 1].long()
        return nn.functional.one_hot(labels, 4).float()


@pytest.mark.parametrize("labels", [False, True])
def test_held_out_images_are_of_the_forgotten_samples_classes(labels: bool) -> None:
    dataset = labelled_split([400, 400, 400, 400])
    split = tasks.index_split(dataset, [*range(400, 500), *range(800, 900), 1200])
    view = replace(SplitView.of(split, labels=labels), preprocess=Plain(2))
    held_out = choose_held_out(Reader(), view, (), device=CPU, seed=0)
    own = split.retain.targets[held_out]
    # Without labels a class with a single sample may be a wrong prediction, and does not count.
    assert set(own.tolist()) == ({1, 2, 3} if labels else {1, 2})
    assert len(held_out) == int(torch.isin(split.retain.targets, own).sum()) // 5
    assert torch.equal(held_out, held_out.unique())
    again, other = (choose_held_out(Reader(), view, (), device=CPU, seed=seed) for seed in (0, 1))
    assert torch.equal(held_out, again) and not torch.equal(held_out, other)


def test_where_a_class_is_forgotten_they_are_of_all_others() -> None:
    split = tasks.class_split(labelled_split([400, 400, 400, 400]), [0])
    view = replace(SplitView.of(split, labels=False), preprocess=Plain(2))

    class Mistaken(Reader):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            logits[images[:, 0, 0, 1] == 3] = logits.new_tensor([9.0, 0, 0, 0])
            return logits

    held_out = choose_held_out(Mistaken(), view, split.forget_classes, device=CPU, seed=0)
    assert set(split.retain.targets[held_out].tolist()) == {1, 2}


def test_few_images_show_no_fall_and_are_all_trained_on() -> None:
    split = tasks.class_split(labelled_split([FEWEST, FEWEST, FEWEST]), [0])
    view = replace(SplitView.of(split, labels=True), preprocess=Plain(2))
    assert len(choose_held_out(Reader(), view, split.forget_classes, device=CPU, seed=0)) == 0


def test_what_was_memorised_is_the_lead_over_unseen_images() -> None:
    view, model = numbered(200), Scripted()
    model.right.data.fill_(190.0)
    watched, unseen = (view.retain.subset(part) for part in torch.arange(200).tensor_split(2))
    assert isinstance(watched, data.ImageSet) and isinstance(unseen, data.ImageSet)
    found = memorised(model, view, torch.arange(100), unseen, device=CPU, seed=0)
    assert found == pytest.approx(10.0)
    none = memorised(model, view, torch.arange(100, 200), watched, device=CPU, seed=0)
    assert none == 0.0


# Whole runs


def _collapsing() -> methods.Method:
    """It does no harm for a while, and then it does."""
    return methods.MixUnlearn(epochs=20, lr=5e-5, tau_real=2.0, omega=30.0)


def test_a_run_that_ruins_the_model_goes_back_and_a_resumed_one_too(
    digits_model: nn.Module, digits: data.Dataset, same_weights: Same
) -> None:
    split = tasks.data_split(digits, classes=(5, 6, 7, 8, 9), fraction=0.4)
    done = _collapsing().unlearn(digits_model, split, device="cpu")
    rollback = done.rollback
    assert rollback is not None and rollback.rolled_back and rollback.margin == 2.0
    assert rollback.samples >= FEWEST and 0 < rollback.good_step < rollback.step
    assert len(done.history) == -(-rollback.step // 9) < 20  # 9 pairs of batches an epoch

    interrupt = Interrupt(epoch=(rollback.step - 2) // 9 - 1, step=rollback.step - 1)
    with pytest.raises(KeyboardInterrupt):
        _collapsing().unlearn(digits_model, split, device="cpu", callbacks=[interrupt])
    resumed = _collapsing().unlearn(digits_model, split, device="cpu", resume=interrupt.read())
    assert same_weights(done.model, resumed.model)
    assert resumed.rollback is not None and without_time(resumed.rollback.looks) == without_time(rollback.looks)


def test_a_sound_run_is_left_alone(digits_model: nn.Module, digits: data.Dataset) -> None:
    split = tasks.data_split(digits, classes=(5, 6, 7, 8, 9), fraction=0.4)
    method = methods.MixUnlearn(epochs=10, tau_real=20.0, omega=100.0)
    result = method.unlearn(digits_model, split, device="cpu")
    assert result.rollback is not None and not result.rollback.rolled_back


def test_what_the_initial_model_says_is_no_measure_everywhere(digits_model: nn.Module, digits: data.Dataset) -> None:
    """Noise has taught it wrong answers; and while a class is forgotten, the others fall and come back."""
    for split in (tasks.class_split(digits), tasks.noisy_split(digits)):
        assert methods.MixUnlearn(epochs=1).unlearn(digits_model, split, device="cpu").rollback is None


def test_with_labels_it_is_on_where_it_is_asked_for_and_there_are_unseen_images(
    digits_model: nn.Module, digits: data.Dataset
) -> None:
    part = data.load("digits@900")
    split = tasks.data_split(part, classes=(5, 6, 7, 8, 9), fraction=0.2)
    assert methods.NegGrad(epochs=1).unlearn(digits_model, split, device="cpu").rollback is None
    asked = methods.NegGrad(epochs=1, rollback=True)
    found = asked.unlearn(digits_model, split, device="cpu").rollback
    assert found is not None and found.margin >= 2.0 and asked.reads_validation
    for other, why in (
        (tasks.class_split(digits), "with labels it needs a validation set"),
        (tasks.noisy_split(digits), "wrong labels have taught"),
    ):
        with pytest.raises(UserError, match=f"rollback is true, but {why}"):
            asked.unlearn(digits_model, other, device="cpu")
