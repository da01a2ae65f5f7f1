from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.training.loop import StateDict
from pymixunlearn.training.snapshots import SnapshotFile

STATE: StateDict = {"weights": torch.arange(3.0), "epoch": 2}


def written(path: Path) -> SnapshotFile:
    file = SnapshotFile(path, "unlearning")
    file.on_epoch_end(0, {}, lambda: STATE)
    return file


def test_a_run_goes_on_from_the_file(tmp_path: Path) -> None:
    file, told = written(tmp_path / "state"), list[str]()
    state = file.run(lambda state: state, told.append)
    assert state is not None and torch.equal(state["weights"], STATE["weights"]) and state["epoch"] == 2
    file.discard()
    assert file.run(lambda state: state, told.append) is None and not told
    file.discard()


@pytest.mark.parametrize("damage", ["flip", "code"])
def test_a_damaged_file_costs_only_time(damage: str, tmp_path: Path) -> None:
    file, told = written(tmp_path / "state"), list[str]()
    content = file.path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    file.path.write_bytes({"flip": flipped, "code": b"cos\nsystem\n(S'false'\ntR."}[damage])
    assert file.run(lambda state: state, told.append) is None
    assert told == [f"snapshot '{file.path}' is damaged; unlearning starts again"]


@pytest.mark.parametrize("begun", [False, True])
def test_only_a_state_that_is_refused_before_the_first_step_is_given_up(begun: bool, tmp_path: Path) -> None:
    file, told, given = written(tmp_path / "state"), list[str](), list[bool]()

    def attempt(state: StateDict | None) -> str:
        given.append(state is not None)
        if begun:
            file.on_loop_start("loop", 3, 1, 1)
        if state is not None:
            raise UserError("of another run")
        return "done"

    if begun:
        with pytest.raises(UserError, match="of another run"):
            file.run(attempt, told.append)
        assert given == [True] and not told
    else:
        assert file.run(attempt, told.append) == "done"
        assert given == [True, False] and "does not fit (of another run); unlearning starts again" in told[0]
