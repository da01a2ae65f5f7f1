from __future__ import annotations

import pytest
import torch

from pymixunlearn.data import ImageSet, Preprocess, batches
from pymixunlearn.errors import UserError


def numbered(count: int = 10) -> ImageSet:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return ImageSet(images, torch.arange(count) % 5, tuple("abcde"))


def test_in_order_with_a_smaller_last_batch() -> None:
    taken = list(batches(numbered(), Preprocess(), batch_size=4, device="cpu"))
    assert [len(batch.images) for batch in taken] == [4, 4, 2]
    assert torch.cat([batch.indices for batch in taken]).tolist() == list(range(10))
    for batch in taken:
        assert torch.equal(batch.images[:, 0, 0, 0], batch.indices / 255)
        assert batch.targets is not None and torch.equal(batch.targets, batch.indices % 5)


def test_shuffled_by_the_seed_alone() -> None:
    def indices_of(seed: int) -> list[int]:
        taken = list(batches(numbered(100), Preprocess(), batch_size=32, device="cpu", seed=seed))
        for batch in taken:
            assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.indices)
            assert batch.targets is not None and torch.equal(batch.targets, batch.indices % 5)
        return torch.cat([batch.indices for batch in taken]).tolist()

    torch.manual_seed(0)
    first = indices_of(3)
    torch.manual_seed(1)
    assert indices_of(3) == first
    assert indices_of(4) != first
    assert sorted(first) == list(range(100)) != first


def test_augmentation_is_drawn_from_the_seed_and_leaves_the_order_alone() -> None:
    images = ImageSet(torch.rand(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64), ("a",))
    transform = Preprocess(random_crop=True, flip=True)

    def run(augment: bool, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
        taken = list(batches(images, transform, batch_size=16, device="cpu", seed=seed, augment=augment))
        return torch.cat([batch.images for batch in taken]), torch.cat([batch.indices for batch in taken])

    plain, indices = run(augment=False)
    augmented, augmented_indices = run(augment=True)
    assert torch.equal(indices, augmented_indices)
    assert torch.equal(plain, images.images[indices])
    assert not torch.equal(plain, augmented)
    assert torch.equal(run(augment=True)[0], augmented)


def test_without_labels_there_are_none_to_see() -> None:
    assert all(
        batch.targets is None for batch in batches(numbered(), Preprocess(), batch_size=4, device="cpu", labels=False)
    )


def test_an_empty_set_has_no_batches() -> None:
    empty = numbered().subset(torch.arange(0))
    assert list(batches(empty, Preprocess(), batch_size=4, device="cpu", seed=0)) == []


def test_mistakes_show_at_the_call_and_not_at_the_first_batch() -> None:
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        batches(numbered(), Preprocess(), batch_size=0, device="cpu")
    with pytest.raises(UserError, match="augment=True needs a seed"):
        batches(numbered(), Preprocess(), batch_size=1, device="cpu", augment=True)


@pytest.mark.cuda
def test_batches_lie_on_the_device() -> None:
    images = numbered(40).to("cuda")
    transform = Preprocess(size=8, random_crop=True, flip=True)
    first, second = (
        list(batches(images, transform, batch_size=16, device="cuda", seed=1, augment=True)) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.images.is_cuda and one.indices.is_cuda and one.targets is not None and one.targets.is_cuda
        assert torch.equal(one.images, other.images)
    assert images.fingerprint() == numbered(40).fingerprint()
