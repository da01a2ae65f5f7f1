"""MixUnlearn at the speed of the hardware: the steps of :mod:`.step`, with less to do and less to wait for.

Nothing of the method is written twice. What differs from the plain loop is how its parts are run:

- f_D's outputs are computed once per sample and cached, as long as images come without random augmentation;
- networks run in the memory layout that suits the device, compiled on request;
- on a GPU, what a step does is recorded as CUDA graphs: one prepares the samples, one takes the generator's step, which
  comes every few steps only, and one the unlearner's. The functions recorded are the ones a CPU runs.

Random streams are the plain loop's, so that the two agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import Batch, shuffled, stored_batches
from pymixunlearn.data.image_set import StoredBatch
from pymixunlearn.methods.mixunlearn.step import SIDES, MixUnlearnLoop, Samples, Side
from pymixunlearn.methods.mixunlearn.teacher_cache import TeacherCache, TeacherOutput
from pymixunlearn.parallel import dividing
from pymixunlearn.training.execution import Execution
from pymixunlearn.training.graphs import GraphedStep

LOOK_AHEAD = 8
"""Steps whose samples f_D sees together."""

_MEGABYTE = 2**20


class FastMixUnlearnLoop(MixUnlearnLoop):
    """The plain loop's networks, losses, optimisers and steps, run fast."""

    def setup(self) -> None:
        """Set up as the plain loop does, and settle how everything is run."""
        config = self.config
        self.execution = Execution(self.device, channels_last=config.channels_last, compile=config.compile)
        record = config.cuda_graphs and not dividing()  # what processes tell one another is not recorded
        self.capturable = self.device.type == "cuda" and record
        super().setup()
        self.execution.arrange(self.initial, self.model, self.adversary, example=self.example)
        pairs = config.batch_size ** (1 if config.pairing == "zip" else 2)
        self._full = {pairs, 2 * config.batch_size + pairs * config.use_mix_loss}  # images per forward pass
        self.caches: dict[Side, TeacherCache] = {}
        self._epochs_loaded: dict[Side, int] = dict.fromkeys(SIDES, -self.warmup_epochs)
        if self.uses_teacher and not self.preprocess.augments:
            self._make_caches()
        self._prepare = GraphedStep(self._prepare_stored, self.device, record=record)
        self._generator_step = GraphedStep(super().train_generator, self.device, record=record)
        self._unlearner_step = GraphedStep(super().train_unlearner, self.device, record=record)
        # They hold methods of this loop: a circle, which would keep graphs and outputs on the device for a while.
        for recorded in (self._prepare, self._generator_step, self._unlearner_step):
            self.closing.callback(recorded.close)
        self.closing.callback(self.caches.clear)

    def _make_caches(self) -> None:
        """Make room for f_D's outputs: first for the smaller set's, all of which every epoch needs."""
        budget = self.config.cache_mb * _MEGABYTE
        for side in sorted(SIDES, key=lambda side: len(self.sets[side])):
            self.caches[side] = TeacherCache(
                self.teacher,
                self.sets[side],
                self.preprocess,
                device=self.device,
                budget=budget,
                window=LOOK_AHEAD * self.config.batch_size,
                most=self.steps_per_epoch * self.config.batch_size * (self.epochs + self.warmup_epochs),
            )
            budget -= self.caches[side].cached_bytes

    # How networks are run

    @torch.no_grad()
    def teacher(self, images: Tensor) -> TeacherOutput:
        """Return f_D's logits and features, computed in the settled layout."""
        return super().teacher(self.execution.inputs(images))

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return a network's logits, computed in the settled layout."""
        return self.execution.run(network, images, compiled=len(images) in self._full)

    # What is recorded: functions of tensors alone

    def samples(self, epoch: int) -> Iterator[tuple[Samples, Samples]]:
        """Yield the forget and the retain samples of every step."""
        forget, retain = (zip(self._stored(side, epoch), self._cached(side, epoch), strict=False) for side in SIDES)
        for (forget_batch, forget_indices), (retain_batch, retain_indices) in zip(forget, retain, strict=False):
            yield self._prepare(forget_batch, forget_indices, retain_batch, retain_indices)

    def train_generator(self, forget: Samples, retain: Samples, lam: Tensor) -> dict[str, Tensor]:
        """Eq. 3, as in the plain loop."""
        return {} if self.generator_optimizer is None else self._generator_step(forget, retain, lam)

    def train_unlearner(
        self, forget: Samples, retain: Samples, lam: Tensor, partners: Tensor | None
    ) -> dict[str, Tensor]:
        """Eq. 7, as in the plain loop."""
        return self._unlearner_step(forget, retain, lam, partners)

    def _prepare_stored(
        self, forget: StoredBatch, forget_indices: Tensor | None, retain: StoredBatch, retain_indices: Tensor | None
    ) -> tuple[Samples, Samples]:
        """Preprocess a batch of each set and find its targets and features."""
        if forget_indices is None or retain_indices is None:
            return self.prepare(self._preprocessed(forget), self._preprocessed(retain))
        return self._recall("forget", forget, forget_indices), self._recall("retain", retain, retain_indices)

    # Where samples come from

    def _stored(self, side: Side, epoch: int) -> Iterator[StoredBatch]:
        return stored_batches(**self.sampling(side, epoch))

    def _cached(self, side: Side, epoch: int) -> Iterator[Tensor | None]:
        """Yield, step by step, the indices of f_D's outputs for a side's samples in its cache; None without a cache."""
        if not self.caches:
            yield from [None] * self.steps_per_epoch
            return
        # A resumed run computes in the batches of the interrupted one: in others, outputs would round differently.
        for earlier in range(self._epochs_loaded[side], epoch):
            for ahead in self._windows(side, earlier):
                self.caches[side].load(ahead)
        self._epochs_loaded[side] = epoch + 1
        for ahead in self._windows(side, epoch):
            yield from torch.split(self.caches[side].load(ahead), self.config.batch_size)

    def _windows(self, side: Side, epoch: int) -> tuple[Tensor, ...]:
        """Return the samples that an epoch uses of a set, in order, for ``LOOK_AHEAD`` steps at a time."""
        size = self.config.batch_size
        used = min(map(len, self.sets.values())) if self.config.pairing == "zip" else size * self.steps_per_epoch
        order = shuffled(len(self.sets[side]), self.sampling(side, epoch)["seed"])[:used]
        return torch.split(order, LOOK_AHEAD * size)

    def _preprocessed(self, batch: StoredBatch) -> Batch:
        return Batch(self.preprocess.augmented(batch.images, batch.uniform), batch.targets, batch.indices)

    def _recall(self, side: Side, batch: StoredBatch, indices: Tensor) -> Samples:
        """Return the samples of a batch; a zip's last one may be cut to the length of ``indices``."""
        known = self.caches[side].read(indices)
        inputs = self.preprocess.evaluation(batch.images[: len(indices)])
        target = known.logits if batch.targets is None else batch.targets[: len(indices)]
        return Samples(inputs, target, known.features)
