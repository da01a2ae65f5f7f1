from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.training import process_pool
from pymixunlearn.training.process_pool import ProcessPool, WorkerEnded
from tests.training import pool_tasks


def test_tasks_come_back_with_their_index_from_workers_that_stay() -> None:
    sent = {"weights": torch.arange(4.0), "epoch": 3}
    with ProcessPool[Any, Any](pool_tasks.describe, 2, threads=1) as pool:
        first, again = ({i: done.result() for i, done in pool.run([0, 1, sent])} for _ in range(2))
        assert torch.equal(first[2][0]["weights"], sent["weights"]) and first[2][0]["epoch"] == 3
        workers = {result[1] for result in first.values()}
        assert len(workers) <= 2 and os.getpid() not in workers
        assert {result[1] for result in again.values()} <= workers
        assert {result[2:] for result in first.values()} == {(1, "1")}
    assert not multiprocessing.active_children()


def test_every_task_gets_a_new_process() -> None:
    with ProcessPool[Any, Any](pool_tasks.describe, 1, threads=1, fresh=True) as pool:
        assert len({done.result()[1] for _, done in pool.run(range(2))}) == 2
        assert not multiprocessing.active_children()


def test_events_come_with_the_index_of_their_task() -> None:
    heard: list[tuple[int, int]] = []
    with ProcessPool[int, int](pool_tasks.count, 1, threads=1) as pool:
        results = [(index, done.result()) for index, done in pool.run([1, 2], lambda *event: heard.append(event))]
    assert results == [(0, -1), (1, -2)] and heard == [(0, 0), (1, 0), (1, 1)]


def test_the_end_of_one_task_is_not_the_end_of_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    with ProcessPool[str, str](pool_tasks.fail, 1, threads=1) as pool:
        user, killed, other, fine = (done for _, done in pool.run(["user", "killed", "other", "fine"]))
    with pytest.raises(UserError, match="this cannot be done"):
        user.result()
    with pytest.raises(WorkerEnded, match="ended with code -9") as caught:
        killed.result()
    assert caught.value.code == -signal.SIGKILL
    with pytest.raises(RuntimeError, match="in fail(?s:.*)ZeroDivisionError: by nothing"):
        other.result()
    assert fine.result() == "fine"
    assert capfd.readouterr().err == ""


def test_a_stop_is_an_interruption(tmp_path: Path) -> None:
    def stop(index: int, event: Any) -> None:
        assert not (tmp_path / "note").exists()
        raise KeyboardInterrupt

    pool = ProcessPool[Path, None](pool_tasks.note_the_stop, 1, threads=1)
    with pytest.raises(KeyboardInterrupt):
        list(pool.run([tmp_path / "note"], stop))
    assert (tmp_path / "note").read_text() == "in order"
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("events", [0, 200])
def test_workers_can_be_stopped_at_any_time(events: int, capfd: pytest.CaptureFixture[str]) -> None:
    heard = 0

    def stop(index: int, event: Any) -> None:
        nonlocal heard
        heard += 1
        if heard > events:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(ProcessPool[int, None](pool_tasks.chatter, 2, threads=1).run(range(2), stop))
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < process_pool._STOP_SECONDS, "a worker had to be killed"
    assert capfd.readouterr().err == ""


def test_a_stop_that_python_drops_comes_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with ProcessPool[Path, None](pool_tasks.lose_the_stop, 1, threads=1) as pool:
        ((_, done),) = pool.run([tmp_path / "note"])
    with pytest.raises(WorkerEnded, match="ended with code 0"):
        done.result()
    assert (tmp_path / "note").read_text() == "in order"
    assert time.monotonic() - started < 30, "it slept for a minute"
    assert capfd.readouterr().err == ""


def test_a_worker_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "_STOP_SECONDS", 0.2)
    children: list[Any] = []

    def stop(index: int, event: Any) -> None:
        children.extend(multiprocessing.active_children())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ProcessPool[int, None](pool_tasks.stay, 1, threads=1).run([0], stop))
    assert not multiprocessing.active_children()
    assert [child.exitcode for child in children] == [-signal.SIGKILL]


def test_what_cannot_be_sent_is_told() -> None:
    def local(task: int, send: Any) -> int:
        return task

    with pytest.raises(UserError, match="another process cannot take over .*local.*at the top of a module"):
        list(ProcessPool[int, int](local, 1, threads=1).run([0]))
    assert not multiprocessing.active_children()


def test_what_cannot_be_read_in_a_worker_is_told() -> None:
    """As of a class that stands under a main guard: the worker does not have it."""
    with ProcessPool[int, int](pool_tasks.Unreadable(), 1, threads=1) as pool:
        ((_, done),) = pool.run([0])
    with pytest.raises(UserError, match="another process cannot take over .*not there.*a main guard"):
        done.result()


_PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from pymixunlearn.training.process_pool import ProcessPool
from tests.training import pool_tasks
{guard}for _ in ProcessPool(pool_tasks.say_pid, 1, threads=1).run([Path("pid")]): pass
"""
ROOT = str(Path(__file__).parents[2])


def test_workers_end_soon_after_their_parent_was_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_PARENT.format(root=ROOT, guard='if __name__ == "__main__":\n    '))
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    killed = time.monotonic()
    while _runs(worker) and time.monotonic() < killed + 30:
        time.sleep(0.1)
    assert time.monotonic() - killed < 10


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


_COMPARISON = """
import pymixunlearn
pymixunlearn.compare(["neggrad", "fine-tune"], seeds=[0], jobs=2, device="cpu", out="c")
"""


def test_a_command_in_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    """Its processes end before they come to the folder in which the parent is at work."""
    (tmp_path / "script.py").write_text(_COMPARISON)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].startswith(
        "pymixunlearn.errors.UserError: several processes need a script file"
    )


@pytest.mark.parametrize("piped", [False, True], ids=["file", "piped"])
def test_a_script_without_a_main_guard_is_told(piped: bool, tmp_path: Path) -> None:
    script = _PARENT.format(root=ROOT, guard="").replace("pass", "print(_[1].result())")
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-" if piped else "script.py"]
    done = subprocess.run(
        command, cwd=tmp_path, input=script if piped else None, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "pymixunlearn.errors.UserError: several processes need a script file"
    )
