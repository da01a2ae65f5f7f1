"""Near copies of samples to forget, by perceptual hash: the same picture in another size, format or crop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pymixunlearn.data import Dataset, ImageSet
from pymixunlearn.data.optional import require
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.request.inputs import MAX_DISTANCE
from pymixunlearn.tasks.known_samples import ids_at, parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

HASH_SIDE = 16
"""The perceptual hash has the square of it in bits."""
_AT_ONCE = 256


class CopyPair(NamedTuple):
    """A sample to forget, and an image that looks like it.

    Attributes:
        sample: Id of the sample.
        copy: Index of the other in its part.
        name: Its id.
        part: "train", "test" or "validation".
        flipped: Whether it is closer to the mirror image.
        distance: In how many bits the hashes differ; None where only the embeddings are near.
        similarity: Cosine similarity of the whitened embeddings; None where only the hashes are near.
    """

    sample: str
    copy: int
    name: str
    part: str
    flipped: bool
    distance: int | None = None
    similarity: float | None = None


def near_copies(
    dataset: Dataset, found: Mapping[str, set[int]], *, observer: Observer | None = None, limit: int = MAX_DISTANCE
) -> Iterator[CopyPair]:
    """Yield the images that look like one of the samples, the nearest sample for each.

    Args:
        dataset: The data.
        found: The samples, as indices by part; they are no copies of each other.
        observer: Receives the progress as the phase "copies".
        limit: Most bits in which the hashes differ.

    Raises:
        UserError: ImageHash is missing.
    """
    watcher = Observer() if observer is None else observer
    parts = parts_of(dataset)
    chosen = {part: torch.tensor(sorted(indices), dtype=torch.int64) for part, indices in found.items() if indices}
    names = [name for part, indices in chosen.items() for name in ids_at(parts[part], indices)]
    if not names:
        return
    total = sum(len(images) for images in parts.values())
    watcher.phase_started("copies", total)
    wanted = np.concatenate([hashes(parts[part].subset(indices)) for part, indices in chosen.items()])
    mirrored = np.concatenate([hashes(parts[part].subset(indices), flip=True) for part, indices in chosen.items()])
    done = 0
    for part, images in parts.items():
        every = hashes(images)
        taken = found.get(part, set())
        for index, own in enumerate(every):
            if index % _AT_ONCE == 0:
                watcher.phase_advanced("copies", done + index)
            if index in taken:
                continue
            plain, turned = (np.count_nonzero(those != own, axis=1) for those in (wanted, mirrored))
            flipped = bool(turned.min() < plain.min())
            distances = turned if flipped else plain
            nearest = int(distances.argmin())
            if distances[nearest] <= limit:
                name = ids_at(images, torch.tensor([index]))[0]
                yield CopyPair(names[nearest], index, name, part, flipped, distance=int(distances[nearest]))
        done += len(images)
    watcher.phase_finished("copies", f"{total} images compared")


def both_ways(by_hash: Iterable[CopyPair], by_embeddings: Iterable[CopyPair]) -> list[CopyPair]:
    """Return the pairs of both checks, those that both found once, with distance and similarity."""
    pairs = {(pair.part, pair.copy): pair for pair in by_hash}
    for pair in by_embeddings:
        known = pairs.get((pair.part, pair.copy))
        if known is None:
            pairs[pair.part, pair.copy] = pair
        elif known.sample == pair.sample:
            pairs[pair.part, pair.copy] = known._replace(similarity=pair.similarity)
    return list(pairs.values())


def hashes(images: ImageSet, *, flip: bool = False) -> NDArray[np.bool_]:
    """Return the perceptual hash (pHash) of each image, ``[N, HASH_SIDE ** 2]``; ``flip`` takes the mirror images.

    Raises:
        UserError: ImageHash is missing.
    """
    imagehash: Any = require(
        "imagehash", purpose="--check-copies", remedy="install it: pip install 'pymixunlearn[requests]'"
    )
    from PIL import Image

    found = []
    for batch in images.iterate(None, _AT_ONCE, "cpu"):
        stored = batch.images if batch.images.dtype == torch.uint8 else _as_bytes(batch.images)
        pixels = stored.flip(3) if flip else stored
        for image in pixels.permute(0, 2, 3, 1).numpy():
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3].copy())
            found.append(imagehash.phash(picture, hash_size=HASH_SIDE).hash.ravel())
    return np.stack(found) if found else np.zeros((0, HASH_SIDE**2), bool)


def _as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Return images of any range as bytes, each from its own darkest to its lightest value."""
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
