"""MixUnlearn, "Adversarial Mixup Unlearning" (ICLR 2025): the method this package is about.

A generator mixes forget images with retain images so that the unlearner gives the forgotten away; the unlearner
learns not to, on the mixes (Eq. 5) and on the images themselves (Eq. 6). This file is the readable reference: one
method per equation, in the order of a training step. :mod:`.mixunlearn_fast` runs the same equations at speed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pymixunlearn import ops
from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import Job, Means, Method, Outcome, held_fixed, register, setting
from pymixunlearn.methods.config import StepConfig
from pymixunlearn.methods.loop import check_logits, finite
from pymixunlearn.methods.stopping import StoppingConfig
from pymixunlearn.methods.view import Images
from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.nn import GeneratorLoss, MixBlock, MixContrastiveLoss, RealContrastiveLoss, mixup
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.frozen import Observed
from pymixunlearn.training.loop import StateDict, StepDone, run_epochs
from pymixunlearn.training.optimizers import load_optimizer

NAME = "mixunlearn"

Side = Literal["forget", "retain"]
SIDES: tuple[Side, Side] = ("forget", "retain")


@dataclass(frozen=True)
class MixUnlearnConfig(StepConfig, StoppingConfig):
    """Settings of :class:`MixUnlearn`; the defaults are the paper's where it gives one."""

    label_aware: bool = setting(False, "targets are the labels (Eq. 4); otherwise the sharpened initial model")
    pairing: Literal["zip", "grid"] = setting("zip", "mix forget n with retain n, or every forget with every retain")
    epochs: int = setting(20, "passes over the smaller of forget and retain set", low=1)
    batch_size: int = setting(32, "images of each set per step", low=1)
    lr: float = setting(5e-5, "learning rate of the unlearner (Adam)", above=0)
    alpha: float = setting(0.75, "the mixing ratio is drawn from Beta(alpha, alpha)", above=0)
    tau_gen: float = setting(0.5, "temperature of the generator's loss (Eq. 3)", above=0)
    tau_mix: float = setting(10.0, "temperature of the unlearner's loss on mixes (Eq. 5)", above=0)
    tau_real: float = setting(5.0, "temperature of the unlearner's loss on real images (Eq. 6)", above=0)
    omega: float = setting(10.0, "weight of the loss on real images (Eq. 7)", low=0)
    sharpen_T: float = setting(0.3, "temperature that sharpens the initial model's answers (Eq. 8)", above=0)
    generator_lr: float = setting(1e-3, "learning rate of the generator (Adam)", above=0)
    generator_interval: int = setting(4, "steps from one generator update to the next", low=1)
    adversary: Literal["current", "ema"] = setting("current", "the generator attacks the unlearner or its average")
    ema_momentum: float = setting(0.999, "momentum of that average", low=0, below=1)
    generator: Literal["mixblock", "vanilla"] = setting("mixblock", "learnt mixing, or plain mixup (ablation)")
    use_mix_loss: bool = setting(True, "train on mixes (ablation when false)")
    use_real_loss: bool = setting(True, "train on real images (ablation when false)")
    sharpen: bool = setting(True, "sharpen the initial model's answers (ablation when false)")
    reduction: Literal["sum", "mean"] = setting("sum", "sum over the retain images of a batch, or mean")
    feature_layer: str | None = setting(None, "layer whose output MixBlock sees; none finds one")

    def __post_init__(self) -> None:
        """Check every field, and that some loss is left."""
        super().__post_init__()
        if not (self.use_mix_loss or self.use_real_loss):
            raise UserError("use_mix_loss and use_real_loss are both false; expected at least one loss to train with")


@register
class MixUnlearn(Method):
    """Unlearn with adversarial mixes of forget and retain images; needs no labels unless ``label_aware`` is set."""

    name = NAME
    summary = "adversarial mixup unlearning: a generator mixes forget and retain images against the unlearner"
    config_class = MixUnlearnConfig
    config: MixUnlearnConfig

    @property
    def needs_labels(self) -> bool:
        """True in the label-aware variant only."""
        return self.config.label_aware

    def _run(self, job: Job) -> Outcome:
        # Imported here: the fast loop is built on the plain one below.
        from pymixunlearn.methods.mixunlearn_fast import FastMixUnlearnLoop

        with (FastMixUnlearnLoop if self.config.fast else MixUnlearnLoop)(self.config, job) as loop:
            history = run_epochs(
                NAME,
                self.config.epochs,
                loop.steps_per_epoch,
                loop.run_epoch,
                state=loop.state,
                load_state=loop.load_state,
                callbacks=job.callbacks,
                resume=job.resume,
                stop=job.stop,
            )
        return Outcome(loop.unlearner, history, self.config, loop.mixblock)


class Samples(NamedTuple):
    """A batch of forget or of retain samples and what the losses and the generator need to know of them."""

    images: Tensor  # [N, C, H, W]
    target: Tensor  # p(x): labels [N] int64, or the initial model's logits [N, classes]
    features: Tensor | None  # h_D(x): [N, C', h, w]; None when nothing looks at them

    def take(self, index: Tensor) -> Samples:
        """Return the samples in another order, each with its own target and features."""
        features = None if self.features is None else self.features[index]
        return Samples(self.images[index], self.target[index], features)


class MixUnlearnLoop:
    """The networks, losses and optimisers of one run, and the steps over them.

    Args:
        config: The settings.
        job: The model to change, the split, the device and the seed.

    Raises:
        UserError: The model's logits do not fit the split, nothing in it can be trained, or no feature layer is found.
    """

    capturable = False
    """Whether the optimisers' steps are going to be recorded in a CUDA graph, and so count on the device."""

    def __init__(self, config: MixUnlearnConfig, job: Job) -> None:
        """Set everything up on the job's device."""
        self.config = config
        self.device, self.seed = job.device, job.seed
        self.preprocess = job.split.preprocess
        split, device = job.split, job.device
        self.sets: dict[Side, Images] = {"forget": split.forget.to(device), "retain": split.retain.to(device)}
        smaller = min(map(len, self.sets.values()))
        self.steps_per_epoch = -(-smaller // config.batch_size)
        self.closing = ExitStack()

        # f_U starts as f_D; f_D itself stays frozen, as teacher (Eq. 4) and feature extractor (Eq. 2).
        self.unlearner = job.model.train()
        self.initial = copy.deepcopy(job.model).eval().requires_grad_(False)
        first = torch.zeros(1, dtype=torch.int64)
        example = self.preprocess.evaluation(self.sets["retain"].gather(first).to(device))
        check_logits(self.initial(example), job.split.num_classes)
        self.mixblock = self._make_mixblock(example)
        self.adversary = self.unlearner
        if config.adversary == "ema" and self.mixblock is not None:
            self.adversary = copy.deepcopy(self.initial)

        # Labels are directions already; the teacher's logits are softened inside the loss.
        T = None if config.label_aware else config.sharpen_T if config.sharpen else 1.0
        self.mix_loss = MixContrastiveLoss(config.tau_mix, config.pairing, config.reduction, sharpen_T=T)
        self.real_loss = RealContrastiveLoss(config.tau_real, config.reduction, sharpen_T=T)
        self.generator_loss = GeneratorLoss(config.tau_gen, config.pairing, config.reduction, sharpen_T=T)

        trainable = [parameter for parameter in self.unlearner.parameters() if parameter.requires_grad]
        if not trainable:
            raise UserError("model has no trainable parameters: all of them have requires_grad=False")
        self.optimizer = self._adam(trainable, config.lr)
        self.generator_optimizer = None
        if self.mixblock is not None:
            self.generator_optimizer = self._adam(list(self.mixblock.parameters()), config.generator_lr)

    def _adam(self, parameters: list[nn.Parameter], lr: float) -> torch.optim.Adam:
        # Fused: one pass over all weights instead of ten.
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr=lr, fused=fused, capturable=self.capturable)

    def _make_mixblock(self, example: Tensor) -> MixBlock | None:
        if not self.config.use_mix_loss or self.config.generator == "vanilla":
            return None
        layer = self.config.feature_layer or find_feature_layer(self.initial, example)
        self.extract = self.closing.enter_context(FeatureExtractor(self.initial, layer))
        return MixBlock(self.extract.channels(example), seed=derive_seed(self.seed, NAME)).to(self.device)

    def __enter__(self) -> MixUnlearnLoop:
        """Return the loop itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the hook off the initial model."""
        self.closing.close()

    # One epoch

    def run_epoch(self, epoch: int, step_done: StepDone) -> dict[str, float]:
        """Walk both sets side by side until the smaller one ends; return the means of losses and mask."""
        means = Means()
        lam = self._draw_lam(epoch)
        shuffle = generator(self.seed, NAME, "pairs", epoch, device=self.device)
        with seeded_layers(self.device, self.seed, NAME, "layers", epoch):
            for step, (forget, retain) in enumerate(self.samples(epoch)):
                if (epoch * self.steps_per_epoch + step) % self.config.generator_interval == 0:
                    means.add(**self.train_generator(forget, retain, lam[step, 0]))
                partners = self._draw_partners(len(retain.images), shuffle)
                means.add(**self.train_unlearner(forget, retain, lam[step, 1], partners))
                if step_done():
                    break
        return finite(means.read(), epoch)

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
            yield self.observe(forget, retain)

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

    def observe(self, forget: Batch, retain: Batch) -> tuple[Samples, Samples]:
        """Return both batches with their targets p(x) (Eq. 4) and features h_D(x): one forward of the initial model."""
        x_f, x_r = forget.images, retain.images
        if self.config.pairing == "zip":  # the last batch of the smaller set may be the shorter one
            x_f, x_r = x_f[: len(x_r)], x_r[: len(x_f)]
        n = len(x_f)
        target, features = self.teach(torch.cat([x_f, x_r])) if self.asks_teacher else (None, None)
        if self.config.label_aware:
            assert forget.targets is not None and retain.targets is not None
            target = torch.cat([forget.targets[:n], retain.targets[: len(x_r)]])
        assert target is not None  # without labels the teacher was asked
        h_f, h_r = (None, None) if features is None else (features[:n], features[n:])
        return Samples(x_f, target[:n], h_f), Samples(x_r, target[n:], h_r)

    @property
    def asks_teacher(self) -> bool:
        """Whether f_D is asked at all: by MixBlock for features, or by the losses for targets."""
        return self.mixblock is not None or not self.config.label_aware

    @torch.no_grad()
    def teach(self, images: Tensor) -> Observed:
        """Return f_D's logits, and the features h_D where a generator looks at them, for ``images`` [N, C, H, W]."""
        return Observed(self.initial(images), None) if self.mixblock is None else Observed(*self.extract(images))

    def answer(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a network's logits [N, classes] for ``images`` [N, C, H, W]."""
        logits: Tensor = network(images)
        return logits

    def mix(self, forget: Samples, retain: Samples, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixes x_mix = g(x_i, x_j, lam) (Eqs. 1, 2) and the mean share of the forget images in them."""
        pairing = self.config.pairing
        if self.mixblock is None:
            return mixup(forget.images, retain.images, lam, pairing), lam
        assert forget.features is not None and retain.features is not None
        mask_logits = self.mixblock.mask_logits(forget.features, retain.features, lam, pairing)
        mixed = ops.mask_mix(forget.images, retain.images, mask_logits, pairing=pairing)
        return mixed, torch.sigmoid(mask_logits.detach()).mean()

    def train_generator(self, forget: Samples, retain: Samples, lam: Tensor) -> dict[str, Tensor]:
        """Eq. 3: move MixBlock towards mixes in which the adversary, held fixed, reveals the forget samples."""
        if self.generator_optimizer is None:
            return {}
        with held_fixed(self.adversary):
            mixed, _ = self.mix(forget, retain, lam)
            logits = self._by_pair(self.answer(self.adversary, mixed), forget, retain)
            loss = self.generator_loss(logits, forget.target, retain.target, lam)
            self.generator_optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
        self.generator_optimizer.step()
        return {"generator": loss.detach()}

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
                mixed, seen["mask"] = self.mix(forget, partner, lam)
            images.append(mixed)

        # One forward for all: BatchNorm must normalise mixed and real images by the same statistics.
        logits = self.answer(self.unlearner, torch.cat(images))
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
        if self.adversary is self.unlearner:
            return
        averaged: list[Tensor] = [*self.adversary.parameters()]
        current: list[Tensor] = [*self.unlearner.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - self.config.ema_momentum)
        for buffer, source in zip(self.adversary.buffers(), self.unlearner.buffers(), strict=True):
            buffer.copy_(source)

    # Snapshots

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that changes from epoch to epoch."""
        parts: dict[str, nn.Module | torch.optim.Optimizer | None] = {
            "unlearner": self.unlearner,
            "optimizer": self.optimizer,
            "mixblock": self.mixblock,
            "generator_optimizer": self.generator_optimizer,
            "adversary": None if self.adversary is self.unlearner else self.adversary,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state(self) -> StateDict:
        """Return the state of all parts, by name."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state(self, state: StateDict) -> None:
        """Put back what :meth:`state` returned; a state of differently set up parts raises ``UserError``."""
        parts = self._parts()
        if set(parts) != set(state):
            raise UserError(f"resume holds {', '.join(sorted(state))}; expected {', '.join(sorted(parts))}")
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
