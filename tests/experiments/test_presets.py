from __future__ import annotations

import re
from importlib.resources import files

import pytest
import yaml

from pymixunlearn import data, methods
from pymixunlearn.experiments.common.presets import ALL, find_preset
from pymixunlearn.experiments.common.settings import flat_settings, split_by_target
from pymixunlearn.methods import RetrainConfig
from pymixunlearn.tasks import TASKS

FOLDER = files("pymixunlearn.experiments") / "presets"
METHODS = sorted(path.name.removesuffix(".yaml") for path in FOLDER.iterdir() if path.name.endswith(".yaml"))


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_for_a_case_that_exists_and_has_valid_settings(method: str) -> None:
    text = (FOLDER / f"{method}.yaml").read_text("utf-8")
    config_class = methods.get(method).config_class
    for dataset, tasks in yaml.safe_load(text).items():
        assert re.sub(r"@\d+$", "", dataset) in data.available()
        for task, by_labels in tasks.items():
            assert task in (*TASKS, ALL)
            for labels, settings in by_labels.items():
                assert labels in ("agnostic", "aware", ALL)
                targets = split_by_target(flat_settings(settings), config_class.kinds())
                config_class.from_mapping(targets["method"])
                for training in ("initial", "retrain"):
                    RetrainConfig.from_mapping(targets[training])
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if re.match(r" {4}(agnostic|aware|all):$", line):
            assert following.startswith("      # "), "a preset begins with what was measured with it"


def test_labels_choose_the_preset() -> None:
    aware = find_preset("mixunlearn", "fashion-mnist", "data", label_aware=True)
    agnostic = find_preset("mixunlearn", "fashion-mnist", "data", label_aware=False)
    assert aware is not None and aware.name.endswith("-aware")
    assert agnostic is not None and agnostic.name.endswith("-agnostic")
    assert find_preset("retrain", "fashion-mnist", "data", label_aware=True) is None


def test_a_part_takes_the_presets_of_the_whole_unless_it_has_its_own() -> None:
    part = find_preset("mixunlearn", "digits@900", "class", label_aware=False)
    whole = find_preset("mixunlearn", "digits", "class", label_aware=False)
    assert part == whole is not None
    # The data that tuning judges by is nobody's part: nothing may apply to it.
    assert find_preset("mixunlearn", "digits@900-validation", "class", label_aware=False) is None


def test_a_preset_can_be_for_every_task() -> None:
    for task in TASKS:
        preset = find_preset("sisa", "digits", task, label_aware=True)
        assert preset is not None and preset.name == "sisa-digits"
    assert find_preset("sisa", "svhn", "class", label_aware=True) is None
