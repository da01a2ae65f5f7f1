from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

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


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, Path, bytes]] = []
    fsync, replace = os.fsync, os.replace

    def synced(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        done.append(("sync", path, b"" if path.is_dir() else path.read_bytes()))
        fsync(number)

    def renamed(old: Path, new: Path) -> None:
        done.append(("name", old, b""))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_atomically(tmp_path / "file", b"content")
    (_, partial, written), (_, moved, _), (_, folder, _) = done
    assert [kind for kind, _, _ in done] == ["sync", "name", "sync"]
    assert partial == moved != tmp_path / "file" and written == b"content" and folder == tmp_path


HALF_WRITTEN = """
import sys
from pathlib import Path
from pymixunlearn.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    print(partial, flush=True)
    sys.stdin.readline()
"""


def test_a_sweep_tells_what_was_left_from_what_is_being_written(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "file.json"
    for name in ("file", ".notes", f"notes.{'a' * 32}", f".file.{'a' * 31}"):
        (tmp_path / name).write_bytes(b"")
    kept = set(tmp_path.iterdir())
    command = [sys.executable, "-c", HALF_WRITTEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        partial = Path(process.stdout.readline().strip())
        files.sweep(tmp_path)
        assert set(tmp_path.iterdir()) == {*kept, partial}
        process.kill()
    with files.atomic_path(other) as writing:
        files.sweep(tmp_path, "file.json")
        assert set(tmp_path.iterdir()) == {*kept, partial, writing}
        files.sweep(tmp_path)
        assert set(tmp_path.iterdir()) == {*kept, writing}
    files.sweep(tmp_path / "missing")


def test_the_next_writer_of_a_file_removes_what_the_last_one_left(tmp_path: Path) -> None:
    left, unlike = tmp_path / f".file.{'a' * 32}", tmp_path / f".file.json.{'a' * 32}"
    for path in (left, unlike):
        path.write_bytes(b"half")
    files.write_atomically(tmp_path / "file", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"file", unlike.name}


def test_without_locks_only_old_files_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(file: IO[bytes], operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    old, young = (tmp_path / f".file.{digit * 32}" for digit in "ab")
    for path, hours in ((old, 25), (young, 23)):
        path.write_bytes(b"half")
        os.utime(path, (0, time.time() - 3600 * hours))
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


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
    assert files.json_sha256({"a": 1, "b": 2}) == files.json_sha256({"b": 2, "a": 1}) != files.json_sha256({"a": 1})
    with pytest.raises(ValueError, match="[Oo]ut of range"):
        files.canonical_json(float("nan"))


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(b"abc") == files.file_sha256(tmp_path / "file") == expected
