"""Commands that unlearn ask whether a model's accuracy is the known one, and end where it is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from mixunlearn_cli.main import main

from pymixunlearn import models

NETWORK = ("--dataset", "digits", "--device", "cpu", "--model", "cnn")
COMPARE = ("compare", *NETWORK, "--methods", "neggrad", "--seeds", "0", "--retrain", "one", "--out", "c")
FEW = ("--set", "initial.epochs=1", "--set", "retrain.epochs=1")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("given", [True, False], ids=["given", "trained first"])
def test_compare_ends_before_it_unlearns(given: bool) -> None:
    network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    torch.save(network.state_dict(), "a.pt")
    weights = ("--weights", "a.pt") if given else ()
    result = run(*COMPARE, *FEW, "--set", "neggrad.epochs=1", *weights, "--expect-accuracy", "100")
    assert result.exit_code == 3 and "expected 100 % within 0.5" in result.stderr
    assert not list(Path().glob("c/**/metrics.json"))
    if given:
        asked = run(*COMPARE, *FEW, "--set", "neggrad.epochs=1", *weights)
        assert asked.exit_code == 0 and "Is this the accuracy that you know of" in " ".join(asked.output.split())


def test_tune_ends_before_it_unlearns() -> None:
    few = ("--grid", "lr=0.001,0.01", "--trials", "1", "--set", "epochs=1", *FEW)
    result = run("tune", "neggrad", *NETWORK, *few, "--expect-accuracy", "100", "--out", "t")
    assert result.exit_code == 3 and "expected 100 % within 0.5" in result.stderr, result.output
