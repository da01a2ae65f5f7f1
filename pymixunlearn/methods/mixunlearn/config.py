"""Settings of MixUnlearn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pymixunlearn.errors import UserError
from pymixunlearn.methods.by_network import UNLEARNING, NetworkConfig
from pymixunlearn.methods.config import CODE, OURS, PAPER, SEARCHED, StepConfig, setting
from pymixunlearn.methods.loop import LoopConfig
from pymixunlearn.methods.stopping import StoppingConfig


@dataclass(frozen=True)
class MixUnlearnConfig(NetworkConfig, StepConfig, StoppingConfig, LoopConfig):
    """Settings of :class:`MixUnlearn`; the defaults are the paper's where it gives one.

    Learning rate and epochs left at none are those of the network, resnet18's or the cnn's.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.MixUnlearnConfig.from_mapping({"epochs": "7"}).epochs
        7
    """

    source = PAPER
    by_network = UNLEARNING

    precision: Literal["float32", "bfloat16"] | None = setting(
        None, "of the networks' passes; none takes bfloat16 on GPUs that compute in it", source=OURS, named_only=True
    )
    label_aware: bool = setting(
        False, "targets are the labels (Eq. 4); otherwise the sharpened initial model", source=PAPER
    )
    pairing: Literal["zip", "grid"] = setting(
        "zip", "mix forget n with retain n, or every forget with every retain", source=CODE
    )
    epochs: int | None = setting(None, "passes over the smaller of forget and retain set; cnn 20, resnet18 40", low=1)
    batch_size: int = setting(32, "images of each set per step", low=1)
    lr: float | None = setting(None, "learning rate of the unlearner (Adam); cnn 5e-5, resnet18 1e-5", above=0)
    alpha: float = setting(
        0.75,
        "the mixing ratio is drawn from Beta(alpha, alpha)",
        above=0,
        source=SEARCHED,
    )
    tau_gen: float = setting(0.5, "temperature of the generator's loss (Eq. 3)", above=0, source=SEARCHED)
    tau_mix: float = setting(
        10.0,
        "temperature of the unlearner's loss on mixes (Eq. 5)",
        above=0,
        source=SEARCHED,
    )
    tau_real: float = setting(
        5.0,
        "temperature of the unlearner's loss on real images (Eq. 6)",
        above=0,
        source=SEARCHED,
    )
    omega: float = setting(10.0, "weight of the loss on real images (Eq. 7)", low=0, source=SEARCHED)
    sharpen_T: float = setting(0.3, "temperature that sharpens the initial model's predictions (Eq. 8)", above=0)
    generator_lr: float | None = setting(
        None, "learning rate of the generator (Adam); none takes 0.001, for mixblock-lam 0.01", above=0, source=OURS
    )
    generator_interval: int = setting(4, "steps from one generator update to the next", low=1)
    adversary: Literal["current", "ema"] = setting(
        "current", "the generator attacks the unlearner or its average", source=OURS
    )
    ema_momentum: float = setting(0.999, "momentum of that average", low=0, below=1, source=CODE)
    generator_warmup: int = setting(
        0,
        "passes in which the generator alone is trained before the first, against the initial model",
        low=0,
        source=OURS,
    )
    generator: Literal["mixblock", "mixblock-lam", "vanilla"] = setting(
        "mixblock", "the paper's learnt mixing; the same with masks whose mean is the ratio; or plain mixup (ablation)"
    )
    use_mix_loss: bool = setting(True, "train on mixes (ablation when false)")
    use_real_loss: bool = setting(True, "train on real images (ablation when false)")
    sharpen: bool = setting(True, "sharpen the initial model's predictions (ablation when false)")
    reduction: Literal["sum", "mean"] = setting("sum", "sum over the retain images of a batch, or mean")
    feature_layer: str | None = setting(None, "layer whose output MixBlock sees; none finds one", source=OURS)

    def __post_init__(self) -> None:
        """Check every field, and that some loss is left."""
        super().__post_init__()
        if not (self.use_mix_loss or self.use_real_loss):
            raise UserError("use_mix_loss and use_real_loss are both false; expected at least one loss to train with")
