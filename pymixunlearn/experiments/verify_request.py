"""What a run says that was forgotten, checked against the data, and against what its other files say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pymixunlearn.experiments.verify_metrics import Check
from pymixunlearn.tasks import Split


def check_config(config: Mapping[str, Any], metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> Check:
    """Compare what ``config.json``, ``metrics.json`` and ``split.json`` all say of a run.

    Args:
        config: The content of ``config.json``.
        metrics: The content of ``metrics.json``.
        manifest: The content of ``split.json``.
    """
    data = manifest["dataset"]
    stated = {
        "method": metrics["method"],
        "seed": metrics["seed"],
        "dataset": data["name"],
        "fingerprint": data["fingerprint"],
        "task": manifest["task"],
        "params": manifest["params"],
        "forget_sha256": manifest["forget"]["sha256"],
        "class_names": manifest.get("samples", {}).get("classes", config["class_names"]),
    }
    wrong = [key for key, value in stated.items() if config[key] != value]
    wrong += [f"{key} of metrics.json" for key in ("dataset", "task") if metrics[key] != stated[key]]
    detail = f"differs from the files beside it: {', '.join(wrong)}" if wrong else "says what the files beside it say"
    return Check("config.json, content", not wrong, detail)


def check_request(
    split: Split, config: Mapping[str, Any], manifest: Mapping[str, Any], *, current: bool
) -> Iterator[Check]:
    """Compare the names of the classes, and all that ``split.json`` says, with the data.

    Args:
        split: The split that was read from ``split.json``.
        config: The content of ``config.json``.
        manifest: The content of ``split.json``.
        current: Whether this version of the package wrote it, which then lacks nothing.
    """
    classes = list(split.train.classes)
    named = config["class_names"] == classes
    yield Check("class names", named, f"those of the data, {len(classes)}" if named else "are not those of the data")
    again = json.loads(json.dumps(split.manifest()))
    wrong = sorted(
        key for key in again.keys() | manifest.keys() if not _same(manifest.get(key), again.get(key), current)
    )
    if not wrong and not _of_classes(split):
        wrong = ["params"]
    detail = f"is not what the data give: {', '.join(wrong)}" if wrong else "is what the data give"
    yield Check("split.json, content", not wrong, detail)


def _same(stated: Any, found: Any, whole: bool) -> bool:
    """Compare an entry, of another version only as far as both have it."""
    if whole or not (isinstance(stated, dict) and isinstance(found, dict)):
        return bool(stated == found) or (not whole and None in (stated, found))
    return all(_same(stated[key], found[key], whole) for key in stated.keys() & found.keys())


def _of_classes(split: Split) -> bool:
    """Tell whether D_f is of the classes that the request names: all of them where whole classes are forgotten."""
    classes = split.params.get("classes")
    if split.task == "indices" or not isinstance(classes, list):
        return split.task == "indices" and split.params.get("count") == len(split.forget_indices)
    targets = (split.origin or split.dataset).train.targets
    inside = torch.isin(targets, torch.tensor(classes))
    if split.task != "class":
        return bool(inside[split.forget_indices].all())
    return not bool(inside[split.retain_indices].any()) and bool(inside[split.forget_indices].all())
