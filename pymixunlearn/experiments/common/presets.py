"""Settings that ship with the package: what worked, by method, data set, task and labels.

A preset is a YAML file in ``presets/`` named ``METHOD-DATASET-TASK-LABELS.yaml``, where LABELS is ``agnostic`` or
``aware``, or ``METHOD-DATASET-TASK.yaml`` for both, or ``METHOD-DATASET.yaml`` for every task. A part of a data set
(``mnist@10000``) has presets of its own, and otherwise those of the whole. A preset reads like a user's ``--config``
file, and its header comment gives the measured result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pymixunlearn.experiments.common.settings import parse_settings

_PART = re.compile(r"@\d+$")


@dataclass(frozen=True)
class Preset:
    """Shipped settings: the file's name without its ending, and dotted setting names to values."""

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
    labels = "aware" if label_aware else "agnostic"
    # Each once: what is a part of nothing is its own whole.
    for case in dict.fromkeys((dataset, _PART.sub("", dataset))):
        for name in (f"{method}-{case}-{task}-{labels}", f"{method}-{case}-{task}", f"{method}-{case}"):
            source = files("pymixunlearn.experiments") / "presets" / f"{name}.yaml"
            if source.is_file():
                return Preset(name, parse_settings(source.read_text("utf-8"), f"preset {name}"))
    return None
