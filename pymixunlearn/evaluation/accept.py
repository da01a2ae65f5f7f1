"""The acceptance test: was D_f forgotten? Answered without Retrain and without the test set.

Two parts, both needed. (a) The margin test between D_f and unseen images V of its classes. (b) The same after
*resurfacing*: a copy of the model is trained for a few steps on retain images. Outputs can be matched to those of
unseen images while the memory stays; such a model passes (a) and fails (b).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import batches
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.evaluation.audit.rates import auc
from pymixunlearn.evaluation.margin_test import (
    MIN_SAMPLES,
    MarginTest,
    alike_by_class,
    judged_margins,
    ks_bound,
    margin_test,
    smallest_visible,
)
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import resolve_device, seeded_layers

Decision = Literal["accepted", "refused", "cannot tell"]


@dataclass(frozen=True)
class Resurfacing:
    """How a copy of the model is trained before part (b).

    Attributes:
        steps: Steps of Adam.
        samples: Retain images that are shown, at most.
        batch_size: Images per step.
        lr: Learning rate: the one that the model was trained with.
    """

    steps: int = 40
    samples: int = 500
    batch_size: int = 64
    lr: float = 1e-3


@dataclass(frozen=True)
class Acceptance:
    """What the acceptance test found.

    Attributes:
        decision: "accepted", "refused", or "cannot tell".
        reason: The decision in one sentence, with the numbers that it rests on.
        ks: Distance of part (a), in [0, 1]; None where too few samples are at hand, as all that follows.
        ks_resurfaced: Distance of part (b).
        bound: What either may reach at most.
        initial_ks: The larger of both distances of the initial model; None where it was not given.
        smallest_ks: A true distance of this size is refused nine times in ten or more.
        forget_samples: Samples of D_f.
        unseen_samples: Images of V that were drawn to D_f's class shares.
        eps: Accuracy on D_f less that on these images, in points; not part of the decision.
        auc: Probability that a forget sample's margin is above an unseen image's; not part of the decision.
        accuracy_unseen: Accuracy on V's images of D_f's classes, in percent.
        accuracy_others: Accuracy on V's images of the other classes, in percent; None where there are none.
    """

    decision: Decision
    reason: str
    ks: float | None = None
    ks_resurfaced: float | None = None
    bound: float | None = None
    initial_ks: float | None = None
    smallest_ks: float | None = None
    forget_samples: int = 0
    unseen_samples: int = 0
    eps: float | None = None
    auc: float | None = None
    accuracy_unseen: float | None = None
    accuracy_others: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain JSON-able values."""
        return asdict(self)


def acceptance(
    model: nn.Module,
    split: Split,
    *,
    validation: ImageSet | None = None,
    initial: nn.Module | None = None,
    alpha: float = 0.05,
    device: torch.device | str | None = None,
    seed: int = 0,
    resurfacing: Resurfacing | None = None,
) -> Acceptance:
    """Test whether D_f is forgotten: whether its margins are those of images that no model saw.

    A model is *accepted* where both parts pass and the same test, with the same samples, refuses the initial model: a
    test that the untouched model passes shows nothing, and its answer is *cannot tell*. A model is *refused* where
    one part fails. Each part refuses a model that never saw D_f with probability ``alpha`` at most.

    Args:
        model: The unlearned model, images ``[N, C, H, W]`` to logits ``[N, classes]``; it is left as it is.
        split: What was to be forgotten.
        validation: V: labelled images of the same classes, drawn like the training images, that no model was trained
            on and nothing was chosen by. Test images serve only if they are drawn like the training images. None takes
            the validation set of the split's data set.
        initial: The model before unlearning. Without it no model is accepted.
        alpha: The level of each part, above 0 and below 1.
        device: Where to compute; None takes CUDA where there is one.
        seed: Fixes which images of V are drawn, which retain images are shown, and their order.
        resurfacing: How the copy is trained for part (b); give the learning rate of the model's own training.

    Raises:
        UserError: ``alpha`` is out of range, there is no validation set, or it has other classes or images of another
            shape.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> dataset = data.load("digits@1000")
        >>> untrained = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> evaluation.acceptance(untrained, tasks.class_split(dataset, [0]), initial=untrained).decision
        'cannot tell'
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}; expected a value above 0 and below 1")
    validation = split.dataset.validation if validation is None else validation
    if validation is None:
        raise UserError(
            f"the data set '{split.dataset.name}' has no validation set; give validation, images that no model was "
            "trained on"
        )
    _check_validation(validation, split)
    where = resolve_device(device)
    targets = split.forget.targets.cpu()
    drawn = alike_by_class(validation.targets.cpu(), targets, seed)
    if len(targets) < MIN_SAMPLES or len(drawn) < MIN_SAMPLES:
        reason = (
            f"With {len(targets)} forgotten samples and {len(drawn)} unseen images of their classes nothing can be "
            f"tested; at least {MIN_SAMPLES} of each are needed."
        )
        return Acceptance("cannot tell", reason, forget_samples=len(targets), unseen_samples=len(drawn))
    test = _Test(split, validation, drawn, alpha, where, seed, resurfacing or Resurfacing())
    parts, before = test.parts(model), None if initial is None else test.parts(initial)
    logits = predict_logits(model, validation, split.preprocess, device=where)
    forget = predict_logits(model, split.forget, split.preprocess, device=where)
    of_classes = torch.isin(validation.targets.cpu(), targets)
    unseen_accuracy = accuracy(logits[drawn], validation.targets.cpu()[drawn])
    forget_accuracy = accuracy(forget, targets)
    assert unseen_accuracy is not None and forget_accuracy is not None  # neither side is empty
    margins = judged_margins(forget, targets, logits[drawn], validation.targets.cpu()[drawn])
    decision, reason = _decide(parts, before, len(targets), len(drawn), alpha)
    return Acceptance(
        decision,
        reason,
        ks=parts.outputs.ks,
        ks_resurfaced=parts.resurfaced.ks,
        bound=parts.outputs.bound,
        initial_ks=None if before is None else max(before.outputs.ks, before.resurfaced.ks),
        smallest_ks=smallest_visible(len(targets), len(drawn), alpha),
        forget_samples=len(targets),
        unseen_samples=len(drawn),
        eps=forget_accuracy - unseen_accuracy,
        auc=auc(np.nan_to_num(margins[0]), np.nan_to_num(margins[1])),
        accuracy_unseen=accuracy(logits[of_classes], validation.targets.cpu()[of_classes]),
        accuracy_others=accuracy(logits[~of_classes], validation.targets.cpu()[~of_classes]),
    )


class _Parts(NamedTuple):
    outputs: MarginTest
    resurfaced: MarginTest

    @property
    def refused(self) -> bool:
        return self.outputs.refused or self.resurfaced.refused


class _Test(NamedTuple):
    """Both parts of the test with fixed samples, for any model."""

    split: Split
    validation: ImageSet
    drawn: Tensor
    alpha: float
    device: torch.device
    seed: int
    resurfacing: Resurfacing

    def parts(self, model: nn.Module) -> _Parts:
        network = copy.deepcopy(model).to(self.device)
        outputs = self._margin_test(network)
        self._resurface(network)
        return _Parts(outputs, self._margin_test(network))

    def _margin_test(self, network: nn.Module) -> MarginTest:
        unseen = self.validation.subset(self.drawn)
        sides = []
        for images in (self.split.forget, unseen):
            logits = predict_logits(network, images, self.split.preprocess, device=self.device)
            sides += [logits, images.targets.cpu()]
        return margin_test(*judged_margins(sides[0], sides[1], sides[2], sides[3]), self.alpha)

    def _resurface(self, network: nn.Module) -> None:
        """Train ``network`` in place on some of D_r, as a user would who goes on training."""
        settings, stream = self.resurfacing, generator(self.seed, "acceptance", "shown")
        retain = self.split.retained_training_set.labelled
        shown = retain.subset(torch.randperm(len(retain), generator=stream)[: settings.samples]).to(self.device)
        optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=settings.lr)
        network.train()
        step = epoch = 0
        with seeded_layers(self.device, self.seed, "acceptance", "layers"):
            while step < settings.steps:
                order = derive_seed(self.seed, "acceptance", "order", epoch)
                for batch in batches(
                    shown, self.split.preprocess, batch_size=settings.batch_size, device=self.device, seed=order
                ):
                    if step == settings.steps:
                        break
                    assert batch.targets is not None
                    optimizer.zero_grad(set_to_none=True)
                    torch.autograd.backward(F.cross_entropy(network(batch.images), batch.targets))
                    optimizer.step()
                    step += 1
                epoch += 1


def _decide(parts: _Parts, before: _Parts | None, forget: int, unseen: int, alpha: float) -> tuple[Decision, str]:
    numbers = f"{forget} forgotten samples, {unseen} unseen images, bound {ks_bound(forget, unseen, alpha):.3f}"
    if parts.outputs.refused:
        return "refused", (
            "The forgotten samples are told apart from unseen images of their classes: distance "
            f"{parts.outputs.ks:.3f} ({numbers})."
        )
    if parts.resurfaced.refused:
        return "refused", (
            f"The forgotten samples resurface after a few steps of training without them: distance "
            f"{parts.resurfaced.ks:.3f} ({numbers})."
        )
    if before is None:
        return "cannot tell", (
            "The forgotten samples are not told apart from unseen images, but without the initial model it is not "
            f"known whether this test could have seen them ({numbers})."
        )
    if not before.refused:
        return "cannot tell", (
            "The initial model, which forgot nothing, passes this test too: with these samples it can show nothing "
            f"({numbers})."
        )
    return "accepted", (
        "The forgotten samples are not told apart from unseen images of their classes, neither at once "
        f"(distance {parts.outputs.ks:.3f}) nor after a few steps of training without them "
        f"({parts.resurfaced.ks:.3f}); the initial model is refused ({numbers})."
    )


def _check_validation(validation: ImageSet, split: Split) -> None:
    if validation.classes != split.train.classes:
        raise UserError(f"validation has the classes {validation.classes}; expected {split.train.classes}")
    shape, wanted = list(validation.images.shape[1:]), list(split.train.images.shape[1:])
    if shape != wanted:
        raise UserError(f"validation has images of shape {shape}; expected {wanted} as in the training set")
