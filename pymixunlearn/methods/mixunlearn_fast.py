"""MixUnlearn at the speed of the hardware: the steps of :mod:`.mixunlearn`, with less to do and less to wait for.

Nothing of the method is written twice. What differs from the plain loop is how its parts are run:

- f_D's answers are computed once per sample and kept, as long as images come without random augmentation;
- networks run in the precision and memory layout that suit the device, compiled on request;
- on a GPU, what a step does is recorded as CUDA graphs: one to look at the samples, one for the generator's step, which
  comes every few steps only, and one for the unlearner's. The functions recorded are the ones a CPU runs.

Random streams are the plain loop's, so that the two agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import Batch, shuffled, stored_batches
from pymixunlearn.data.image_set import StoredBatch
from pymixunlearn.methods.base import Job
from pymixunlearn.methods.mixunlearn import SIDES, MixUnlearnConfig, MixUnlearnLoop, Samples, Side
from pymixunlearn.training.execution import Execution
from pymixunlearn.training.frozen import FrozenOutputs, Observed
from pymixunlearn.training.graphs import GraphedStep

LOOK_AHEAD = 8
"""Steps whose samples f_D is asked about together."""

_MEGABYTE = 2**20


class FastMixUnlearnLoop(MixUnlearnLoop):
    """The plain loop's networks, losses, optimisers and steps, run fast; the arguments are the plain loop's."""

    def __init__(self, config: MixUnlearnConfig, job: Job) -> None:
        """Set up as the plain loop does, then settle how everything is run."""
        self.execution = Execution(
            job.device, precision=config.precision, channels_last=config.channels_last, compile=config.compile
        )
        self.capturable = job.device.type == "cuda" and config.cuda_graphs
        super().__init__(config, job)
        self.execution.arrange(self.unlearner, self.initial, self.adversary)
        pairs = config.batch_size ** (1 if config.pairing == "zip" else 2)
        self._full = {pairs, 2 * config.batch_size + pairs * config.use_mix_loss}  # images per forward pass
        self.frozen: dict[Side, FrozenOutputs] = {}
        self._asked: dict[Side, int] = dict.fromkeys(SIDES, 0)  # epochs whose samples f_D was asked about
        if self.asks_teacher and not self.preprocess.augments:
            self._make_frozen()
        self._look = GraphedStep(self._look_at, self.device, record=config.cuda_graphs)
        self._attack = GraphedStep(self._attack_with, self.device, record=config.cuda_graphs)
        self._learn = GraphedStep(self._learn_from, self.device, record=config.cuda_graphs)
        # They hold methods of this loop: a circle, which would keep graphs and answers on the device for a while.
        for held in (self._look, self._attack, self._learn):
            self.closing.callback(held.close)
        self.closing.callback(self.frozen.clear)

    def _make_frozen(self) -> None:
        """Make room for f_D's outputs: first for the smaller set's, all of which every epoch needs."""
        budget = self.config.cache_mb * _MEGABYTE
        for side in sorted(SIDES, key=lambda side: len(self.sets[side])):
            self.frozen[side] = FrozenOutputs(
                self.teach,
                self.sets[side],
                self.preprocess,
                device=self.device,
                budget=budget,
                window=LOOK_AHEAD * self.config.batch_size,
                most=self.steps_per_epoch * self.config.batch_size * self.config.epochs,
            )
            budget -= self.frozen[side].kept_bytes

    # How networks are run

    @torch.no_grad()
    def teach(self, images: Tensor) -> Observed:
        """Return f_D's logits and features in the settled precision and layout."""
        with self.execution.autocast():
            return super().teach(self.execution.inputs(images)).each(self.execution.widened)

    def answer(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a network's logits in the settled precision and layout."""
        return self.execution.run(network, images, compiled=len(images) in self._full)

    # What is recorded: functions of tensors alone

    def samples(self, epoch: int) -> Iterator[tuple[Samples, Samples]]:
        """Yield the forget and the retain samples of every step."""
        forget, retain = (zip(self._stored(side, epoch), self._rows(side, epoch), strict=False) for side in SIDES)
        for (forget_batch, forget_rows), (retain_batch, retain_rows) in zip(forget, retain, strict=False):
            yield self._look(*forget_batch, forget_rows, *retain_batch, retain_rows)

    def train_generator(self, forget: Samples, retain: Samples, lam: Tensor) -> dict[str, Tensor]:
        """Eq. 3, as in the plain loop."""
        return {} if self.generator_optimizer is None else self._attack(*forget, *retain, lam)

    def train_unlearner(
        self, forget: Samples, retain: Samples, lam: Tensor, partners: Tensor | None
    ) -> dict[str, Tensor]:
        """Eq. 7, as in the plain loop."""
        return self._learn(*forget, *retain, lam, partners)

    def _look_at(self, *parts: Tensor | None) -> tuple[Samples, Samples]:
        """Preprocess a batch of each set and find its targets and features."""
        forget, retain = StoredBatch(*parts[:4]), StoredBatch(*parts[5:9])  # type: ignore[arg-type]
        if self.frozen:
            return self._recall("forget", forget, parts[4]), self._recall("retain", retain, parts[9])
        return self.observe(self._preprocessed(forget), self._preprocessed(retain))

    def _attack_with(self, *parts: Tensor | None) -> dict[str, Tensor]:
        forget, retain, (lam,) = Samples(*parts[:3]), Samples(*parts[3:6]), parts[6:]  # type: ignore[arg-type]
        return super().train_generator(forget, retain, lam)  # type: ignore[arg-type]

    def _learn_from(self, *parts: Tensor | None) -> dict[str, Tensor]:
        forget, retain, (lam, partners) = Samples(*parts[:3]), Samples(*parts[3:6]), parts[6:]  # type: ignore[arg-type]
        return super().train_unlearner(forget, retain, lam, partners)  # type: ignore[arg-type]

    # What is looked at

    def _stored(self, side: Side, epoch: int) -> Iterator[StoredBatch]:
        return stored_batches(**self.sampling(side, epoch))

    def _rows(self, side: Side, epoch: int) -> Iterator[Tensor | None]:
        """Yield, step by step, where f_D's outputs for a side's samples are kept; None where none are."""
        if not self.frozen:
            yield from [None] * self.steps_per_epoch
            return
        # A resumed run asks f_D again as the interrupted one did: in other batches it would round differently.
        for earlier in range(self._asked[side], epoch):
            for ahead in self._stretches(side, earlier):
                self.frozen[side].prepare(ahead)
        self._asked[side] = epoch + 1
        for ahead in self._stretches(side, epoch):
            yield from torch.split(self.frozen[side].prepare(ahead), self.config.batch_size)

    def _stretches(self, side: Side, epoch: int) -> tuple[Tensor, ...]:
        """Return the samples that an epoch uses of a set, in order, for ``LOOK_AHEAD`` steps at a time."""
        size = self.config.batch_size
        used = min(map(len, self.sets.values())) if self.config.pairing == "zip" else size * self.steps_per_epoch
        order = shuffled(len(self.sets[side]), self.sampling(side, epoch)["seed"])[:used]
        return torch.split(order, LOOK_AHEAD * size)

    def _preprocessed(self, batch: StoredBatch) -> Batch:
        return Batch(self.preprocess.augmented(batch.images, batch.uniform), batch.targets, batch.indices)

    def _recall(self, side: Side, batch: StoredBatch, rows: Tensor | None) -> Samples:
        """Return what is known of a batch; a zip's last one may be cut to the length of ``rows``."""
        assert rows is not None
        known = self.frozen[side].at(rows)
        inputs = self.preprocess.evaluation(batch.images[: len(rows)])
        target = known.logits if batch.targets is None else batch.targets[: len(rows)]
        return Samples(inputs, target, known.features)
