from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from pymixunlearn import data
from pymixunlearn.data.decode import decode_square
from pymixunlearn.data.geometry import INTERPOLATIONS, Geometry
from pymixunlearn.errors import UserError


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    smooth = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    return Image.fromarray(smooth).resize((width, height), Image.Resampling.BICUBIC)


def plain(geometry: Geometry) -> transforms.Compose:
    mode = InterpolationMode(geometry.interpolation)
    size = (geometry.resize, geometry.resize) if geometry.squash else geometry.resize
    return transforms.Compose(
        [transforms.Resize(size, mode), transforms.CenterCrop(geometry.size), transforms.PILToTensor()]
    )


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("size", "resize", "squash"), [(32, 37, False), (32, 36, False), (24, 24, True), (32, 39, True)]
)
@pytest.mark.parametrize("shape", [(80, 61), (61, 80), (47, 47), (20, 51), (32, 32), (33, 100)])
def test_decoded_files_have_the_pixels_of_torchvisions_transforms(
    interpolation: str, size: int, resize: int, squash: bool, shape: tuple[int, int]
) -> None:
    geometry = Geometry(size, resize, interpolation, squash)
    image = photo(*shape)
    found = torch.from_numpy(decode_square(encoded(image), geometry))
    assert torch.equal(found, plain(geometry)(image))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_small_images_are_enlarged_in_batches_to_the_pixels_of_torchvisions_transforms(interpolation: str) -> None:
    geometry = Geometry(64, 73, interpolation, False)
    images = [photo(32, 32, seed) for seed in range(20)]
    stored = torch.stack([transforms.PILToTensor()(image) for image in images])
    found = (geometry.apply_to(stored) * 255).round()
    expected = torch.stack([plain(geometry)(image) for image in images]).float()
    # Pillow computes with whole numbers: where a value lies between two steps, one rounds up and the other down.
    assert (found - expected).abs().max() <= 1
    assert (found == expected).float().mean() > 0.999


def test_a_folder_decodes_to_what_the_model_expects(tmp_path: Path) -> None:
    preprocess = data.Preprocess(32, (0.5,) * 3, (0.25,) * 3, resize=36, interpolation="bicubic")
    shapes = [(50, 40), (40, 40), (90, 60), (8, 8)]
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for index, shape in enumerate(shapes):
                photo(*shape, index).save(tmp_path / part / label / f"{index}.png")
    dataset = data.load(str(tmp_path), preprocess=preprocess)
    assert dataset.preprocess == preprocess and dataset.train.images.shape[1:] == (3, 32, 32)
    assert preprocess.geometry is not None
    normalise = transforms.Compose(
        [transforms.ConvertImageDtype(torch.float32), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    )
    inputs = dataset.preprocess.evaluation(dataset.train.images)
    for index, shape in enumerate(shapes * 2):
        expected = normalise(plain(preprocess.geometry)(photo(*shape, index % 4)))
        assert torch.equal(inputs[index], expected)


def test_all_small_squares_stay_as_they_are_until_they_are_used(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(4):
            photo(8, 8, index).save(tmp_path / label / f"{index}.png")
    dataset = data.load(str(tmp_path), preprocess=data.Preprocess(32, interpolation="bilinear"))
    assert dataset.train.images.shape[1:] == (3, 8, 8)
    assert dataset.image_size == 32 and dataset.preprocess.evaluation(dataset.train.images).shape[1:] == (3, 32, 32)


def test_small_squares_of_the_inputs_side_are_resized_and_cut_too(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for index in range(4):
            photo(16, 16, index).save(tmp_path / label / f"{index}.png")
    preprocess = data.Preprocess(16, resize=32, interpolation="bilinear")
    dataset = data.load(str(tmp_path), preprocess=preprocess)
    assert dataset.train.paths is not None and preprocess.geometry is not None
    expected = plain(preprocess.geometry)(Image.open(tmp_path / dataset.train.paths[0]))
    assert torch.equal(dataset.train.images[0], expected)


def test_grey_images_are_repeated_for_a_network_that_takes_colour(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            photo(12, 9).convert("L").save(tmp_path / part / label / "a.png")
    preprocess = data.Preprocess(8, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), resize=9, interpolation="bilinear")
    dataset = data.load(str(tmp_path), preprocess=preprocess)
    assert dataset.train.images.shape[1] == 1 and dataset.in_channels == 3
    normalise = transforms.Normalize([0.1, 0.2, 0.3], [0.5] * 3)
    assert preprocess.geometry is not None
    pixels = plain(preprocess.geometry)(Image.open(tmp_path / "train/cat/a.png").convert("RGB"))
    expected = normalise(transforms.ConvertImageDtype(torch.float32)(pixels))
    torch.testing.assert_close(preprocess.evaluation(dataset.train.images)[0], expected, rtol=0, atol=1e-6)
    grey = data.load(str(tmp_path), preprocess=data.Preprocess(8, (0.1,), (0.5,)))
    assert grey.in_channels == 1


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(UserError, match="resize and squash are given without interpolation"):
        data.Preprocess(32, resize=36)
    with pytest.raises(UserError, match="unknown interpolation 'cubic'.*Did you mean 'bicubic'"):
        data.Preprocess(32, interpolation="cubic")
    with pytest.raises(UserError, match="a resize of at least that, got size=32 and resize=30"):
        data.Preprocess(32, interpolation="bicubic", resize=30)
    recorded = data.Preprocess(32, (0.5,), (0.5,), resize=36, interpolation="bicubic").to_dict()
    assert data.Preprocess.from_dict(recorded).resize == 36
    assert set(data.Preprocess(32).to_dict()) == {"size", "mean", "std", "random_crop", "flip"}
