"""Settings that ship with the package: what worked, by method, data set, task and labels; and the paper's.

``presets/METHOD.yaml`` has them by data set, then task, then labels ("agnostic" or "aware"); "all" stands for every
task and for both. A part of a data set (``mnist@10000``) has presets of its own, and otherwise those of the whole. The
settings read like a user's ``--config`` file, and the comment above them gives the measured result.
``published/settings.yaml`` has the paper's, by method, network and task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.given import GivenData
from pymixunlearn.experiments.common.settings import flat_settings
from pymixunlearn.methods.by_network import SMALL

ALL = "all"
_PART = re.compile(r"@\d+$")


@dataclass(frozen=True)
class Preset:
    """Shipped settings: a name that says what they are for, and dotted setting names to values."""

    name: str
    settings: Mapping[str, Any]


def choose_preset(kind: str, method: str, dataset: str, task: str, *, label_aware: bool, network: str) -> Preset | None:
    """Return the settings that a run begins with, or None where there are none but the method's defaults.

    Args:
        kind: "tuned", "paper" or "none".
        method: The method's registered name.
        dataset: The data set's name.
        task: The split's task.
        label_aware: Whether the run uses the labels.
        network: The network's name.
    """
    if kind == "paper":
        return _paper_preset(method, network, task)
    return find_preset(method, dataset, task, label_aware=label_aware) if kind == "tuned" else None


def find_preset(method: str, dataset: str, task: str, *, label_aware: bool) -> Preset | None:
    """Return the most specific tuned preset for a run, or None where none ships.

    Args:
        method: The method's registered name.
        dataset: The data set's name.
        task: The split's task.
        label_aware: Whether the run uses the labels.
    """
    shipped = _shipped(method)
    labels = "aware" if label_aware else "agnostic"
    # Each once: what is a part of nothing is its own whole.
    for case in dict.fromkeys((dataset, _PART.sub("", dataset))):
        for keys in ((case, task, labels), (case, task, ALL), (case, ALL, ALL)):
            if keys in shipped:
                name = "-".join((method, *(key for key in keys if key != ALL)))
                return Preset(name, shipped[keys])
    return None


def at_paper_size(data: DataRequest) -> DataRequest:
    """Return a request whose images have the size of the paper's, unless it asks for one."""
    if data.image_size is not None or isinstance(data, GivenData):
        return data
    size = _published()["image_size"].get(_PART.sub("", data.dataset))
    return data if size is None else replace(data, image_size=size)


def _paper_preset(method: str, network: str, task: str) -> Preset | None:
    """Return the paper's settings of a method, or None for one that it does not have."""
    by_network = _published()["methods"].get(method)
    if by_network is None:
        return None
    own = network if network in by_network else SMALL
    settings: dict[str, Any] = {}
    for name in dict.fromkeys((ALL, own)):
        for case in (ALL, task):
            settings |= by_network.get(name, {}).get(case, {})
    return Preset("paper", settings)


@cache
def _published() -> dict[str, Any]:
    text = (files("pymixunlearn.experiments") / "published" / "settings.yaml").read_text("utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@cache
def _shipped(method: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the presets of a method by data set, task and labels."""
    source = files("pymixunlearn.experiments") / "presets" / f"{method}.yaml"
    if not source.is_file():
        return {}
    return {
        (dataset, task, labels): flat_settings(settings)
        for dataset, tasks in yaml.safe_load(source.read_text("utf-8")).items()
        for task, by_labels in tasks.items()
        for labels, settings in by_labels.items()
    }
