"""EU-k: the front part of the network stays as it is, the rest is trained anew on what remains.

After "exact unlearning of the last k layers" (Goel et al., "Towards Adversarial Evaluations for Inexact Machine
Unlearning", 2022). How much stays is chosen by the acceptance test: what a front part learnt from D_f stays in it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pymixunlearn.data.batches import Batch
from pymixunlearn.divided import whole_batch
from pymixunlearn.methods.config import setting
from pymixunlearn.methods.eu_k.cut import TRACED, Cut, Cuts, Tail, outputs
from pymixunlearn.methods.frozen_outputs import FrozenOutputs
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.search import Attempt, SearchConfig, SearchedLoop
from pymixunlearn.models.autocast import computing_as_usual
from pymixunlearn.models.normalisation import frozen_norms
from pymixunlearn.parallel import whole_batches
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.fresh import fresh_weights

FROZEN = 0.1
"""Share of the weights that stays frozen at most, at first and without a test; then at most half of what stayed before.

The memory of single samples sits in the stages behind: in a residual network and in a transformer shallower depths were
refused, and trying them costs more than it may save (``docs/measured.md``). In a network whose weights are in its last
linear layers a tenth is what comes before these.
"""

DEPTHS = 2
"""How many depths are tried before Retrain."""

FALL = 0.3
"""Share of the steps in which the learning rate falls to zero; over the others it is constant."""


@dataclass(frozen=True)
class EuKConfig(SearchConfig):
    """Settings of :class:`EuK`.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.EuKConfig.from_mapping({"frozen": "0.25"}).frozen
        0.25
    """

    frozen: float | None = setting(
        None,
        "freeze the longest front part with at most this share of the weights; none tries 0.1, at most half of what "
        "that froze, and Retrain by the acceptance test, and without a validation set takes 0.1",
        above=0,
        below=1,
    )
    cache_mb: int = setting(
        1024, "megabytes of the frozen part's outputs in memory; more are mapped from a temporary file", low=0
    )


@method("eu-k", summary="keeps the front layers and trains fresh weights behind them on the remaining data")
class EuK(SearchedLoop[EuKConfig]):
    """Fresh weights in the back part of the network, and cross entropy on the retain set, with its labels or without.

    The frozen part works in evaluation mode: its BatchNorm keeps its statistics, its dropout is off. Without random
    augmentation its outputs on D_r are computed once; with it they are computed for every batch, since they differ.

    Example:
        >>> from pymixunlearn import data, methods, models, tasks
        >>> split = tasks.class_split(data.load("digits"), [0])
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> methods.EuK(epochs=1).unlearn(model, split, device="cpu").search.kept
        'frozen up to features.relu1'
    """

    config_class = EuKConfig
    in_one_process = None

    def setup(self) -> None:
        """Find where the network can be cut."""
        self.trainable = {name: parameter.requires_grad for name, parameter in self.model.named_parameters()}
        self.closing.callback(self._release)
        self.cut: Cut | None = None
        self.tail: Tail | None = None
        self.frozen_outputs: FrozenOutputs | None = None
        indices = torch.arange(TRACED) % len(self.retain_set)
        few = self.preprocess.evaluation(self.retain_set.gather(indices).to(self.device))
        with whole_batches(), computing_as_usual(self.model):
            cuts = Cuts(self.model, few)
            self.given = cuts.deepest(self.config.frozen or FROZEN)
            self.depths = list(depths(cuts))
        super().setup()

    @property
    def fixed(self) -> bool:
        """Whether the share is given."""
        return self.config.frozen is not None

    def tries(self) -> list[Attempt]:
        """Return the depths, the one that keeps most first."""
        return [self._attempt(cut) for cut in self.depths]

    def untested(self) -> Attempt:
        """Return the given depth, or the one that serves without a test; Retrain where the network has no such cut."""
        return self.retrain() if self.given is None else self._attempt(self.given)

    def logits(self, retain: Batch) -> Tensor:
        """Return the logits [N, classes] of a batch, from the frozen outputs where there are any."""
        if self.tail is None or self.cut is None:
            return super().logits(retain)
        if self.frozen_outputs is not None:
            given = self.frozen_outputs(retain.indices)
        else:
            given = self._front(retain.images)
        with self.tail:
            return self.tail(given)

    def start(self, number: int) -> None:
        """Begin an attempt, from the initial weights."""
        self._release()
        super().start(number)

    def _attempt(self, cut: Cut) -> Attempt:
        return Attempt(f"frozen up to {cut.layer}", self.epochs, partial(self._begin, cut), rate)

    def _begin(self, cut: Cut) -> None:
        """Give what comes after the cut fresh weights, and look at D_r through what comes before it."""
        self.cut = cut
        if not self.preprocess.augments:
            self.frozen_outputs = FrozenOutputs(
                self._front,
                self.retain_set,
                self.preprocess,
                device=self.device,
                budget_mb=self.config.cache_mb,
                closing=self.closing,
            )
        fresh = fresh_weights(copy.deepcopy(self.model), derive_seed(self.seed, self.name)).to(self.device)
        # Parameters that the model's owner has frozen were not trained on D_f and are not trained here.
        renewed = {name for name in cut.fresh if self.trainable[name]}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in renewed)
        state = self.model.state_dict()
        held = tuple(f"{layer}." for layer in (*cut.skipped, cut.layer, *frozen_norms(self.model)))
        buffers = {name for name, _ in fresh.named_buffers() if not name.startswith(held)}
        taken = {name: value for name, value in fresh.state_dict().items() if name in renewed | buffers}
        self.model.load_state_dict({**state, **taken})
        self.begin_training()
        self.tail = Tail(self.model, cut, self.example.shape[1:])

    def _front(self, images: Tensor) -> list[Tensor]:
        """Return the frozen part's output, in evaluation mode."""
        assert self.cut is not None
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        with torch.no_grad():
            given = outputs(self.model, self.cut.layer, images)
        for module, mode in modes:
            module.training = mode
        return [whole_batch(self.model, part) for part in given]

    def _release(self) -> None:
        """Give back what an attempt has taken: outputs, and the parameters that it froze."""
        self.cut = self.tail = self.frozen_outputs = None
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.trainable[name])


def depths(cuts: Cuts) -> Iterator[Cut]:
    """Yield the cuts that are tried, the one that keeps most first."""
    most = FROZEN
    for _ in range(DEPTHS):
        cut = cuts.deepest(most)
        if cut is None:
            return
        yield cut
        most = cut.frozen_share / 2


def rate(step: int, steps: int) -> float:
    """Return the share of the learning rate that ``step`` (from 0) of ``steps`` has: constant, then down to 0.

    Example:
        >>> [round(rate(step, 10), 2) for step in range(10)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.67, 0.33]
    """
    return min(1.0, (steps - step) / max(1, round(FALL * steps)))
