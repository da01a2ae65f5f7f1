"""``list samples``: what a list of samples to forget can name, as CSV that `unlearn --forget` takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

Invoke = Callable[..., Result]
ODD = 'odd, "name"\x1b[31m\n.png'


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for label, name in enumerate(("1", "2", "10")):
        for number in range(4):
            for part in ("train", "test"):
                path = root / part / name / (ODD if (part, name, number) == ("train", "10", 0) else f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = [label, number, part == "test"]
                pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return root


def listed(invoke: Invoke, *arguments: str) -> list[dict[str, str]]:
    result = invoke("list", "samples", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_index_class_and_file_of_every_training_sample(invoke: Invoke, photos: Path) -> None:
    rows = listed(invoke, "--dataset", "imagefolder", "--data-dir", str(photos))
    assert [row["index"] for row in rows] == [str(index) for index in range(12)]
    assert [row["class"] for row in rows] == ["1"] * 4 + ["10"] * 4 + ["2"] * 4  # by path, code point by code point
    assert rows[0]["file"] == "train/1/0.png"
    assert sorted(row["file"] for row in rows if "odd" in row["file"]) == ['train/10/odd, "name"\\x1b[31m\\x0a.png']


def test_the_listing_is_a_list_to_forget(invoke: Invoke, photos: Path) -> None:
    source = ("--dataset", "imagefolder", "--data-dir", str(photos))
    result = invoke("list", "samples", *source, "--class", "name:10")
    Path("all-of-10.csv").write_text(result.stdout)
    settings = ("--set", "epochs=1", "--set", "initial.epochs=1", "--no-retrain", "--device", "cpu")
    run = invoke("unlearn", *source, "--forget", "all-of-10.csv", *settings, "--method", "neggrad", "--out", "run")
    assert run.exit_code == 0, run.output
    assert "Forget listed samples of imagefolder: 4 of 12 training samples." in run.stdout


def test_one_class_by_name_or_index(invoke: Invoke, photos: Path) -> None:
    source = ("--dataset", "imagefolder", "--data-dir", str(photos))
    assert {row["class"] for row in listed(invoke, *source, "--class", "index:1")} == {"10"}
    assert len(listed(invoke, *source, "--class", "10", "--class", "index:0")) == 8
    result = invoke("list", "samples", *source, "--class", "1")
    assert result.exit_code == 1 and "expected 'name:1' or 'index:1'" in result.stderr
    assert result.stdout == ""


def test_data_without_files(invoke: Invoke) -> None:
    rows = listed(invoke, "--class", "7")
    assert len(rows) == 143 and rows[0] == {"index": "7", "class": "7", "file": ""}
