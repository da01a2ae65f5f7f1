"""Tables, torch data sets, factories and Hugging Face's data sets end in the same image sets as a folder."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from pymixunlearn import data
from pymixunlearn.data.streamed import StreamedImageSet
from pymixunlearn.errors import UserError
from tests.data.test_imagefolder import picture

Row = dict[str, str]


def table(folder: Path, rows: list[Row], name: str = "photos.csv") -> Path:
    """Write a table and the images that it names; the n-th image has the red value n."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        file = row.get("file") or row.get("Path")
        if file is not None:
            picture(folder / file, (number, 0, 0))
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as file_:
            writer = csv.DictWriter(file_, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def some_rows() -> list[Row]:
    parts = ["train"] * 6 + ["test"] * 3 + ["val"]
    return [
        {"file": f"images/{9 - index}.png", "label": "cat" if index % 2 else "dog", "split": part, "id": f"p{index}"}
        for index, part in enumerate(parts)
    ]


def check_rows(dataset: data.Dataset) -> None:
    assert dataset.train.images[:, 0, 0, 0].tolist() == list(range(6))
    assert dataset.train.classes == ("cat", "dog") and dataset.train.targets.tolist() == [1, 0] * 3
    assert dataset.train.ids == ("p0", "p1", "p2", "p3", "p4", "p5")
    assert dataset.train.paths is not None and dataset.train.paths[0] == "images/9.png"
    assert dataset.test.images[:, 0, 0, 0].tolist() == [6, 7, 8]
    assert dataset.validation is not None and dataset.validation.ids == ("p9",)
    assert dataset.preprocess == data.natural_images()


def test_a_table_keeps_its_order_and_its_ids(tmp_path: Path) -> None:
    path = table(tmp_path, some_rows())
    check_rows(data.load(str(path)))
    streamed = data.load(str(path), stream=True)
    check_rows_of_stream = streamed.train.gather(torch.arange(6))[:, 0, 0, 0].tolist()
    assert isinstance(streamed.train, StreamedImageSet) and check_rows_of_stream == list(range(6))
    assert streamed.train.subset(torch.tensor([4, 1])).ids == ("p4", "p1")
    assert data.load(f"{path}@4").name == "photos@4"


@pytest.mark.extras
def test_a_parquet_table_is_the_same_data(tmp_path: Path) -> None:
    check_rows(data.load(str(table(tmp_path, some_rows(), "photos.parquet"))))


def test_other_names_of_columns_and_no_parts(tmp_path: Path) -> None:
    rows = [{"Path": f"{number}.png", "Class": str(number % 11)} for number in range(44)]
    dataset = data.load(str(table(tmp_path, rows)))
    assert dataset.train.classes == tuple(map(str, range(11)))
    assert len(dataset.train) + len(dataset.test) == 44 and set(dataset.test.targets.tolist()) == set(range(11))
    assert dataset.train.ids == dataset.train.paths and dataset.train.id_kind == "path"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3].update(label=" "), "line 5: the column 'label' is empty"),
        (lambda rows: rows[3].update(file="images/9.png"), "names 'images/9.png' in more than one row"),
        (
            lambda rows: rows[3].update(split="spare"),
            "has the parts 'spare', 'test', 'train', 'val'; expected",
        ),
        (lambda rows: [row.update(split="train") for row in rows], "all rows of .* belong to one part, 'train'"),
        (lambda rows: [row.pop("label") for row in rows], "expected a column of labels, named label or class"),
        (lambda rows: [row.update(label="cat") for row in rows], "has one class, 'cat'; expected at least two"),
        (lambda rows: rows[8].update(label="cow"), "has the labels 'cow', which are none of the classes: 'cat', 'dog'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, change: object, message: str) -> None:
    rows = some_rows()
    change(rows)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        data.load(str(table(tmp_path, rows)))


def test_files_that_are_missing_or_elsewhere_are_named(tmp_path: Path) -> None:
    path = table(tmp_path / "d", some_rows())
    (tmp_path / "d" / "images" / "9.png").unlink()
    with pytest.raises(UserError, match=r"9.png' is not there \(1 of 10 images; skip_unreadable"):
        data.load(str(path))
    assert data.load(str(path), skip_unreadable=True).train.ids == ("p1", "p2", "p3", "p4", "p5")
    picture(tmp_path / "images" / "9.png")
    path.write_text(path.read_text().replace("images/9.png", "../images/9.png"))
    with pytest.raises(UserError, match="names files that are not below its folder: '../images/9.png'"):
        data.load(str(path))
    assert len(data.load(str(path), follow_links=True).train) == 6


def test_several_images_of_a_table_may_have_one_owner(tmp_path: Path) -> None:
    rows = some_rows()
    rows[3]["id"] = "p0"
    dataset = data.load(str(table(tmp_path, rows)))
    assert dataset.train.id_kind == "path" and dataset.train.ids[3] == "images/6.png"
    assert dataset.train.owner_ids == dataset.train.known_ids == ("p0", "p1", "p2", "p0", "p4", "p5")
    assert dataset.test.owner_ids == ("p6", "p7", "p8") and dataset.test.ids[0] == "images/3.png"
    streamed = data.load(str(tmp_path / "photos.csv"), stream=True).train
    for images in (dataset.train, streamed, dataset.train.with_targets(dataset.train.targets)):
        assert images.subset(torch.tensor([3, 1])).known_ids == ("p0", "p1")
    assert streamed.with_targets(streamed.targets).owner_ids == dataset.train.owner_ids
    shared = data.from_dataset(Photos(4), Photos(4, 50), ids=["a", "a", "b", "c"])
    assert shared.train.known_ids == ("a", "a", "b", "c") and shared.test.owner_ids is None


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "d", some_rows())
    text = path.read_text()
    path.write_text(text.replace("images/8.png", "images/none/../9.png"))
    with pytest.raises(UserError, match="names 'images/9.png' in more than one row"):
        data.load(str(path))
    (tmp_path / "d" / "images" / "link.png").symlink_to("9.png")
    path.write_text(text.replace("images/8.png", "images/link.png"))
    with pytest.raises(UserError, match="names one file twice, as 'images/9.png', 'images/link.png'"):
        data.load(str(path))


class Photos:
    """Map-style data set of Pillow's images of two sizes."""

    classes = ["cat", "dog"]

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        side = 6 if index == 0 else 8
        return Image.new("RGB", (side, side + 2), (self.first + index, 0, 0)), index % 2


def test_a_torch_data_set_of_pillow_images() -> None:
    dataset = data.from_dataset(Photos(6), Photos(4, 50), Photos(2, 90), ids={"test": ["a", "b", "c", "d"]})
    assert dataset.train.images.shape == (6, 3, 8, 8) and dataset.train.classes == ("cat", "dog")
    assert dataset.train.images[:, 0, 4, 4].tolist() == list(range(6)) and dataset.preprocess == data.natural_images()
    assert dataset.test.ids == ("a", "b", "c", "d") and dataset.validation is not None
    assert len(set(dataset.train.ids)) == 6 and dataset.train.id_kind == "content"
    smaller = data.from_dataset(Photos(6), Photos(4), image_size=4, stream=True)
    assert isinstance(smaller.train, StreamedImageSet) and smaller.train.images.shape[1:] == (3, 4, 4)
    assert smaller.train.gather(torch.tensor([5]))[0, 0, 0, 0] == 5


def test_a_torch_data_set_of_tensors_and_arrays() -> None:
    part = TensorDataset(torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    dataset = data.from_dataset(part, part)
    assert torch.equal(dataset.train.images, part.tensors[0]) and dataset.train.classes == ("0", "1", "2")
    assert dataset.preprocess == data.Preprocess()
    arrays = [(np.full((8, 8, 3), level, np.uint8), level % 2) for level in range(4)]
    assert data.from_dataset(arrays, arrays).train.images.shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 9, 9), 1)], "sample 1 of the train set is torch.float32 of shape"),
        ([(torch.rand(1, 8, 8), 0.5)], "sample 0 of the train set has the label 0.5; expected an integer"),
        ([torch.rand(1, 8, 8)], "sample 0 of the train set is a Tensor; expected an image and a label"),
        ([("photo.png", 0)], "sample 0 of the train set is a str; expected an image of Pillow, or a tensor"),
        ([(torch.rand(1, 8, 8), -1)], "labels must be 0 or above, got -1"),
        ([], "the train set must have at least one image, got none"),
        (iter([]), "the train set is a list_iterator without a length"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        data.from_dataset(samples, [(torch.rand(1, 8, 8), 0)])


def test_an_image_folder_of_torchvision_gives_paths(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for number in range(6):
        picture(tmp_path / ("cat" if number % 2 else "dog") / f"{number}.png", (number, 0, 0))
    dataset = data.from_dataset(ImageFolder(tmp_path), ImageFolder(tmp_path))
    assert dataset.train.ids[0] == "cat/1.png" and dataset.train.classes == ("cat", "dog")
    assert dataset.train.paths == dataset.train.ids


FACTORY = """
import torch
from torch.utils.data import TensorDataset

def part(count):
    return TensorDataset(torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8), torch.arange(count) % 2)

def make():
    return part(10), part(4), part(2)

def mapping():
    return {"train": part(10), "test": part(4)}

def wrong():
    return 7

def broken():
    return 1 / 0

def whole():
    from pymixunlearn import data
    images, labels = torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])
    return data.from_tensors(images, labels, images, labels)
"""


def test_a_factory_in_a_file_or_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_photos.py").write_text(FACTORY)
    dataset = data.load(f"{tmp_path / 'own_photos.py'}:make")
    assert dataset.name == "own_photos-make" and dataset.train.images[:, 0, 0, 0].tolist() == list(range(10))
    assert dataset.validation is not None and len(dataset.validation) == 2
    monkeypatch.syspath_prepend(tmp_path)
    assert data.load("own_photos:mapping@4").name == "own_photos-mapping@4"
    assert data.load("own_photos:whole").image_size == 6
    assert data.load("own_photos:whole", image_size=12).image_size == 12
    for name, message in (
        ("wrong", "returned an int; expected torch data sets"),
        ("broken", "failed .ZeroDivisionError: division by zero"),
        ("none", "has no 'none'; expected a function of this name"),
    ):
        with pytest.raises(UserError, match=message):
            data.load(f"own_photos:{name}")
    with pytest.raises(UserError, match="module 'no_such_module' cannot be imported"):
        data.load("no_such_module:make")
    with pytest.raises(UserError, match="no_file.py' does not exist"):
        data.load(f"{tmp_path}/no_file.py:make")
    sys.modules.pop("own_photos", None)


def test_a_fixed_list_of_classes_keeps_the_place_of_a_class_that_is_gone(tmp_path: Path) -> None:
    for name in ("ant", "bee", "cat"):
        for number in range(4):
            picture(tmp_path / "d" / name / f"{number}.png", (number, 0, 0))
    listed = ("ant", "bee", "cat")
    whole = data.load(str(tmp_path / "d"))
    assert whole.train.classes == listed
    for number in range(4):
        (tmp_path / "d" / "ant" / f"{number}.png").unlink()
    rest = data.load(str(tmp_path / "d"), classes=listed)
    assert rest.train.classes == listed and set(rest.train.targets.tolist()) == {1, 2} and rest.num_classes == 3
    with pytest.raises(UserError, match="has images of 'cat', which the list of 2 classes lacks"):
        data.load(str(tmp_path / "d"), classes=("ant", "bee"))
    with pytest.raises(UserError, match="has 'bee' more than once"):
        data.load(str(tmp_path / "d"), classes=("bee", "bee", "cat"))


def test_ids_of_data_without_files_are_hashes_of_the_pixels() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    images[1] = 3
    dataset = data.from_tensors(images, torch.tensor([0, 1, 0, 1]), images, torch.tensor([0, 1, 0, 1]))
    first, second, third, fourth = dataset.train.ids
    assert third == f"{first}-2" and fourth == f"{first}-3" and second != first
    moved = dataset.train.subset(torch.tensor([1, 0]))
    assert moved.ids == (second, first)
    with pytest.raises(UserError, match="ids must be one per image, 4, got 1"):
        data.ImageSet(images, torch.tensor([0, 1, 0, 1]), ("a", "b"), sample_ids=("x",))


@pytest.mark.extras
def test_data_of_the_datasets_library(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})

    def part(count: int) -> object:
        images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(count)]
        return datasets.Dataset.from_dict(
            {"image": images, "label": [number % 2 for number in range(count)]}, features=features
        )

    saved = tmp_path / "saved"
    datasets.DatasetDict({"train": part(10), "test": part(4), "validation": part(3)}).save_to_disk(saved)
    dataset = data.load(f"hf:{saved}")
    assert dataset.name == "saved" and dataset.train.classes == ("cat", "dog")
    assert dataset.train.images[:, 0, 0, 0].tolist() == list(range(10)) and len(dataset.test) == 4
    assert dataset.validation is not None and len(dataset.validation) == 3
    files = tmp_path / "parquet"
    files.mkdir()
    part(10).to_parquet(files / "train-0.parquet")  # type: ignore[attr-defined]
    part(4).to_parquet(files / "test-0.parquet")  # type: ignore[attr-defined]
    assert data.load(f"hf:{files}").fingerprint() == dataset.fingerprint()
    with pytest.raises(UserError, match="cannot be loaded"):
        data.load(f"hf:{tmp_path / 'none'}", download=False)
    part_of_it = data.load(f"hf:{saved}@6")
    assert part_of_it.name == "saved@6" and len(part_of_it.train) == 6 and len(part_of_it.validation or ()) == 3


@pytest.mark.extras
def test_rows_that_name_a_file_stay_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    from pyarrow import parquet

    folder, secret = tmp_path / "rows", tmp_path / "secret.png"
    picture(secret, (7, 7, 7))
    for name in ("0.png", "1.png", "2.png"):
        picture(folder / name)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [{"bytes": None, "path": str(folder / f"{number}.png")} for number in range(3)]
    cells.append({"bytes": None, "path": str(secret)})
    for part in ("train", "test"):
        columns = {"image": pyarrow.array(cells, kind), "label": pyarrow.array(["cat", "dog"] * 2)}
        about = {"huggingface": json.dumps({"info": {"features": {
            "image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "string"}}}})}  # fmt: skip
        rows = pyarrow.table(columns).replace_schema_metadata(about)
        parquet.write_table(rows, folder / f"{part}-0.parquet")
    with pytest.raises(UserError, match="names images that are not below its folder: '.*secret.png'"):
        data.load(f"hf:{folder}")
    with monkeypatch.context() as patched:
        patched.setattr("pymixunlearn.data.listing.FILE_LIMIT", 10)
        with pytest.raises(UserError, match="has [0-9]+ bytes; expected at most 10"):
            data.load(f"hf:{folder}", follow_links=True)
    assert data.load(f"hf:{folder}", follow_links=True).train.images[3, 0, 0, 0] == 7


@pytest.mark.extras
@pytest.mark.parametrize("withheld", [-1, None])
def test_a_row_without_a_label_is_of_no_class(tmp_path: Path, withheld: int | None) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(6)]
    datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1, 0, withheld]}, features=features).save_to_disk(
        tmp_path / "saved"
    )
    with pytest.raises(UserError, match="1 rows of .* have no label, 'train/000000005'"):
        data.load(f"hf:{tmp_path / 'saved'}")
