"""Several processes give what one gives."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pymixunlearn import data, divided, methods, parallel, tasks
from pymixunlearn.data.validation import with_validation
from pymixunlearn.errors import UserError
from tests.training import together

REPOSITORY = Path(__file__).parents[2]


def torchrun(count: int, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Start processes on this machine's loopback interface alone."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-addr"]
    command += ["127.0.0.1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
        **options,  # type: ignore[call-overload]
    )


Results = dict[str, together.Found]


@pytest.fixture(scope="module")
def alone() -> Results:
    return together.run()


def results(count: int, folder: Path) -> dict[str, Any]:
    done = torchrun(count, str(REPOSITORY / "tests/training/together.py"), str(folder / "found.pt"))
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt", weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(2, tmp_path_factory.mktemp("two"))


def check_equal(found: Results, expected: Results) -> None:
    for case in together.DOUBLE:
        assert found[case].keys() == expected[case].keys()
        apart = {name: float((found[case][name] - value).abs().max()) for name, value in expected[case].items()}
        assert max(apart.values()) <= 1e-9, (case, apart)
    for case in together.SINGLE:
        for name in (name for name in expected[case] if name.endswith(("weight", "bias"))):
            ours, theirs = found[case][name].double(), expected[case][name].double()
            assert (ours - theirs).norm() < 1e-3 * theirs.norm(), (case, name)
    for case in together.HALF:  # a rounded gradient sends weights elsewhere, and the loss to the same place
        losses = [name for name in expected[case] if name.rpartition(".")[2] in ("loss", "real", "retain")]
        assert losses
        for name in losses:
            assert float(found[case][name]) == pytest.approx(float(expected[case][name]), rel=0.02), (case, name)


def test_what_is_compared_has_been_trained(alone: Results) -> None:
    for dtype, cases in ((torch.float64, together.DOUBLE), (torch.float32, together.SINGLE | together.HALF)):
        together.use(dtype)
        try:
            start = together.network().state_dict()
        finally:
            together.use(torch.float32)
        for case in cases.keys() - {"losses"}:
            weights = {
                name: value for name, value in start.items() if alone[case].get(name, value[:0]).shape == value.shape
            }
            assert any(not torch.equal(alone[case][name], value) for name, value in weights.items()), case


def test_two_processes_give_what_one_gives(alone: Results, two: dict[str, Any]) -> None:
    check_equal(two["found"], alone)


def test_one_process_goes_on_where_two_stopped(two: dict[str, Any]) -> None:
    ours, theirs = together.resumed(two["snapshot"]), together.resumed(None)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in theirs)
    assert any(not torch.equal(ours[name], fresh) for name, fresh in together.network().state_dict().items())


@pytest.mark.slow
def test_four_processes_give_what_one_gives(alone: Results, tmp_path: Path) -> None:
    check_equal(results(4, tmp_path)["found"], alone)


def test_what_runs_in_one_process_only_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.State, "count", 2)
    digits = data.load("digits")
    split = tasks.class_split(digits, [0])
    made = {name: methods.get(name)() for name in methods.available()}
    divided = [name for name, method in made.items() if method.in_one_process is None]
    assert divided == ["eu-k", "fine-tune", "mixunlearn", "neggrad", "prune-reset", "retrain"]
    for name in divided:
        methods.get(name)().check_split(split)
    with pytest.raises(UserError, match="method 'scrub' runs in one process only; start it without torchrun"):
        methods.get("scrub")().check_split(split)
    with pytest.raises(UserError, match="prune-reset with select=fisher runs in one process only"):
        methods.get("prune-reset")(select="fisher").check_split(split)
    some = tasks.semi_supervised_split(digits)
    with pytest.raises(UserError, match="training with unlabelled images runs in one process only"):
        methods.get("retrain")().check_split(some)
    with pytest.raises(UserError, match="choosing by the acceptance test runs in one process only"):
        methods.get("fine-tune")(stop="accepted").check_split(tasks.class_split(with_validation(digits, 0.1), [0]))


def test_a_network_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    monkeypatch.setattr(parallel.State, "working", True)
    divided.divide(network)
    assert [len(module._forward_hooks) for module in network.modules()] == [1, 0, 0, 1, 1, 0]
    copied = copy.deepcopy(network)
    for each in (network, copied):
        divided.undivide(each)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in each.modules())


@pytest.mark.slow
def test_a_command_of_two_processes_reports_what_that_of_one_does(tmp_path: Path) -> None:
    options = ["-m", "mixunlearn_cli", "unlearn", "--method", "mixunlearn", "--task", "data"]
    found = []
    for count in (1, 2):
        out = tmp_path / str(count)
        done = torchrun(count, *options, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Run folder") == 1
        found.append(json.loads((out / "metrics.json").read_text()))
        found[-1]["split"] = (out / "split.json").read_text()
    one, two = found
    assert one["split"] == two["split"]
    for model in ("initial", "unlearned", "retrain"):
        for key in ("test", "test_own", "test_others", "asr"):
            assert abs(one["metrics"][model][key] - two["metrics"][model][key]) < 1, (model, key)
    assert two["versions"]["processes"] == "2" and "processes" not in one["versions"]


@pytest.mark.slow
def test_a_command_that_starts_its_own_processes_refuses(tmp_path: Path) -> None:
    done = torchrun(2, "-m", "mixunlearn_cli", "compare", "--out", str(tmp_path / "out"))
    assert done.returncode != 0 and "'compare' runs in one process, or starts its own" in done.stderr
