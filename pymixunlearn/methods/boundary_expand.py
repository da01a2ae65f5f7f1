"""Boundary Expanding: all forget images go to a class of their own, which is then taken away.

Chen, Gao, Liu, Peng, Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary",
CVPR 2023. Settings as released.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import CODE, setting
from pymixunlearn.methods.loop import Loop, LoopConfig, Measured, descend
from pymixunlearn.methods.registry import method
from pymixunlearn.models.layers import find_head
from pymixunlearn.training.device import seeded_layers


@dataclass(frozen=True)
class BoundaryExpandConfig(LoopConfig):
    """Settings of :class:`BoundaryExpand`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.BoundaryExpandConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE

    epochs: int = setting(10, "passes over the forget set", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(1e-5, "learning rate (SGD)", above=0)
    momentum: float = setting(0.9, "momentum", low=0, below=1)


@method("boundary-expand", summary="moves the forgotten data to an added class and takes that away")
class BoundaryExpand(Loop[BoundaryExpandConfig]):
    """Fine-tuning of the forget set on an added class; uses no label, so that none is needed.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.BoundaryExpand(epochs=3).config.epochs
        3
    """

    config_class = BoundaryExpandConfig
    epoch_of = "forget"

    @property
    def needs_labels(self) -> bool:
        """False: all of D_f gets the same new label, and D_r is not used."""
        return False

    def setup(self) -> None:
        """Add the class to the head: a Xavier row without bias, beside the old rows."""
        self.head = find_head(self.model, self.example)
        old, bias = self.head.weight.detach(), self.head.bias
        with seeded_layers(self.device, self.seed, self.name, "head"):
            new = nn.init.xavier_uniform_(old.new_empty(self.num_classes + 1, old.shape[1]))
        new[:-1] = old
        _set_rows(self.head, new, None if bias is None else F.pad(bias.detach(), (0, 1)))
        self.optimizer = self.add_optimizer("sgd", self.config.lr, momentum=self.config.momentum)

    def step(self, forget: Batch) -> Measured:
        """CE of the images with the added class."""
        shadow = torch.full_like(forget.indices, self.num_classes)
        loss = F.cross_entropy(self.model(forget.images), shadow)
        descend(self.optimizer, loss)
        return {"forget": loss}

    def unlearned(self) -> nn.Module:
        """Return the network without the added class."""
        bias = self.head.bias
        _set_rows(self.head, self.head.weight.detach()[:-1], None if bias is None else bias.detach()[:-1])
        return self.model


def _set_rows(head: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give ``head`` other rows: weight [classes, features], bias [classes]."""
    head.weight = nn.Parameter(weight.clone(), requires_grad=head.weight.requires_grad)
    if bias is not None:
        head.bias = nn.Parameter(bias.clone(), requires_grad=head.bias.requires_grad)
    head.out_features = len(weight)
