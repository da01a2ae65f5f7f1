"""LAF+R: label-agnostic forgetting, and then one epoch of supervised repair of the classifier.

Shen, Zhang, Zhao, Bialkowski, Chen, Xu, "Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models", ICLR
2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.config import CODE, setting
from pymixunlearn.methods.laf import LafConfig, RepresentationUnlearning
from pymixunlearn.methods.loop import Measured, Stage, cross_entropy, descend
from pymixunlearn.methods.registry import method


@dataclass(frozen=True)
class LafRepairConfig(LafConfig):
    """Settings of :class:`LafRepair`: LAF's, and those of the repair.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.LafRepairConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = CODE

    repair_epochs: int = setting(1, "epochs of the repair", low=1)
    repair_lr: float = setting(1e-4, "learning rate of the repair (Adam)", above=0)


@method("laf+r", summary="label-agnostic forgetting, then one supervised epoch for the classifier")
class LafRepair(RepresentationUnlearning[LafRepairConfig]):
    """LAF with a supervised repair of the classifier; needs labels for that.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.LafRepair(repair_epochs=2).needs_labels
        True
    """

    config_class = LafRepairConfig

    def setup(self) -> None:
        """Make the optimiser of the repair, too."""
        super().setup()
        self.repair_optimizer = self.add_optimizer("adam", self.config.repair_lr, part="repair_optimizer")

    def stages(self) -> list[Stage]:
        """Return LAF's stages and the repair."""
        return [
            *super().stages(),
            Stage(self.config.repair_epochs, self.steps(self.retain_set), self._repair_epoch, "repair"),
        ]

    def _repair_epoch(self, epoch: int) -> Iterator[Measured]:
        for retain in self.retain_batches(epoch):
            yield self.repair_step(retain)

    def repair_step(self, retain: Batch) -> Measured:
        """CE on D_r; the embedding is cut off from its past, so that only the layers behind it get a gradient."""
        cut = self.model.get_submodule(self.layer).register_forward_hook(_detached)
        try:
            loss = cross_entropy(self.model(retain.images), retain)
        finally:
            cut.remove()
        descend(self.repair_optimizer, loss)
        return {"repair": loss}


def _detached(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.detach()
