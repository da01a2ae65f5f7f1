from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common import run_folder
from pymixunlearn.experiments.common.run_folder import RecordFolder, RunFolder, write_json
from pymixunlearn.files import atomic_path

IDENTITY = {"format": "x/1", "settings": {"epochs": 2}, "classes": (0, 1)}


def write_run(folder: RunFolder) -> None:
    with folder.writing():
        folder.write_json("config.json", IDENTITY)
        folder.write_json("metrics.json", {"value": 1})
        folder.write_text("scratch.txt", "not published")
        folder.publish(("metrics.json", "config.json"))


def test_files_appear_only_when_published(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", IDENTITY)
    assert not folder.started and not folder.finished
    with folder.writing():
        folder.write_json("metrics.json", {"value": 1})
        assert [path.name for path in folder.path.iterdir()] == [".partial"]
    assert folder.started and not folder.finished
    write_run(folder)
    assert folder.finished and not folder.started
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "metrics.json"]


def test_a_finished_run_is_recognised(tmp_path: Path) -> None:
    write_run(RunFolder(tmp_path, IDENTITY))
    again = RunFolder(tmp_path, IDENTITY)
    assert again.finished
    assert again.read_json("metrics.json") == {"value": 1}


@pytest.mark.parametrize("finish", [True, False])
def test_another_run_is_refused_and_told_apart(tmp_path: Path, finish: bool) -> None:
    folder = RunFolder(tmp_path, IDENTITY)
    if finish:
        write_run(folder)
    else:
        with folder.writing():
            folder.write_text("state", "")
    kind = "another run" if finish else "another, unfinished run"
    with pytest.raises(UserError, match=rf"holds {kind} \(its settings.epochs is 2, not 3\)"):
        RunFolder(tmp_path, {**IDENTITY, "settings": {"epochs": 3}})


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunFolder(tmp_path, IDENTITY)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "notes.txt", IDENTITY)


def test_a_damaged_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        RunFolder(tmp_path, IDENTITY)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is not a JSON object"):
        RunFolder(tmp_path, IDENTITY)


def test_a_mistake_leaves_nothing_and_an_interruption_leaves_the_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", IDENTITY)
    with pytest.raises(UserError), folder.writing():
        folder.write_text("state", "half")
        raise UserError("diverged")
    assert not folder.path.exists()
    with pytest.raises(KeyboardInterrupt), folder.writing():
        folder.write_text("state", "half")
        raise KeyboardInterrupt
    assert RunFolder(tmp_path / "run", IDENTITY).started


def test_a_full_disk_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", IDENTITY)
    with pytest.raises(UserError, match="stays in .*: free some space"), folder.writing():
        folder.write_text("state", "half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UserError("'x' cannot be written: No space left on device") from error
    again = RunFolder(tmp_path / "run", IDENTITY)
    assert again.started and (again.partial / "state").read_text() == "half"


def test_two_processes_on_one_folder_are_told_apart_at_once(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path, IDENTITY), RunFolder(tmp_path, IDENTITY)
    with first.writing():
        first.write_text("state", "half")
        with pytest.raises(UserError, match="another process is at work on the run"), second.writing():
            pass
        assert (first.partial / "state").read_text() == "half"
    with second.writing():
        assert (second.partial / "state").read_text() == "half"


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(tmp_path: Path) -> None:
    second = RunFolder(tmp_path, IDENTITY)
    write_run(RunFolder(tmp_path, IDENTITY))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="has just finished the run"), second.writing():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_a_kill_left_of_a_finished_run_is_swept_at_the_next_start(tmp_path: Path) -> None:
    write_run(RunFolder(tmp_path, IDENTITY))
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "unlearn.pt").write_text("an earlier state of the model")
    left = tmp_path / f".report.html.{'a' * 32}"
    for path in (left, tmp_path / ".notes"):
        path.write_text("")
    with atomic_path(tmp_path / "audit.json") as writing:
        assert RunFolder(tmp_path, IDENTITY).finished
        assert not (tmp_path / ".partial").exists() and not left.exists()
        assert writing.exists() and (tmp_path / ".notes").exists()
        writing.write_text("{}")


def test_what_a_kill_left_of_a_failed_run_is_no_part_of_the_next_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, IDENTITY)
    (folder.partial / "pictures").mkdir(parents=True)
    (folder.partial / "unlearn.pt").write_text("of a run whose run.json has been removed already")
    with folder.writing():
        assert {path.name for path in folder.partial.iterdir()} - {".lock"} == {"run.json"}


def test_no_state_of_the_model_is_left_when_the_run_counts_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, list[set[str]]()

    def noted(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "metrics.json":
            left.append({path.name for path in folder.partial.iterdir()} - {".lock"})
        replace(source, target)

    folder = RunFolder(tmp_path, IDENTITY)
    monkeypatch.setattr(os, "replace", noted)
    with folder.writing():
        folder.write_text("unlearn.pt", "an earlier state of the model")
        folder.write_json("metrics.json", {})
        folder.publish(("metrics.json",))
    assert left == [{"run.json", "metrics.json"}]


def test_a_full_disk_keeps_what_is_done_while_files_are_moved_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", IDENTITY)
    told = f"'{tmp_path}/run/x' cannot be written: Disk quota exceeded; what is done .* free some space"
    with pytest.raises(UserError, match=told), folder.writing():
        folder.write_text("state", "half")
        raise OSError(errno.EDQUOT, "Disk quota exceeded", f"{tmp_path}/run/x")
    assert RunFolder(tmp_path / "run", IDENTITY).started
    with pytest.raises(FileNotFoundError), folder.writing():  # not of the disk's making: as any other error
        raise FileNotFoundError(errno.ENOENT, "No such file", "data")


def test_metrics_are_published_last_and_not_before_all_others_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def moved(source: Any, target: Any) -> None:
        done.append(Path(target).name)
        replace(source, target)

    def synced(number: int) -> None:
        assert os.readlink(f"/proc/self/fd/{number}") == str(tmp_path)
        done.append("sync")
        fsync(number)

    folder = RunFolder(tmp_path, IDENTITY)
    with folder.writing():
        for name in ("metrics.json", "config.json", "model.safetensors"):
            folder.write_text(name, "{}")
        monkeypatch.setattr(os, "replace", moved)
        monkeypatch.setattr(os, "fsync", synced)
        folder.publish(("metrics.json", "config.json", "model.safetensors"))
    assert done == ["config.json", "model.safetensors", "sync", "metrics.json", "sync"]


def test_another_process_may_look_at_a_run_that_has_just_been_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = RunFolder(tmp_path / "run", IDENTITY), run_folder.sync_folder

    def sync_folder(path: Path) -> None:
        real(path)
        if folder.finished:
            assert RunFolder(tmp_path / "run", IDENTITY).finished

    monkeypatch.setattr(run_folder, "sync_folder", sync_folder)
    write_run(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "metrics.json"]


def test_the_folder_of_many_runs_has_one_record(tmp_path: Path) -> None:
    folder = RecordFolder(tmp_path / "many", "compare.json", "comparison")
    with folder.held():
        assert folder.read(IDENTITY) == {}
        folder.write({**IDENTITY, "cells": [1]}, {"table.md": "| a |\n"})
        assert folder.read(IDENTITY) == {**IDENTITY, "classes": [0, 1], "cells": [1]}
        assert (folder.path / "table.md").read_text() == "| a |\n"
        with pytest.raises(UserError, match=r"holds another comparison \(its settings.epochs is 2, not 3\)"):
            folder.read({**IDENTITY, "settings": {"epochs": 3}})
        with (
            pytest.raises(UserError, match="another process is at work"),
            RecordFolder(folder.path, "compare.json", "comparison").held(),
        ):
            pass
    (folder.path / "compare.json").unlink()
    with pytest.raises(UserError, match="is not empty and holds no comparison"), folder.held():
        folder.read(IDENTITY)
    with pytest.raises(UserError, match="is a file"), RecordFolder(folder.path / "table.md", "x", "x").held():
        pass


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="[Oo]ut of range"):
        write_json(tmp_path / "file", {"value": float("nan")})


def test_a_folder_that_was_killed_before_its_first_file_is_free(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    assert not RunFolder(tmp_path, IDENTITY).started


def test_folders_of_an_attempt_that_ended_while_it_published_are_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, IDENTITY)
    with folder.writing():
        for place, name in ((folder.path, "old.svg"), (folder.partial, "new.svg")):
            (place / "pictures").mkdir()
            (place / "pictures" / name).write_text("")
        folder.write_json("metrics.json", {})
        folder.publish(("pictures", "metrics.json"))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["new.svg"]
