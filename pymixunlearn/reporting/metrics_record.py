"""``metrics.json``, version 2: what was measured of every model of a run, under one set of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymixunlearn.evaluation import Metrics

VERSION = 2
MODELS = ("initial", "unlearned", "retrain")
"""The models of a run: keys in every file, and the prefixes of settings for the two that are trained."""
SECOND = "second_retrain"
"""Another Retrain with other weights and another order, in runs that ask for it: the noise floor of every gap."""
PAPER_ATTACK = (
    "ASR is one attack in the form of the paper's code: members augmented, test images in the order of their file."
)
"""What is said beside the numbers of a run whose attack has that form."""
OTHER_TOOL = "another-tool"
"""Stands for the method's name where this package did not unlearn, but measures a model that was unlearned."""
_OLD_MODELS = {"Retrain": "retrain"}
_OLD_SECONDS = {"unlearn": "unlearned"}


def row_name(model: str) -> str:
    """Return the name of a model's row in tables and figures: "Retrain" for "retrain", otherwise the key."""
    return {"retrain": "Retrain", SECOND: "second Retrain"}.get(model, model)


def measured(metrics: Mapping[str, Metrics], *, reference: str = "retrain") -> dict[str, Any]:
    """Return "metrics", "intervals", "gap" and "details" of a record, each by model.

    Args:
        metrics: What :func:`pymixunlearn.evaluation.evaluate` returned of each model.
        reference: The model that the others are compared with; without it "gap" is None.
    """
    theirs = metrics.get(reference)
    gaps = {name: found.gap_to(theirs) for name, found in metrics.items() if theirs is not None and name != reference}
    return {
        "metrics": dict(metrics),
        "intervals": {name: found.details.get("intervals", {}) for name, found in metrics.items()},
        "gap": gaps or None,
        "details": {
            name: {key: value for key, value in found.details.items() if key != "intervals"}
            for name, found in metrics.items()
        },
    }


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a run's ``metrics.json`` in version 2; version 1 of 0.1.0 is translated.

    A cell of ``compare.json``, which has a part of the same keys, is translated likewise.
    """
    if "version" in record or "initial" not in record:
        return dict(record)
    old = {"metrics", "initial", "retrain", "gap", "initial_gap", "details", "seconds", "hashes"}
    details = _renamed(record.get("details", {}), _OLD_MODELS)
    gaps = {"initial": record["initial_gap"], "unlearned": record["gap"]}
    return {
        "version": VERSION,
        **{key: value for key, value in record.items() if key not in old},
        "metrics": {
            "initial": record["initial"],
            "unlearned": record["metrics"],
            "retrain": record["retrain"],
            "second_retrain": None,
        },
        "intervals": {model: found.get("intervals", {}) for model, found in details.items()},
        "gap": None if record["gap"] is None else gaps,
        "acceptance": None,
        "details": {
            model: {key: value for key, value in found.items() if key != "intervals"}
            for model, found in details.items()
        },
        "seconds": upgraded_seconds(record["seconds"]),
        "hashes": _renamed(record["hashes"], _OLD_MODELS),
    }


def upgraded_seconds(seconds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seconds of a run under the keys of version 2."""
    return _renamed(seconds, _OLD_SECONDS)


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
