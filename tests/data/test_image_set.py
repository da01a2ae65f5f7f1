from __future__ import annotations

import pytest
import torch

from pymixunlearn.data import Dataset, ImageSet, Preprocess, from_tensors, hold_out
from pymixunlearn.errors import UserError


def some_images(count: int = 6, dtype: torch.dtype = torch.uint8) -> ImageSet:
    images = torch.arange(count * 12).remainder(256).to(dtype).view(count, 3, 2, 2)
    return ImageSet(images, torch.arange(count) % 3, ("a", "b", "c"))


def test_subset_follows_the_order_of_the_indices() -> None:
    images = some_images()
    part = images.subset(torch.tensor([4, 1]))
    assert len(part) == 2 and part.num_classes == 3
    assert torch.equal(part.images, images.images[[4, 1]])
    assert part.targets.tolist() == [1, 1]


def test_fingerprint_depends_on_pixels_labels_shape_and_dtype() -> None:
    images = some_images()
    same = ImageSet(images.images.clone(), images.targets.clone(), images.classes)
    assert images.fingerprint() == same.fingerprint() == images.to("cpu").fingerprint()
    pixels = images.images.clone()
    pixels[0, 0, 0, 0] += 1
    others = [
        ImageSet(pixels, images.targets, images.classes),
        images.with_targets(images.targets.flip(0)),
        ImageSet(images.images.view(6, 3, 4, 1), images.targets, images.classes),
        ImageSet(images.images.float(), images.targets, images.classes),
        images.subset(torch.arange(5)),
        images.subset(torch.arange(0)),
    ]
    assert len({images.fingerprint(), *(other.fingerprint() for other in others)}) == 1 + len(others)


def test_fingerprint_sees_the_content_and_not_the_memory_layout() -> None:
    images = some_images()
    strided = ImageSet(
        images.images.to(memory_format=torch.channels_last), images.targets.repeat_interleave(2)[::2], images.classes
    )
    assert strided.fingerprint() == images.fingerprint()


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"images must have shape \[N"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), "images must be uint8"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), r"int64 of shape \[2\]"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int32), "targets must be int64"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 2]), r"0\.\.1 \(2 classes\), got 2"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([-1, 0]), "got -1"),
    ],
)
def test_what_does_not_fit_is_refused(images: torch.Tensor, targets: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageSet(images, targets, ("a", "b"))


def test_dataset_properties_and_fingerprint() -> None:
    train, test = some_images(), some_images(3)
    dataset = Dataset("toy", train, test, Preprocess(size=8))
    assert (dataset.num_classes, dataset.in_channels, dataset.image_size) == (3, 3, 8)
    assert Dataset("toy", train, test, Preprocess()).image_size == 2
    assert dataset.fingerprint() == Dataset("other name", train, test, Preprocess()).fingerprint()
    assert dataset.fingerprint() != Dataset("toy", test, train, Preprocess()).fingerprint()


def test_dataset_refuses_parts_that_do_not_fit_together() -> None:
    train = some_images()
    grey = ImageSet(train.images[:, :1], train.targets, train.classes)
    with pytest.raises(UserError, match="test images must be like the train images"):
        Dataset("toy", train, grey, Preprocess())
    with pytest.raises(UserError, match="train and test must have the same classes"):
        Dataset("toy", train, ImageSet(train.images, train.targets, ("a", "b", "x")), Preprocess())
    with pytest.raises(UserError, match="test set of 'toy' must have at least one image"):
        Dataset("toy", train, train.subset(torch.arange(0)), Preprocess())
    with pytest.raises(UserError, match="preprocess.mean must have 3 values"):
        Dataset("toy", train, train, Preprocess(mean=(0.5,), std=(1.0,)))


def test_from_tensors_names_classes_by_number() -> None:
    images = torch.zeros(4, 1, 8, 8)
    dataset = from_tensors(images, torch.tensor([0, 1, 2, 0]), images, torch.tensor([3, 0, 0, 0]))
    assert dataset.train.classes == ("0", "1", "2", "3")
    assert dataset.name == "custom" and not dataset.preprocess.augments
    named = from_tensors(images, torch.zeros(4, dtype=torch.int64), images, torch.zeros(4).long(), classes=["x", "y"])
    assert named.train.classes == ("x", "y")


def test_hold_out_is_stratified_disjoint_and_always_the_same() -> None:
    targets = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    images = torch.arange(63, dtype=torch.uint8).view(-1, 1, 1, 1)
    source = ImageSet(images, targets, ("a", "b", "c", "d"))
    train, test = hold_out(source)
    assert test.targets.bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert sorted([*train.images.flatten().tolist(), *test.images.flatten().tolist()]) == list(range(63))
    torch.manual_seed(123)
    assert hold_out(source)[1].fingerprint() == test.fingerprint()


def test_data_of_tensors_name_what_is_none() -> None:
    images, targets = torch.rand(4, 1, 8, 8), torch.arange(4) % 2
    with pytest.raises(UserError, match="test_images is an ndarray; expected a tensor"):
        from_tensors(images, targets, images.numpy(), targets)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="train_targets is a list; expected a tensor"):
        from_tensors(images, targets.tolist(), images, targets)  # type: ignore[arg-type]
