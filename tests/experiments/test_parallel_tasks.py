from __future__ import annotations

import multiprocessing
import os

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.parallel_tasks import run_tasks
from tests.experiments import tasks_to_run


@pytest.mark.parametrize("jobs", [1, 2])
def test_pieces_come_back_in_order_with_one_thread_each(jobs: int, capfd: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    heard: list[list[float]] = []
    results = run_tasks(tasks_to_run.square, 5, jobs=jobs, progress=lambda shares: heard.append(list(shares)))
    assert [result[0] for result in results] == [0, 1, 4, 9, 16]
    assert {result[2] for result in results} == {1}
    assert (os.getpid() in {result[1] for result in results}) == (jobs == 1)
    assert [0.5] in [[share for share in shares if share not in (0.0, 1.0)] for shares in heard]
    assert torch.get_num_threads() == threads
    if jobs > 1:
        assert heard[-1] == [1.0] * 5
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_user_stays_one(jobs: int) -> None:
    with pytest.raises(UserError, match="piece 1 does not fit"):
        run_tasks(tasks_to_run.refuse, 4, jobs=jobs)
    assert not multiprocessing.active_children()


def test_any_other_error_comes_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="in break_down(?s:.*)by nothing"):
        run_tasks(tasks_to_run.break_down, 2, jobs=2)


def test_a_process_that_is_killed_is_noticed() -> None:
    with pytest.raises(UserError, match="exit code -9 .* fewer jobs"):
        run_tasks(tasks_to_run.vanish, 2, jobs=2)
    assert not multiprocessing.active_children()


def test_an_interruption_ends_all_processes(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(shares: list[float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks_to_run.square, 4, jobs=2, progress=interrupt)
    assert not multiprocessing.active_children()
    assert capfd.readouterr().err == ""
