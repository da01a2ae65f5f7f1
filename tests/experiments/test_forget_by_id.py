"""Forgetting by the data's own ids: a table's, of one image or of a person with several, and paths of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mixunlearn_cli.main import main

import pymixunlearn
from pymixunlearn import data, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from tests.data.test_imagefolder import picture

FEW = {"epochs": 1, "initial.epochs": 1}


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 24 images: two of each person in the training part, person p0 in the test part too."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for index in range(24):
        part, label = ("test" if index >= 16 else "train"), ("cat", "dog")[index % 2]
        person = "p0" if index == 16 else f"p{index // 2}"
        picture(tmp_path / "photos" / part / label / f"{index}.png", (10 * index, 0, 0))
        rows.append(f"photos/{part}/{label}/{index}.png,{label},{part},{person},s{index}")
    (tmp_path / "photos.csv").write_text("\n".join(["file,label,split,person,id", *rows]) + "\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def listed(text: str) -> str:
    Path("ids.csv").write_text(text)
    return "ids.csv"


def test_all_images_of_a_person_are_forgotten_and_the_record_is_verified() -> None:
    chosen = ("--dataset", "photos.csv", "--id-column", "person", "--forget", listed("person\np3\np0\n"))
    few = ("--method", "neggrad", "--set", "epochs=1", "--set", "initial.epochs=1", "--no-retrain", "--device", "cpu")
    result = run("unlearn", *chosen, *few, "--model", "cnn", "--image-size", "8", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "Read 2 rows from 'ids.csv': 5 samples to forget" in " ".join(result.stdout.split())
    split = json.loads(Path("run/split.json").read_text())
    assert split["forget"]["indices"] == [0, 1, 6, 7] and split["removed"]["test"]["indices"] == [0]
    assert split["params"]["ids"]["column"] == "person" and split["params"]["ids"]["count"] == 2
    assert json.loads(Path("run/config.json").read_text())["id_column"] == "person"
    assert "p3" not in Path("run/split.json").read_text()
    verified = run("verify", "run", "--forget", "ids.csv", "--device", "cpu")
    assert verified.exit_code == 0 and "ids.csv" in verified.output
    assert run("verify", "run", "--forget", listed("person\np3\np1\n")).exit_code == 3
    again = ("--dataset", "photos.csv", "--id-column", "person", "--split", "run/split.json")
    assert run("evaluate", "run", *again, "--image-size", "8", "--device", "cpu").exit_code == 0


def test_the_column_id_needs_no_option_and_a_folder_has_paths() -> None:
    few = {"model": "cnn", "image_size": 8, "settings": FEW, "retrain": "none", "device": "cpu", "method": "neggrad"}
    made = pymixunlearn.unlearn(data="photos.csv", forget=listed("id\ns3\ns5\n"), out="a", **few)
    assert json.loads((made.folder / "split.json").read_text())["forget"]["indices"] == [3, 5]
    by_text = pymixunlearn.unlearn(data="photos.csv", forget=["s3", "s5"], out="b", **few)
    assert by_text.record["hashes"]["unlearned"] == made.record["hashes"]["unlearned"]
    of_people = pymixunlearn.unlearn(data="photos.csv", forget=("p3", "p1"), id_column="person", out="c", **few)
    assert json.loads((of_people.folder / "split.json").read_text())["forget"]["indices"] == [2, 3, 6, 7]
    assert pymixunlearn.verify("c", device="cpu").holds
    by_path = pymixunlearn.unlearn(data="photos", forget=["train/cat/2.png"], out="d", **few)
    assert json.loads((by_path.folder / "split.json").read_text())["forget"]["ids"] == ["train/cat/2.png"]


def test_a_list_of_ids_means_samples_of_any_part() -> None:
    dataset = data.load("photos.csv", id_column="person", image_size=8)
    request = tasks.DeletionList((), "person", ("p0", "p2", "p2"))
    split = tasks.index_split(dataset, request)
    assert split.forget_indices.tolist() == [0, 1, 4, 5] and split.removed["test"].tolist() == [0]
    assert split.dataset.train.known_ids[:2] == ("p0", "p0") and len(request) == 3
    with pytest.raises(UserError, match="2 of the listed ids are not in the data 'photos': 'p77', 'p78'; its ids are"):
        tasks.index_split(dataset, tasks.DeletionList((), "person", ("p0", "p77", "p78")))


def test_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="unknown column 'persona'.* Did you mean 'person'"):
        pymixunlearn.unlearn(data="photos.csv", forget=["p0"], id_column="persona", model="cnn", device="cpu")
    with pytest.raises(BadRequest, match="an id column belongs to a table"):
        pymixunlearn.unlearn(data="digits", id_column="person", model="cnn", device="cpu")
    # Ids beside indices or files are the requester's own, also where the data have a column of that name.
    own = listed("index;person\n3;anna\n")
    made = tasks.read_deletion_list(own, "person")
    assert not made.by_id and made.ids == ("anna",)
