from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pymixunlearn import data


@pytest.mark.parametrize("unlabelled", [False, True])
def test_walk_is_iterate(unlabelled: bool) -> None:
    images = data.ImageSet(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), ("a", "b"))
    old = images.unlabelled() if unlabelled else images
    with pytest.warns(
        DeprecationWarning, match=r"\.walk is now \w+\.iterate; the old name goes with version 0.3"
    ) as warned:
        batches = list(old.walk(torch.tensor([2, 0]), 2, "cpu"))
    assert warned[0].filename == __file__
    assert [batch.indices.tolist() for batch in batches] == [[2, 0]]


def test_the_old_module_of_deletion_lists() -> None:
    # In a process of its own: a module that is imported already warns no more.
    code = (
        "import pymixunlearn.tasks as tasks, pymixunlearn.deletion_list as old\n"
        "assert old.read_deletion_list is tasks.read_deletion_list"
    )
    ran = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "pymixunlearn.deletion_list is now pymixunlearn.tasks.deletion_list" in ran.stderr
