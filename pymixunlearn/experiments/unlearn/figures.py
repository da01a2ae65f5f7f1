"""The pictures of a run, drawn at its end from the models and their predictions, and saved in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn import ops
from pymixunlearn.data import ImageSet
from pymixunlearn.evaluation import Acceptance, Metrics
from pymixunlearn.evaluation.distances import forget_and_unseen_densities
from pymixunlearn.evaluation.representations import representations
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.models.modes import evaluating
from pymixunlearn.nn.mixblock import MixBlock
from pymixunlearn.reporting import row_name
from pymixunlearn.reporting.pictures import (
    Compared,
    Picture,
    draw_accuracies,
    draw_confusion_change,
    draw_curves,
    draw_densities,
    draw_margins,
    draw_mixes,
    draw_representations,
    draw_thumbnails,
)
from pymixunlearn.seeding import derive_seed, generator
from pymixunlearn.tasks import Split

PICTURES = "pictures"
"""The folder of pictures in a run folder."""

THUMBNAILS = 24
MIXES = 5
MIX_RATIO = 0.5
TSNE_FORGET, TSNE_RETAIN = 400, 1100
"""Samples in a t-SNE at most: more would make blots of points, and minutes of work."""


@dataclass(frozen=True)
class Figures:
    """Figures of a run.

    Attributes:
        split: The data.
        networks: "initial", "unlearned" and, if there is one, "retrain".
        metrics: What :func:`evaluate` returned of each.
        acceptance: What the acceptance test found of each; empty where it was not made.
        history: The records of ``history.csv``.
        generator: The mixer that the method trained, if any.
        feature_layer: The layer that it looks at; None finds one.
        device: Where to compute.
        seed: Fixes which samples are shown.
    """

    split: Split
    networks: Mapping[str, nn.Module]
    metrics: Mapping[str, Metrics]
    acceptance: Mapping[str, Acceptance]
    history: Sequence[Mapping[str, Any]]
    generator: nn.Module | None
    feature_layer: str | None
    device: torch.device
    seed: int

    def draw(self, run: Path, observer: Observer, *, tsne: bool, thumbnails: bool, png: bool = False) -> None:
        """Draw every picture anew into an unfinished run, which may hold some of other models."""
        observer.phase_started("pictures", None)
        shutil.rmtree(run / PICTURES, ignore_errors=True)
        self.save(run / PICTURES, tsne=tsne, thumbnails=thumbnails, png=png)
        observer.phase_finished("pictures", f"{len(list((run / PICTURES).glob('*.svg')))}")

    def save(self, folder: Path, *, tsne: bool, thumbnails: bool, png: bool = False) -> None:
        """Draw every picture into ``folder``: those with images of the data only with ``thumbnails``."""
        for picture in self._pictures(tsne=tsne, thumbnails=thumbnails):
            picture.save(folder, png=png)

    def _pictures(self, *, tsne: bool, thumbnails: bool) -> Iterator[Picture]:
        if thumbnails:
            yield draw_thumbnails(self.split.forget.gather(self._draw(len(self.split.forget), THUMBNAILS, "forget")))
        compared = {row_name(model): _margins(test) for model, test in self.acceptance.items() if test.margins}
        if compared:
            yield draw_margins(compared)
        predictions = {row_name(model): found.predictions for model, found in self.metrics.items()}
        yield draw_densities(
            {
                name: None if found is None else forget_and_unseen_densities(found, seed=self.seed)
                for name, found in predictions.items()
            }
        )
        yield from self._by_class()
        if tsne:
            yield from self._representations()
        if thumbnails and isinstance(self.generator, MixBlock):
            yield draw_mixes(*self._mixes(self.generator))
        yield from draw_curves(self.history)

    def _by_class(self) -> Iterator[Picture]:
        names = self.split.train.classes
        per_class: dict[str, Any] = {
            row_name(model): found.details["per_class"] for model, found in self.metrics.items()
        }
        yield draw_accuracies(per_class, names, self.split.forget_classes)
        confusion: dict[str, Any] = {name: found.details.get("confusion") for name, found in self.metrics.items()}
        if confusion["initial"] is not None:
            yield draw_confusion_change(confusion["initial"], confusion["unlearned"], names)

    def _representations(self) -> Iterator[Picture]:
        split = self.split
        images, forgotten = tsne_samples(split, self.seed)
        for name, network in self.networks.items():
            seen = representations(network.to(self.device), images, split.preprocess, device=self.device)
            seed = derive_seed(self.seed, "tsne")
            yield draw_representations(
                row_name(name), seen, images.targets.cpu(), forgotten, split.train.classes, seed=seed
            )

    @torch.no_grad()
    def _mixes(self, mixer: MixBlock) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix a few images half and half: forget and retain images, masks and mixes, as :func:`draw_mixes` wants them.

        The generator looks at the inputs of the network, and what it mixes is shown on the scale of the images.
        """
        split, initial = self.split, self.networks["initial"].to(self.device)
        count = min(MIXES, len(split.forget), len(split.retain))
        sides = []
        for name, images in (("forget", split.forget), ("retain", split.retain)):
            stored = images.gather(self._draw(len(images), count, f"mix-{name}")).to(self.device)
            sides.append((stored, split.preprocess.evaluation(stored)))
        layer = self.feature_layer or find_feature_layer(initial, sides[0][1])
        with FeatureExtractor(initial, layer) as extract, evaluating(initial):
            forget, retain = (extract(inputs)[1] for _, inputs in sides)
        logits = mixer.to(self.device).mask_logits(forget, retain, MIX_RATIO)
        shown = [F.interpolate(_unit(stored), size=sides[0][1].shape[-2:], mode="bilinear") for stored, _ in sides]
        mixed = ops.mask_mix(shown[0], shown[1], logits)
        # A white and a black image mix to the mask itself, exactly as it is enlarged for the images.
        blank = torch.zeros_like(mixed[:, :1])
        masks = ops.mask_mix(blank + 1, blank, logits)[:, 0]
        return shown[0].cpu(), shown[1].cpu(), masks.cpu(), mixed.cpu()

    def _draw(self, available: int, count: int, what: str) -> Tensor:
        return _draw(available, count, self.seed, what)


def tsne_samples(split: Split, seed: int) -> tuple[ImageSet, Tensor]:
    """Return the training images that a t-SNE shows, drawn by ``seed``, and which of them are forgotten, bool [N]."""
    forget = split.forget_indices[_draw(len(split.forget_indices), TSNE_FORGET, seed, "tsne-forget")]
    retain = split.retain_indices[_draw(len(split.retain_indices), TSNE_RETAIN, seed, "tsne-retain")]
    images = split.train.subset(torch.cat([forget, retain]))
    return images, torch.arange(len(images)) < len(forget)


def _draw(available: int, count: int, seed: int, what: str) -> Tensor:
    order = torch.randperm(available, generator=generator(seed, "figures", what))
    return order[:count].sort().values


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _margins(test: Acceptance) -> tuple[Compared, Compared]:
    """Return what the picture of the acceptance test shows of a model: both parts."""
    assert test.margins is not None and test.ks is not None and test.ks_resurfaced is not None
    assert test.bound is not None
    at_once, after = test.margins
    return Compared(*at_once, test.ks, test.bound), Compared(*after, test.ks_resurfaced, test.bound)
