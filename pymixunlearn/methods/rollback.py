"""Rollback: a method that ruins the classes it takes samples from is stopped, and the last good state comes back.

Some images of D_r are held out, of the classes that D_f's images are of; where whole classes are forgotten, of all
others. Now and then the model classifies them. On all classes together the damage would hide: where a method trains on
labels, the other classes rise meanwhile. The image-by-image comparison is with the best look so far.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.evaluation import predict_logits
from pymixunlearn.evaluation.margin_test import alike_by_class
from pymixunlearn.methods.stopping import check_step, least_mean
from pymixunlearn.methods.view import Images, SplitView
from pymixunlearn.seeding import generator
from pymixunlearn.training.loop import StateDict, copied

WATCHED = 1000
"""Images that are held out, at most; a fifth of those that could be, at most."""

FEWEST = 50
"""With fewer held-out images a fall of a few points cannot be shown, and none are held out."""

MARGIN = 2.0
"""Points of hits that may be lost."""

CONFIDENCE = 0.95
"""One-sided, of each look; two looks running have to say so."""

_SEARCHED = 5000
_SHARE = 0.5


@dataclass(frozen=True)
class RollbackResult:
    """What the held-out images said.

    Attributes:
        rolled_back: Whether the run was ended and an earlier state put back.
        step: After how many steps the run ended.
        good_step: Whose state the result is; the same as ``step`` without a rollback.
        samples: How many images of D_r were held out.
        margin: How many points of hits might be lost.
        looks: One record per look: "step", "epoch", "seconds", "fall" (points of hits lost since the best look) and
            "fall_bound" (its lower 95 % bound).
    """

    rolled_back: bool
    step: int
    good_step: int
    samples: int
    margin: float
    looks: list[dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the earlier looks, JSON-able."""
        names = ("rolled_back", "step", "good_step", "samples", "margin")
        return {
            **{name: getattr(self, name) for name in names},
            "looks": len(self.looks),
            "seconds": sum(look["seconds"] for look in self.looks),
            "last_look": self.looks[-1] if self.looks else None,
        }

    def sentence(self) -> str | None:
        """Say in a few words that it went back; None where it did not."""
        if not self.rolled_back:
            return None
        lost = self.looks[-1]
        return (
            f"went back from step {self.step} to step {self.good_step}: {self.samples} held-out images had lost "
            f"{lost['fall']:.1f} points (at least {lost['fall_bound']:.1f}, {self.margin:.1f} allowed)"
        )


class Rollback:
    """Ends a loop that loses held-out images, and puts the last good state back: a loop's ``Stop``.

    A hit is a prediction that is the image's label or, without labels, that of the initial model.

    Args:
        model: The initial model, which the method goes on to change in place.
        split: What to forget and what to retain.
        held_out: int64 indices into ``split.retain`` of the images to watch, from :func:`choose_held_out`.
        margin: How many points of hits may be lost.
        device: Where ``model`` is.

    Attributes:
        last_stage: After how many steps the last stage begins; the looks begin there.
    """

    def __init__(
        self, model: nn.Module, split: SplitView, held_out: Tensor, margin: float, *, device: torch.device
    ) -> None:
        """Take the images, and the answers that count as hits."""
        self.last_stage = 0
        self._model, self._device, self._preprocess, self._margin = model, device, split.preprocess, margin
        self._images: Images = split.retain.subset(held_out).to(device)
        labels = self._images.targets.cpu() if isinstance(self._images, ImageSet) else self._predictions()
        self._targets = labels
        self._looks: list[dict[str, float]] = []
        self._best: Tensor | None = None
        self._good: StateDict = {}
        self._good_step = self._step = self._streak = 0
        self._rolled_back = False
        self._mean_length = 1.0

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Look at where the last stage starts, or go on from ``saved``; True if the run had gone back by then."""
        self._mean_length = sum(lengths) / max(len(lengths), 1)
        if saved is not None:
            self._looks = [dict(look) for look in saved["looks"]]
            self._best, self._good = saved["best"], dict(saved["good"])
            self._good_step, self._step, self._streak = saved["good_step"], saved["step"], saved["streak"]
            self._rolled_back = saved["rolled_back"]
        elif self.last_stage == 0:
            self._start(0)
        return self._rolled_back

    def after_step(self, step: int) -> bool:
        """Look, if it is time for that; True once the last good state has been put back."""
        self._step = step
        if step <= self.last_stage:
            if step == self.last_stage:
                self._start(step)
            return False
        if step - self.last_stage < check_step(len(self._looks)):
            return False
        started = time.perf_counter()
        hits = self._hits()
        assert self._best is not None  # the last stage has started
        lost = self._best.double() - hits.double()
        fall, bound = 100 * lost.mean().item(), 100 * least_mean([lost], CONFIDENCE)
        self._streak = self._streak + 1 if bound > self._margin else 0
        if self._streak == 0:
            self._keep(step)
        if hits.sum() > self._best.sum():
            self._best = hits
        if self._streak == 2:
            self._model.load_state_dict(self._good)
            self._rolled_back = True
        when = {"epoch": step / self._mean_length, "step": step, "seconds": time.perf_counter() - started}
        self._looks.append({**when, "fall": fall, "fall_bound": bound})
        return self._rolled_back

    def state(self) -> StateDict:
        """Return what :meth:`begin` takes to go on."""
        return {
            "looks": self._looks,
            "best": self._best,
            "good": self._good,
            "good_step": self._good_step,
            "step": self._step,
            "streak": self._streak,
            "rolled_back": self._rolled_back,
        }

    def result(self) -> RollbackResult:
        """Return what the held-out images said."""
        good = self._good_step if self._rolled_back else self._step
        return RollbackResult(self._rolled_back, self._step, good, len(self._images), self._margin, self._looks)

    def _start(self, step: int) -> None:
        self._best = self._hits()
        self._keep(step)

    def _keep(self, step: int) -> None:
        """Copy the state, to go back to."""
        self._good, self._good_step = copied(self._model.state_dict()), step

    def _hits(self) -> Tensor:
        return self._predictions() == self._targets

    def _predictions(self) -> Tensor:
        return predict_logits(self._model, self._images, self._preprocess, device=self._device).argmax(dim=1)


def choose_held_out(
    model: nn.Module, split: SplitView, forget_classes: Sequence[int], *, device: torch.device, seed: int
) -> Tensor:
    """Return which images of D_r to hold out: int64 indices into ``split.retain``, sorted; empty where too few are.

    They are of the classes that D_f's images are of: by the labels, or without them by the initial model's predictions,
    where a class counts whose share of D_f is at least half of its share of D_r. Where whole classes are forgotten,
    they are of all others, and what the initial model takes for a forgotten one is left out.

    Args:
        model: The initial model, on ``device``.
        split: What to forget and what to retain.
        forget_classes: The classes that are to be forgotten as a whole.
        device: Where to compute.
        seed: Fixes the draw.
    """
    order = torch.randperm(len(split.retain), generator=generator(seed, "rollback", "retain"))
    sides = {"retain": (split.retain, order), "forget": (split.forget, torch.arange(len(split.forget)))}
    classes = {}
    for name, (images, indices) in sides.items():
        if isinstance(images, ImageSet):
            classes[name] = images.targets.cpu()[indices]
            continue
        few = images.subset(indices[:_SEARCHED])
        classes[name] = predict_logits(model, few, split.preprocess, device=device).argmax(dim=1)
    if forget_classes:
        own = ~torch.isin(classes["retain"], torch.tensor(forget_classes))
    else:
        shares = {
            name: torch.bincount(found, minlength=split.num_classes) / len(found) for name, found in classes.items()
        }
        least = 0.0 if isinstance(split.forget, ImageSet) else _SHARE
        counted = (shares["forget"] > 0) & (shares["forget"] >= least * shares["retain"])
        own = counted[classes["retain"]]
    found = order[: len(own)][own]
    count = min(WATCHED, int(own.double().mean().item() * len(order)) // 5, len(found))
    return found[:count].sort().values if count >= FEWEST else torch.zeros(0, dtype=torch.int64)


def memorised(
    model: nn.Module, split: SplitView, held_out: Tensor, unseen: ImageSet, *, device: torch.device, seed: int
) -> float | None:
    """Return by how many points a model is better on held-out images, which it was trained on, than on unseen ones.

    What it memorised of them goes once they are no longer trained on: that is no harm.

    Args:
        model: The initial model, on ``device``.
        split: Labelled.
        held_out: Indices into ``split.retain``.
        unseen: Labelled images that the model was not trained on; as many as can be had are drawn to the class shares
            of the held-out images.
        device: Where to compute.
        seed: Fixes the draw.

    Returns:
        At least 0; None where a class has no unseen images.
    """
    watched = split.retain.subset(held_out)
    assert isinstance(watched, ImageSet)  # labelled
    drawn = alike_by_class(unseen.targets.cpu(), watched.targets.cpu(), seed)
    if len(drawn) == 0:
        return None
    shares = []
    for images in (watched, unseen.subset(drawn)):
        predictions = predict_logits(model, images, split.preprocess, device=device).argmax(dim=1)
        shares.append((predictions == images.targets.cpu()).double().mean().item())
    return max(0.0, 100 * (shares[0] - shares[1]))
