"""Unrolling: take back, in one addition, the gradients that D_f contributed to the training.

Thudi, Deza, Chandrasekaran, Papernot, "Unrolling SGD: Understanding Factors Influencing Machine Unlearning", EuroS&P
2022. Training with SGD from theta_0 adds -eta grad of every batch; to first order the share of D_f is eta times the
gradients of its batches, once per epoch. The paper trains the model that unlearns with a regulariser, which makes this
first order more exact: with ``std_weight`` the method has a network of its own, trained so.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pymixunlearn.data import TrainingSet
from pymixunlearn.data.batches import Batch
from pymixunlearn.methods.base import MethodOutput, Preparation, UnlearnJob
from pymixunlearn.methods.config import OURS, setting
from pymixunlearn.methods.loop import ORIGINAL, Loop, LoopConfig, Measured, Stage, cross_entropy
from pymixunlearn.methods.parts import Facts, Tensors
from pymixunlearn.methods.registry import method
from pymixunlearn.methods.view import labelled, together
from pymixunlearn.models.autocast import carry_precision
from pymixunlearn.seeding import derive_seed
from pymixunlearn.training.cache import training_key
from pymixunlearn.training.fit import fit
from pymixunlearn.training.fresh import fresh_weights
from pymixunlearn.training.supervised import TrainResult

_HESSIAN_IMAGES = 256


@dataclass(frozen=True)
class UnrollConfig(LoopConfig):
    """Settings of :class:`Unroll`; those left at none are those of the initial model's training.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.UnrollConfig.from_mapping({"batch_size": "7"}).batch_size
        7
    """

    source = "the training to unroll"

    point: Literal["trained", "start"] = setting(
        "trained",
        "where the gradients are taken: the model itself, or theta_0, the weights its training started from",
        source=OURS,
    )
    lr: float | None = setting(None, "eta: learning rate of the training to unroll; cnn 1e-3, resnet18 5e-5", above=0)
    train_epochs: int | None = setting(None, "E: its epochs; cnn 10, resnet18 20", low=1)
    batch_size: int = setting(32, "its images per step", low=1)
    std_weight: float = setting(
        0.0,
        "above 0: train a network of the method's own on all data, with this weight of the paper's regulariser, and "
        "forget from that one; the released code's 1 is 1 / classes here",
        low=0,
        source=OURS,
    )
    power_iterations: int = setting(
        10, "start: steps towards the Hessian's largest eigenvalue, for the error", low=0, source=OURS
    )


@method("unroll", summary="adds back the gradients of the forgotten data, as if training had not taken them")
class Unroll(Loop[UnrollConfig]):
    """Unrolled SGD, to first order; needs the forget set's labels.

    Args:
        config: The settings; None takes the defaults.
        start: For ``point="start"``: theta_0. None builds the weights that ``mixunlearn-cli`` trains from with the same
            seed; for a model that was trained elsewhere they are not its own, and the result means nothing.
        **fields: Single settings.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.Unroll(point="start").config.power_iterations
        10
    """

    config_class = UnrollConfig

    def __init__(self, config: UnrollConfig | None = None, *, start: nn.Module | None = None, **fields: Any) -> None:
        """Check the settings."""
        super().__init__(config, **fields)
        self._start = start
        self.original = Facts()

    @property
    def reads_recipe(self) -> bool:
        """True: the training that is unrolled is the initial model's."""
        return True

    def _run(self, job: UnlearnJob) -> MethodOutput:
        if not self.config.std_weight:
            return super()._run(job)
        run = copy.copy(self)
        run.original = Facts()
        if job.resume is None or job.resume.get("name") == ORIGINAL:
            trained = self._train_regularised(job)
            run.original.update(seconds=trained.seconds, history=trained.history)
            job.model.load_state_dict(trained.model.state_dict())
            job = replace(job, resume=None)
        done = super(Unroll, run)._run(job)
        return done._replace(preparation=Preparation(run.original["seconds"], run.original["history"]))

    def _train_regularised(self, job: UnlearnJob) -> TrainResult:
        """Train fresh weights on all data with the regulariser, otherwise as the initial model; or find them stored."""
        config = job.recipe.initial.replaced({"std_weight": self.config.std_weight, "precision": self.config.precision})
        network = fresh_weights(copy.deepcopy(job.model), derive_seed(job.seed, "initial"), keep_frozen=True)
        images = TrainingSet(labelled(together(job.split.forget, job.split.retain)))
        given: dict[str, Any] = {"device": job.device, "seed": derive_seed(job.seed, self.name)}
        key = training_key(network, images, job.split.preprocess, config, **given)
        known = None if job.store is None else job.store.get(key, into=copy.deepcopy(network))
        if known is not None:
            return TrainResult(known.model.to(job.device), known.seconds, known.history)
        trained = fit(
            network,
            images,
            job.split.preprocess,
            config,
            **given,
            callbacks=job.callbacks,
            resume=job.resume,
            name=ORIGINAL,
        )
        if job.store is not None:
            job.store.put(key, trained)
        return trained

    def setup(self) -> None:
        """Fill in the training's settings, and make the network whose gradients are taken."""
        training = self.job.recipe.initial
        self.config = replace(
            self.config, lr=self.config.lr or training.lr, train_epochs=self.config.train_epochs or training.epochs
        )
        self.parts["original"] = self.original
        self.checkpoint = copy.deepcopy(self.model)
        if self.config.point == "start":
            start = self._start
            if start is None:
                start = fresh_weights(self.checkpoint, derive_seed(self.seed, "initial"), keep_frozen=True)
            self.checkpoint = copy.deepcopy(start).to(self.device).train()
            carry_precision(self.model, self.checkpoint)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        pairs = zip(self.checkpoint.parameters(), self.model.parameters(), strict=True)
        self.points = [point.requires_grad_() for point, weight in pairs if weight.requires_grad]
        self.sums = self.parts["sums"] = Tensors(
            {str(index): torch.zeros_like(weight) for index, weight in enumerate(self.weights)}
        )

    def stages(self) -> list[Stage]:
        """Return one pass over D_f."""
        return [Stage(1, self.steps(self.forget_set), self.epoch)]

    def epoch(self, epoch: int) -> Iterator[Measured]:
        """Sum the gradients over D_f, and add them back."""
        error = self.verification_error() if self.config.point == "start" and self.config.power_iterations else {}
        for forget in self.forget_batches(epoch):
            yield {**self.add_gradient(forget), **error}
        self.add_back()

    def add_gradient(self, forget: Batch) -> Measured:
        """Sum the gradients of CE at the checkpoint, which itself stays as it is."""
        loss = cross_entropy(self.checkpoint(forget.images), forget)
        gradients = torch.autograd.grad(loss, self.points, materialize_grads=True)
        for total, gradient in zip(self.sums.values(), gradients, strict=True):
            total += gradient
        return {"forget": loss}

    @torch.no_grad()
    def add_back(self) -> None:
        """Theta = theta_T + eta E Sum_b grad CE(batch b of D_f; checkpoint)."""
        assert self.config.lr is not None and self.config.train_epochs is not None
        for weight, total in zip(self.weights, self.sums.values(), strict=True):
            weight.add_(total, alpha=self.config.lr * self.config.train_epochs)

    def verification_error(self) -> Measured:
        """eta^2 (T - 1) / 2 |theta_T - theta_0| sqrt(lambda_max): how far the result is from Retrain, to first order.

        T counts the steps of the training; lambda_max is the largest eigenvalue of the Hessian of CE on one batch of
        training images at theta_T, by power iteration.
        """
        assert self.config.lr is not None and self.config.train_epochs is not None
        steps = self.config.train_epochs * math.ceil(
            (len(self.forget_set) + len(self.retain_set)) / self.config.batch_size
        )
        moved = [now.detach() - start.detach() for now, start in zip(self.weights, self.points, strict=True)]
        batch = next(self.batches(together(self.forget_set, self.retain_set), "hessian", batch_size=_HESSIAN_IMAGES))
        loss = cross_entropy(self.model.eval()(batch.images), batch)
        gradients = torch.autograd.grad(loss, self.weights, create_graph=True, materialize_grads=True)
        # Weights that the forward pass leaves out have a gradient of zeros without a graph.
        used = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        direction = moved
        for _ in range(self.config.power_iterations):
            direction = [part / _norm(direction) for part in direction]
            product = torch.autograd.grad(
                [gradients[index] for index in used],
                self.weights,
                grad_outputs=[direction[index] for index in used],
                retain_graph=True,
                materialize_grads=True,
            )
            direction = [part.detach() for part in product]
        self.model.train()
        largest = _norm(direction)
        eta = self.config.lr
        return {"verification_error": eta**2 * (steps - 1) / 2 * _norm(moved) * largest.sqrt()}


def _norm(parts: list[Tensor]) -> Tensor:
    """The Euclidean norm of all parts together."""
    return torch.stack([part.square().sum() for part in parts]).sum().sqrt()
