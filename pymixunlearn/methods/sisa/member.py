"""Member of an ensemble: a network, what it has to learn, and a step of that.

An epoch of a network depends on its weights, its samples and its seed alone, so that it makes no difference which
others are trained before it, or where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.methods.loop import descend
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.training.cache import ModelStore
from pymixunlearn.training.device import seeded_layers
from pymixunlearn.training.loop import StateDict, copied
from pymixunlearn.training.optimizers import make_optimizer
from pymixunlearn.training.supervised import TrainConfig, TrainResult, drops_lone_image


class Mix(NamedTuple):
    """What each sample of a phase is mixed with, int64 [n], and how much of it remains, lambda in [0, 1], [n]."""

    partners: Tensor
    lam: Tensor


@dataclass(frozen=True)
class Phase:
    """Some epochs of one network on the same samples, with an optimiser of their own.

    Attributes:
        samples: int64 [n], indices into the training set.
        epochs: How many times to go through them.
        seed: Fixes order, augmentation and layers.
        mix: Train on mixes of the samples with others instead.
        key: What determines the network at the end of the phase, if it is to be stored.
        save: Whether the member is to copy its weights there.
    """

    samples: Tensor
    epochs: int
    seed: int
    mix: Mix | None = None
    key: Mapping[str, Any] | None = None
    save: bool = False


@dataclass(frozen=True)
class TrainingSetup:
    """What the training of all networks has in common.

    Attributes:
        images: The training set, on ``device``.
        preprocess: What turns stored images into network inputs.
        training: Optimiser, learning rate and batch size; its epochs are the phases'.
        device: Where to train.
    """

    images: ImageSet
    preprocess: Preprocess
    training: TrainConfig
    device: torch.device

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of one phase of ``network``."""
        config = self.training
        return make_optimizer(
            network, config.optimizer, config.lr, weight_decay=config.weight_decay, momentum=config.momentum
        )

    def steps(self, network: nn.Module, phase: Phase) -> int:
        """Return how many steps an epoch of ``phase`` has."""
        count, size = len(phase.samples), self.training.batch_size
        return -(-count // size) - drops_lone_image(network, count, size)

    def epoch(self, network: nn.Module, optimizer: torch.optim.Optimizer, phase: Phase, epoch: int) -> Iterator[Tensor]:
        """Train ``network`` for one epoch of ``phase``, yielding the loss after each step."""
        network.train()
        samples, size = self.images.subset(phase.samples), self.training.batch_size
        lone = drops_lone_image(network, len(samples), size)
        order = derive_seed(phase.seed, "batches", epoch)
        chance = generator(phase.seed, "partners", epoch, device=self.device)
        every = batches(samples, self.preprocess, batch_size=size, device=self.device, seed=order, augment=True)
        # Once per epoch, so that no step on images in memory waits for the device to tell its samples.
        mix = None if phase.mix is None else Mix(*(part.to(self.device) for part in phase.mix))
        with seeded_layers(self.device, phase.seed, "layers", epoch):
            for batch in every:
                if lone and len(batch.images) == 1:
                    continue
                yield self.step(network, optimizer, batch, mix, chance)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        mix: Mix | None = None,
        chance: torch.Generator | None = None,
    ) -> Tensor:
        """Mean cross entropy; of mixes lam x + (1 - lam) x', the targets are lam y + (1 - lam) y'."""
        images, targets = batch.images, batch.targets
        assert targets is not None  # the set is labelled
        if mix is not None:
            assert chance is not None
            partners, lam = mix.partners[batch.indices], mix.lam[batch.indices].to(images.dtype)
            beside = self.preprocess.training(self.images.gather(partners).to(self.device), chance)
            labels = self.images.targets[partners.to(self.images.targets.device)].to(self.device)
            y, y_beside = (F.one_hot(of, self.images.num_classes).to(images.dtype) for of in (targets, labels))
            images = lam[:, None, None, None] * images + (1 - lam[:, None, None, None]) * beside
            targets = lam[:, None] * y + (1 - lam[:, None]) * y_beside
        loss = F.cross_entropy(network(images), targets)
        descend(optimizer, loss)
        return loss.detach()


class Member:
    """One network of an ensemble, and what it has to learn; a part of a loop that snapshots include.

    Args:
        network: On the setup's device.
        phases: In order; none for a network that stays as it is.
        setup: What they have in common.
        seconds: What its training took so far.

    Attributes:
        saved: The weights at the end of a phase that saves them, and the seconds up to there.
    """

    def __init__(self, network: nn.Module, phases: Sequence[Phase], setup: TrainingSetup, seconds: float = 0.0) -> None:
        """Start with an optimiser for the first phase."""
        self.network, self.phases, self.seconds = network, list(phases), seconds
        self.saved: StateDict | None = None
        self.history: list[dict[str, float]] = []
        self._setup = setup
        self._turns = [(phase, epoch) for phase in self.phases for epoch in range(phase.epochs)]
        self.optimizer: torch.optim.Optimizer | None = None

    @property
    def epochs(self) -> int:
        """How many epochs all phases have."""
        return len(self._turns)

    def turn(self, epoch: int) -> tuple[Phase, int]:
        """Return the phase that the epoch (from 0) is in, and its index there; a new phase gets a new optimiser."""
        phase, index = self._turns[epoch]
        if index == 0 or self.optimizer is None:
            self.optimizer, self.history = self._setup.optimizer(self.network), []
        return phase, index

    def steps(self, epoch: int) -> int:
        """Return how many steps the epoch has; 0 after the last."""
        return self._setup.steps(self.network, self._turns[epoch][0]) if epoch < self.epochs else 0

    def note(self, losses: Tensor, seconds: float) -> None:
        """Add the losses [steps] of an epoch, and what it took, to the history."""
        self.seconds += seconds
        self.history.append({"loss": losses.double().mean().item(), "seconds": seconds})

    def end(self, epoch: int, store: ModelStore | None) -> None:
        """Store and copy the weights if the epoch was the last of a phase that saves them."""
        phase, index = self._turns[epoch]
        if index < phase.epochs - 1:
            return
        if phase.save:
            self.save()
        # A diverged training is about to end in an error: nobody should go on from it.
        if store is not None and phase.key is not None and math.isfinite(self.history[-1]["loss"]):
            store.put(phase.key, TrainResult(self.network, self.seconds, self.history))

    def save(self) -> None:
        """Copy the weights as they are."""
        self.saved = {"network": copied(self.network.state_dict()), "seconds": self.seconds}

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "network": self.network.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "saved": self.saved,
            "seconds": self.seconds,
            "history": self.history,
        }

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Put the state back."""
        self.network.load_state_dict(state_dict["network"])
        if state_dict["optimizer"] is not None:
            self.optimizer = self._setup.optimizer(self.network)
            self.optimizer.load_state_dict(state_dict["optimizer"])
        self.saved, self.seconds = state_dict["saved"], state_dict["seconds"]
        self.history = [dict(record) for record in state_dict["history"]]
