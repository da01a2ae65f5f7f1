"""MixUnlearn after a reset: forget images stand in the background of retain images while the weights grow back.

Prune-reset, whose training shows a part of the retain images with a minority of a forget image mixed in, labelled as
the retain image. That is the attracting half of L_mix (Eq. 5); the repelling half, and L_real's, change how D_f is
answered and leave it recognisable. MixBlock, held to the share of the forget image, chooses where it shows: where it
disturbs most.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pymixunlearn import ops
from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import MethodOutput, held_fixed
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.frozen_outputs import FrozenOutputs
from pymixunlearn.methods.loop import Measured, descend
from pymixunlearn.methods.mixunlearn.step import mask_statistics
from pymixunlearn.methods.prune_reset import PruneResetConfig, Resetting
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import Images
from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.nn import MixBlock
from pymixunlearn.nn.mixblock import mixup
from pymixunlearn.seeding import derive_seed


@dataclass(frozen=True)
class MixUnlearnResetConfig(PruneResetConfig):
    """Settings of :class:`MixUnlearnReset`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.MixUnlearnResetConfig.from_mapping({"mixed": "0.25"}).mixed
        0.25
    """

    mixed: float = setting(
        0.5, "share of the retain images of a batch that a forget image is mixed into", above=0, high=1
    )
    most: float = setting(0.5, "largest share of a forget image in a mix; shares are uniform from 0", above=0, high=1)
    generator: Literal["mixblock-lam", "vanilla"] = setting(
        "mixblock-lam", "masks that are learnt against the network, with the share as their mean; or plain mixup"
    )
    generator_lr: float = setting(1e-2, "learning rate of the generator (Adam)", above=0)
    generator_interval: int = setting(4, "steps from one generator update to the next", low=1)
    feature_layer: str | None = setting(None, "layer whose output MixBlock sees; none finds one")
    cache_mb: int = setting(
        1024, "megabytes of that layer's outputs in memory; more are mapped from a temporary file", low=0
    )


class Pair(NamedTuple):
    """Forget and retain images [n, C, H, W] to mix, the forget images' shares [n], and what MixBlock sees of them."""

    forget: Tensor
    retain: Tensor
    share: Tensor
    forget_features: Tensor | None
    retain_features: Tensor | None


@method("mixunlearn-reset", summary="resets most weights and retrains with forget images mixed into remaining ones")
class MixUnlearnReset(Resetting[MixUnlearnResetConfig]):
    """Reset of the smallest weights, and cross entropy on retain images and on mixes labelled as the retain image.

    Example:
        >>> from pymixunlearn import data, methods, models, tasks
        >>> split = tasks.class_split(data.load("digits"), [0])
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> result = methods.MixUnlearnReset(epochs=1).unlearn(model, split, device="cpu")
        >>> sorted(result.history[0])  # doctest: +NORMALIZE_WHITESPACE
        ['epoch', 'generator', 'generator_vanilla', 'mask', 'mask_between', 'mask_error', 'mask_within', 'retain',
         'seconds']
    """

    config_class = MixUnlearnResetConfig

    def setup(self) -> None:
        """Set up the reset; with a generator, look at both sets through the initial model."""
        super().setup()
        self.mixblock: MixBlock | None = None
        if self.config.generator == "vanilla":
            return
        layer = self.config.feature_layer or find_feature_layer(self.initial, self.example)
        self.extract = self.closing.enter_context(FeatureExtractor(self.initial, layer))
        channels = self.extract.channels(self.example)
        seed = derive_seed(self.seed, self.name)
        self.mixblock = MixBlock(channels, normalize="layer", share="lam", seed=seed).to(self.device)
        self.parts["mixblock"] = self.mixblock
        self.blank = {name: value.clone() for name, value in self.mixblock.state_dict().items()}
        self.generator_optimizer = self.add_optimizer(
            "adam", self.config.generator_lr, of=self.mixblock, part="generator_optimizer"
        )
        self.features: dict[str, FrozenOutputs] = {}
        if not self.preprocess.augments:
            self.features = {"forget": self._cached(self.forget_set), "retain": self._cached(self.retain_set)}
            self.closing.callback(self.features.clear)

    def _cached(self, images: Images) -> FrozenOutputs:
        return FrozenOutputs(
            lambda inputs: [self.extract(inputs)[1]],
            images,
            self.preprocess,
            device=self.device,
            budget_mb=self.config.cache_mb // 2,
            closing=self.closing,
        )

    def start(self, number: int) -> None:
        """Begin an attempt, from the initial weights and with a generator that has learnt nothing."""
        if self.mixblock is not None:
            self.mixblock.load_state_dict(self.blank)
            self.generator_optimizer = self.add_optimizer(
                "adam", self.config.generator_lr, of=self.mixblock, part="generator_optimizer"
            )
        super().start(number)

    def output(self, history: list[dict[str, float]]) -> MethodOutput:
        """Return the network, what was tried, and the generator."""
        return super().output(history)._replace(generator=self.mixblock)

    def train_epoch(self, epoch: int) -> Iterator[Batch]:
        """Go once through D_r, with D_f beside it, which starts again as often as it ends."""
        self.beside = (batch for turn in itertools.count() for batch in self.forget_batches(epoch, turn))
        self.draws = self.generator("shares", epoch)
        self.taken = 0
        return super().train_epoch(epoch)

    def step(self, retain: Batch) -> Measured:
        """CE of a batch, in a part of whose images a forget image is mixed: one forward for clean and mixed ones."""
        forget = next(self.beside)
        count = min(len(forget.images), max(1, round(self.config.mixed * len(retain.images))))
        pair = Pair(
            forget.images[:count],
            retain.images[:count],
            self.config.most * torch.rand(count, generator=self.draws, device=self.device),
            self._features("forget", forget, count),
            self._features("retain", retain, count),
        )
        targets, measured = self.targets(retain), {}
        if self.mixblock is not None and self.taken % self.config.generator_interval == 0:
            measured.update(self.train_generator(pair, targets[:count]))
        self.taken += 1
        with torch.no_grad():
            mixed, masks = self.mix(pair)
        loss = F.cross_entropy(self.model(torch.cat([mixed, retain.images[count:]])), targets)
        descend(self.optimizer, loss)
        self.means.add(**measured)
        return {"retain": loss, **masks}

    def mix(self, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mixes [n, C, H, W], and what their masks are like."""
        if self.mixblock is None or pair.forget_features is None or pair.retain_features is None:
            return mixup(pair.forget, pair.retain, pair.share), {}
        logits = self.mixblock.mask_logits(pair.forget_features, pair.retain_features, pair.share)
        return ops.mask_mix(pair.forget, pair.retain, logits), mask_statistics(logits.detach(), pair.share)

    def train_generator(self, pair: Pair, targets: Tensor) -> dict[str, Tensor]:
        """Move MixBlock towards mixes that the network, held fixed, takes for something else than the retain image.

        Beside its loss, the negative cross entropy, stands that of plain mixup of the same pairs with the same shares.
        """
        with held_fixed(self.model):
            mixed, _ = self.mix(pair)
            loss = -F.cross_entropy(self.model(mixed), targets)
            descend(self.generator_optimizer, loss)
            with torch.no_grad():
                vanilla = -F.cross_entropy(self.model(mixup(pair.forget, pair.retain, pair.share)), targets)
        return {"generator": loss.detach(), "generator_vanilla": vanilla}

    def _features(self, side: str, batch: Batch, count: int) -> Tensor | None:
        """Return the initial model's feature maps of the first images of a batch."""
        if self.mixblock is None:
            return None
        if side in self.features:
            (found,) = self.features[side](batch.indices[:count])
            return found
        with torch.no_grad():
            return self.extract(batch.images[:count])[1]
