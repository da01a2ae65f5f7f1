"""Splits of data that grew, lost files or changed their order: samples are found by their ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.tasks.known_samples import indices_of, same_data
from tests.data.test_imagefolder import picture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))


def photos(root: Path, count: int = 120) -> Path:
    for number in range(count):
        picture(root / ("cat", "dog")[number % 2] / f"{number:03d}.png", (number, 0, 0))
    return root


def grown(root: Path) -> data.Dataset:
    """The same folder with further images before, between and behind, and with a further class."""
    for number in range(20):
        picture(root / "ant" / f"{number}.png", (200, number, 0))
        picture(root / "cat" / f"00-{number}.png", (100, number, 0))
        picture(root / "dog" / f"zz-{number}.png", (100, number, 9))
    return data.load(str(root))


def test_a_split_of_a_folder_that_grew_is_the_same_split(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    dataset = data.load(str(folder), validation=0.2)
    split = tasks.data_split(dataset, fraction=0.3, classes=["dog"])
    split.save(tmp_path / "split.json")
    assert split.manifest()["forget"]["ids"] == list(split.forget.paths or ())  # type: ignore[index, call-overload]
    now = data.load(str(folder), validation=0.2)
    assert same_data(now, split.manifest()) is now
    grown(folder)
    now = data.load(str(folder), validation=0.2)
    assert now.train.classes == ("ant", "cat", "dog") and now.fingerprint() != dataset.fingerprint()
    with pytest.warns(UserWarning, match="read by their ids, others are left out"):
        again = tasks.Split.load(tmp_path / "split.json", now)
    assert again.dataset.fingerprint() == dataset.fingerprint() and again.manifest() == split.manifest()
    assert again.dataset.validation is not None and dataset.validation is not None
    assert again.dataset.validation.fingerprint() == dataset.validation.fingerprint()


def test_a_split_of_a_table_in_another_order_is_the_same_split(tmp_path: Path) -> None:
    lines = []
    for number in range(12):
        picture(tmp_path / f"{number}.png", (number, 0, 0))
        part = "test" if number > 8 else "train"
        lines.append(f"{number}.png,{'cat' if number % 2 else 'dog'},{part},person{number}\n")
    table = tmp_path / "photos.csv"
    table.write_text("file,label,split,id\n" + "".join(lines))
    split = tasks.index_split(data.load(str(table)), [1, 4])
    split.save(tmp_path / "split.json")
    assert split.manifest()["samples"]["kind"] == "given"  # type: ignore[index, call-overload]
    table.write_text("file,label,split,id\n" + "".join(reversed(lines)))
    with pytest.warns(UserWarning, match="by their ids"):
        again = tasks.Split.load(tmp_path / "split.json", data.load(str(table)))
    assert again.forget.ids == ("person1", "person4") and again.manifest() == split.manifest()


def test_changed_pixels_and_files_that_are_gone_are_other_data(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    split = tasks.class_split(data.load(str(folder)), ["cat"])
    split.save(tmp_path / "split.json")
    path = split.retain.paths[0]  # type: ignore[index]
    picture(folder / path, (250, 1, 1))
    for _ in range(2):
        assert same_data(data.load(str(folder)), split.manifest()) is None
        with pytest.raises(UserError, match="was made for other data"):
            tasks.Split.load(tmp_path / "split.json", data.load(str(folder)))
        (folder / path).unlink(missing_ok=True)


def test_forgotten_samples_are_found_in_other_data_by_name_and_by_pixels(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    split = tasks.index_split(data.load(str(folder)), [0, 5])
    for path in split.retain.paths[:3]:  # type: ignore[index]
        (folder / path).unlink()
    found = indices_of(split.manifest(), grown(folder))
    assert found is not None
    now = data.load(str(folder))
    assert [now.train.ids[index] for index in found["train"].tolist()] == list(split.forget.ids)
    assert indices_of(split.manifest(), data.load(str(photos(tmp_path / "other", 100)))) is not None
    picture(tmp_path / "third" / "a" / "1.png")
    picture(tmp_path / "third" / "a" / "2.png")
    picture(tmp_path / "third" / "b" / "1.png")
    picture(tmp_path / "third" / "b" / "2.png")
    assert indices_of(split.manifest(), data.load(str(tmp_path / "third"))) is None

    digits = data.load("digits@500")
    small = tasks.index_split(digits, [7, 9])
    places = indices_of(small.manifest(), data.load("digits"))
    assert places is not None
    assert torch.equal(data.load("digits").train.subset(places["train"]).images, small.forget.images)
