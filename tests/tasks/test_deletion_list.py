from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pymixunlearn import tasks
from pymixunlearn.data import load
from pymixunlearn.errors import UserError
from pymixunlearn.tasks.deletion_list import ids_sha256, read_deletion_list


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "requests.csv"
    path.write_text(text, "utf-8")
    return path


def test_a_split_keeps_a_hash_of_the_ids_and_not_the_ids(tmp_path: Path) -> None:
    # A byte order mark, an id with a comma, a person with two samples, spaces around an id.
    path = written(tmp_path, '\ufeffperson,index,why\n"Müller, A.",7,x\nb,3,y\n b ,12,z\n')
    split = tasks.index_split(load("digits"), read_deletion_list(path, "person"))
    assert split.forget_indices.tolist() == [3, 7, 12]
    sha256 = hashlib.sha256("Müller, A.\nb\n".encode()).hexdigest()
    assert split.params == {"count": 3, "ids": {"column": "person", "count": 2, "sha256": sha256}}
    assert "ller" not in str(split.manifest())


def test_the_hash_of_ids_is_that_of_the_set() -> None:
    assert ids_sha256(["b", "a", "b"]) == ids_sha256(["a", "b"]) != ids_sha256(["ab"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,id\n1,a\n", "unknown column 'person'; expected one of id, index"),
        ("persons\na\n", "unknown column 'person'; expected one of persons"),
        ("", "unknown column 'person'"),
        ("index,person\n1,a\nx,b\n", "line 3: an index must be an integer, got 'x'"),
        ("index,person\n1,a\n2\n", "line 3: the id is empty"),
        ("index,person\n1, \n", "line 2: the id is empty"),
    ],
)
def test_lists_that_lack_something(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_deletion_list(written(tmp_path, text), "person")
    assert message in str(caught.value)


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read as a CSV file"):
        read_deletion_list(tmp_path / "none.csv", "person")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a CSV file"):
        read_deletion_list(tmp_path / "binary.csv", "person")


def test_a_cell_may_hold_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('index,person\n3,"anna\nberg"\n4,bert\n')
    assert tasks.read_deletion_list(path, "person").ids == ("anna\nberg", "bert")


def test_an_empty_file_name_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("file,person\n,anna\n")
    with pytest.raises(UserError, match="line 2: the file is empty"):
        tasks.read_deletion_list(path, "person")


def test_a_list_that_holds_too_large_a_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("9223372036854775808\n")
    with pytest.raises(UserError, match=r"'.*list.txt'.*: an index must be an integer"):
        tasks.read_indices(path)
