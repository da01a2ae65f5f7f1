"""Images that stay in their file are the images in memory, bit for bit, whatever is done with them."""

from __future__ import annotations

import gc
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pymixunlearn import data, methods, models, tasks
from pymixunlearn.data import ImageSet, Preprocess, batches, image_file, natural_images
from pymixunlearn.data import streamed as streaming
from pymixunlearn.data.image_file import hashed, map_images, write_images
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from pymixunlearn.methods import MixUnlearn

CLASSES = tuple("abcd")


def pair(folder: Path, count: int = 40) -> tuple[ImageSet, StreamedImageSet]:
    """The same noise in memory and in a file."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=stream)
    targets = torch.randint(4, (count,), generator=stream)
    path = folder / "images.safetensors"
    write_images(path, map(hashed, images.numpy()), tuple(images.shape), [str(number) for number in range(count)])
    mapped = map_images(path)
    assert mapped is not None and mapped.names[-1] == str(count - 1)
    return ImageSet(images, targets, CLASSES), StreamedImageSet(mapped.images, targets, CLASSES)


def _prefetching() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"seed": 3, "augment": True}], ids=str)
def test_batches_are_the_same(options: dict[str, int], tmp_path: Path) -> None:
    held, streamed = pair(tmp_path)
    indices = torch.tensor([5, 2, 39, 7, 11, 30, 31])
    for one, other in ((held, streamed), (held.subset(indices), streamed.subset(indices))):
        assert len(one) == len(other)
        ours, theirs = (
            list(batches(images, natural_images(), batch_size=3, device="cpu", **options))  # type: ignore[arg-type]
            for images in (one, other)
        )
        assert len(ours) == len(theirs) == -(-len(one) // 3)
        for mine, yours in zip(ours, theirs, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, yours, strict=True) if a is not None and b is not None)


def test_sets_made_of_it_are_the_same(tmp_path: Path) -> None:
    held, streamed = pair(tmp_path)
    first, second = torch.tensor([9, 4, 1, 30]), torch.tensor([1, 0])
    relabelled = (held.targets + 1) % 4
    for one, other in (
        (held, streamed),
        (held.subset(first), streamed.subset(first)),
        (held.subset(first).subset(second), streamed.subset(first).subset(second)),
        (held.with_targets(relabelled), streamed.with_targets(relabelled)),
    ):
        assert isinstance(other, StreamedImageSet) and other.to("cpu") is other
        assert one.fingerprint() == other.fingerprint()
        blind = other.unlabelled()
        assert torch.equal(one.gather(second), blind.gather(second)) and len(blind) == len(one)
        assert torch.equal(one.subset(second).images, blind.subset(second).gather(torch.arange(2)))
        assert torch.equal(one.gather(second), other.gather(second))
    assert list(batches(streamed.subset(torch.arange(0)), Preprocess(), batch_size=4, device="cpu", seed=0)) == []


def test_iterating_in_part_leaves_no_thread_behind(tmp_path: Path) -> None:
    _, streamed = pair(tmp_path)
    before = _prefetching()
    iterator = batches(streamed, Preprocess(), batch_size=1, device="cpu", seed=0)
    next(iterator)
    assert _prefetching() == before + 1
    del iterator
    gc.collect()
    assert _prefetching() == before


def test_a_read_that_fails_is_an_error_in_the_step_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, streamed = pair(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(streaming, "_read", broken)
    with pytest.raises(OSError, match="input/output error"):
        next(batches(streamed, Preprocess(), batch_size=4, device="cpu", seed=0))


def test_unlearning_from_a_file_gives_the_same_model(tmp_path: Path) -> None:
    model = models.build("cnn", num_classes=4, in_channels=3, image_size=8)
    methods_used = (MixUnlearn(epochs=2, batch_size=4), methods.get("laf")(epochs=1, batch_size=4))
    for preprocess, method in itertools.product((Preprocess(), natural_images()), methods_used):
        states = []
        for images in pair(tmp_path):
            split = tasks.index_split(data.Dataset("noise", images, images, preprocess), range(12))
            states.append(method.unlearn(model, split, device="cpu").model.state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    held, streamed = pair(tmp_path)
    with pytest.raises(UserError, match="streamed images must be uint8 on cpu, got torch.float32"):
        StreamedImageSet(held.images.float(), held.targets, CLASSES)
    with pytest.raises(UserError, match=r"targets must be int64 of shape \[40\]"):
        StreamedImageSet(streamed.images, held.targets[:3], CLASSES)
    with pytest.raises(UserError, match="targets must lie in 0..3"):
        streamed.with_targets(held.targets + 1)
    whole = (tmp_path / "images.safetensors").read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        (tmp_path / "images.safetensors").write_bytes(damaged)
        assert map_images(tmp_path / "images.safetensors") is None


@pytest.mark.parametrize("count", [1, 7])
def test_every_image_is_hashed(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "_HASHED_AT_ONCE", 12)  # one or two images at once
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 3, 2, 2)
    path = tmp_path / "images.safetensors"
    write_images(path, map(hashed, images), images.shape, [""] * count)
    mapped = map_images(path)
    assert mapped is not None and np.array_equal(mapped.images.numpy(), images)
    whole = path.read_bytes()
    for image in range(count):
        damaged = bytearray(whole)
        damaged[len(whole) - images.nbytes + 12 * image] ^= 1
        path.write_bytes(damaged)
        assert map_images(path) is None


@pytest.mark.cuda
def test_batches_come_to_the_gpu(tmp_path: Path) -> None:
    held, streamed = pair(tmp_path)
    ours, theirs = (
        list(batches(images, natural_images(), batch_size=16, device="cuda", seed=1, augment=True))
        for images in (held.to("cuda"), streamed)
    )
    for mine, yours in zip(ours, theirs, strict=True):
        assert yours.images.is_cuda and torch.equal(mine.images, yours.images)
        assert torch.equal(mine.indices, yours.indices)
