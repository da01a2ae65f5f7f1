"""SalUn, saliency unlearning: random labels, but only for the weights that the forget set matters to.

Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-Based Weight Saliency in Both Image
Classification and Generation", ICLR 2024. Settings as published for classification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import CODE, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, Stage, cross_entropy, targets_of
from pymixunlearn.methods.parts import Tensors
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import labelled, together


@dataclass(frozen=True)
class SalUnConfig(EndingConfig, LoopConfig):
    """Settings of :class:`SalUn`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.SalUnConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE

    epochs: int = setting(10, "passes over all data", low=1)
    batch_size: int = setting(256, "images per step", low=1)
    lr: float = setting(0.013, "learning rate (SGD); published range 5e-4 to 5e-2", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)
    weight_decay: float = setting(5e-4, "coefficient of the squared norm's gradient", low=0)
    salient: float = setting(0.5, "share of the weights that may change", above=0, high=1)
    retain_weight: float = setting(1.0, "alpha: weight of the loss of retain samples", low=0)
    random_labels: Literal["other", "any"] = setting(
        "other", "random labels exclude the true one, or, as in the released code, they need not"
    )
    order: Literal["mixed", "forget-first"] = setting(
        "mixed",
        "an epoch goes through all data in random order, as the released code does for CIFAR-100; or through D_f and "
        "then D_r, as for CIFAR-10 and SVHN",
    )


@method("salun", summary="saliency unlearning: random labels, for the weights that matter to the forgotten data")
class SalUn(Loop[SalUnConfig]):
    """Random labels for the forget set, true ones for the rest, on salient weights only; needs labels.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.SalUn(random_labels="any").config.random_labels
        'any'
    """

    config_class = SalUnConfig

    def setup(self) -> None:
        """Set up the saliency and the optimiser."""
        self.all = together(self.forget_set, self.retain_set)
        self.weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        self.saliency = self.parts["saliency"] = Tensors(
            {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        )
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)

    def stages(self) -> list[Stage]:
        """Return the pass over D_f and those over all data."""
        return [
            Stage(1, self.steps(self.forget_set), self._saliency_epoch, "saliency"),
            Stage(self.config.epochs, self._epoch_steps(), self.epoch),
        ]

    def _saliency_epoch(self, epoch: int) -> Iterator[Measured]:
        self.model.eval()
        for forget in self.forget_batches(epoch):
            yield self.add_saliency(forget)
        self.model.train()

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Go through all data, with labels for D_f that are drawn anew."""
        masks, labels = self.masks(), self.draw_labels(self.generator("labels", epoch))
        for batch in self._batches(epoch):
            yield self.step(batch, labels, masks)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; indices below the size of D_f are its samples."""
        if self.config.order == "mixed":
            yield from self.batches(self.all, "all", epoch)
            return
        yield from self.forget_batches(epoch)
        for retain in self.retain_batches(epoch):
            yield retain._replace(indices=retain.indices + len(self.forget_set))

    def _epoch_steps(self) -> int:
        if self.config.order == "mixed":
            return self.steps(self.all)
        return self.steps(self.forget_set) + self.steps(self.retain_set)

    def add_saliency(self, forget: Batch) -> Measured:
        """Sum the gradients of CE on D_f at the initial weights."""
        loss = cross_entropy(self.model(forget.images), forget)
        gradients = torch.autograd.grad(loss, list(self.weights.values()), materialize_grads=True)
        for total, gradient in zip(self.saliency.values(), gradients, strict=True):
            total += gradient
        return {"forget": loss}

    def masks(self) -> dict[str, Tensor]:
        """Return which weights may change: those whose summed gradient is among the largest, over all layers."""
        sizes = torch.cat([total.abs().flatten() for total in self.saliency.values()])
        threshold = sizes.topk(max(1, round(self.config.salient * len(sizes)))).values[-1]
        return {name: total.abs() >= threshold for name, total in self.saliency.items()}

    def draw_labels(self, draw: torch.Generator) -> Tensor:
        """Return random labels [N_f] for D_f."""
        count, C = len(self.forget_set), self.num_classes
        if self.config.random_labels == "any":
            return torch.randint(C, (count,), generator=draw, device=self.device)
        shift = torch.randint(1, C, (count,), generator=draw, device=self.device)
        return (labelled(self.forget_set).targets.to(self.device) + shift) % C

    def step(self, batch: Batch, labels: Tensor, masks: dict[str, Tensor]) -> Measured:
        """Mean of CE with random labels on D_f and alpha CE on D_r; only salient weights move, nor do others decay."""
        is_forget = batch.indices < len(labels)
        targets = torch.where(is_forget, labels[batch.indices.clamp(max=len(labels) - 1)], targets_of(batch))
        losses = F.cross_entropy(self.model(batch.images), targets, reduction="none")
        loss = torch.where(is_forget, losses, self.config.retain_weight * losses).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.add_(weight.detach(), alpha=self.config.weight_decay).mul_(masks[name])
        self.optimizer.step()
        return {"total": loss}
