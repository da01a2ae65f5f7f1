"""Acceptance test: was D_f forgotten? Decided without Retrain and without the test set.

Two parts, both needed. (a) The margin test between D_f and unseen images V of its classes. (b) The same after
*resurfacing*: a copy of the model is trained for a few steps on retain images, and where these have none of a
forgotten class, on unseen images of it that D_f is not compared with. Outputs can be matched to those of unseen images
while the memory stays; such a model passes (a) and fails (b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.accuracy import accuracy, predict_logits
from pymixunlearn.evaluation.audit.margins import Array
from pymixunlearn.evaluation.margin_test import (
    MIN_SAMPLES,
    MarginTest,
    alike_by_class,
    judged_margins,
    margin_test,
    smallest_visible,
)
from pymixunlearn.evaluation.representations import representations
from pymixunlearn.evaluation.resurfacing import Resurfacing, resurface, to_show
from pymixunlearn.evaluation.traces import auc_estimate, difference_of_shares, probe
from pymixunlearn.models.adapter import trainable
from pymixunlearn.models.copying import private_copy
from pymixunlearn.seeding import generator
from pymixunlearn.tasks import Split
from pymixunlearn.training.device import resolve_device

Decision = Literal["accepted", "refused", "cannot tell"]
Interval = tuple[float, float]


class Margins(NamedTuple):
    """Margins that one part of the test compares: of D_f, float64 ``[N]``, and of unseen images, ``[M]``."""

    forget: Array
    unseen: Array


@dataclass(frozen=True)
class Acceptance:
    """Result of the acceptance test.

    What comes after ``unseen_samples`` decides nothing. Intervals are 95 %. Without labels of V all of it is None but
    ``auc`` and ``probe_auc``, and where only a decision was asked for those too.

    Attributes:
        decision: "accepted", "refused", or "cannot tell".
        reason: The decision in one sentence, with the numbers that it rests on.
        ks: Distance of part (a), in [0, 1]; None where too few samples are at hand, as all that follows.
        ks_resurfaced: Distance of part (b); None too where only a decision was asked for and part (a) refuses with a
            distance of at least ``smallest_ks``.
        bound: What either may reach at most.
        initial_ks: The larger of both distances of the initial model; None where it was not given.
        smallest_ks: A true distance of this size is refused nine times in ten or more.
        forget_samples: Samples of D_f.
        unseen_samples: Images of V that were drawn to D_f's class shares.
        shown_samples: Unseen images of the classes that D_r lacks, which part (b) showed; they are not among those.
        eps: Accuracy on D_f less that on these images, in points.
        eps_interval: Its interval.
        auc: Probability that a forget sample's margin is above an unseen image's. Of the loss, which orders samples by
            the margin backwards, it is the same.
        auc_interval: Its interval.
        accuracy_unseen: Accuracy on V's images of D_f's classes, in percent.
        accuracy_others: Accuracy on V's images of the other classes, in percent; None where there are none.
        probe_auc: How well a linear classifier on the last hidden layer tells D_f from these images (cross-validated
            AUC).
        probe_interval: Its interval.
        shown_again: Accuracy on one half of D_f, in percent, after the other half was shown again beside D_r for as
            many steps as part (b) takes.
        shown_again_unseen: Accuracy on the unseen images then.
        margins: What both parts compared, to be drawn; it is not part of :meth:`to_dict`.

    Example:
        >>> Acceptance("refused", "The forgotten samples are still known.", ks=0.4, bound=0.1).to_dict()["decision"]
        'refused'
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
    shown_samples: int = 0
    eps: float | None = None
    eps_interval: Interval | None = None
    auc: float | None = None
    auc_interval: Interval | None = None
    accuracy_unseen: float | None = None
    accuracy_others: float | None = None
    probe_auc: float | None = None
    probe_interval: Interval | None = None
    shown_again: float | None = None
    shown_again_unseen: float | None = None
    margins: tuple[Margins, Margins] | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain JSON-able values."""
        plain = asdict(replace(self, margins=None))
        del plain["margins"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def acceptance(
    model: nn.Module,
    split: Split,
    *,
    validation: ImageSet | UnlabelledImages | None = None,
    shown: ImageSet | None = None,
    initial: nn.Module | Acceptance | None = None,
    alpha: float = 0.05,
    device: torch.device | str | None = None,
    seed: int = 0,
    resurfacing: Resurfacing | None = None,
    decision_only: bool = False,
) -> Acceptance:
    """Test whether D_f is forgotten: whether its margins are those of images that no model saw.

    A model is *accepted* where both parts pass and the same test, with the same samples, refuses the initial model, at
    a distance that it sees nine times in ten: a test that the untouched model passes, or might have passed by luck,
    shows nothing, and its result is *cannot tell*. A model is *refused* where one part fails, and where its outputs
    are no numbers. Each part refuses a model that never saw D_f with probability ``alpha`` at most.

    In task "noisy" the labels of D_f are those before the noise, as V has them.

    Args:
        model: The unlearned model, images ``[N, C, H, W]`` to logits ``[N, classes]``; it is left as it is.
        split: What was to be forgotten.
        validation: V: labelled images of the same classes, drawn like the training images, that no model was trained
            on and nothing was chosen by. Test images serve only if they are drawn like the training images. None takes
            the judging half (:func:`pymixunlearn.data.halves`) of the validation set of the split's data set. Images
            without labels must be drawn like D_f itself, from the same classes in the same shares: then the margin of
            the largest logit is compared, which needs no label.
        shown: Other labelled images that no model was trained on. Where D_r has no image of a class of D_f, no step on
            D_r alone teaches the model that class again, and part (b) shows these beside, of such classes only, at
            most as many as of D_r. None takes the other half of the validation set where ``validation`` is None, and
            shows none otherwise.
        initial: The model before unlearning, or what this test, with the same samples, found of it. Without it no model
            is accepted.
        alpha: The level of each part, above 0 and below 1.
        device: Where to compute; None takes CUDA where there is one.
        seed: Fixes which images of V are drawn, which retain images are shown, and their order.
        resurfacing: How the copy is trained for part (b); give the learning rate of the model's own training.
        decision_only: Leave out what decides nothing, which takes longer than both parts: the numbers beside the
            decision, and part (b) where part (a) refuses the model with a distance of at least ``smallest_ks``.

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
    options: dict[str, Any] = {"validation": validation, "shown": shown, "initial": initial, "alpha": alpha}
    options |= {"device": device, "seed": seed, "resurfacing": resurfacing, "decision_only": decision_only}
    return acceptances({"model": model}, split, **options)["model"]


def acceptances(
    models: Mapping[str, nn.Module],
    split: Split,
    *,
    validation: ImageSet | UnlabelledImages | None = None,
    shown: ImageSet | None = None,
    initial: nn.Module | Acceptance | None = None,
    alpha: float = 0.05,
    device: torch.device | str | None = None,
    seed: int = 0,
    resurfacing: Resurfacing | None = None,
    decision_only: bool = False,
) -> dict[str, Acceptance]:
    """Make the test of :func:`acceptance` for several models with the same samples; the initial one is run once.

    Args:
        models: The models by name.
        split: As for :func:`acceptance`, like all that follows.
        validation: As there.
        shown: As there.
        initial: As there; it may be one of ``models``.
        alpha: As there.
        device: As there.
        seed: As there.
        resurfacing: As there.
        decision_only: As there.

    Raises:
        UserError: As there.

    Example:
        >>> from pymixunlearn import data, evaluation, models, tasks
        >>> split = tasks.class_split(data.load("digits@1000"))
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)

        >>> fresh = models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=1)
        >>> found = evaluation.acceptances({"initial": model, "fresh": fresh}, split, initial=model, device="cpu")
        >>> found["fresh"].decision  # the test refuses neither, so that it shows nothing
        'cannot tell'
    """
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}; expected a value above 0 and below 1")
    if validation is None and split.validation_halves is not None:
        validation = split.validation_halves.judging
        shown = split.validation_halves.choosing if shown is None else shown
    if validation is None:
        raise UserError(
            f"the data set '{split.dataset.name}' has no validation set; give validation, images that no model was "
            "trained on"
        )
    for images in (validation, shown):
        if images is not None:
            _check_validation(images, split)
    forget = split.forget if split.origin is None else split.origin.train.subset(split.forget_indices)
    drawn = torch.arange(len(validation))
    if isinstance(validation, ImageSet):
        drawn = alike_by_class(validation.targets.cpu(), forget.targets.cpu(), seed)
    if len(forget) < MIN_SAMPLES or len(drawn) < MIN_SAMPLES:
        reason = (
            f"With {len(forget)} forgotten samples and {len(drawn)} unseen images of their classes nothing can be "
            f"tested; at least {MIN_SAMPLES} of each are needed."
        )
        neither = Acceptance("cannot tell", reason, forget_samples=len(forget), unseen_samples=len(drawn))
        return dict.fromkeys(models, neither)
    settings = Resurfacing() if resurfacing is None else resurfacing
    few = None if shown is None else to_show(shown, forget, split, settings.samples, seed)
    test = _Test(split, forget, validation, drawn, few, alpha, resolve_device(device), seed, settings, decision_only)
    own = None if initial is None or isinstance(initial, Acceptance) else test.run(initial)
    before = _Before.of(initial if isinstance(initial, Acceptance) else own)
    return {
        name: test.judge(model, own if own is not None and model is initial else test.run(model), before)
        for name, model in models.items()
    }


class _Run(NamedTuple):
    """Both parts of the test of one model, what they compared, and logits of part (a).

    ``unseen`` are those of all of V; None where they serve nothing but the decision.
    """

    outputs: MarginTest
    resurfaced: MarginTest | None
    margins: tuple[Margins, Margins] | None
    forget: Tensor
    unseen: Tensor | None

    @property
    def refused(self) -> bool:
        return self.outputs.refused or (self.resurfaced is not None and self.resurfaced.refused)

    @property
    def ks(self) -> float:
        """The larger of both distances."""
        return self.outputs.ks if self.resurfaced is None else max(self.outputs.ks, self.resurfaced.ks)


class _Before(NamedTuple):
    """What the test found of the model before unlearning: whether it was refused, and the larger distance."""

    refused: bool
    ks: float

    @classmethod
    def of(cls, found: _Run | Acceptance | None) -> _Before | None:
        if isinstance(found, Acceptance):
            distances = [ks for ks in (found.ks, found.ks_resurfaced) if ks is not None]
            return cls(found.decision == "refused", max(distances)) if distances else None
        return None if found is None else cls(found.refused, found.ks)


class _Test(NamedTuple):
    """Test with fixed samples, for any model.

    ``drawn`` are the indices into ``validation`` that D_f is held to; ``shown`` are others, of classes that D_r lacks.
    """

    split: Split
    forget: ImageSet
    validation: ImageSet | UnlabelledImages
    drawn: Tensor
    shown: ImageSet | None
    alpha: float
    device: torch.device
    seed: int
    resurfacing: Resurfacing
    decision_only: bool

    def run(self, model: nn.Module) -> _Run:
        network = private_copy(model).to(self.device)
        few = self.validation.subset(self.drawn)
        with trainable(network):
            forget = self._logits(network, self.forget)
            unseen = None if self.decision_only else self._logits(network, self.validation)
            at_once = self._margins(forget, self._logits(network, few) if unseen is None else unseen[self.drawn])
            outputs = margin_test(*at_once, self.alpha)
            if self.decision_only and outputs.refused and outputs.ks >= self.smallest:
                return _Run(outputs, None, None, forget, unseen)
            # With other images in half of each batch, twice as many steps show as many retain images as without.
            self._resurface(network, self.shown, self.resurfacing.steps * (1 if self.shown is None else 2))
            again = self._margins(self._logits(network, self.forget), self._logits(network, few))
        return _Run(outputs, margin_test(*again, self.alpha), (at_once, again), forget, unseen)

    @property
    def smallest(self) -> float:
        """The true distance that is seen nine times in ten."""
        return smallest_visible(len(self.forget), len(self.drawn), self.alpha)

    def judge(self, model: nn.Module, run: _Run, before: _Before | None) -> Acceptance:
        """Return the decision and what is told beside it."""
        numbers = (
            f"{len(self.forget)} forgotten samples, {len(self.drawn)} unseen images, bound {run.outputs.bound:.3f}"
        )
        decision, reason = _decide(run, before, self.smallest, numbers)
        return Acceptance(
            decision,
            reason,
            ks=run.outputs.ks,
            ks_resurfaced=None if run.resurfaced is None else run.resurfaced.ks,
            bound=run.outputs.bound,
            initial_ks=None if before is None else before.ks,
            smallest_ks=self.smallest,
            forget_samples=len(self.forget),
            unseen_samples=len(self.drawn),
            shown_samples=0 if self.shown is None else len(self.shown),
            **({} if self.decision_only else {**self._traces(model, run), **self._accuracies(model, run)}),
            margins=run.margins,
        )

    def _traces(self, model: nn.Module, run: _Run) -> dict[str, Any]:
        assert run.margins is not None  # without part (b) there are no traces
        margins = (np.nan_to_num(side) for side in run.margins[0])
        network = private_copy(model).to(self.device)
        with trainable(network):
            forget, unseen = (
                representations(network, images, self.split.preprocess, device=self.device)
                for images in (self.forget, self.validation.subset(self.drawn))
            )
        probed = probe(forget, unseen, self.seed)
        ordered = auc_estimate(*margins)
        return {
            "auc": ordered.value,
            "auc_interval": ordered[1:],
            "probe_auc": probed.value,
            "probe_interval": probed[1:],
        }

    def _accuracies(self, model: nn.Module, run: _Run) -> dict[str, Any]:
        """Return accuracies on D_f and on V, at once and after half of D_f was shown again."""
        if not isinstance(self.validation, ImageSet) or run.unseen is None:
            return {}
        targets, labels = self.forget.targets.cpu(), self.validation.targets.cpu()
        of_classes = torch.isin(labels, targets)
        unseen = self.validation.subset(self.drawn)
        on_forget, on_unseen = accuracy(run.forget, targets), accuracy(run.unseen[self.drawn], labels[self.drawn])
        assert on_forget is not None and on_unseen is not None  # neither side is empty
        eps = difference_of_shares(on_forget, len(targets), on_unseen, len(self.drawn))
        order = torch.randperm(len(targets), generator=generator(self.seed, "acceptance", "shown again"))
        shown, other = (self.forget.subset(half) for half in order.tensor_split(2))
        network = private_copy(model).to(self.device)
        with trainable(network):
            self._resurface(network, shown, self.resurfacing.steps)
            again = [accuracy(self._logits(network, images), images.targets) for images in (other, unseen)]
        return {
            "eps": eps.value,
            "eps_interval": eps[1:],
            "accuracy_unseen": accuracy(run.unseen[of_classes], labels[of_classes]),
            "accuracy_others": accuracy(run.unseen[~of_classes], labels[~of_classes]),
            "shown_again": again[0],
            "shown_again_unseen": again[1],
        }

    def _logits(self, network: nn.Module, images: ImageSet | UnlabelledImages) -> Tensor:
        return predict_logits(network, images, self.split.preprocess, device=self.device)

    def _margins(self, forget: Tensor, unseen: Tensor) -> Margins:
        if isinstance(self.validation, ImageSet):
            labels = self.validation.targets.cpu()[self.drawn]
            return Margins(*judged_margins(forget, self.forget.targets.cpu(), unseen, labels))
        return Margins(*judged_margins(forget, forget.argmax(dim=1), unseen, unseen.argmax(dim=1)))

    def _resurface(self, network: nn.Module, beside: ImageSet | None, steps: int) -> None:
        settings = replace(self.resurfacing, steps=steps)
        resurface(network, self.split, settings, device=self.device, seed=self.seed, beside=beside)


def _decide(run: _Run, before: _Before | None, smallest: float, numbers: str) -> tuple[Decision, str]:
    if run.outputs.broken or (run.resurfaced is not None and run.resurfaced.broken):
        when = "at once" if run.outputs.broken else "after a few steps of training"
        return "refused", f"The model's outputs are no numbers {when}: nothing can be compared ({numbers})."
    if run.outputs.refused or run.resurfaced is None:
        return "refused", (
            "The forgotten samples are told apart from unseen images of their classes: distance "
            f"{run.outputs.ks:.3f} ({numbers})."
        )
    if run.resurfaced.refused:
        return "refused", (
            f"The forgotten samples resurface after a few steps of training without them: distance "
            f"{run.resurfaced.ks:.3f} ({numbers})."
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
    if before.ks < smallest:
        return "cannot tell", (
            f"The initial model, which forgot nothing, is refused, but only just: a distance of {before.ks:.3f} is "
            f"missed more than once in ten times, as all below {smallest:.3f} are ({numbers})."
        )
    return "accepted", (
        "The forgotten samples are not told apart from unseen images of their classes, neither at once "
        f"(distance {run.outputs.ks:.3f}) nor after a few steps of training without them "
        f"({run.resurfaced.ks:.3f}); the initial model is refused ({numbers})."
    )


def _check_validation(validation: ImageSet | UnlabelledImages, split: Split) -> None:
    if isinstance(validation, ImageSet) and validation.classes != split.train.classes:
        raise UserError(f"validation has the classes {validation.classes}; expected {split.train.classes}")
    shape, wanted = list(validation.images.shape[1:]), list(split.train.images.shape[1:])
    if shape != wanted:
        raise UserError(f"validation has images of shape {shape}; expected {wanted} as in the training set")
