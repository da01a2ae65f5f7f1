from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from pymixunlearn import seeding
from pymixunlearn.data import Preprocess, natural_images, preprocess
from pymixunlearn.errors import UserError


def photos(count: int = 8, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=seeding.generator(0, "photos"))


def stream(seed: int = 0) -> torch.Generator:
    return seeding.generator(seed, "test")


def uniform(count: int) -> torch.Tensor:
    drawn = Preprocess(random_crop=True).draw(count, stream())
    assert drawn is not None
    return drawn


def test_uint8_becomes_the_unit_range_and_float_is_left_alone() -> None:
    images = photos()
    scaled = Preprocess().evaluation(images)
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled, images.float() / 255)
    floats = torch.randn(2, 1, 4, 4)
    assert torch.equal(Preprocess().evaluation(floats), floats)


def test_resize_then_normalise() -> None:
    images = photos()
    transform = Preprocess(size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    resized = F.interpolate(images.float() / 255, size=(8, 8), mode="bilinear", antialias=True, align_corners=False)
    expected = (resized - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(transform.evaluation(images), expected)


def test_stored_images_are_never_written_to() -> None:
    floats = torch.rand(4, 3, 8, 8)
    before = floats.clone()
    natural_images().evaluation(floats)
    natural_images().training(floats, stream())
    Preprocess(flip=True).training(floats, stream())
    assert torch.equal(floats, before)


def test_without_augmentation_training_is_evaluation() -> None:
    transform = Preprocess(size=8)
    assert not transform.augments
    assert torch.equal(transform.training(photos(), stream()), transform.evaluation(photos()))


@pytest.mark.parametrize("transform", [natural_images(), natural_images(24), natural_images(8), Preprocess(flip=True)])
def test_training_depends_on_its_generator_only(transform: Preprocess) -> None:
    assert transform.augments
    images = photos()
    torch.manual_seed(1)
    first = transform.training(images, stream())
    torch.manual_seed(2)
    global_state = torch.get_rng_state()
    assert torch.equal(transform.training(images, stream()), first)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert not torch.equal(transform.training(images, stream(1)), first)
    side = transform.size or 16
    assert first.shape == (8, 3, side, side) and first.dtype == torch.float32


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.arange(4.0).expand(1000, 1, 4, 4)
    flipped = Preprocess(flip=True).training(images, stream())[:, 0, 0, 0] == 3
    assert 430 < int(flipped.sum()) < 570
    assert torch.equal(Preprocess(flip=True).training(images[:1], stream()).sort(-1).values, images[:1])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60), (90, 20)])
def test_crop_boxes_keep_to_the_image_area_and_shape(height: int, width: int) -> None:
    left, top, box_width, box_height = preprocess._crop_boxes(height, width, uniform(4000))
    slack = 1e-3
    assert left.min() >= 0 and (left + box_width).max() <= width + slack
    assert top.min() >= 0 and (top + box_height).max() <= height + slack
    share = box_width * box_height / (height * width)
    assert share.min() > 0.079 and share.max() < 1 + slack
    assert share.max() > 0.25
    ratio = box_width / box_height
    assert ratio.min() > 0.749 and ratio.max() < 4 / 3 + slack


def test_the_last_resort_is_the_largest_centred_box(monkeypatch: pytest.MonkeyPatch) -> None:
    # An image of 10 x 1 has no room for a box of half its area with an allowed shape.
    monkeypatch.setattr(preprocess, "_CROP_AREA", (0.5, 1.0))
    left, top, box_width, box_height = preprocess._crop_boxes(1, 10, uniform(50))
    torch.testing.assert_close(box_width, torch.full((50,), 4 / 3))
    torch.testing.assert_close(box_height, torch.ones(50))
    torch.testing.assert_close(left, torch.full((50,), (10 - 4 / 3) / 2))
    torch.testing.assert_close(top, torch.zeros(50))


@pytest.mark.parametrize("mirror", [False, True])
def test_crop_agrees_with_cutting_and_enlarging(monkeypatch: pytest.MonkeyPatch, mirror: bool) -> None:
    boxes = torch.tensor([[4.0, 0.0], [2.0, 5.0], [8.0, 6.0], [9.0, 8.0]])  # left, top, width, height of two images
    monkeypatch.setattr(preprocess, "_crop_boxes", lambda *_: boxes)
    images = torch.rand(2, 3, 16, 16)
    result = preprocess._random_resized_crop(images, (32, 32), uniform(2), torch.tensor([mirror, mirror]))
    for image, sampled, (left, top, width, height) in zip(images, result, boxes.T.int().tolist(), strict=True):
        cut = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(cut, size=(32, 32), mode="bilinear", align_corners=False)[0]
        expected = expected.flip(-1) if mirror else expected
        # At its border the cut has no neighbours, whereas the whole image has: only the inside must agree.
        torch.testing.assert_close(sampled[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4], atol=1e-5, rtol=1e-5)


def test_the_whole_image_is_a_crop_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.tensor([[0.0], [0.0], [16.0], [16.0]])
    monkeypatch.setattr(preprocess, "_crop_boxes", lambda *_: whole)
    images = photos(1).float() / 255
    cropped = Preprocess(random_crop=True).training(images, stream())
    torch.testing.assert_close(cropped, images)


def test_drawing_first_and_augmenting_later_is_the_same() -> None:
    for transform in (natural_images(24), Preprocess(flip=True), Preprocess(random_crop=True)):
        drawn = transform.draw(8, stream())
        assert drawn is not None and drawn.shape[1] == 8
        assert torch.equal(transform.augmented(photos(), drawn), transform.training(photos(), stream()))
    assert Preprocess().draw(8, stream()) is None
    assert torch.equal(Preprocess().augmented(photos(), None), Preprocess().evaluation(photos()))


def test_constants_made_under_inference_mode_serve_gradients_later() -> None:
    transform = Preprocess(mean=(0.25,), std=(0.125,))
    with torch.inference_mode():
        transform.evaluation(torch.rand(1, 1, 2, 2))
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    transform.evaluation(images).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.full((1, 1, 2, 2), 8.0))


def test_dict_round_trip_through_json() -> None:
    for transform in (Preprocess(), natural_images(224)):
        again = Preprocess.from_dict(json.loads(json.dumps(transform.to_dict())))
        assert again == transform and hash(again) == hash(transform)
    with pytest.raises(UserError, match="unknown preprocessing field 'flipp'.*Did you mean 'flip'"):
        Preprocess.from_dict({"flipp": True})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"mean": (0.5,)}, "mean and std must be given together"),
        ({"mean": (0.5,), "std": (1.0, 1.0)}, "one value per channel"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be positive"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocess.from_dict(fields)


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(UserError, match="images must have 3 channels .* got 2"):
        natural_images().evaluation(torch.zeros(1, 2, 4, 4))
