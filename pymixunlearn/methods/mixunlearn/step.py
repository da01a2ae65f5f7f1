"""MixUnlearn, "Adversarial Mixup Unlearning" (ICLR 2025): the method this package is about.

A generator mixes forget images with retain images so that the unlearner gives the forgotten away; the unlearner
learns not to, on the mixes (Eq. 5) and on the images themselves (Eq. 6). This file is the readable reference: one
method per equation, in the order of a training step. :mod:`.fast` runs the same equations at speed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pymixunlearn import ops
from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import MethodOutput, held_fixed
from pymixunlearn.methods.loop import Loop, Measured, Stage
from pymixunlearn.methods.mixunlearn.config import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.teacher_cache import TeacherOutput
from pymixunlearn.methods.view import Images
from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.nn import GeneratorLoss, MixBlock, MixContrastiveLoss, RealContrastiveLoss
from pymixunlearn.nn.mixblock import mixup
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.optimizers import Adam

NAME = "mixunlearn"

Side = Literal["forget", "retain"]
SIDES: tuple[Side, Side] = ("forget", "retain")


class Samples(NamedTuple):
    """A batch of forget or of retain samples and what the losses and the generator need to know of them."""

    images: Tensor  # [N, C, H, W]
    target: Tensor  # p(x): labels [N] int64, or the initial model's logits [N, classes]
    features: Tensor | None  # h_D(x): [N, C', h, w]; None when nothing needs them

    def take(self, index: Tensor) -> Samples:
        """Return the samples in another order, each with its own target and features."""
        features = None if self.features is None else self.features[index]
        return Samples(self.images[index], self.target[index], features)


class MixUnlearnLoop(Loop[MixUnlearnConfig]):
    """The networks, losses and optimisers of one run, and the steps over them. ``model`` is the unlearner f_U.

    Raises:
        UserError: In :meth:`begin`: the model's logits do not fit the split, nothing in it can be trained, or no
            feature layer is found.
    """

    name = NAME
    config_class = MixUnlearnConfig
    capturable = False
    """Whether the optimisers' steps are going to be recorded in a CUDA graph, and so count on the device."""

    def resolve(self, model: nn.Module) -> MixUnlearnConfig:
        """Return the settings with those of the network and the generator's learning rate filled in."""
        config = super().resolve(model)
        if config.generator_lr is not None:
            return config
        return config.replace(generator_lr=1e-2 if config.generator == "mixblock-lam" else 1e-3)

    def setup(self) -> None:
        """Make the teacher, the generator, the adversary, the losses and the optimisers."""
        config = self.config
        self.sets: dict[Side, Images] = {"forget": self.forget_set, "retain": self.retain_set}
        smaller = min(map(len, self.sets.values()))
        self.steps_per_epoch = -(-smaller // config.batch_size)

        # f_U starts as f_D; f_D itself stays frozen, as teacher (Eq. 4) and feature extractor (Eq. 2).
        self.initial = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.mixblock = self._make_mixblock()
        self.adversary = self.model
        if config.adversary == "ema" and self.mixblock is not None:
            self.adversary = copy.deepcopy(self.initial)

        # Labels are directions already; the teacher's logits are softened inside the loss.
        T = None if config.label_aware else config.sharpen_T if config.sharpen else 1.0
        self.mix_loss = MixContrastiveLoss(config.tau_mix, config.pairing, config.reduction, sharpen_T=T)
        self.real_loss = RealContrastiveLoss(config.tau_real, config.reduction, sharpen_T=T)
        self.generator_loss = GeneratorLoss(config.tau_gen, config.pairing, config.reduction, sharpen_T=T)

        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not trainable:
            raise UserError("model has no trainable parameters: all of them have requires_grad=False")
        assert config.lr is not None and config.epochs is not None  # resolved
        self.epochs = config.epochs
        self.optimizer = self.parts["optimizer"] = self._adam(trainable, config.lr)
        self.generator_optimizer = None
        if self.mixblock is not None:
            assert config.generator_lr is not None  # resolved
            self.generator_optimizer = self._adam(list(self.mixblock.parameters()), config.generator_lr)
            self.parts.update(mixblock=self.mixblock, generator_optimizer=self.generator_optimizer)
        if self.adversary is not self.model:
            self.parts["adversary"] = self.adversary

    def _adam(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Adam:
        # Fused: one pass over all weights instead of ten.
        fused = self.device.type in ("cpu", "cuda")
        return Adam(parameters, lr=lr, fused=fused, capturable=self.capturable)

    def _make_mixblock(self) -> MixBlock | None:
        if not self.config.use_mix_loss or self.config.generator == "vanilla":
            return None
        layer = self.config.feature_layer or find_feature_layer(self.initial, self.example)
        self.extract = self.closing.enter_context(FeatureExtractor(self.initial, layer))
        form: dict[str, Any] = {"normalize": "layer", "share": "lam"} if self.config.generator == "mixblock-lam" else {}
        channels = self.extract.channels(self.example)
        return MixBlock(channels, **form, seed=derive_seed(self.seed, NAME)).to(self.device)

    @property
    def warmup_epochs(self) -> int:
        """Passes before the first in which the generator alone is trained; they have negative numbers in streams."""
        return self.config.generator_warmup if self.generator_optimizer is not None else 0

    def stages(self) -> list[Stage]:
        """Return passes over both sets side by side until the smaller one ends, the generator's own ones first."""
        warmup, steps = self.warmup_epochs, self.steps_per_epoch
        first = [Stage(warmup, steps, lambda index: self.warm_up(index - warmup), "warm_up")] if warmup else []
        return [*first, Stage(self.epochs, steps, lambda index: self.epoch(index - warmup))]

    def output(self, history: list[dict[str, float]]) -> MethodOutput:
        """Return the unlearner, and the generator beside it."""
        return super().output(history)._replace(generator=self.mixblock)

    # One epoch

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Take the steps of an epoch, the generator's every few of them only."""
        lam = self._draw_lam(epoch)
        shuffle = generator(self.seed, NAME, "pairs", epoch, device=self.device)
        for step, (forget, retain) in enumerate(self.samples(epoch)):
            if (epoch * self.steps_per_epoch + step) % self.config.generator_interval == 0:
                self.means.add(**self.train_generator(forget, retain, lam[step, 0]))
            partners = self._draw_partners(len(retain.images), shuffle)
            yield self.train_unlearner(forget, retain, lam[step, 1], partners)

    def warm_up(self, epoch: int) -> Iterator[Measured]:
        """Train the generator alone, against f_U as it still is: f_D."""
        lam = self._draw_lam(epoch)
        for step, (forget, retain) in enumerate(self.samples(epoch)):
            yield self.train_generator(forget, retain, lam[step, 0])

    def _draw_lam(self, epoch: int) -> Tensor:
        """Draw lam ~ Beta(alpha, alpha) for every step: [steps, 2], for the generator's and the unlearner's mixes."""
        draw = random.Random(derive_seed(self.seed, NAME, "lam", epoch)).betavariate
        alpha = self.config.alpha
        rows = [[draw(alpha, alpha), draw(alpha, alpha)] for _ in range(self.steps_per_epoch)]
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def _draw_partners(self, count: int, shuffle: torch.Generator) -> Tensor | None:
        """Draw which retain sample each forget sample of a zip is mixed with: others than in the generator's mixes."""
        if not self.config.use_mix_loss or self.config.pairing == "grid":
            return None
        return torch.randperm(count, generator=shuffle, device=self.device)

    def samples(self, epoch: int) -> Iterator[tuple[Samples, Samples]]:
        """Yield the forget and the retain samples of every step."""
        for forget, retain in zip(*(batches(**self.sampling(side, epoch)) for side in SIDES), strict=False):
            yield self.prepare(forget, retain)

    def sampling(self, side: Side, epoch: int) -> dict[str, Any]:
        """Return the arguments of :func:`batches` for one side of an epoch."""
        return {
            "images": self.sets[side],
            "preprocess": self.preprocess,
            "batch_size": self.config.batch_size,
            "device": self.device,
            "seed": derive_seed(self.seed, NAME, side, epoch),
            "augment": True,
            "labels": self.config.label_aware,
        }

    # One step

    def prepare(self, forget: Batch, retain: Batch) -> tuple[Samples, Samples]:
        """Return both batches with their targets p(x) (Eq. 4) and features h_D(x): one forward of the initial model."""
        x_f, x_r = forget.images, retain.images
        if self.config.pairing == "zip":  # the last batch of the smaller set may be the shorter one
            x_f, x_r = x_f[: len(x_r)], x_r[: len(x_f)]
        n = len(x_f)
        target, features = self.teacher(torch.cat([x_f, x_r])) if self.uses_teacher else (None, None)
        if self.config.label_aware:
            assert forget.targets is not None and retain.targets is not None
            target = torch.cat([forget.targets[:n], retain.targets[: len(x_r)]])
        assert target is not None  # without labels the teacher gives them
        h_f, h_r = (None, None) if features is None else (features[:n], features[n:])
        return Samples(x_f, target[:n], h_f), Samples(x_r, target[n:], h_r)

    @property
    def uses_teacher(self) -> bool:
        """Whether anything needs f_D: MixBlock its features, or the losses its logits as targets."""
        return self.mixblock is not None or not self.config.label_aware

    @torch.no_grad()
    def teacher(self, images: Tensor) -> TeacherOutput:
        """Return f_D's logits, and the features h_D where a generator needs them, for ``images`` [N, C, H, W]."""
        return (
            TeacherOutput(self.initial(images), None) if self.mixblock is None else TeacherOutput(*self.extract(images))
        )

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a network's logits [N, classes] for ``images`` [N, C, H, W]."""
        found: Tensor = network(images)
        return found

    def mix(self, forget: Samples, retain: Samples, lam: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mixes x_mix = g(x_i, x_j, lam) (Eqs. 1, 2), and what their masks are like."""
        pairing = self.config.pairing
        if self.mixblock is None:
            return mixup(forget.images, retain.images, lam, pairing), {"mask": lam}
        assert forget.features is not None and retain.features is not None
        mask_logits = self.mixblock.mask_logits(forget.features, retain.features, lam, pairing)
        mixed = ops.mask_mix(forget.images, retain.images, mask_logits, pairing=pairing)
        return mixed, mask_statistics(mask_logits.detach(), lam)

    def train_generator(self, forget: Samples, retain: Samples, lam: Tensor) -> dict[str, Tensor]:
        """Eq. 3: move MixBlock towards mixes in which the adversary, held fixed, reveals the forget samples.

        Beside its loss stands that of plain mixup of the same pairs at the same ratio: what the masks are worth.
        """
        if self.generator_optimizer is None:
            return {}
        with held_fixed(self.adversary):
            mixed, _ = self.mix(forget, retain, lam)
            logits = self._by_pair(self.logits(self.adversary, mixed), forget, retain)
            loss = self.generator_loss(logits, forget.target, retain.target, lam)
            self.generator_optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            with torch.no_grad():
                plain = mixup(forget.images, retain.images, lam, self.config.pairing)
                logits = self._by_pair(self.logits(self.adversary, plain), forget, retain)
                vanilla = self.generator_loss(logits, forget.target, retain.target, lam)
        self.generator_optimizer.step()
        return {"generator": loss.detach(), "generator_vanilla": vanilla}

    def train_unlearner(
        self, forget: Samples, retain: Samples, lam: Tensor, partners: Tensor | None
    ) -> dict[str, Tensor]:
        """Eq. 7: one Adam step on L_mix + omega L_real; in zip, forget n is mixed with retain ``partners[n]`` [N]."""
        seen: dict[str, Tensor] = {}
        images = [forget.images, retain.images]
        if self.config.use_mix_loss:
            # Targets go along with their images.
            partner = retain if partners is None else retain.take(partners)
            with torch.no_grad():
                mixed, masks = self.mix(forget, partner, lam)
            seen.update(masks)
            images.append(mixed)

        # One forward for all: BatchNorm must normalise mixed and real images by the same statistics.
        logits = self.logits(self.model, torch.cat(images))
        z_f, z_r, *z_mix = torch.split(logits, [len(part) for part in images])

        if self.config.use_mix_loss:
            z = self._by_pair(z_mix[0], forget, retain)
            seen["mix"] = self.mix_loss(z, forget.target, partner.target, lam)
        if self.config.use_real_loss:
            seen["real"] = self.real_loss(z_f, z_r, forget.target, retain.target)
        loss = seen.get("mix", 0.0) + self.config.omega * seen.get("real", 0.0)
        assert isinstance(loss, Tensor)
        seen["total"] = loss

        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._update_average()
        return {name: value.detach() for name, value in seen.items()}

    def _by_pair(self, logits: Tensor, forget: Samples, retain: Samples) -> Tensor:
        """Return the logits of the mixes as the losses want them: [N, C] in zip, [N_f, N_r, C] in grid pairing."""
        if self.config.pairing == "zip":
            return logits
        return logits.reshape(len(forget.images), len(retain.images), -1)

    @torch.no_grad()
    def _update_average(self) -> None:
        """Let the averaged adversary, if there is one, follow the unlearner; its statistics are simply copied."""
        if self.adversary is self.model:
            return
        averaged: list[Tensor] = [*self.adversary.parameters()]
        current: list[Tensor] = [*self.model.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - self.config.ema_momentum)
        for buffer, source in zip(self.adversary.buffers(), self.model.buffers(), strict=True):
            buffer.copy_(source)


def mask_statistics(mask_logits: Tensor, lam: Tensor) -> dict[str, Tensor]:
    """Return what masks [P, h, w], given as logits, are like at feature resolution.

    Returns:
        Four 0-d tensors: "mask", the mean share of the forget images; "mask_error", by how much a mask's mean differs
        from ``lam``, the mean over masks; "mask_within", the standard deviation inside a mask, the mean over masks;
        "mask_between", that between the masks at one position, the mean over positions.
    """
    masks = torch.sigmoid(mask_logits).flatten(1)
    return {
        "mask": masks.mean(),
        "mask_error": (masks.mean(1) - lam).abs().mean(),
        "mask_within": masks.std(1, correction=0).mean(),
        "mask_between": masks.std(0, correction=0).mean(),
    }
