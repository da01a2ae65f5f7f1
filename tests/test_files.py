from __future__ import annotations

import os
from pathlib import Path

import pytest

from pymixunlearn import files
from pymixunlearn.errors import UserError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"
    with files.atomic_path(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as partial:
        partial.write_text("second, in p")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("name"), replace(old, new)))
    files.write_atomically(tmp_path / "file", b"content")
    assert done == ["sync", "name"]


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file/below' cannot be written: (Not a directory|File exists)"):
        files.write_atomically(tmp_path / "file" / "below", b"")


@pytest.mark.parametrize("damage", ["", "cut", "flip", "hash", "empty", "missing"])
def test_a_file_with_its_hash_is_what_was_written_or_none(damage: str, tmp_path: Path) -> None:
    path, content = tmp_path / "file", b"some\ncontent"
    files.write_with_hash(path, content)
    written = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage:
        flipped = written[:-3] + bytes([written[-3] ^ 1]) + written[-2:]
        path.write_bytes({"cut": written[:-1], "flip": flipped, "hash": b"x" + written[1:], "empty": b""}[damage])
    assert files.read_with_hash(path) == (None if damage else content)


def test_json_has_one_form() -> None:
    assert files.canonical_json({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
    assert files.json_sha256({"a": 1, "b": 2}) == files.json_sha256({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="[Oo]ut of range"):
        files.canonical_json(float("nan"))


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(b"abc") == files.file_sha256(tmp_path / "file") == expected
