"""Near copies of samples to forget, by the model's own feature maps: crops and turned pictures, which a hash misses.

A feature map is averaged to a small square and projected onto random directions; these embeddings are whitened, since
in a classifier's features the classes differ most and the pictures of one class hardly. Two images are compared by the
distance between them, divided by that from the sample to its tenth nearest image. Which ratio makes a copy is taken
from the data: few of the images that nobody asked for may have an image as near. ``docs/requests.md`` has what that
finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.data import Dataset, ImageSet, Preprocess, UnlabelledImages, batches
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.request.copies import CopyPair
from pymixunlearn.models import FeatureExtractor, find_feature_layer
from pymixunlearn.models.modes import evaluating
from pymixunlearn.seeding import generator
from pymixunlearn.tasks.known_samples import ids_at, parts_of

FALSE_PAIRS = 50
"""Pairs of other images that are accepted for 1000 samples."""
DIRECTIONS = 256
_SIDE = 4  # of the averaged feature map
_IMAGES_A_DIRECTION = 4  # at least: a covariance of fewer images is that of chance
_RIDGE = 0.01  # of the mean variance
_NEIGHBOUR = 10
_REFERENCES = 300
_LOWEST, _HIGHEST = 0.5, 0.95  # of the ratio; above 1 a pair would not be among the nearest
_GRID = 2.0**20  # see _units
_FORWARD = 256
_NUMBERS = 2**22  # of a block of distances


class Match(NamedTuple):
    """An image that is near a sample.

    Attributes:
        sample: Index of the sample among all images.
        other: Index of the image.
        similarity: Cosine similarity of the whitened embeddings, at most 1.
        ratio: Their distance, 1 minus the similarity, by that of the sample's tenth nearest image.
        flipped: Whether the sample's mirror image is nearer.
    """

    sample: int
    other: int
    similarity: float
    ratio: float
    flipped: bool


def embedding_copies(
    dataset: Dataset,
    found: Mapping[str, set[int]],
    model: nn.Module,
    *,
    device: torch.device | str,
    observer: Observer | None = None,
) -> list[CopyPair]:
    """Return the images that look like one of the samples, the nearest sample for each.

    Args:
        dataset: The data.
        found: The samples, as indices by part; they are no copies of each other.
        model: Maps images to logits; it must be on ``device``.
        device: Where embeddings are computed.
        observer: Receives the progress as the phase "embeddings".

    Raises:
        UserError: No layer of the model returns a feature map.
    """
    watcher = Observer() if observer is None else observer
    parts = parts_of(dataset)
    starts, total = {}, 0
    for part, images in parts.items():
        starts[part], total = total, total + len(images)
    samples = torch.tensor(sorted(starts[part] + index for part, taken in found.items() for index in taken))
    if not len(samples):
        return []
    others = torch.ones(total, dtype=torch.bool)
    others[samples] = False
    drawn = others.nonzero()[:, 0]
    drawn = drawn[torch.randperm(len(drawn), generator=generator(0, "copies", "references"))[:_REFERENCES]]
    asked = torch.cat([samples, drawn])
    watcher.phase_started("embeddings", total + len(asked))
    embed = Embedding(model, dataset.preprocess, next(iter(parts.values())), total, device)
    every, done = [], 0
    for images in parts.values():
        for block in embed(images):
            every.append(block)
            done += len(block)
            watcher.phase_advanced("embeddings", done)
    mirrored = []
    for block in torch.split(asked, _FORWARD):
        turned = torch.cat([_stored(parts, starts, int(index)) for index in block]).flip(3)
        mirrored += list(embed(UnlabelledImages(turned)))
        done += len(block)
        watcher.phase_advanced("embeddings", done)
    chosen = matches(torch.cat(every), torch.cat(mirrored), samples, drawn)
    watcher.phase_finished("embeddings", f"{total} images compared")
    pairs = []
    for match in chosen:
        (part, index), (home, own) = _place(starts, match.other), _place(starts, match.sample)
        (name,), (sample,) = ids_at(parts[part], torch.tensor([index])), ids_at(parts[home], torch.tensor([own]))
        pairs.append(CopyPair(sample, index, name, part, match.flipped, similarity=match.similarity))
    return pairs


class Embedding:
    """Embeddings of images by a model: its feature map, averaged and projected.

    Args:
        model: Maps images to logits, on ``device``.
        preprocess: What turns stored images into its inputs.
        images: Images, of which one is used to find the feature layer.
        total: How many images there are in all.
        device: Where to compute.

    Raises:
        UserError: No layer of the model returns a feature map.
    """

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, images: ImageSet, total: int, device: torch.device | str
    ) -> None:
        """Find the layer, and draw the directions."""
        self.model, self.preprocess, self.device = model, preprocess, torch.device(device)
        example = preprocess.evaluation(images.gather(torch.zeros(1, dtype=torch.int64)).to(self.device))
        try:
            self.layer = find_feature_layer(model, example)
        except UserError as error:
            raise UserError(
                f"near copies cannot be looked for by embeddings: no layer of {type(model).__name__} returns a feature "
                "map of more than one pixel; expected --check-copies without --check-embeddings"
            ) from error
        with FeatureExtractor(model, self.layer) as extract:
            numbers = extract.channels(example) * _SIDE**2
        count = max(1, min(DIRECTIONS, total // _IMAGES_A_DIRECTION))
        drawn = torch.randn(numbers, count, generator=generator(0, "copies", "directions"))
        self.directions = drawn / count**0.5

    def __call__(self, images: ImageSet | UnlabelledImages) -> Iterator[Tensor]:
        """Yield the embeddings of images, float32 ``[up to 256, D]`` on the CPU, in order."""
        with FeatureExtractor(self.model, self.layer) as extract, evaluating(self.model):
            for batch in batches(images, self.preprocess, batch_size=_FORWARD, device=self.device, labels=False):
                averaged = F.adaptive_avg_pool2d(extract(batch.images)[1].float(), _SIDE).flatten(1)
                yield averaged.cpu() @ self.directions


def matches(
    every: Tensor, mirrored: Tensor, samples: Tensor, references: Tensor, *, numbers: int = _NUMBERS
) -> list[Match]:
    """Return the images near one of the samples, the nearest sample for each, in the order of the images.

    Args:
        every: Embeddings ``[N, D]`` of all images.
        mirrored: Embeddings of the mirror images of samples and references, in this order.
        samples: Indices of the samples, int64 ``[S]``.
        references: Indices of images that nobody asked for, int64 ``[R]``, which set the threshold.
        numbers: Most distances in memory at once; it changes no result.
    """
    units, turned = _units(every, mirrored)
    asked = torch.cat([samples, references])
    plain, away = _nearest(units[asked], units, asked, numbers), _nearest(turned, units, asked, numbers)
    if not plain.similar.shape[1]:
        return []
    tenth = 1 - plain.similar[:, -1:]
    ratios = torch.cat([1 - plain.similar, 1 - away.similar], dim=1) / tenth.clamp(min=1 / _GRID)
    others = torch.cat([plain.indices, away.indices], dim=1)
    limit = threshold(ratios[len(samples) :], others[len(samples) :])
    taken, width = set(samples.tolist()), plain.similar.shape[1]
    best: dict[int, Match] = {}
    for row, column in (ratios[: len(samples)] <= limit).nonzero().tolist():
        other, ratio = int(others[row, column]), float(ratios[row, column])
        if other not in taken and (other not in best or ratio < best[other].ratio):
            similarity = min(1.0, 1 - ratio * float(tenth[row]))  # roundings can exceed 1
            best[other] = Match(int(samples[row]), other, similarity, ratio, column >= width)
    return [best[other] for other in sorted(best)]


def threshold(ratios: Tensor, others: Tensor) -> float:
    """Return the ratio that :data:`FALSE_PAIRS` pairs in 1000 images do not exceed, within fixed bounds.

    Args:
        ratios: Of images that nobody asked for, ``[R, K]``, as they are and mirrored.
        others: The images that they are of, ``[R, K]``; a pair counts once.
    """
    pairs: dict[tuple[int, int], float] = {}
    for row, column in (ratios <= _HIGHEST).nonzero().tolist():
        pair = row, int(others[row, column])
        pairs[pair] = min(pairs.get(pair, 1.0), float(ratios[row, column]))
    allowed = len(ratios) * FALSE_PAIRS // 1000
    ordered = sorted(pairs.values())
    found = ordered[allowed - 1] if 0 < allowed <= len(ordered) else _HIGHEST if allowed else _LOWEST
    return min(max(found, _LOWEST), _HIGHEST)


class _Nearest(NamedTuple):
    """Similarities ``[Q, K]``, largest first, and the indices they are of."""

    similar: Tensor
    indices: Tensor


def _nearest(queries: Tensor, units: Tensor, own: Tensor, numbers: int) -> _Nearest:
    """Return the nearest images of each query but ``own``, a block of images at a time."""
    width = max(1, numbers // max(1, len(queries)))
    similar = torch.empty(len(queries), 0, dtype=torch.float64)
    indices = torch.empty(len(queries), 0, dtype=torch.int64)
    rows = torch.arange(len(queries))
    for start in range(0, len(units), width):
        block = queries @ units[start : start + width].T / _GRID**2
        inside = (own >= start) & (own < start + width)
        block[rows[inside], own[inside] - start] = -torch.inf
        places = torch.arange(start, start + block.shape[1]).expand_as(block)
        similar, indices = torch.cat([similar, block], dim=1), torch.cat([indices, places], dim=1)
        kept = similar.sort(dim=1, descending=True, stable=True).indices[:, : min(_NEIGHBOUR, len(units) - 1)]
        similar, indices = similar.gather(1, kept), indices.gather(1, kept)
    return _Nearest(similar, indices)


def _units(every: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Return whitened embeddings as vectors of length one, rounded to whole multiples of 1 / _GRID and times it.

    Products of such numbers are whole and below 2 ** 53, so their sums are the same in every order, and pairs do not
    depend on how images are divided into blocks.
    """
    mean = every.double().mean(0)
    centred = every.double() - mean
    covariance = centred.T @ centred / max(1, len(every) - 1)
    ridge = _RIDGE * covariance.diagonal().mean().clamp(min=1e-30)
    values, vectors = torch.linalg.eigh(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
    change = vectors * values.clamp(min=1e-30).rsqrt() @ vectors.T
    return tuple(  # type: ignore[return-value]
        (F.normalize(part @ change, dim=1) * _GRID).round() for part in (centred, mirrored.double() - mean)
    )


def _place(starts: Mapping[str, int], index: int) -> tuple[str, int]:
    """Return the part and the index in it of an image by its index among all."""
    part = next(name for name in reversed(list(starts)) if starts[name] <= index)
    return part, index - starts[part]


def _stored(parts: Mapping[str, ImageSet], starts: Mapping[str, int], index: int) -> Tensor:
    """Return one stored image ``[1, C, H, W]`` by its index among all images."""
    part, own = _place(starts, index)
    return parts[part].gather(torch.tensor([own]))
