from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.evaluation import accuracy, predict_logits
from pymixunlearn.models.modes import evaluating

CPU = torch.device("cpu")


class PixelSum(nn.Module):
    """Logits that tell which image they belong to, whatever the order: its brightness, and minus that."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images.flatten(1).sum(dim=1)
        return torch.stack([brightness, -brightness], dim=1)


def image_set(count: int = 11) -> ImageSet:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 1, 8, 8).contiguous()
    return ImageSet(images, torch.zeros(count, dtype=torch.int64), ("a", "b"))


def test_logits_come_in_the_order_of_the_images() -> None:
    logits = predict_logits(PixelSum(), image_set(), Preprocess(), device=CPU, batch_size=4)
    expected = torch.arange(11) * 64 / 255
    torch.testing.assert_close(logits[:, 0], expected.float())


def test_augmented_logits_are_in_order_too_and_fixed_by_the_seed() -> None:
    # Constant images look the same after any crop or flip, so each keeps its brightness.
    preprocess = Preprocess(flip=True, random_crop=True)
    logits = predict_logits(PixelSum(), image_set(), preprocess, device=CPU, batch_size=4, augment_seed=3)
    torch.testing.assert_close(logits[:, 0], torch.arange(11).float() * 64 / 255)

    varied = ImageSet(torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8), torch.zeros(9, dtype=torch.int64), ("a",))
    first, again, other = (
        predict_logits(PixelSum(), varied, preprocess, device=CPU, augment_seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_images_give_no_logits() -> None:
    assert predict_logits(PixelSum(), image_set(0), Preprocess(), device=CPU).shape == (0, 0)


def test_evaluating_gives_every_module_its_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1)).train()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training and model[0].training and not model[1].training


@pytest.mark.parametrize(("predicted", "expected"), [([0, 1, 1, 0], 75.0), ([1, 1, 1, 0], 50.0)])
def test_accuracy_is_a_percentage(predicted: list[int], expected: float) -> None:
    logits = nn.functional.one_hot(torch.tensor(predicted), 2).float()
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == expected


def test_accuracy_of_nothing_is_none() -> None:
    assert accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) is None
