from __future__ import annotations

from pathlib import Path

import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.run_folder import RunFolder

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
