from __future__ import annotations

import re
from importlib.resources import files

import pytest

from pymixunlearn import data, methods
from pymixunlearn.experiments.common.inputs import TASKS
from pymixunlearn.experiments.common.presets import find_preset
from pymixunlearn.experiments.common.settings import parse_settings, split_by_target
from pymixunlearn.methods import RetrainConfig

NAMES = sorted(
    path.name.removesuffix(".yaml")
    for path in (files("pymixunlearn.experiments") / "presets").iterdir()
    if path.name.endswith(".yaml")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_for_a_case_that_exists_and_has_valid_settings(name: str) -> None:
    # Names of methods have dashes too: the longest one that fits.
    method = max((known for known in methods.available() if name.startswith(f"{known}-")), key=len)
    general = re.sub(r"@\d+", "", name.removesuffix("-agnostic").removesuffix("-aware"))
    every_task = {f"{method}-{dataset}" for dataset in data.available()}
    assert name in every_task or general in {f"{cell}-{task}" for cell in every_task for task in TASKS}

    text = (files("pymixunlearn.experiments") / "presets" / f"{name}.yaml").read_text()
    assert text.startswith("# "), "a preset begins with what was measured with it"
    config_class = methods.get(method).config_class
    targets = split_by_target(parse_settings(text, name), config_class.kinds())
    config_class.from_mapping(targets["method"])
    for training in ("initial", "retrain"):
        RetrainConfig.from_mapping(targets[training])


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
