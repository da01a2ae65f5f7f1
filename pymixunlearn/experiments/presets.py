"""Settings that ship with the package: what worked, by method, data set, task and labels.

A preset is a YAML file in ``presets/`` named ``METHOD-DATASET-TASK-LABELS.yaml``, where LABELS is ``agnostic`` or
``aware``, or ``METHOD-DATASET-TASK.yaml`` for both, or ``METHOD-DATASET.yaml`` for every task. It reads like a user's
``--config`` file, and its header comment gives the measured result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pymixunlearn.experiments.settings import parse_settings


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
    general = f"{method}-{dataset}-{task}"
    for name in (f"{general}-{'aware' if label_aware else 'agnostic'}", general, f"{method}-{dataset}"):
        source = files("pymixunlearn.experiments") / "presets" / f"{name}.yaml"
        if source.is_file():
            return Preset(name, parse_settings(source.read_text("utf-8"), f"preset {name}"))
    return None
