"""Near copies by the model's own feature maps: planted ones in a small folder of colour images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mixunlearn_cli.request import request
from PIL import Image
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.experiments import (
    DataRequest,
    ModelRequest,
    TrainInputs,
    UnlearnInputs,
    resolve_training,
    run_training,
)
from pymixunlearn.experiments.request import embeddings
from pymixunlearn.experiments.request.add import run_add
from pymixunlearn.experiments.request.copies import CopyPair, both_ways
from pymixunlearn.experiments.request.embeddings import embedding_copies, matches, threshold
from pymixunlearn.experiments.request.init import run_init
from pymixunlearn.experiments.request.inputs import AddInputs, InitInputs

SAMPLE = "train/one/00.png"
PLANTED = {"train/two/flipped.png", "train/two/encoded.jpg", "test/one/cropped.png"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 160 images of blurred spots, and three copies of the first."""
    root = tmp_path_factory.mktemp("copies") / "pictures"
    generator = np.random.default_rng(3)
    for part, count in (("train", 60), ("test", 20)):
        for name in ("one", "two"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                spots = Image.fromarray(generator.integers(0, 256, (7, 7, 3), dtype=np.uint8))
                spots.resize((32, 32), Image.Resampling.BICUBIC).save(root / part / name / f"{number:02d}.png")
    original = Image.open(root / SAMPLE)
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "train" / "two" / "flipped.png")
    original.save(root / "train" / "two" / "encoded.jpg", quality=60)
    original.crop((1, 1, 31, 31)).resize((32, 32), Image.Resampling.BICUBIC).save(root / "test" / "one" / "cropped.png")
    return root


def network(size: int = 32) -> nn.Module:
    return models.build("cnn", num_classes=2, in_channels=3, image_size=size, seed=0).eval()


def test_flipped_encoded_and_cropped_copies_are_found(pictures: Path) -> None:
    data = DataRequest(str(pictures)).load()
    place = data.train.paths.index(SAMPLE)  # type: ignore[union-attr]
    pairs = embedding_copies(data, {"train": {place}}, network(), device="cpu")
    assert {pair.name for pair in pairs} == PLANTED and {pair.sample for pair in pairs} == {SAMPLE}
    assert {pair.name for pair in pairs if pair.flipped} == {"train/two/flipped.png"}
    for pair in pairs:
        images = data.train if pair.part == "train" else data.test
        assert images.paths[pair.copy] == pair.name  # type: ignore[index]
        assert pair.distance is None and 0.5 < pair.similarity <= 1  # type: ignore[operator]
    assert embedding_copies(data, {}, network(), device="cpu") == []


def test_a_model_without_feature_maps(pictures: Path) -> None:
    data = DataRequest(str(pictures)).load()
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(UserError, match="by embeddings: no layer of Sequential returns a feature map of more than"):
        embedding_copies(data, {"train": {0}}, flat, device="cpu")


def test_the_blocks_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    every = torch.randn(300, 24, generator=generator)
    # Exact copies beside noisy ones: equal distances, too.
    every = torch.cat([every, every[:6], every[:6], every[3:9] + 0.2 * torch.randn(6, 24, generator=generator)])
    mirrored = torch.randn(60, 24, generator=generator)
    samples, references = torch.arange(10), torch.arange(10, 60)
    found = matches(every, mirrored, samples, references)
    assert {match.other for match in found} >= set(range(300, 318))
    assert all(match.sample == (match.other - 300) % 6 for match in found if 300 <= match.other < 312)
    for numbers in (1, 60, 7 * 60, 100 * 60):
        assert matches(every, mirrored, samples, references, numbers=numbers) == found


def test_the_threshold_is_of_images_that_nobody_asked_for() -> None:
    ratios = torch.linspace(0.51, 0.9, 40)[:, None].expand(40, 2)
    others = torch.arange(40)[:, None].expand(40, 2)
    # Two pairs in forty; each counts once, though it is there as it is and mirrored.
    assert threshold(ratios, others) == pytest.approx(0.52)
    assert threshold(ratios - 0.5, others) == 0.5  # data full of copies
    assert threshold(ratios + 0.5, others) == 0.95  # and data without images that are alike
    assert threshold(ratios[:0], others[:0]) == 0.5
    assert embeddings.FALSE_PAIRS == 50


def test_a_pair_that_both_checks_find_is_one() -> None:
    hashed = CopyPair("a", 1, "b", "train", False, distance=3)
    alike, other = (
        CopyPair("a", 1, "b", "train", False, similarity=0.9),
        CopyPair("a", 1, "c", "test", True, similarity=0.8),
    )
    assert both_ways([hashed], [alike, other]) == [hashed._replace(similarity=0.9), other]


def test_a_request_takes_them(pictures: Path, tmp_path: Path) -> None:
    pictures = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    data = DataRequest(str(pictures))
    begun = TrainInputs(data=data, model=ModelRequest("cnn"), device="cpu", settings={"epochs": 1})
    run_training(resolve_training(begun), tmp_path / "base")
    ledger = tmp_path / "ledger"
    unlearn = UnlearnInputs(data=data, model=ModelRequest(str(tmp_path / "base")), device="cpu", method="neggrad")
    run_init(InitInputs(unlearn, ledger))
    file = tmp_path / "people.csv"
    file.write_text(f"file,user\n{SAMPLE},ann\n")
    common = ["add", str(file), "--ledger", str(ledger), "--id-column", "user"]
    shown = CliRunner().invoke(request, [*common, "--request-id", "R-1", "--check-embeddings", "--copy-distance", "20"])
    text = " ".join(shown.output.split())
    assert shown.exit_code == 0 and "Request R-1: 1 sample of 1 person" in text
    assert "train/two/flipped.png (train, 0 bits apart, embeddings alike to 1.00, mirrored)" in text
    assert re.search(r"test/one/cropped.png \(test, embeddings alike to 0\.\d\d\)", text), text  # not the hash's
    added = run_add(
        AddInputs(file, ledger, "user", "R-2", also_forget_copies=True, check_embeddings=True, copy_distance=0)
    )
    assert added.request.added["samples"]["count"] == 3  # with those of the training images
    with pytest.raises(UserError, match="with other samples or other people"):
        run_add(AddInputs(file, ledger, "user", "R-2", also_forget_copies=True))

    for path in sorted((*pictures.rglob("*.png"), *pictures.rglob("*.jpg"))):
        Image.open(path).resize((16, 16)).save(path)
    with pytest.raises(UserError, match="was made for 32 pixels of image height and width, but dataset .* has 16"):
        run_add(AddInputs(file, ledger, "user", "R-3", check_embeddings=True))
