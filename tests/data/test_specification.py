from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pymixunlearn import data
from pymixunlearn.data.specification import parse_specification
from pymixunlearn.errors import UserError
from tests.data.test_imagefolder import pack, picture, picture_tree


def test_a_folder_an_archive_and_a_folder_of_archives_are_one_data_set(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "photos")
    archive = pack(folder, tmp_path / "photos.tar.gz")
    (tmp_path / "pair").mkdir()
    for part in ("train", "val"):
        pack(folder / part, tmp_path / "pair" / f"{part}.tar")
    by_name = data.load("imagefolder", data_dir=folder)
    for place in (folder, archive, tmp_path / "pair"):
        assert data.load(str(place)).fingerprint() == by_name.fingerprint()
    assert data.load(str(folder)).name == data.load(str(archive)).name == "photos"


def test_an_existing_path_wins_over_a_name_but_a_run_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_tree(Path("digits"))
    assert len(data.load("digits").train) == 10 and data.load("digits").name == "digits-folder"
    assert data.load("./digits@3").name == "digits-folder@3"
    Path("digits/config.json").write_text("{}")
    assert len(data.load("digits").train) == 1438
    assert len(data.load("./digits").train) == 10
    assert parse_specification("mnist", ["mnist"], by_name=True).kind == "name"
    os.rename("digits", "photos@2")
    assert parse_specification("photos@2", []).count is None
    assert parse_specification("photos@2@3", []).count == 3
    assert parse_specification("hf:photos@2", []).count is None
    found = parse_specification("hf:mnist@1000", [])
    assert (found.text, found.count) == ("mnist", 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./nowhere", r"dataset './nowhere' does not exist; expected a folder, an archive or a table there"),
        ("photos.tar.gz", r"dataset 'photos.tar.gz' does not exist"),
        (
            "notes.txt",
            r"'notes.txt' is a file of no known kind; expected a folder, or one of .tar, .tar.gz, .tgz, .zip, .csv",
        ),
        ("photos@few", r"dataset is 'photos@few'; expected a whole number of training images behind the @"),
        ("foto", r"unknown dataset 'foto'"),
    ],
)
def test_what_is_no_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no data")
    Path("photos").mkdir()
    with pytest.raises(UserError, match=message):
        data.load(text)


def test_a_folder_says_itself_where_it_is(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "photos")
    with pytest.raises(UserError, match="which says itself where it is; expected one of them"):
        data.load(str(folder), data_dir=folder)


def test_a_part_of_a_folder_hardly_changes_when_files_come(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(60):
        for name in ("cat", "dog"):
            picture(folder / "train" / name / f"{number}.png", (number, number, number))
            picture(folder / "test" / name / f"{number}.png", (number, number, number))
    before = data.load(f"{folder}@50")
    assert before.name == "photos@50" and len(before.train) == 50 and len(before.test) == 120
    assert before.validation is not None and len(before.validation) == 70
    assert not set(before.train.paths or ()) & set(before.validation.paths or ())
    picture(folder / "train" / "ant" / "new.png")
    after = data.load(f"{folder}@50")
    assert len(set(before.train.paths or ()) - set(after.train.paths or ())) <= 1


def test_a_validation_share_is_taken_out_of_the_training_images_by_path(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(40):
        for name in ("cat", "dog"):
            picture(folder / "train" / name / f"{number}.png", (number, number, number))
            picture(folder / "test" / name / f"{number}.png", (number, number, number))
    dataset = data.load(str(folder), validation=0.25)
    assert dataset.validation is not None and 10 <= len(dataset.validation) <= 30
    assert len(dataset.train) + len(dataset.validation) == 80 and len(dataset.test) == 80
    held_out = set(dataset.validation.paths or ())
    assert not held_out & set(dataset.train.paths or ())
    picture(folder / "train" / "cat" / "new.png")
    again = data.load(str(folder), validation="0.25")
    assert again.validation is not None and set(again.validation.paths or ()) - {"train/cat/new.png"} == held_out


def test_a_validation_share_of_tensors_and_of_parts() -> None:
    dataset = data.load("digits@500", validation=0.1)
    assert dataset.validation is not None and len(dataset.train) == 500 and len(dataset.validation) == 143
    pixels = {bytes(image) for image in dataset.train.images.numpy()}
    assert not pixels & {bytes(image) for image in dataset.validation.images.numpy()}
    assert data.load("digits@500", validation="none").validation is None
    assert torch.equal(data.load("digits@500", validation="none").train.images, data.load("digits@500").train.images)


@pytest.mark.parametrize("share", ["much", 0, 1, -0.1, "nan"])
def test_other_shares_are_refused(share: object) -> None:
    with pytest.raises(UserError, match="expected a share above 0 and below 1, or 'none'"):
        data.load("digits", validation=share)  # type: ignore[arg-type]


def test_a_validation_set_of_its_own_is_kept_or_dropped_and_not_added_to(tmp_path: Path) -> None:
    folder = picture_tree(tmp_path / "photos", ("train", "val", "test"))
    assert data.load(str(folder)).validation is not None
    assert data.load(str(folder), validation="none").validation is None
    with pytest.raises(UserError, match=r"'photos' has a validation set of its own \(10 images\); expected no share"):
        data.load(str(folder), validation=0.1)
