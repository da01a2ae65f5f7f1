"""GLI: fine-tune on retain images that are moved away from the forget images' logits without losing their own label.

Choi, Choi, Lee, Seo, Na, "Towards Efficient Machine Unlearning with Data Augmentation: Guided Loss-Increasing (GLI) to
Prevent the Catastrophic Model Utility Drop", CVPR Workshops 2024; MixUnlearn's authors tuned the number of
perturbation steps (Appendix A.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.evaluation.accuracy import predict_logits
from pymixunlearn.evaluation.score_attacks import loss_attack
from pymixunlearn.methods.base import held_fixed
from pymixunlearn.methods.config import CODE, OURS, SEARCHED, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, cross_entropy, descend
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.methods.pixels import PixelRange
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import labelled


@dataclass(frozen=True)
class GliConfig(EndingConfig, LoopConfig):
    """Settings of :class:`Gli`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.GliConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = "the paper"

    epochs: int = setting(1, "passes over the retain set", low=1)
    batch_size: int = setting(64, "images of each set per step", low=1)
    lr: float = setting(1e-3, "learning rate (SGD)", above=0)
    momentum: float = setting(0.0, "momentum", low=0, below=1)
    perturb_steps: int = setting(
        3,
        "perturbation steps per batch; tuned over 2 to 5",
        low=1,
        source=SEARCHED,
    )
    perturb_size: float = setting(0.01, "size of each of them, as a share of the range of pixel values", above=0)
    guide_first: float = setting(200.0, "weight of the cross entropy in the perturbation, in the first step", low=0)
    guide_last: float = setting(1000.0, "the same in an epoch's last step; it rises linearly", low=0)
    validation: float = setting(0.1, "share of D_r held out to say when to stop", above=0, below=1, source=OURS)
    stop_by: Literal["accuracy", "score"] = setting(
        "accuracy",
        "stop when the accuracy on it has fallen; or, as the released code does with the test set, when the mean of "
        "that accuracy and of a membership attack's failure has not risen for `patience` steps, and keep the best",
        source=OURS,
    )
    tolerance: float = setting(2.0, "stop_by=accuracy: by more than this, in percent", low=0, source=OURS)
    check_interval: int = setting(10, "stop_by=accuracy: steps from one check to the next", low=1, source=OURS)
    patience: int = setting(3, "stop_by=score: steps without a better score", low=1, source=CODE)

    @property
    def own_choice(self) -> str | None:
        """The released code keeps the state with the best score."""
        return "stop_by=score" if self.stop_by == "score" else None


@method("gli", summary="training on remaining data that is perturbed away from the forgotten data")
class Gli(Loop[GliConfig]):
    """Guided loss-increasing augmentation of the retain set; needs its labels (stop_by=score: those of D_f too).

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Gli(perturb_steps=5).config.perturb_size
        0.01
    """

    config_class = GliConfig
    epoch_of = "cycled"

    def setup(self) -> None:
        """Hold the validation samples out and take the initial accuracy on them."""
        self.held_out = self.hold_out(self.config.validation)
        self.pixels = PixelRange.of(self.job.split, self.device)
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)
        self.parts["check"] = self.check = Tensors(
            initial=torch.tensor(self._accuracy(), dtype=torch.float64), stopped=torch.tensor(False)
        )
        self.best = None
        if self.config.stop_by == "score":
            self.best = self.parts["best"] = Best(self.model)

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Go through D_r, until the check says stop."""
        steps = self.steps(self.retain_set)
        if self.best is not None and self.best["score"].isfinite():
            self.model.eval()  # a resumed run too
        for step, (forget, retain) in enumerate(self.cycled_pairs(epoch)):
            if self.check["stopped"]:
                return
            yield self.step(forget, retain, self.guide_weight(step, steps))
            if self.best is not None:
                self.best.note(self.model, self.score())
                self.check["stopped"] = self.best["age"] >= self.config.patience
            elif (step + 1) % self.config.check_interval == 0:
                fallen = self.check["initial"] - self._accuracy()
                self.check["stopped"] = fallen > self.config.tolerance

    def guide_weight(self, step: int, steps: int) -> float:
        """Return w of an epoch's step, counted from 0: linear from the first to the last."""
        first, last = self.config.guide_first, self.config.guide_last
        return first + (last - first) * step / max(steps - 1, 1)

    def perturb(self, forget: Batch, retain: Batch, weight: float) -> Tensor:
        """Return x_r + delta, where delta climbs J = -w CE(f(x_r + delta), y_r) + MSE(f(x_r + delta), f(x_f))."""
        size = self.config.perturb_size * self.pixels.span
        with held_fixed(self.model):
            with torch.no_grad():
                logits_f = self.model(forget.images)
                # A forget batch may be shorter than the retain batch: it is then gone through again.
                beside = logits_f[torch.arange(len(retain.images), device=self.device) % len(logits_f)]
            delta = torch.zeros_like(retain.images)
            for _ in range(self.config.perturb_steps):
                delta.requires_grad_()
                logits = self.model(self.pixels.clamp(retain.images + delta))
                J = -weight * cross_entropy(logits, retain) + F.mse_loss(logits, beside)
                (gradient,) = torch.autograd.grad(J, delta)
                delta = delta.detach() + size * gradient.sign()
        return self.pixels.clamp(retain.images + delta)

    def step(self, forget: Batch, retain: Batch, weight: float) -> Measured:
        """CE of the perturbed retain images with their own labels."""
        loss = cross_entropy(self.model(self.perturb(forget, retain, weight)), retain)
        descend(self.optimizer, loss)
        return {"retain": loss}

    def score(self) -> float:
        """Return (a + 1 - 2 |m - 1/2|) / 2: a is the accuracy on held-out samples, m that of an attack on the losses.

        From the first score on the network stays in evaluation mode, as in the released code.
        """
        both = (labelled(self.forget_set), self.held_out)
        outputs = [
            predict_logits(self.model.eval(), images, self.preprocess, device=self.device).cpu() for images in both
        ]
        targets = [images.targets.cpu() for images in both]
        attack = loss_attack(outputs, targets, seed=self.seed)
        accuracy = (outputs[1].argmax(1) == targets[1]).double().mean().item()
        return (accuracy + 1 - 2 * abs(attack - 0.5)) / 2

    def unlearned(self) -> nn.Module:
        """Return the network, with stop_by=score as it was at its best."""
        if self.best is not None and self.collapse is None:
            self.best.restore(self.model)
        return self.model

    def _accuracy(self) -> float:
        """Percent of the held-out samples that are classified as labelled."""
        return 100 * (self.predict(self.held_out) == self.held_out.targets.cpu()).double().mean().item()


class Best(Tensors):
    """Weights with the best score so far, which is "score", and for how many steps they have been the best ("age")."""

    def __init__(self, model: nn.Module) -> None:
        """Start with nothing scored: the first step is better."""
        super().__init__(score=torch.tensor(float("-inf"), dtype=torch.float64), age=torch.tensor(0))
        self._keep(model)

    def note(self, model: nn.Module, score: float) -> None:
        """Compare the weights after a step with the best."""
        if score > self["score"]:
            self["score"].fill_(score)
            self["age"].zero_()
            self._keep(model)
        else:
            self["age"].add_(1)

    def restore(self, model: nn.Module) -> None:
        """Put the best weights into ``model``."""
        model.load_state_dict({name[len(_BEST) :]: value for name, value in self.items() if name.startswith(_BEST)})

    def _keep(self, model: nn.Module) -> None:
        self.update({_BEST + name: value.detach().clone() for name, value in model.state_dict().items()})


_BEST = "best."
