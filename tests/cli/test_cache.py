"""``cache list|purge|verify`` and ``unlearn --purge`` on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
RUN = ("unlearn", "--device", "cpu", "--method", "neggrad", "--set", "epochs=1", "--set", "initial.epochs=1")


@pytest.fixture(autouse=True)
def empty_cache(own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))


def test_a_run_says_what_remains_and_the_command_that_deletes_it(invoke: Invoke) -> None:
    assert invoke("cache", "list").stdout.startswith("The cache holds nothing of this.")
    done = invoke(*RUN, "--no-retrain", "--out", "my run")
    lines = done.stdout.splitlines()
    command = "mixunlearn-cli cache purge --run 'my run' --yes"
    assert lines[-2].strip() == command and lines[-1] == "Run folder: my run"
    assert "The forgotten data are still in the cache: trained models (1)" in done.stdout

    listed = invoke("cache", "list").stdout
    assert max(map(len, listed.splitlines())) <= 80 or "/" in listed  # only the path of the cache may be longer
    assert "initial cnn, of digits" in listed and "predictions" in listed and "2 entries" in listed

    dry = invoke("cache", "purge", "--run", "my run")
    assert dry.exit_code == 0 and "Nothing was deleted: --yes deletes it." in dry.stdout
    assert invoke("cache", "list").stdout == listed or "2 entries" in invoke("cache", "list").stdout

    gone = invoke("cache", "purge", "--run", "my run", "--yes")
    said = "Deleted from the cache: trained models (1), predictions of models, and their metrics (1)"
    assert said in " ".join(gone.stdout.split())
    assert "The cache holds nothing of this." in invoke("cache", "list").stdout
    assert invoke("verify", "my run", "--hashes-only").exit_code == 0
    again = invoke(*RUN, "--no-retrain", "--out", "my run")
    assert "The cache holds nothing of the forgotten data." in again.stdout


def test_purge_with_the_run(invoke: Invoke) -> None:
    done = invoke(*RUN, "--no-retrain", "--out", "run", "--purge")
    assert "Deleted from the cache: trained models (1)" in done.stdout and "still in the cache" not in done.stdout
    assert len(json.loads(Path("run/report.json").read_text())["purge"]["events"]) == 1
    again = invoke(*RUN, "--no-retrain", "--out", "run", "--purge")
    assert "Deleted from the cache: nothing, it held none of it." in again.stdout


def test_conditions_of_a_purge(invoke: Invoke) -> None:
    assert invoke("train", "--device", "cpu", "--set", "epochs=1", "--out", "trained").exit_code == 0
    for none in (["--dataset", "mnist"], ["--older-than", "1"], ["--kind", "images"]):
        assert "The cache holds nothing of this." in invoke("cache", "purge", "--yes", *none).stdout
    for wrong, message in (
        (["--run", "trained", "--kind", "models"], "a run already says what to purge"),
        (["--data-dir", "photos"], "give both, or the folder as --dataset"),
        (["--kind", "modles"], "'modles' is not one of"),
    ):
        refused = invoke("cache", "purge", *wrong)
        assert refused.exit_code == 2 and message in refused.stderr
    assert invoke("cache", "purge", "--run", "nowhere").exit_code == 1
    gone = invoke("cache", "purge", "--dataset", "digits@100", "--older-than", "0", "--kind", "models", "--yes")
    assert "Deleted from the cache: trained models (1)" in gone.stdout


def test_verify_names_what_is_damaged(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("train", "--device", "cpu", "--set", "epochs=1", "--out", "trained").exit_code == 0
    fine = invoke("cache", "verify")
    assert fine.exit_code == 0 and "1 of 1 entries are what was written." in fine.stdout
    (weights,) = (tmp_path / "cache" / "models").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    damaged = invoke("cache", "verify")
    assert damaged.exit_code == 3 and "its weights are not what was written" in " ".join(damaged.stdout.split())
