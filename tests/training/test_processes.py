from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.training import processes
from pymixunlearn.training.processes import WorkerEnded, Workers
from tests.training import errands


def _kill_all() -> None:
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def test_messages_go_both_ways() -> None:
    sent = {"weights": torch.arange(4.0), "epoch": 3}
    with Workers() as workers:
        team = [workers.start(errands.echo, name, threads=1) for name in ("one", "two")]
        heard = [workers.receive(worker) for worker in team]
        assert [message[0] for message in heard] == ["one", "two"]
        assert len({os.getpid(), *(message[1] for message in heard)}) == 3
        assert {message[2:] for message in heard} == {(1, "1")}
        for worker in reversed(team):
            workers.send(worker, sent)
            answer = workers.receive(worker)
            assert torch.equal(answer["weights"], sent["weights"]) and answer["epoch"] == 3
    assert not multiprocessing.active_children()


def test_what_a_worker_raises_is_raised_here(capfd: pytest.CaptureFixture[str]) -> None:
    with Workers() as workers:
        with pytest.raises(UserError, match="this cannot be done"):
            workers.receive(workers.start(errands.fail, "user", threads=1))
        with pytest.raises(RuntimeError, match="in fail(?s:.*)ZeroDivisionError: by nothing"):
            workers.receive(workers.start(errands.fail, "other", threads=1))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", ["send", "receive"])
def test_the_end_of_a_worker_is_noticed(how: str) -> None:
    with Workers() as workers:
        worker = workers.start(errands.echo, "hello", threads=1)
        workers.receive(worker)
        _kill_all()
        with pytest.raises(WorkerEnded, match="ended with code -9") as caught:
            workers.send(worker, 1) if how == "send" else workers.receive(worker)
    assert caught.value.code == -signal.SIGKILL


def test_a_worker_that_has_done_its_work_is_waited_for() -> None:
    with Workers() as workers:
        worker = workers.start(errands.finish, threads=1)
        assert workers.receive(worker) == "done"
        workers.dismiss(worker)
        assert not multiprocessing.active_children() and worker.closed


def test_a_stop_is_an_interruption(tmp_path: Path) -> None:
    with Workers() as workers:
        assert workers.receive(workers.start(errands.note_the_stop, tmp_path / "note", threads=1)) == "ready"
        assert not (tmp_path / "note").exists()
    assert (tmp_path / "note").read_text() == "in order"


@pytest.mark.parametrize("delay", [0.0, 0.05, None])
def test_workers_can_be_stopped_at_any_time(delay: float | None, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with Workers() as workers:
        team = [workers.start(errands.chatter, threads=1) for _ in range(3)]
        if delay is None:
            _hear(workers, team)
        else:
            time.sleep(delay)
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < processes._PATIENCE, "a worker had to be killed"
    assert capfd.readouterr().err == ""


def _hear(workers: Workers, team: list[Connection]) -> None:
    for worker in team:
        assert [workers.receive(worker) for _ in range(100)] == list(range(100))


def test_a_worker_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    with Workers() as workers:
        assert workers.receive(workers.start(errands.stay, threads=1)) == "ready"
        (child,) = multiprocessing.active_children()
    assert not multiprocessing.active_children()
    assert child.exitcode == -signal.SIGKILL
