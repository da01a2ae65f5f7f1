"""The paper's settings as a preset: what they are, which network and task they follow, and at which size images are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pymixunlearn import methods
from pymixunlearn.experiments import (
    BadRequest,
    CompareInputs,
    Plan,
    UnlearnInputs,
    VerifyInputs,
    default_comparison_folder,
    resolve_comparison,
    resolve_unlearning,
    run_unlearning,
    run_verification,
)
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.presets import _published, at_paper_size, choose_preset
from pymixunlearn.experiments.compare import plan as compare_plan
from pymixunlearn.experiments.tune.grids import shipped_grids

Make = Callable[..., Plan]
IN_THE_PAPER = ("mixunlearn", "neggrad", "boundary-shrink", "sisa", "unroll", "ts", "scrub", "dsmixup", "gli", "laf+r")


def paper(method: str, network: str, task: str) -> dict[str, Any] | None:
    found = choose_preset("paper", method, "svhn", task, label_aware=True, network=network)
    return None if found is None else dict(found.settings)


@pytest.mark.parametrize("name", _published()["methods"])
def test_settings_are_valid_and_from_the_middle_of_the_grids(name: str) -> None:
    config_class = methods.get(name).config_class
    for network in ("cnn", "resnet18", "timm:vit_tiny"):
        for task in ("class", "data", "noisy", "semi", "indices"):
            settings = paper(name, network, task)
            assert settings is not None
            config = config_class.from_mapping(settings).to_dict()
            if name in ("laf", "laf+r"):
                continue  # its authors' settings, not a search
            for setting, grid in shipped_grids()[name].items():
                if name in IN_THE_PAPER and setting in settings and len(grid) > 2:
                    assert config[setting] == sorted(grid)[len(grid) // 2]


def test_every_method_of_the_paper_has_them_and_no_other() -> None:
    assert all(paper(name, "cnn", "class") is not None for name in (*IN_THE_PAPER, "laf", "l-mix", "randlabel"))
    assert paper("ssd", "cnn", "class") is None and paper("salun", "cnn", "class") is None


def test_laf_follows_network_and_task() -> None:
    end = {"rollback": False}
    assert paper("laf", "cnn", "class") == end and paper("laf", "cnn", "data") == {"tau": 5, **end}
    assert paper("laf+r", "resnet18", "data") == {"align_lr": 4e-5, **end}
    assert paper("l-mix", "resnet18", "noisy") == {"alpha": 0.75, "align_lr": 4e-5, "tau": 5, **end}
    assert paper("laf", "timm:vit_tiny", "data") == {"tau": 5, **end}  # the small network's, as by default


def test_baselines_are_as_their_authors_released_them() -> None:
    """What no grid of the paper says; the defaults are other forms."""
    end = {"rollback": False}
    assert paper("boundary-shrink", "cnn", "class") == {"bound": 0.3, "nearest": "any", **end}
    assert paper("sisa", "cnn", "class") == {"aggregate": "majority"}
    assert paper("unroll", "cnn", "class") == {"std_weight": 0.1}
    assert paper("scrub", "cnn", "class") == {"variant": "notebook", "alpha": 1, "T": 2, **end}
    assert paper("gli", "cnn", "class") == {"perturb_steps": 4, "stop_by": "score", **end}


@pytest.mark.parametrize("name", _published()["methods"])
def test_no_method_of_the_paper_is_rolled_back(name: str) -> None:
    """The rollback is this package's own: it returned the initial model in place of the method's."""
    settings = paper(name, "cnn", "data")
    assert settings is not None
    config = methods.get(name).config_class.from_mapping(settings)
    assert not getattr(config, "may_roll_back", False)


def test_a_run_begins_with_the_chosen_kind() -> None:
    def settled(**fields: Any) -> tuple[Any, ...]:
        plan = resolve_unlearning(UnlearnInputs(device="cpu", **fields))
        config = plan.settings.to_dict()
        return *(
            config[name] for name in ("tau_mix", "tau_real", "omega", "epochs", "lr")
        ), plan.preset and plan.preset.name

    assert settled(preset="paper") == (20, 10, 10, 20, 5e-5, "paper")
    assert settled(preset="none") == (10, 5, 10, 20, 5e-5, None)
    assert settled()[-1] == "mixunlearn-digits-class"
    assert settled(preset="paper", settings={"omega": "30"})[2] == 30
    with pytest.raises(BadRequest, match="unknown preset 'papre'.*Did you mean 'paper'"):
        UnlearnInputs(preset="papre")
    with pytest.raises(BadRequest, match="unknown form of the attack"):
        UnlearnInputs(asr="papre")


def test_photos_have_the_papers_size_unless_another_is_asked_for() -> None:
    assert [at_paper_size(DataRequest(name)).image_size for name in ("cifar10", "svhn@500", "mnist", "digits")] == [
        224,
        224,
        None,
        None,
    ]
    assert at_paper_size(DataRequest("cifar10", image_size=32)).image_size == 32


def test_runs_and_comparisons_with_the_papers_settings_have_the_papers_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_published()["image_size"], "digits", 16)

    def sizes(**fields: Any) -> list[int | None]:
        run = resolve_unlearning(UnlearnInputs(device="cpu", **fields))
        compared = resolve_comparison(CompareInputs(methods=("neggrad",), seeds=(0,), device="cpu", **fields))
        plans = [run, *(cell.plan for cell in compared.cells)]
        return [plan.split.dataset.preprocess.size for plan in plans if plan is not None]

    assert sizes(preset="paper") == [16, 16]
    assert set(sizes()) == {None}


def test_a_comparison_passes_both_on_and_has_a_folder_of_its_own() -> None:
    def plan(**fields: Any) -> Any:
        return resolve_comparison(CompareInputs(methods=("laf", "scrub"), seeds=(0,), device="cpu", **fields))

    ours, theirs = plan(), plan(preset="paper", asr="paper")
    assert [cell.plan.preset.name for cell in theirs.cells] == ["paper", "paper"]
    assert theirs.cells[1].plan.method.config.variant == "notebook"
    assert all(cell.inputs.asr == "paper" and cell.plan.identity["asr"] == "paper" for cell in theirs.cells)
    assert theirs.identity["asr"] == "paper" and "asr" not in ours.identity
    assert theirs.identity["preset"] == "paper" and "preset" not in ours.identity
    folders = {default_comparison_folder(plan(**fields)) for fields in ({}, {"preset": "none"}, {"preset": "paper"})}
    assert len(folders) == 3


def test_on_a_gpu_all_methods_have_one_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def precisions(**settings: Any) -> list[Any]:
        inputs = CompareInputs(methods=("mixunlearn", "laf"), seeds=(0,), settings=settings)
        cells = resolve_comparison(inputs).cells
        return [cell.inputs.settings.get("precision") for cell in cells]

    assert precisions() == [None, None, None]
    monkeypatch.setattr(compare_plan, "resolve_device", lambda name: torch.device("cuda"))

    def on_the_cpu(run: UnlearnInputs, split: Any) -> Plan:
        return resolve_unlearning(replace(run, device="cpu"), split=split)

    monkeypatch.setattr(compare_plan, "resolve_unlearning", on_the_cpu)
    assert precisions() == ["float32", "float32", None]
    assert precisions(mixunlearn={"precision": "bfloat16"}) == ["bfloat16", "bfloat16", None]


def test_a_run_in_the_papers_form_says_so_and_verifies(tmp_path: Path, small_plan: Make) -> None:
    plan = small_plan({"epochs": 1}, asr="paper", preset="paper")
    folder = run_unlearning(plan, tmp_path / "run").folder
    record = json.loads((folder / "metrics.json").read_text())
    assert record["asr"] == "paper"
    assert [len(record["details"][name]["attacks"]) for name in ("initial", "unlearned", "retrain")] == [1, 1, 1]
    config = json.loads((folder / "config.json").read_text())
    assert config["preset"] == "paper" and config["asr"] == "paper"
    assert "test images in the order of their file" in (folder / "report.html").read_text()
    assert run_verification(VerifyInputs(folder, device="cpu")).holds
