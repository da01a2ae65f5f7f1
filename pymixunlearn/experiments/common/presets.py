"""Settings that ship with the package: what worked, by method, data set, task and labels.

``presets/METHOD.yaml`` has them by data set, then task, then labels ("agnostic" or "aware"); "all" stands for every
task and for both. A part of a data set (``mnist@10000``) has presets of its own, and otherwise those of the whole. The
settings read like a user's ``--config`` file, and the comment above them gives the measured result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from pymixunlearn.experiments.common.settings import flat_settings

ALL = "all"
_PART = re.compile(r"@\d+$")


@dataclass(frozen=True)
class Preset:
    """Shipped settings: a name that says what they are for, and dotted setting names to values."""

    name: str
    settings: Mapping[str, Any]


def find_preset(method: str, dataset: str, task: str, *, label_aware: bool) -> Preset | None:
    """Return the most specific preset for a run, or None where none ships.

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
